#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "errands.h"
#include "files.h"
#include "users.h"

static int complain(const char *path, int because) {
  dprintf(2, "%s: %s\n", path, strerror(because));
  return 1;
}

/* Everything from one descriptor to the other; 0 or an errno. */
static int pour(int from, int to) {
  static char data[65536];
  for (;;) {
    ssize_t got = read(from, data, sizeof data);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return got < 0 ? errno : 0;
    int because = write_all(to, data, (size_t)got);
    if (because) return because;
  }
}

int errand_copy_in(const struct spec *spec) {
  char whole[PATH_MAX], part[PATH_MAX + 16];
  struct user user;
  const char *wrong = user_find(&user, spec->user);
  if (wrong) return dprintf(2, "%s\n", wrong), 1;
  /* A link keeps being one: what it leads to is replaced. */
  if (!realpath(spec->path, whole) && snprintf(whole, sizeof whole, "%s", spec->path) >= (int)sizeof whole) {
    return complain(spec->path, ENAMETOOLONG);
  }
  snprintf(part, sizeof part, "%s.part-%d", whole, (int)getpid());
  struct spec_file file = {.mode = spec->mode ? spec->mode : 0644, .uid = user.uid, .gid = user.gid, .path = part};
  /* Another's link in its place would lead elsewhere. */
  int because = unlink(part) < 0 && errno != ENOENT ? errno : file_write(&file);
  int fd = because ? -1 : open(part, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
  if (!because && fd < 0) because = errno;
  if (!because) because = pour(0, fd);
  if (!because && (fsync(fd) < 0 || rename(part, whole) < 0)) because = errno;
  if (because) unlink(part);
  return because ? complain(spec->path, because) : 0;
}

int errand_copy_out(const struct spec *spec) {
  struct stat found;
  int fd = open(spec->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0 || fstat(fd, &found) < 0) return complain(spec->path, errno);
  if (!S_ISREG(found.st_mode)) return complain(spec->path, S_ISDIR(found.st_mode) ? EISDIR : EINVAL);
  int because = pour(fd, 1);
  return because ? complain(spec->path, because) : 0;
}
