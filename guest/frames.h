/* The wire: docs/guest-protocol.md says what each frame means. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROTOCOL_VERSION 1
#define FRAME_HEADER 16
#define FRAME_DATA_MAX 32768
#define FRAME_MAX (FRAME_HEADER + FRAME_DATA_MAX)

enum frame_type {
  /* From the host. */
  F_HELLO = 1,
  F_PING = 2,
  F_RUN = 3,
  F_OUTPUT_ACK = 4,
  F_SIGNAL = 5,
  F_STOP = 6,
  F_EXIT_ACK = 7,
  F_RESUMED = 8,
  F_OPEN = 9,
  F_STREAM_SIGNAL = 10,
  F_WINDOW_SIZE = 11,
  F_CLOSE = 12,
  /* Both ways. */
  F_DATA = 32,
  F_EOF = 33,
  F_CREDIT = 34,
  /* From the guest. */
  F_WELCOME = 64,
  F_PONG = 65,
  F_STARTED = 66,
  F_FAILED = 67,
  F_OUTPUT = 68,
  F_EXIT = 69,
  F_STREAM_EXIT = 70,
  F_API_OPEN = 71,
  F_NOTE = 72,
};

/* The message goes on in the next frame of this type and stream. */
#define FLAG_MORE 1
/* F_DATA from the guest: standard error, not standard output. */
#define FLAG_STDERR 2

struct frame {
  uint8_t type, flags;
  uint32_t stream, length;
  const uint8_t *data;
};

/* Takes bytes cut anywhere. Room for two frames, so that a half one never keeps the next from being read. */
struct frame_reader {
  size_t start, end;
  uint64_t skipped; /* Bytes that belonged to no whole frame. */
  uint8_t buffer[2 * FRAME_MAX];
};

/* Where the next bytes go; *room is at least FRAME_MAX. */
uint8_t *reader_space(struct frame_reader *reader, size_t *room);
void reader_filled(struct frame_reader *reader, size_t length);
/* The next whole frame, valid until the next call; false when more bytes are needed. */
bool reader_next(struct frame_reader *reader, struct frame *frame);
void reader_reset(struct frame_reader *reader);

/* Writes one frame into `out`, which has room for it, and returns its size. */
size_t frame_build(uint8_t *out, const struct frame *frame);
