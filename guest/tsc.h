/* How fast this processor counts. */
#pragma once

/* In kHz; 0 where a processor has no such counter. Takes 50 ms. */
unsigned long tsc_khz(void);
