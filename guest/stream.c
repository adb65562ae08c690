#include "stream.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "bytes.h"
#include "errands.h"
#include "link.h"
#include "loop.h"
#include "machine.h"
#include "spawn.h"

enum {
  STREAMS_MAX = 48,
  API_STREAMS_MAX = 16,
  INPUT_BYTES = 64 * 1024,
  CHUNK = 16 * 1024,
  LAST_WORDS_MS = 300, /* A background process may hold the output open after its program ended, */
  LAST_WORDS_BYTES = 2 * 1024 * 1024, /* and may write for ever: its own two pipes hold no more than this. */
  END_AGAIN_MS = 100,
};

struct stream {
  uint32_t id; /* 0: free */
  pid_t pid;   /* 0: none; of an exec that ended: still its number */
  int in, out, err;
  bool tty, is_api, running, timed_out, input_ended, told_end;
  int status;
  int64_t deadline, last_words_at;
  int64_t end_again_at; /* Of a terminal whose input has ended. */
  uint32_t credit; /* Bytes that the host still takes. */
  uint32_t last_words; /* Bytes since the program ended. */
  uint8_t *message; /* An OPEN that is not whole yet. */
  size_t message_length;
  uint32_t input_start, input_length;
  uint8_t input[INPUT_BYTES]; /* A ring. */
};

static struct stream streams[STREAMS_MAX];
static uint32_t next_api_id = STREAM_OF_GUEST;

static struct stream *find(uint32_t id) {
  for (int i = 0; id && i < STREAMS_MAX; i++) {
    if (streams[i].id == id) return &streams[i];
  }
  return NULL;
}

static struct stream *take_slot(uint32_t id) {
  for (int i = 0; i < STREAMS_MAX; i++) {
    struct stream *stream = &streams[i];
    if (stream->id) continue;
    memset(stream, 0, offsetof(struct stream, input));
    stream->id = id;
    stream->in = stream->out = stream->err = -1;
    return stream;
  }
  return NULL;
}

static void close_input(struct stream *stream) {
  if (stream->in >= 0 && stream->in != stream->out) close(stream->in);
  if (stream->in >= 0 && stream->is_api) shutdown(stream->in, SHUT_WR);
  stream->in = -1;
}

static void close_output(struct stream *stream) {
  if (stream->out >= 0) close(stream->out);
  if (stream->in == stream->out) stream->in = -1;
  stream->out = -1;
}

static void free_stream(struct stream *stream) {
  close_input(stream);
  close_output(stream);
  if (stream->err >= 0) close(stream->err);
  free(stream->message);
  stream->id = 0;
}

static void send_number(uint8_t type, uint32_t id, uint32_t number) {
  uint8_t data[4];
  put32(data, number);
  link_send(&(struct frame){.type = type, .stream = id, .length = sizeof data, .data = data});
}

static void send_exit(uint32_t id, uint32_t code, uint32_t signal, bool timed_out, const char *words) {
  uint8_t data[9 + 512];
  size_t length = strnlen(words, 512);
  put32(data, code);
  put32(data + 4, signal);
  data[8] = timed_out;
  memcpy(data + 9, words, length);
  link_send(&(struct frame){.type = F_STREAM_EXIT, .stream = id, .length = (uint32_t)(9 + length), .data = data});
}

static void fail(struct stream *stream, const char *words) {
  send_exit(stream->id, 126, 0, false, words);
  free_stream(stream);
}

/* Opening */

static int (*errand_for(enum stream_kind kind))(const struct spec *) {
  switch (kind) {
    case KIND_COPY_IN: return errand_copy_in;
    case KIND_COPY_OUT: return errand_copy_out;
    case KIND_PS: return errand_ps;
    case KIND_METRICS: return errand_metrics;
    case KIND_GROW: return errand_grow;
    case KIND_SYNC: return errand_sync;
    default: return NULL;
  }
}

