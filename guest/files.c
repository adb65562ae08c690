#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int write_all(int fd, const void *data, size_t length) {
  for (const char *at = data; length;) {
    ssize_t put = write(fd, at, length);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return errno;
    at += put;
    length -= (size_t)put;
  }
  return 0;
}

int folder_make(const char *path, mode_t mode) {
  char part[PATH_MAX];
  size_t length = strlen(path);
  if (length >= sizeof part) return ENAMETOOLONG;
  for (size_t i = 1; i <= length; i++) {
    if (i < length && path[i] != '/') continue;
    memcpy(part, path, i);
    part[i] = 0;
    if (mkdir(part, mode) == 0) {
      chmod(part, mode); /* Whatever the mask is. */
      continue;
    }
    struct stat found;
    if (errno != EEXIST && errno != EROFS) return errno;
    if (stat(part, &found) < 0) return errno;
    if (!S_ISDIR(found.st_mode)) return ENOTDIR;
  }
  return 0;
}

static int make_parent(const char *path) {
  char parent[PATH_MAX];
  const char *slash = strrchr(path, '/');
  if (!slash || slash == path) return 0;
  if ((size_t)(slash - path) >= sizeof parent) return ENAMETOOLONG;
  memcpy(parent, path, (size_t)(slash - path));
  parent[slash - path] = 0;
  return folder_make(parent, 0755);
}

static int write_into(int fd, const struct spec_file *file) {
  int because = fd < 0 ? errno : write_all(fd, file->content, file->length);
  if (!because && (fchown(fd, file->uid, file->gid) < 0 || fchmod(fd, file->mode & 07777) < 0)) because = errno;
  if (fd >= 0 && close(fd) < 0 && !because) because = errno;
  return because;
}

int file_write(const struct spec_file *file) {
  int because = make_parent(file->path);
  if (because) return because;
  return write_into(open(file->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600), file);
}

int file_write_system(const char *path, const char *text) {
  struct spec_file file = {.mode = 0644, .path = (char *)path, .content = (const uint8_t *)text, .length = (uint32_t)strlen(text)};
  struct stat found;
  if (stat("/etc", &found) < 0 && errno == ENOENT) unlink("/etc");
  if (stat(path, &found) < 0 || !S_ISREG(found.st_mode)) unlink(path);
  return file_write(&file);
}
