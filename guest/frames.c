#include "frames.h"

#include "bytes.h"

#define MAGIC 0x4748 /* "HG" */

static uint32_t crc_table[256];

static void crc_prepare(void) {
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; bit++) value = value & 1 ? value >> 1 ^ 0xedb88320 : value >> 1;
    crc_table[i] = value;
  }
}

static uint32_t crc32_add(uint32_t crc, const uint8_t *data, size_t length) {
  for (size_t i = 0; i < length; i++) crc = crc >> 8 ^ crc_table[(crc ^ data[i]) & 255];
  return crc;
}

/* CRC-32 (IEEE) over the header without the sum, and the data. */
static uint32_t frame_sum(const uint8_t *header, const uint8_t *data, size_t length) {
  if (!crc_table[1]) crc_prepare();
  return ~crc32_add(crc32_add(~0U, header, 12), data, length);
}

uint8_t *reader_space(struct frame_reader *reader, size_t *room) {
  if (sizeof reader->buffer - reader->end < FRAME_MAX) {
    memmove(reader->buffer, reader->buffer + reader->start, reader->end - reader->start);
    reader->end -= reader->start;
    reader->start = 0;
  }
  *room = sizeof reader->buffer - reader->end;
  return reader->buffer + reader->end;
}

void reader_filled(struct frame_reader *reader, size_t length) { reader->end += length; }

void reader_reset(struct frame_reader *reader) { reader->start = reader->end = 0; }

bool reader_next(struct frame_reader *reader, struct frame *frame) {
  while (reader->end - reader->start >= FRAME_HEADER) {
    const uint8_t *at = reader->buffer + reader->start;
    uint32_t length = get32(at + 8);
    if (get16(at) == MAGIC && length <= FRAME_DATA_MAX) {
      if (reader->end - reader->start < FRAME_HEADER + length) return false;
      if (get32(at + 12) == frame_sum(at, at + FRAME_HEADER, length)) {
        *frame = (struct frame){at[2], at[3], get32(at + 4), length, at + FRAME_HEADER};
        reader->start += FRAME_HEADER + length;
        return true;
      }
    }
    reader->start++;
    reader->skipped++;
  }
  return false;
}

size_t frame_build(uint8_t *out, const struct frame *frame) {
  put16(out, MAGIC);
  out[2] = frame->type;
  out[3] = frame->flags;
  put32(out + 4, frame->stream);
  put32(out + 8, frame->length);
  if (frame->length) memcpy(out + FRAME_HEADER, frame->data, frame->length);
  put32(out + 12, frame_sum(out, out + FRAME_HEADER, frame->length));
  return FRAME_HEADER + frame->length;
}
