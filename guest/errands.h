/*
 * Work of PID 1 that may take long or read what a program of the machine has made: done in a child, with its answer
 * on standard output and its complaints on standard error. Each returns an exit code.
 */
#pragma once
#include "spec.h"

/* Standard input becomes the file `path` with `mode`, whole or not at all; owned by `user`. */
int errand_copy_in(const struct spec *spec);
/* The file `path` to standard output. */
int errand_copy_out(const struct spec *spec);
/* The processes as JSON. */
int errand_ps(const struct spec *spec);
/* Processor, memory and load as JSON; with `path`, how full the volume there is. */
int errand_metrics(const struct spec *spec);
/* Grows the mounted ext4 at `path` to the size of its disk; with an argument, once that has so many bytes. */
int errand_grow(const struct spec *spec);
/* All that was written to the volume at `path` is on its disk. */
int errand_sync(const struct spec *spec);

/* `,"volume":{…}` of the volume at `path`; nothing where none is. */
void print_volume(const char *path);
