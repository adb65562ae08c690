/*
 * The frames and handlers of PID 1 behind a plain reader: what comes on standard input is fed to them as if a host had
 * sent it, in pieces of many sizes. Processes are played: a few bytes of output and an end. Built with sanitizers; a run
 * that ends with exit code 0 has found nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../clock.h"
#include "../errands.h"
#include "../frames.h"
#include "../handle.h"
#include "../link.h"
#include "../loop.h"
#include "../machine.h"
#include "../output.h"
#include "../spawn.h"
#include "../stream.h"

enum { PLAYED_MAX = 64, INPUT_MAX = 64 * 1024 * 1024 };

static enum machine_state state;
static pid_t played[PLAYED_MAX];
static unsigned played_count;
static volatile uint64_t touched; /* Everything that was parsed is read, so that the sanitizers see it. */

static void touch(const char *text) { touched += text ? strlen(text) : 0; }

static void touch_spec(const struct spec *spec) {
  for (int i = 0; i < spec->argc; i++) touch(spec->argv[i]);
  for (int i = 0; i < spec->envc; i++) touch(spec->env[i]);
  for (int i = 0; i < spec->volumes_count; i++) touch(spec->volumes[i]);
  for (int i = 0; i < spec->addresses_count; i++) touch(spec->addresses[i]);
  for (int i = 0; i < spec->routes_count; i++) touch(spec->routes[i]);
  for (int i = 0; i < spec->sysctls_count; i++) touch(spec->sysctls[i]);
  for (int i = 0; i < spec->files_count; i++) {
    touch(spec->files[i].path);
    for (uint32_t at = 0; at < spec->files[i].length; at++) touched += spec->files[i].content[at];
  }
  for (uint32_t at = 0; at < spec->entropy_length; at++) touched += spec->entropy[at];
  const char *texts[] = {spec->user, spec->workdir, spec->hostname, spec->hosts, spec->resolv_conf, spec->path,
                         spec->root_device, spec->upper_device};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) touch(texts[i]);
}

/* Played parts of the machine */

bool machine_is_vm(void) { return false; }
enum machine_state machine_state(void) { return state; }
bool machine_runs(void) { return state == MACHINE_RUNNING; }
pid_t machine_pid(void) { return 2; }
const uint8_t *machine_boot_id(void) { return (const uint8_t *)"0123456789abcdef"; }
void machine_signal(uint32_t number) { touched += number; }
void machine_stop(uint32_t number, uint32_t timeout_ms) { touched += number + timeout_ms; }
void machine_exit_acked(void) {}
void machine_new_host(void) {}
const char *machine_workdir(void) { return "/"; }
char **machine_environment(const struct spec *spec) { return calloc((size_t)spec->envc + 1, sizeof(char *)); }

const struct exit_record *machine_end(void) {
  static const struct exit_record end;
  return &end;
}

const struct spec_rlimit *machine_rlimits(int *count) {
  *count = 0;
  return NULL;
}

const char *machine_start(uint8_t *message, size_t length, bool *users_fault) {
  struct spec *spec = malloc(sizeof *spec);
  const char *wrong = spec_parse(spec, message, length);
  if (!wrong) touch_spec(spec);
  free(spec);
  *users_fault = true;
  if (wrong) return wrong;
  free(message);
  state = MACHINE_RUNNING;
  return NULL;
}

void clock_set(uint64_t nanoseconds) { touched += nanoseconds; }
void entropy_add(const uint8_t *data, size_t length) {
  for (size_t i = 0; i < length; i++) touched += data[i];
}

int errand_copy_in(const struct spec *spec) { return spec->argc; }
int errand_copy_out(const struct spec *spec) { return spec->argc; }
int errand_ps(const struct spec *spec) { return spec->argc; }
int errand_metrics(const struct spec *spec) { return spec->argc; }
int errand_grow(const struct spec *spec) { return spec->argc; }
int errand_sync(const struct spec *spec) { return spec->argc; }
void kill_session(pid_t leader) { touched += (uint64_t)leader; }

/* A process that says a few words and takes a little input. */
int spawn(const struct spawn *what, struct spawned *made) {
  static pid_t next = 1000;
  int out[2], in[2];
  touch_spec(what->spec);
  if (played_count == PLAYED_MAX) return EAGAIN;
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, out) < 0) return errno;
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, in) < 0) return errno;
  if (write(out[1], "words", 5) != 5) abort();
  close(out[1]);
  close(in[1]);
  *made = (struct spawned){.pid = next++, .in = what->tty ? out[0] : in[0], .out = out[0], .err = -1};
  if (what->tty) close(in[0]);
  played[played_count++] = made->pid;
  return 0;
}

static void end_one(unsigned which) {
  if (!played_count) return;
  which %= played_count;
  stream_reap(played[which], (int)(which << 8));
  played[which] = played[--played_count];
}

/* The link's queue is never written out: a new HELLO empties it, as does too much in it. */
static void run_once(void) {
  output_prepare();
  stream_prepare();
  loop_deadline(now_ms());
  loop_round();
}

int main(void) {
  uint8_t *input = malloc(INPUT_MAX);
  size_t length = 0;
  ssize_t got;
  while (length < INPUT_MAX && (got = read(0, input + length, INPUT_MAX - length)) > 0) length += (size_t)got;
  int words[2];
  if (pipe2(words, O_NONBLOCK | O_CLOEXEC) < 0) return 2;
  signal(SIGPIPE, SIG_IGN);
  output_open(words[0], -1);
  for (size_t at = 0, step = 0; at < length; step++) {
    size_t part = 1 + (input[at] * (step % 7 + 1) * 37) % 9000;
    if (part > length - at) part = length - at;
    link_feed(input + at, part);
    at += part;
    (void)!write(words[1], input, part % 500);
    run_once();
    if (step % 3 == 0) end_one((unsigned)part);
  }
  stream_end_all();
  free(input);
  return touched == 1 ? 3 : 0;
}
