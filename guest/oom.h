/* Whether the kernel killed for want of memory. */
#pragma once
#include <stdint.h>

uint64_t oom_kills(void);
