/* One thread, one poll: everything else says in each round what it waits for. */
#pragma once
#include <stdint.h>

typedef void (*ready_function)(void *context, short events);

void loop_watch(int fd, short events, ready_function ready, void *context);
/* Wakes the loop at this moment of `now_ms` at the latest. */
void loop_deadline(int64_t at_ms);
/* Waits once and calls what is ready. */
void loop_round(void);

/* Milliseconds of a clock that never jumps back. */
int64_t now_ms(void);
/* Milliseconds since 1970. */
int64_t wall_ms(void);