static const char *begin(struct stream *stream, struct spec *spec) {
  static char words[512];
  struct spawn what = {.spec = spec, .errand = errand_for(spec->kind), .tty = spec->tty};
  const char *wrong = user_find(&what.user, spec->user);
  if (wrong) return wrong;
  if (!what.errand && !spec->argc) return "no program was named";
  bool of_path = what.errand && spec->kind != KIND_PS && spec->kind != KIND_METRICS;
  if (of_path && !spec->path) {
    return "no path was named";
  }
  what.argv = spec->argv;
  what.env = machine_environment(spec);
  what.workdir = spec->workdir && *spec->workdir ? spec->workdir : machine_workdir();
  what.rlimits = machine_rlimits(&what.rlimits_count);
  what.rows = spec->rows;
  what.columns = spec->columns;
  struct spawned made;
  int because = spawn(&what, &made);
  free(what.env);
  if (because) {
    snprintf(words, sizeof words, "the program could not be started: %s", strerror(because));
    return words;
  }
  stream->pid = made.pid;
  stream->running = true;
  stream->in = made.in;
  stream->out = made.out;
  stream->err = made.err;
  stream->tty = spec->tty;
  stream->credit = spec->credit;
  if (spec->timeout_ms) stream->deadline = now_ms() + spec->timeout_ms;
  return NULL;
}

static void open_whole(struct stream *stream) {
  struct spec *spec = malloc(sizeof *spec);
  const char *wrong = "the machine has no memory for another program";
  if (spec) wrong = spec_parse(spec, stream->message, stream->message_length);
  if (!wrong && !machine_runs()) wrong = "the machine is not running";
  if (!wrong) wrong = begin(stream, spec);
  free(spec);
  if (wrong) {
    fail(stream, wrong);
    return;
  }
  free(stream->message);
  stream->message = NULL;
  send_number(F_CREDIT, stream->id, INPUT_BYTES);
}

static void take_open(const struct frame *frame) {
  struct stream *stream = find(frame->stream);
  if (!stream) {
    if (!frame->stream || frame->stream & STREAM_OF_GUEST) return;
    stream = take_slot(frame->stream);
    if (!stream) {
      send_exit(frame->stream, 126, 0, false, "too many programs are being run inside this machine; try again later");
      return;
    }
  } else if (!stream->message) {
    return; /* It is open already. */
  }
  uint8_t *grown = stream->message_length + frame->length <= SPEC_OPEN_BYTES_MAX
                       ? realloc(stream->message, stream->message_length + frame->length + 1)
                       : NULL;
  if (!grown) {
    fail(stream, "the arguments and the environment of the program are too long");
    return;
  }
  stream->message = grown;
  memcpy(grown + stream->message_length, frame->data, frame->length);
  stream->message_length += frame->length;
  if (!(frame->flags & FLAG_MORE)) open_whole(stream);
}

