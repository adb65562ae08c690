/* Files and folders inside the machine. All return 0 or an errno. */
#pragma once
#include <sys/types.h>

#include "spec.h"

/* With all missing parents. */
int folder_make(const char *path, mode_t mode);
/* A file of the config: missing folders are made. */
int file_write(const struct spec_file *file);
/* A file that the platform gives: a link that leads nowhere gives way. */
int file_write_system(const char *path, const char *text);
/* Writes all, however often it takes. */
int write_all(int fd, const void *data, size_t length);
