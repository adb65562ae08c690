#include "output.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "bytes.h"
#include "link.h"
#include "loop.h"

enum {
  RING = 1024 * 1024,
  SEGMENTS = 4096,
  SEGMENT_BYTES = 16 * 1024,
  WINDOW = 256 * 1024, /* On the way and not acknowledged. */
  HEADER = 17,
  STALL_MS = 5000,
  MERGE_MS = 10,
};

/* What one read brought. */
struct segment {
  uint64_t offset, time_ms;
  uint32_t length;
  uint8_t which; /* 1 stdout, 2 stderr */
};

static int sources[2] = {-1, -1};
static uint8_t ring[RING];
static struct segment segments[SEGMENTS];
static unsigned first, count, sent; /* `sent` of the `count` segments from `first` on are on their way. */
static uint64_t head, tail, lost;
/* On the way to this host. What was dropped on its way counts until the host has answered for it. */
static uint64_t in_flight, dropped_bytes, dropped_end;
static int64_t progress_at;

static struct segment *segment_at(unsigned index) { return &segments[(first + index) % SEGMENTS]; }

static bool has_room(void) { return RING - (tail - head) >= SEGMENT_BYTES && count < SEGMENTS; }

static void copy_in(uint64_t offset, const uint8_t *data, size_t length) {
  size_t at = offset % RING, part = length < RING - at ? length : RING - at;
  memcpy(ring + at, data, part);
  memcpy(ring, data + part, length - part);
}

static void copy_out(uint8_t *to, uint64_t offset, size_t length) {
  size_t at = offset % RING, part = length < RING - at ? length : RING - at;
  memcpy(to, ring + at, part);
  memcpy(to + part, ring, length - part);
}

static void add(uint8_t which, const uint8_t *data, uint32_t length) {
  copy_in(tail, data, length);
  struct segment *last = count > sent ? segment_at(count - 1) : NULL;
  uint64_t time = (uint64_t)wall_ms();
  if (last && last->which == which && time - last->time_ms < MERGE_MS && last->length + length <= SEGMENT_BYTES) {
    last->length += length;
  } else {
    *segment_at(count++) = (struct segment){tail, time, length, which};
  }
  tail += length;
}

static void drop_first(void) {
  head = segment_at(0)->offset + segment_at(0)->length;
  first = (first + 1) % SEGMENTS;
  count--;
  if (sent) sent--;
}

/* The host has stopped taking: the machine matters more than its oldest words. */
static void make_room(void) {
  if (has_room() || now_ms() - progress_at < STALL_MS) return;
  while (count && (RING - (tail - head) < RING / 4 || count > SEGMENTS * 3 / 4)) {
    lost += segment_at(0)->length;
    if (sent) {
      dropped_bytes += segment_at(0)->length;
      dropped_end = segment_at(0)->offset + segment_at(0)->length;
    }
    drop_first();
  }
}

static bool read_source(int index) {
  uint8_t data[SEGMENT_BYTES];
  ssize_t got = read(sources[index], data, sizeof data);
  if (got > 0) {
    add((uint8_t)(index + 1), data, (uint32_t)got);
    return true;
  }
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return false;
  close(sources[index]); /* A terminal whose last user is gone answers EIO. */
  sources[index] = -1;
  return false;
}

static void source_ready(void *context, short events) {
  (void)events;
  int index = (int)(intptr_t)context;
  if (sources[index] >= 0 && has_room()) read_source(index);
}

static void send_segment(const struct segment *segment) {
  uint8_t data[HEADER + SEGMENT_BYTES];
  put64(data, segment->offset);
  put64(data + 8, segment->time_ms);
  data[16] = segment->which;
  copy_out(data + HEADER, segment->offset, segment->length);
  link_send(&(struct frame){.type = F_OUTPUT, .length = HEADER + segment->length, .data = data});
}

void output_open(int out, int err) {
  sources[0] = out;
  sources[1] = err;
  progress_at = now_ms();
}

void output_prepare(void) {
  while (sent < count && link_has_room() && in_flight < WINDOW) {
    in_flight += segment_at(sent)->length;
    send_segment(segment_at(sent++));
  }
  if (has_room()) {
    if (count == 0) progress_at = now_ms();
    for (intptr_t i = 0; i < 2; i++) loop_watch(sources[i], POLLIN, source_ready, (void *)i);
    return;
  }
  make_room();
  loop_deadline(has_room() ? now_ms() : progress_at + STALL_MS);
}

void output_acked(uint64_t offset) {
  if (dropped_bytes && dropped_end <= offset) {
    in_flight -= dropped_bytes;
    dropped_bytes = 0;
  }
  while (count && segment_at(0)->offset + segment_at(0)->length <= offset) {
    if (sent) in_flight -= segment_at(0)->length;
    drop_first();
    progress_at = now_ms();
  }
}

void output_again(void) {
  sent = 0;
  in_flight = dropped_bytes = 0;
}

bool output_ended(void) { return sources[0] < 0 && sources[1] < 0; }
bool output_all_sent(void) { return sent == count; }
struct output_place output_place(void) { return (struct output_place){head, tail, lost}; }

void output_cut(void) {
  for (int i = 0; i < 2; i++) {
    while (sources[i] >= 0 && has_room() && read_source(i)) continue;
    if (sources[i] >= 0) close(sources[i]);
    sources[i] = -1;
  }
}
