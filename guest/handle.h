/* What each frame of the host does. */
#pragma once
#include "frames.h"

void handle_frame(const struct frame *frame);
/* The end of the main process, told again to each new host until it is acknowledged. */
void tell_exit_record(void);
/* One line for whoever looks after this machine: to the host, and to the console of a VM. */
void note(const char *format, ...) __attribute__((format(printf, 1, 2)));
