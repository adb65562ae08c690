/* Starting processes: the machine's own, those of an exec, and the small errands that PID 1 never does itself. */
#pragma once
#include <stdbool.h>
#include <sys/types.h>

#include "spec.h"
#include "users.h"

struct spawn {
  char **argv, **env;
  const char *workdir;
  struct user user;
  const struct spec_rlimit *rlimits;
  int rlimits_count;
  bool tty;
  uint16_t rows, columns;
  /* Instead of a program: runs in the child and returns its exit code. */
  int (*errand)(const struct spec *spec);
  const struct spec *spec;
  /* Whether a program that cannot run is told by errno here (the main process) or by exit code 126 or 127. */
  bool wait_for_program;
  bool null_input;
};

struct spawned {
  pid_t pid;
  /* Non-blocking ends of ours; one descriptor twice for a terminal, `err` is -1 then. */
  int in, out, err;
};

/* In a session of its own. Returns 0, or an errno. */
int spawn(const struct spawn *what, struct spawned *made);
/* Ends every process of the session that `leader` began. */
void kill_session(pid_t leader);
