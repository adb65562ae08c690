#include "machine.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api.h"
#include "clock.h"
#include "files.h"
#include "handle.h"
#include "link.h"
#include "loop.h"
#include "net.h"
#include "oom.h"
#include "output.h"
#include "root.h"
#include "spawn.h"

enum {
  DRAIN_MS = 2000,                /* For what was written before the end. */
  END_KEPT_MS = 60 * 60 * 1000,   /* For a host that hangs, or is being mended and started again. */
};

static const char default_path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

static bool is_vm;
static enum machine_state state;
static pid_t main_pid;
static uint8_t boot_id[16];
static struct spec *spec; /* For ever: its strings are the environment. */
static char home_variable[300];
static struct exit_record end;
static int64_t kill_at, drain_until, ended_at;
static uint64_t oom_kills_before;
static bool acked, told;

void machine_begin(bool vm) {
  is_vm = vm;
  if (getrandom(boot_id, sizeof boot_id, GRND_NONBLOCK) < 0) memcpy(boot_id, &(int64_t){wall_ms()}, 8);
}

bool machine_is_vm(void) { return is_vm; }
enum machine_state machine_state(void) { return state; }
bool machine_runs(void) { return state == MACHINE_RUNNING; }
pid_t machine_pid(void) { return main_pid; }
const uint8_t *machine_boot_id(void) { return boot_id; }
const struct exit_record *machine_end(void) { return &end; }
const char *machine_workdir(void) { return spec && spec->workdir && *spec->workdir ? spec->workdir : "/"; }

const struct spec_rlimit *machine_rlimits(int *count) {
  *count = spec ? spec->rlimits_count : 0;
  return spec ? spec->rlimits : NULL;
}

static bool has_variable(char **env, const char *assignment) {
  size_t name = strcspn(assignment, "=");
  for (; *env; env++) {
    if (strncmp(*env, assignment, name) == 0 && (*env)[name] == '=') return true;
  }
  return false;
}

char **machine_environment(const struct spec *on_top) {
  size_t most = (size_t)on_top->envc + (spec ? (size_t)spec->envc : 0) + 4;
  char **env = calloc(most, sizeof *env);
  size_t count = 0;
  if (!env) return calloc(1, sizeof *env);
  for (int i = 0; i < on_top->envc; i++) env[count++] = on_top->env[i];
  for (int i = 0; spec && spec != on_top && i < spec->envc; i++) {
    if (!has_variable(env, spec->env[i])) env[count++] = spec->env[i];
  }
  if (!has_variable(env, "PATH=")) env[count++] = (char *)default_path;
  if (!has_variable(env, "HOME=") && *home_variable) env[count++] = home_variable;
  if (on_top->tty && !has_variable(env, "TERM=")) env[count++] = "TERM=xterm";
  return env;
}

/* Start */

static const char *say(const char *what, const char *thing, int because) {
  static char words[700];
  snprintf(words, sizeof words, "%s%.400s: %s", what, thing, strerror(because));
  return words;
}

static const char *say_cannot_run(const struct spawn *what, int because) {
  static char words[900];
  const char *program = what->argv[0];
  if (because != ENOENT && because != EACCES && because != ENOTDIR) {
    return say("the image's command cannot be run: ", program, because);
  }
  const char *path = "";
  for (char **env = what->env; *env; env++) {
    if (strncmp(*env, "PATH=", 5) == 0) path = *env + 5;
  }
  bool searched = !strchr(program, '/');
  snprintf(words, sizeof words, "the image's command \"%.300s\" was not found in the image%s%.300s%s, or cannot be executed",
           program, searched ? " on its PATH (" : "", searched ? path : "", searched ? ")" : "");
  return words;
}

static void make_system(const struct spec *wanted) {
  if (wanted->hostname && sethostname(wanted->hostname, strlen(wanted->hostname)) < 0) {
    note("the host name could not be set: %s", strerror(errno));
  }
  for (int i = 0; i < wanted->sysctls_count; i++) sysctl_set(wanted->sysctls[i]);
  net_up(wanted);
}

static const char *make_files(const struct spec *wanted) {
  int because = 0;
  if (wanted->hosts) because = file_write_system("/etc/hosts", wanted->hosts);
  if (!because && wanted->resolv_conf) because = file_write_system("/etc/resolv.conf", wanted->resolv_conf);
  if (!because && wanted->hostname) {
    char line[300];
    snprintf(line, sizeof line, "%.255s\n", wanted->hostname);
    because = file_write_system("/etc/hostname", line);
  }
  if (because) return say("the names of this machine could not be written into ", "/etc", because);
  for (int i = 0; i < wanted->files_count; i++) {
    const struct spec_file *file = &wanted->files[i];
    because = file_write(file);
    if (because) return say("a file of the config could not be written: ", file->path, because);
  }
  if (wanted->workdir && *wanted->workdir) because = folder_make(wanted->workdir, 0755);
  return because ? say("the working directory could not be made: ", wanted->workdir, because) : NULL;
}

