#include "link.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#include "handle.h"
#include "loop.h"

enum { QUEUE_MAX = 512 * 1024, BULK_MAX = 64 * 1024, PORT_LOOK_MS = 50, PORT_GONE_MS = 2000, READS_PER_ROUND = 8 };

static int listener = -1;
static int peer = -1; /* The port, or the newest connection. */
static bool is_port;
static bool greeted;
static bool fill_up_due;
static int64_t port_asleep_until;
static int64_t port_silent_since; /* 0: something was read since. */
static struct frame_reader reader;
static uint8_t queue[QUEUE_MAX];
static size_t queue_start, queue_end;

bool link_greeted(void) { return greeted; }
bool link_has_room(void) { return greeted && queue_end - queue_start < BULK_MAX; }

/* A port stays open: only what was under way is forgotten. */
static void lose_host(void) {
  greeted = false;
  fill_up_due = false;
  reader_reset(&reader);
  queue_start = queue_end = 0;
  if (is_port) {
    port_asleep_until = now_ms() + PORT_LOOK_MS;
  } else if (peer >= 0) {
    close(peer);
    peer = -1;
  }
}

void link_greet(void) {
  greeted = true;
  queue_start = queue_end = 0;
  fill_up_due = is_port;
}

void link_send(const struct frame *frame) {
  if (!greeted) return;
  if (QUEUE_MAX - queue_end < FRAME_HEADER + frame->length) {
    memmove(queue, queue + queue_start, queue_end - queue_start);
    queue_end -= queue_start;
    queue_start = 0;
  }
  if (QUEUE_MAX - queue_end < FRAME_HEADER + frame->length) {
    lose_host();
    return;
  }
  queue_end += frame_build(queue + queue_end, frame);
}

static void take_frames(void) {
  struct frame frame;
  while (reader_next(&reader, &frame)) {
    if (greeted || frame.type == F_HELLO) handle_frame(&frame);
  }
}

void link_feed(const uint8_t *data, size_t length) {
  while (length > 0) {
    size_t room;
    uint8_t *space = reader_space(&reader, &room);
    size_t part = length < room ? length : room;
    memcpy(space, data, part);
    reader_filled(&reader, part);
    data += part;
    length -= part;
    take_frames();
  }
}

/*
 * A port reads as empty for as long as the kernel has not heard that a host is there, which may be after its first words:
 * after a resume that is common. Only a silence that lasts is a host that went.
 */
static void port_empty(void) {
  int64_t now = now_ms();
  if (port_silent_since == 0) port_silent_since = now;
  port_asleep_until = now + PORT_LOOK_MS;
  if (now - port_silent_since >= PORT_GONE_MS) lose_host();
}

static void read_some(void) {
  for (int i = 0; i < READS_PER_ROUND && peer >= 0; i++) {
    size_t room;
    uint8_t *space = reader_space(&reader, &room);
    ssize_t got = read(peer, space, room);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got == 0 && is_port) {
      port_empty();
      return;
    }
    if (got <= 0) {
      lose_host();
      return;
    }
    port_silent_since = 0;
    reader_filled(&reader, (size_t)got);
    take_frames();
  }
}

static void write_some(void) {
  while (peer >= 0 && queue_start < queue_end) {
    ssize_t put = write(peer, queue + queue_start, queue_end - queue_start);
    if (put < 0) {
      if (errno != EAGAIN && errno != EINTR) lose_host();
      return;
    }
    queue_start += (size_t)put;
  }
  queue_start = queue_end = 0;
  if (!fill_up_due) return;
  /*
   * The host may still be inside a frame that we were sending to the host before it, and take our WELCOME for a part of
   * that: this fills any frame up. Behind what is urgent.
   */
  fill_up_due = false;
  memset(queue, 0, FRAME_MAX);
  queue_end = FRAME_MAX;
}

static void peer_ready(void *context, short events) {
  (void)context;
  if (events & POLLOUT) write_some();
  if (events & (POLLIN | POLLHUP | POLLERR)) read_some();
  if (queue_start < queue_end) write_some(); /* An answer waits for no other round. */
}

static void listener_ready(void *context, short events) {
  (void)context, (void)events;
  struct sockaddr_storage from = {0};
  socklen_t length = sizeof from;
  int fd = accept4(listener, (struct sockaddr *)&from, &length, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) return;
  /* Programs of the guest reach its own ports where vsock has a loopback. */
  if (from.ss_family == AF_VSOCK && ((struct sockaddr_vm *)&from)->svm_cid != VMADDR_CID_HOST) {
    close(fd);
    return;
  }
  lose_host();
  peer = fd;
}

void link_prepare(void) {
  loop_watch(listener, POLLIN, listener_ready, NULL);
  if (is_port && now_ms() < port_asleep_until) {
    loop_deadline(port_asleep_until);
    return;
  }
  loop_watch(peer, queue_start < queue_end ? POLLIN | POLLOUT : POLLIN, peer_ready, NULL);
}

bool link_open_port(const char *path) {
  peer = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
  is_port = peer >= 0;
  return is_port;
}

static bool listen_at(int family, const struct sockaddr *address, socklen_t length) {
  int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd >= 0 && bind(fd, address, length) == 0 && listen(fd, 4) == 0) {
    listener = fd;
    return true;
  }
  int because = errno;
  if (fd >= 0) close(fd);
  errno = because;
  return false;
}

bool link_listen_vsock(unsigned port) {
  struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = port};
  return listen_at(AF_VSOCK, (struct sockaddr *)&address, sizeof address);
}

bool link_listen_unix(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    return false;
  }
  strcpy(address.sun_path, path);
  unlink(path);
  mode_t before = umask(0177);
  bool listening = listen_at(AF_UNIX, (struct sockaddr *)&address, sizeof address);
  umask(before);
  return listening;
}

void link_listen_on(int fd) {
  listener = fd;
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  fcntl(fd, F_SETFL, O_NONBLOCK);
}
