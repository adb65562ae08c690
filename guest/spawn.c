#include "spawn.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PATH_BYTES = 4096, KILL_ROUNDS = 5 };

static const char *variable(char **env, const char *name) {
  size_t length = strlen(name);
  for (; *env; env++) {
    if (strncmp(*env, name, length) == 0 && (*env)[length] == '=') return *env + length + 1;
  }
  return "";
}

/* Runs the program as execvpe does, but with the PATH of the environment it is given. Returns errno. */
static int run_program(char **argv, char **env) {
  if (strchr(argv[0], '/')) {
    execve(argv[0], argv, env);
    return errno;
  }
  int because = ENOENT;
  char candidate[PATH_BYTES];
  for (const char *at = variable(env, "PATH"); *at;) {
    size_t length = strcspn(at, ":");
    if (snprintf(candidate, sizeof candidate, "%.*s/%s", (int)length, at, argv[0]) < (int)sizeof candidate) {
      execve(candidate, argv, env);
      if (errno != ENOENT && errno != ENOTDIR) because = errno;
    }
    at += length + (at[length] == ':');
  }
  return because;
}

static int become(const struct user *user) {
  if (setgroups((size_t)user->groups_count, user->groups) < 0 && geteuid() == 0) return errno;
  if (setgid(user->gid) < 0 || setuid(user->uid) < 0) return errno;
  return 0;
}

static void reset_signals(void) {
  for (int number = 1; number < NSIG; number++) signal(number, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
}

static void say(const char *program, int because) {
  const char *words = because == ENOENT ? "not found in the machine" : strerror(because);
  dprintf(2, "%s: %s\n", program, words);
}

/* In the child: never returns. `report` tells the parent an errno. */
static void child(const struct spawn *what, const int stdio[3], int report) {
  setsid();
  reset_signals();
  for (int fd = 0; fd < 3; fd++) dup2(stdio[fd], fd);
  if (what->tty) ioctl(0, TIOCSCTTY, 0);
  if (what->errand) {
    syscall(SYS_close_range, 3U, ~0U, 0); /* No program follows that would close them: not even its own input would end. */
    _exit(what->errand(what->spec));
  }
  for (int i = 0; i < what->rlimits_count; i++) {
    struct rlimit limit = {what->rlimits[i].soft, what->rlimits[i].hard};
    setrlimit((int)what->rlimits[i].resource, &limit);
  }
  int because = become(&what->user);
  if (!because && chdir(what->workdir) < 0) because = errno;
  if (!because) because = run_program(what->argv, what->env);
  if (what->wait_for_program && write(report, &because, sizeof because) == sizeof because) _exit(127);
  say(what->argv[0], because);
  _exit(because == ENOENT ? 127 : 126);
}

static void close_all(int *fds, int count) {
  for (int i = 0; i < count; i++) {
    if (fds[i] >= 0) close(fds[i]);
  }
}

/* theirs: what becomes 0, 1, 2 of the child. */
static int open_pipes(const struct spawn *what, int theirs[3], struct spawned *made) {
  int in[2] = {-1, -1}, out[2] = {-1, -1}, err[2] = {-1, -1};
  if (what->null_input) in[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
  else if (pipe2(in, O_CLOEXEC) < 0) in[0] = -1;
  if (in[0] < 0 || pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0) {
    int because = errno;
    close_all(in, 2);
    close_all(out, 2);
    return because;
  }
  theirs[0] = in[0];
  theirs[1] = out[1];
  theirs[2] = err[1];
  /* The program may open its own /dev/stdout anew, as many that run as another user do. */
  for (int i = what->null_input ? 1 : 0; i < 3; i++) (void)!fchown(theirs[i], what->user.uid, what->user.gid);
  *made = (struct spawned){.in = in[1], .out = out[0], .err = err[0]};
  if (made->in >= 0) fcntl(made->in, F_SETFL, O_NONBLOCK);
  fcntl(made->out, F_SETFL, O_NONBLOCK);
  fcntl(made->err, F_SETFL, O_NONBLOCK);
  return 0;
}

static int open_terminal(const struct spawn *what, int theirs[3], struct spawned *made) {
  int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
  int number = 0, unlocked = 0, own = -1;
  char path[32];
  if (master >= 0 && ioctl(master, TIOCGPTN, &number) == 0 && ioctl(master, TIOCSPTLCK, &unlocked) == 0) {
    snprintf(path, sizeof path, "/dev/pts/%d", number);
    own = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
  }
  if (own < 0) {
    int because = errno;
    if (master >= 0) close(master);
    return because;
  }
  struct winsize size = {.ws_row = what->rows ? what->rows : 24, .ws_col = what->columns ? what->columns : 80};
  ioctl(master, TIOCSWINSZ, &size);
  if (fchown(own, what->user.uid, (gid_t)-1) < 0) errno = 0; /* A terminal of somebody else still works. */
  theirs[0] = theirs[1] = theirs[2] = own;
  *made = (struct spawned){.in = master, .out = master, .err = -1};
  return 0;
}

static void close_made(struct spawned *made) {
  if (made->in >= 0 && made->in != made->out) close(made->in);
  close(made->out);
  if (made->err >= 0) close(made->err);
}

int spawn(const struct spawn *what, struct spawned *made) {
  int theirs[3], report[2];
  if (pipe2(report, O_CLOEXEC) < 0) return errno;
  int because = what->tty ? open_terminal(what, theirs, made) : open_pipes(what, theirs, made);
  if (because) {
    close_all(report, 2);
    return because;
  }
  made->pid = fork();
  if (made->pid == 0) child(what, theirs, report[1]);
  if (made->pid < 0) because = errno;
  close_all(theirs, what->tty ? 1 : 3);
  close(report[1]);
  int told;
  if (!because && what->wait_for_program && read(report[0], &told, sizeof told) == sizeof told) because = told;
  close(report[0]);
  if (because) close_made(made);
  return because;
}

/* The session of a process by /proc/PID/stat, or 0. */
static pid_t session_of(const char *pid) {
  char path[64], stat[512];
  snprintf(path, sizeof path, "/proc/%.20s/stat", pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t got = fd < 0 ? 0 : read(fd, stat, sizeof stat - 1);
  if (fd >= 0) close(fd);
  if (got <= 0) return 0;
  stat[got] = 0;
  char *after_name = strrchr(stat, ')');
  int group, session;
  return after_name && sscanf(after_name, ") %*c %*d %d %d", &group, &session) == 2 ? session : 0;
}

void kill_session(pid_t leader) {
  kill(-leader, SIGKILL);
  kill(leader, SIGKILL);
  for (int round = 0; round < KILL_ROUNDS; round++) {
    int killed = 0;
    DIR *proc = opendir("/proc");
    for (struct dirent *entry; proc && (entry = readdir(proc));) {
      pid_t pid = atoi(entry->d_name);
      if (pid <= 1 || pid == leader || session_of(entry->d_name) != leader) continue;
      if (kill(pid, SIGKILL) == 0) killed++;
    }
    if (proc) closedir(proc);
    if (!killed) return;
  }
}