void stream_open_api(int fd) {
  int open = 0;
  for (int i = 0; i < STREAMS_MAX; i++) open += streams[i].id && streams[i].is_api;
  struct stream *stream = open < API_STREAMS_MAX && link_greeted() ? take_slot(++next_api_id | STREAM_OF_GUEST) : NULL;
  if (!stream) {
    static const char busy[] =
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\n"
        "content-length: 48\r\n\r\n{\"error\":\"the host is not there now; try again\"}";
    (void)!send(fd, busy, sizeof busy - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    close(fd);
    return;
  }
  stream->is_api = true;
  stream->in = stream->out = fd;
  link_send(&(struct frame){.type = F_API_OPEN, .stream = stream->id});
  send_number(F_CREDIT, stream->id, INPUT_BYTES);
}

/* Input */

/* Whether a program has not read yet all that the terminal holds for it. */
static bool terminal_holds_input(int master) {
  int own = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
  if (own < 0) return false;
  struct pollfd look = {.fd = own, .events = POLLIN};
  bool holds = poll(&look, 1, 0) > 0 && look.revents & POLLIN;
  close(own);
  return holds;
}

/*
 * A terminal is not half closed: its end of file is a character, which ends one read only. It is lost when a program
 * changes the terminal's mode before it is read, and after half a line it ends just that. So whoever reads is told again.
 */
static void end_terminal_input(struct stream *stream) {
  if (!stream->tty || !stream->running || !stream->input_ended || stream->input_length || stream->in < 0) return;
  if (now_ms() >= stream->end_again_at) {
    stream->end_again_at = now_ms() + END_AGAIN_MS;
    struct termios settings;
    char end = tcgetattr(stream->in, &settings) == 0 ? (char)settings.c_cc[VEOF] : 4;
    if (!terminal_holds_input(stream->in)) (void)!write(stream->in, &end, 1);
  }
  loop_deadline(stream->end_again_at);
}

static void write_input(void *context, short events) {
  (void)events;
  struct stream *stream = context;
  uint32_t written = 0;
  while (stream->in >= 0 && stream->input_length) {
    uint32_t part = INPUT_BYTES - stream->input_start;
    if (part > stream->input_length) part = stream->input_length;
    ssize_t put = write(stream->in, stream->input + stream->input_start, part);
    if (put < 0 && (errno == EAGAIN || errno == EINTR)) break;
    if (put <= 0) { /* Nobody reads it any more: what comes is swallowed. */
      close_input(stream);
      break;
    }
    stream->input_start = (stream->input_start + (uint32_t)put) % INPUT_BYTES;
    stream->input_length -= (uint32_t)put;
    written += (uint32_t)put;
  }
  if (stream->in < 0) {
    written += stream->input_length;
    stream->input_length = 0;
  }
  if (written) send_number(F_CREDIT, stream->id, written);
  if (stream->input_ended && !stream->input_length && !stream->tty) close_input(stream);
}

static void take_data(struct stream *stream, const struct frame *frame) {
  if (frame->length > INPUT_BYTES - stream->input_length) return; /* Beyond the credit that was given. */
  for (uint32_t done = 0; done < frame->length;) {
    uint32_t at = (stream->input_start + stream->input_length) % INPUT_BYTES;
    uint32_t part = frame->length - done < INPUT_BYTES - at ? frame->length - done : INPUT_BYTES - at;
    memcpy(stream->input + at, frame->data + done, part);
    stream->input_length += part;
    done += part;
  }
  write_input(stream, 0);
}

/* Output */

static bool send_output(struct stream *stream, int fd, bool is_err) {
  uint8_t data[CHUNK];
  size_t want = stream->credit < CHUNK ? stream->credit : CHUNK;
  if (!want || !link_has_room()) return false;
  ssize_t got = read(fd, data, want);
  if (got > 0) {
    stream->credit -= (uint32_t)got;
    if (!stream->running) stream->last_words += (uint32_t)got;
    link_send(&(struct frame){.type = F_DATA, .flags = is_err ? FLAG_STDERR : 0, .stream = stream->id,
                              .length = (uint32_t)got, .data = data});
    return true;
  }
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return false;
  if (is_err) {
    close(stream->err);
    stream->err = -1;
  } else if (stream->is_api) {
    stream->told_end = true;
    link_send(&(struct frame){.type = F_EOF, .stream = stream->id});
  } else {
    close_output(stream);
  }
  return false;
}

static void out_ready(void *context, short events) {
  struct stream *stream = context;
  if (events & POLLOUT) write_input(stream, 0);
  if (stream->id && stream->out >= 0 && events & (POLLIN | POLLHUP | POLLERR)) send_output(stream, stream->out, false);
}

static void err_ready(void *context, short events) {
  (void)events;
  struct stream *stream = context;
  if (stream->id && stream->err >= 0) send_output(stream, stream->err, true);
}

static void tell_exit(struct stream *stream) {
  uint32_t signal = WIFSIGNALED(stream->status) ? (uint32_t)WTERMSIG(stream->status) : 0;
  uint32_t code = signal ? 128 + signal : (uint32_t)WEXITSTATUS(stream->status);
  send_exit(stream->id, stream->timed_out ? 124 : code, stream->timed_out ? 0 : signal, stream->timed_out, "");
  free_stream(stream);
}

/* The program is gone: its last words, and then its end. */
static bool finish(struct stream *stream) {
  bool late = now_ms() >= stream->last_words_at;
  if (stream->last_words >= LAST_WORDS_BYTES) {
    tell_exit(stream);
    return true;
  }
  while (late && stream->out >= 0 && send_output(stream, stream->out, false)) continue;
  while (late && stream->err >= 0 && send_output(stream, stream->err, true)) continue;
  bool ended = stream->out < 0 && stream->err < 0;
  if (!ended && (!late || !stream->credit || !link_has_room())) return false;
  tell_exit(stream);
  return true;
}

static void end_late(struct stream *stream) {
  if (!stream->running || !stream->deadline) return;
  if (now_ms() < stream->deadline) {
    loop_deadline(stream->deadline);
    return;
  }
  stream->deadline = 0;
  stream->timed_out = true;
  kill_session(stream->pid);
}

static void prepare_one(struct stream *stream) {
  end_late(stream);
  end_terminal_input(stream);
  if (stream->pid && !stream->running) {
    if (finish(stream)) return;
    loop_deadline(stream->last_words_at > now_ms() ? stream->last_words_at : now_ms() + 50);
  }
  bool takes = stream->credit && link_has_room() && !stream->told_end;
  short out_events = takes ? POLLIN : 0;
  if (stream->in == stream->out && stream->input_length) out_events |= POLLOUT;
  /* Nothing asked means not watched: a closed other end would wake us for ever. */
  if (out_events) loop_watch(stream->out, out_events, out_ready, stream);
  if (takes) loop_watch(stream->err, POLLIN, err_ready, stream);
  if (stream->in != stream->out && stream->input_length) loop_watch(stream->in, POLLOUT, write_input, stream);
}

void stream_prepare(void) {
  if (!link_greeted()) stream_end_all(); /* Nobody is there any more for whom they run. */
  for (int i = 0; i < STREAMS_MAX; i++) {
    if (streams[i].id && !streams[i].message) prepare_one(&streams[i]);
  }
}

bool stream_reap(pid_t pid, int status) {
  for (int i = 0; i < STREAMS_MAX; i++) {
    struct stream *stream = &streams[i];
    if (!stream->id || !stream->running || stream->pid != pid) continue;
    stream->running = false;
    stream->status = status;
    stream->last_words_at = now_ms() + LAST_WORDS_MS;
    return true;
  }
  return false;
}

static void end_stream(struct stream *stream) {
  if (stream->running) kill_session(stream->pid);
  free_stream(stream);
}

void stream_end_all(void) {
  for (int i = 0; i < STREAMS_MAX; i++) {
    if (streams[i].id) end_stream(&streams[i]);
  }
}

static void set_size(struct stream *stream, const struct frame *frame) {
  if (!stream->tty || frame->length != 4 || stream->out < 0) return;
  struct winsize size = {.ws_row = get16(frame->data), .ws_col = get16(frame->data + 2)};
  ioctl(stream->out, TIOCSWINSZ, &size);
}

static void pass_signal(struct stream *stream, const struct frame *frame) {
  uint32_t number = frame->length == 4 ? get32(frame->data) : 0;
  if (!stream->running || number < 1 || number >= NSIG) return;
  kill(-stream->pid, (int)number);
}

void stream_frame(const struct frame *frame) {
  if (frame->type == F_OPEN) {
    take_open(frame);
    return;
  }
  struct stream *stream = find(frame->stream);
  if (!stream || stream->message) return;
  switch (frame->type) {
    case F_DATA: take_data(stream, frame); break;
    case F_EOF:
      stream->input_ended = true;
      write_input(stream, 0);
      break;
    case F_CREDIT:
      if (frame->length == 4 && stream->credit + (uint64_t)get32(frame->data) <= UINT32_MAX) {
        stream->credit += get32(frame->data);
      }
      break;
    case F_STREAM_SIGNAL: pass_signal(stream, frame); break;
    case F_WINDOW_SIZE: set_size(stream, frame); break;
    case F_CLOSE: end_stream(stream); break;
    default: break;
  }
}
