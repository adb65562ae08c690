/* After a boot without a clock, and after a resume from a snapshot: the time and the randomness of the host. */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* Steps the clock when it is off by more than a tenth of a second; 0 is no time. */
void clock_set(uint64_t nanoseconds);
void entropy_add(const uint8_t *data, size_t length);
