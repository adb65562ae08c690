#include "handle.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "clock.h"
#include "link.h"
#include "machine.h"
#include "output.h"
#include "stream.h"

enum { NOTES_MAX = 2048 };

static uint64_t generation;
static uint8_t *run_message;
static size_t run_length;
static char early_notes[NOTES_MAX]; /* Said before a host was there. */

static void send(uint8_t type, const void *data, size_t length) {
  link_send(&(struct frame){.type = type, .length = (uint32_t)length, .data = data});
}

void note(const char *format, ...) {
  char words[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(words, sizeof words, format, arguments);
  va_end(arguments);
  if (machine_is_vm()) dprintf(2, "init: %s\n", words);
  if (link_greeted()) {
    send(F_NOTE, words, strlen(words));
    return;
  }
  size_t used = strlen(early_notes);
  snprintf(early_notes + used, sizeof early_notes - used, "%s%s", used ? "; " : "", words);
}

void tell_exit_record(void) {
  const struct exit_record *end = machine_end();
  uint8_t data[25];
  put32(data, end->code);
  put32(data + 4, end->signal);
  data[8] = end->oom;
  put64(data + 9, (uint64_t)end->at_ms);
  put64(data + 17, output_place().lost);
  send(F_EXIT, data, sizeof data);
}

static void welcome(void) {
  struct output_place place = output_place();
  uint8_t data[55];
  put16(data, PROTOCOL_VERSION);
  put64(data + 2, generation);
  memcpy(data + 10, machine_boot_id(), 16);
  data[26] = (uint8_t)machine_state();
  put32(data + 27, (uint32_t)machine_pid());
  put64(data + 31, place.acked);
  put64(data + 39, place.end);
  put64(data + 47, place.lost);
  send(F_WELCOME, data, sizeof data);
}

static void take_hello(const struct frame *frame) {
  if (frame->length < 18) return;
  uint64_t offset = get64(frame->data + 10);
  generation = get64(frame->data + 2);
  link_greet();
  stream_end_all();
  free(run_message);
  run_message = NULL;
  run_length = 0;
  if (offset <= output_place().end) output_acked(offset);
  output_again();
  machine_new_host();
  welcome();
  if (*early_notes) send(F_NOTE, early_notes, strlen(early_notes));
  *early_notes = 0;
}

static void tell_started(void) {
  uint8_t data[4];
  put32(data, (uint32_t)machine_pid());
  send(F_STARTED, data, sizeof data);
}

static void tell_failed(bool users_fault, const char *words) {
  uint8_t data[1 + 1024];
  size_t length = strnlen(words, sizeof data - 1);
  data[0] = users_fault;
  memcpy(data + 1, words, length);
  send(F_FAILED, data, 1 + length);
}

static void run_whole(void) {
  uint8_t *message = run_message;
  size_t length = run_length;
  run_message = NULL;
  run_length = 0;
  bool users_fault = false;
  /* The machine keeps the message: its environment lies in it. */
  const char *wrong = machine_start(message, length, &users_fault);
  if (!wrong) {
    tell_started();
    return;
  }
  free(message);
  tell_failed(users_fault, wrong);
}

static void take_run(const struct frame *frame) {
  if (machine_state() != MACHINE_WAITING) { /* The host that asked first may have died before it heard. */
    if (!(frame->flags & FLAG_MORE)) tell_started();
    return;
  }
  uint8_t *grown = run_length + frame->length <= SPEC_RUN_BYTES_MAX ? realloc(run_message, run_length + frame->length + 1) : NULL;
  if (!grown) {
    free(run_message);
    run_message = NULL;
    run_length = 0;
    tell_failed(true, "the machine's files and environment are too large for it");
    return;
  }
  run_message = grown;
  memcpy(run_message + run_length, frame->data, frame->length);
  run_length += frame->length;
  if (!(frame->flags & FLAG_MORE)) run_whole();
}

static void take_resumed(const struct frame *frame) {
  if (frame->length < 8) return;
  clock_set(get64(frame->data));
  entropy_add(frame->data + 8, frame->length - 8);
  send(F_PONG, frame->data, 8);
}

void handle_frame(const struct frame *frame) {
  switch (frame->type) {
    case F_HELLO: take_hello(frame); break;
    case F_PING: send(F_PONG, frame->data, frame->length > 64 ? 64 : frame->length); break;
    case F_RUN: take_run(frame); break;
    case F_OUTPUT_ACK:
      if (frame->length == 8 && get64(frame->data) <= output_place().end) output_acked(get64(frame->data));
      break;
    case F_SIGNAL:
      if (frame->length == 4) machine_signal(get32(frame->data));
      break;
    case F_STOP:
      if (frame->length == 8) machine_stop(get32(frame->data), get32(frame->data + 4));
      break;
    case F_EXIT_ACK: machine_exit_acked(); break;
    case F_RESUMED: take_resumed(frame); break;
    default: stream_frame(frame); break;
  }
}
