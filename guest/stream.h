/* Programs run inside (exec), errands, and connections to /.fly/api: a stream each, with credit in both directions. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "frames.h"
#include "spec.h"

/* Streams that the guest opens have this bit in their number. */
#define STREAM_OF_GUEST 0x80000000U

/* A frame that names a stream. Unknown streams are ignored: they may just have ended. */
void stream_frame(const struct frame *frame);
/* A connection of a program to the socket; taken over, or closed when there are too many. */
void stream_open_api(int fd);
void stream_prepare(void);
/* A child ended. True when it was a stream's. */
bool stream_reap(pid_t pid, int status);
/* A new host: nobody waits for these any more. */
void stream_end_all(void);
