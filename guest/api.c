#include "api.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "files.h"
#include "handle.h"
#include "loop.h"
#include "stream.h"

static int listener = -1;

void api_open(void) {
  struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/.fly/api"};
  folder_make("/.fly", 0755);
  unlink(address.sun_path);
  if (listener >= 0) close(listener); /* Of a RUN that failed. */
  listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (listener >= 0 && bind(listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(listener, 16) == 0) {
    chmod(address.sun_path, 0666); /* Any user of the machine, as a program of any user may ask. */
    return;
  }
  note("no /.fly/api: %s", strerror(errno));
  if (listener >= 0) close(listener);
  listener = -1;
}

static void ready(void *context, short events) {
  (void)context, (void)events;
  int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd >= 0) stream_open_api(fd);
}

void api_prepare(void) { loop_watch(listener, POLLIN, ready, NULL); }
