/*
 * PID 1 of a machine.
 *
 *   init                  as /init of a VM's initramfs: speaks over a virtio-serial port named "hangar", or vsock
 *   init --listen PATH    in a container: speaks over a unix socket that it makes
 *   init --listen-fd N    the same over a listening socket that was handed down
 *   init --version        says what it is
 *   init --tsc-khz        on a host: says how fast its processor counts
 */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include "api.h"
#include "frames.h"
#include "handle.h"
#include "link.h"
#include "loop.h"
#include "machine.h"
#include "output.h"
#include "root.h"
#include "stream.h"
#include "tsc.h"

enum { VSOCK_PORT = 1024, PORT_WAIT_MS = 10000, LOOK_US = 2000 };

static int signals = -1;

static void reap(void) {
  int status;
  for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
    if (!machine_reap(pid, status)) stream_reap(pid, status); /* Others were orphans. */
  }
}

static void signals_ready(void *context, short events) {
  (void)context, (void)events;
  struct signalfd_siginfo info;
  while (read(signals, &info, sizeof info) == sizeof info) {
    if (info.ssi_signo != SIGCHLD) machine_signal(info.ssi_signo);
  }
  reap();
}

/* All signals are for the main process, but those that mean a fault of our own. */
static void open_signals(void) {
  sigset_t all;
  sigfillset(&all);
  int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS};
  for (size_t i = 0; i < sizeof own / sizeof *own; i++) sigdelset(&all, own[i]);
  /* What our own writes bring upon us is ignored. A blocked signal never is: it would be passed on as somebody's. */
  int ignored[] = {SIGPIPE, SIGXFSZ, SIGTTIN, SIGTTOU};
  for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++) {
    signal(ignored[i], SIG_IGN);
    sigdelset(&all, ignored[i]);
  }
  sigprocmask(SIG_BLOCK, &all, NULL);
  signals = signalfd(-1, &all, SFD_NONBLOCK | SFD_CLOEXEC);
}

static bool file_says(const char *folder, const char *entry, const char *file, const char *wanted) {
  char path[300], text[64] = "";
  snprintf(path, sizeof path, "%s/%.60s/%s", folder, entry, file);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t got = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
  if (fd >= 0) close(fd);
  return got > 0 && (text[strcspn(text, "\n")] = 0, strcmp(text, wanted) == 0);
}

/* The entry of a folder of /sys whose `file` says `wanted`. */
static bool find_in_sys(const char *folder, const char *file, const char *wanted, char *name, size_t size) {
  DIR *listing = opendir(folder);
  bool found = false;
  for (struct dirent *entry; listing && !found && (entry = readdir(listing));) {
    found = entry->d_name[0] != '.' && file_says(folder, entry->d_name, file, wanted);
    if (found) snprintf(name, size, "/dev/%.60s", entry->d_name);
  }
  if (listing) closedir(listing);
  return found;
}

/* The port appears some time after its driver; a VM with a vsock device has none. */
static bool open_vm_link(void) {
  char name[80];
  for (int64_t until = now_ms() + PORT_WAIT_MS; now_ms() < until; usleep(LOOK_US)) {
    if (find_in_sys("/sys/class/virtio-ports", "name", "hangar", name, sizeof name)) return link_open_port(name);
    if (find_in_sys("/sys/bus/virtio/devices", "device", "0x0013", name, sizeof name)) return link_listen_vsock(VSOCK_PORT);
  }
  errno = ENODEV;
  return false;
}

static bool open_link(int argc, char **argv) {
  if (argc == 3 && strcmp(argv[1], "--listen") == 0) return link_listen_unix(argv[2]);
  if (argc == 3 && strcmp(argv[1], "--listen-fd") == 0) {
    link_listen_on(atoi(argv[2]));
    return true;
  }
  root_early();
  reboot(RB_DISABLE_CAD); /* Ctrl-Alt-Del is a signal to us, not an end at once. */
  machine_begin(true);
  return open_vm_link();
}

int main(int argc, char **argv) {
  if (argc == 2 && strcmp(argv[1], "--version") == 0) {
    printf("hangar init, guest protocol %d\n", PROTOCOL_VERSION);
    return 0;
  }
  if (argc == 2 && strcmp(argv[1], "--tsc-khz") == 0) {
    printf("%lu\n", tsc_khz());
    return 0;
  }
  if (argc != 3 && getpid() != 1) {
    dprintf(2, "usage: init --listen PATH | init --listen-fd N | init --version | init --tsc-khz; without arguments only as PID 1 of a VM\n");
    return 2;
  }
  umask(022);
  machine_begin(false);
  open_signals();
  if (!open_link(argc, argv)) {
    dprintf(2, "init: no way to the host: %s\n", strerror(errno));
    if (machine_is_vm()) reboot(RB_AUTOBOOT);
    return 1;
  }
  for (;;) {
    loop_watch(signals, POLLIN, signals_ready, NULL);
    api_prepare();
    output_prepare();
    stream_prepare();
    machine_prepare();
    link_prepare();
    loop_round();
  }
}
