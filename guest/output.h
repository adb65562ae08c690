/*
 * What the main process writes, kept until the host has it safe: 1 MiB at most. While the host takes it, a process
 * that writes faster waits; a host that takes nothing for five seconds loses the oldest, and is told how much.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

/* Non-blocking descriptors of stdout and stderr; the second is -1 for a terminal. */
void output_open(int out, int err);
void output_prepare(void);
/* Everything up to `offset` is safe. */
void output_acked(uint64_t offset);
/* A new host: what is not acknowledged is sent again. */
void output_again(void);
/* Both ends are closed: nothing more can come. */
bool output_ended(void);
/* Reads what is there now and then closes: a process that outlived its master must not hold up the end. */
void output_cut(void);
/* All that was read has been handed to the link. */
bool output_all_sent(void);

struct output_place {
  uint64_t acked, end, lost;
};
struct output_place output_place(void);