static const char *start_main(struct spec *wanted, bool *users_fault) {
  struct spawn what = {.argv = wanted->argv, .workdir = machine_workdir(), .rlimits = wanted->rlimits,
                       .rlimits_count = wanted->rlimits_count, .tty = wanted->tty, .rows = wanted->rows,
                       .columns = wanted->columns, .wait_for_program = true, .null_input = true};
  *users_fault = true;
  if (!wanted->argc) {
    return "the image names no command; set ENTRYPOINT or CMD in the Dockerfile, or a process in fly.toml";
  }
  const char *wrong = user_find(&what.user, wanted->user);
  if (wrong) return wrong;
  snprintf(home_variable, sizeof home_variable, "HOME=%s", what.user.home);
  what.env = machine_environment(wanted);
  struct spawned made;
  int because = spawn(&what, &made);
  if (because) wrong = say_cannot_run(&what, because);
  free(what.env);
  if (because) return wrong;
  main_pid = made.pid;
  output_open(made.out, made.err);
  return NULL;
}

const char *machine_start(uint8_t *message, size_t length, bool *users_fault) {
  struct spec *wanted = malloc(sizeof *wanted);
  if (!wanted) return "the machine has too little memory to start";
  const char *wrong = spec_parse(wanted, message, length);
  if (!wrong && is_vm) {
    clock_set(wanted->time_ns);
    entropy_add(wanted->entropy, wanted->entropy_length);
    wrong = root_make(wanted);
  }
  if (!wrong) {
    spec = wanted;
    if (is_vm) make_system(wanted);
    wrong = make_files(wanted);
  }
  oom_kills_before = oom_kills();
  if (!wrong) api_open();
  if (!wrong) wrong = start_main(wanted, users_fault);
  if (wrong) {
    if (is_vm) root_unmount_volumes(wanted);
    spec = NULL;
    free(wanted);
    return wrong;
  }
  state = MACHINE_RUNNING;
  return NULL;
}

/* Signals and the end */

void machine_signal(uint32_t number) {
  if (state == MACHINE_RUNNING && number >= 1 && number < NSIG) kill(main_pid, (int)number);
}

void machine_stop(uint32_t number, uint32_t timeout_ms) {
  if (state == MACHINE_WAITING) { /* Nothing to lose. */
    end = (struct exit_record){.code = 0, .at_ms = wall_ms()};
    state = MACHINE_ENDED;
    acked = true;
    return;
  }
  machine_signal(number);
  kill_at = now_ms() + timeout_ms;
}

bool machine_reap(pid_t pid, int status) {
  if (state != MACHINE_RUNNING || pid != main_pid) return false;
  end.signal = WIFSIGNALED(status) ? (uint32_t)WTERMSIG(status) : 0;
  end.code = end.signal ? 128 + end.signal : (uint32_t)WEXITSTATUS(status);
  end.oom = is_vm && end.code == 128 + SIGKILL && oom_kills() > oom_kills_before;
  end.at_ms = wall_ms();
  state = MACHINE_ENDING;
  drain_until = now_ms() + DRAIN_MS;
  kill_at = 0;
  /* Nothing outlives the main process; only ever inside a process namespace of our own. */
  if (getpid() == 1) kill(-1, SIGKILL);
  return true;
}

void machine_exit_acked(void) { acked = state == MACHINE_ENDED; }

static void leave(void) {
  if (is_vm) {
    sync(); /* In a container it would be for all disks of the host. */
    reboot(RB_AUTOBOOT); /* Not power-off: that leaves some monitors running. */
    for (;;) pause();
  }
  _exit((int)end.code);
}

void machine_new_host(void) { told = false; }

static void wait_for_ack(void) {
  if (!ended_at) ended_at = now_ms();
  if (acked || now_ms() - ended_at > END_KEPT_MS) leave();
  if (!told && link_greeted() && output_all_sent()) {
    told = true;
    tell_exit_record();
  }
  loop_deadline(ended_at + END_KEPT_MS + 1);
}

void machine_prepare(void) {
  if (state == MACHINE_RUNNING && kill_at) {
    if (now_ms() >= kill_at) {
      kill_at = 0;
      kill(main_pid, SIGKILL);
    } else {
      loop_deadline(kill_at);
    }
  }
  if (state == MACHINE_ENDING) {
    if (now_ms() >= drain_until) output_cut();
    if (output_ended()) {
      if (is_vm) root_unmount(spec);
      state = MACHINE_ENDED;
    } else {
      loop_deadline(drain_until);
    }
  }
  if (state == MACHINE_ENDED) wait_for_ack();
}
