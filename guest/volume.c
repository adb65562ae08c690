#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "errands.h"
#include "loop.h"

#define EXT4_RESIZE _IOW('f', 16, uint64_t)

enum { SIZE_WAIT_MS = 5000, SIZE_LOOK_US = 5000 };

static int complain(const char *path, int because) {
  dprintf(2, "%s: %s\n", path, strerror(because));
  return 1;
}

/* The root of the file system mounted at `path`; -1 with errno when none is mounted there. */
static int open_volume(const char *path, struct stat *found) {
  struct stat root;
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return -1;
  if (fstat(fd, found) == 0 && stat("/", &root) == 0 && found->st_dev != root.st_dev) return fd;
  close(fd);
  errno = ENODEV;
  return -1;
}

/* Bytes of the disk with this number; 0 when it is none. */
static unsigned long long disk_bytes(dev_t device) {
  char path[128];
  unsigned long long sectors = 0;
  snprintf(path, sizeof path, "/sys/dev/block/%u:%u/size", major(device), minor(device));
  FILE *size = fopen(path, "re");
  if (size && fscanf(size, "%llu", &sectors) != 1) sectors = 0;
  if (size) fclose(size);
  return sectors * 512;
}

int errand_grow(const struct spec *spec) {
  struct stat found;
  struct statvfs system;
  int fd = open_volume(spec->path, &found);
  if (fd < 0 || fstatvfs(fd, &system) < 0) return complain(spec->path, errno);
  unsigned long long wanted = spec->argc ? strtoull(spec->argv[0], NULL, 10) : 0, bytes = disk_bytes(found.st_dev);
  /* The kernel hears of it some time after the monitor has said so. */
  for (int64_t until = now_ms() + SIZE_WAIT_MS; bytes < wanted && now_ms() < until; bytes = disk_bytes(found.st_dev)) {
    usleep(SIZE_LOOK_US);
  }
  if (!bytes || bytes < wanted) {
    dprintf(2, "%s: its disk has %llu bytes, not yet %llu\n", spec->path, bytes, wanted);
    return 1;
  }
  uint64_t blocks = bytes / system.f_frsize;
  return ioctl(fd, EXT4_RESIZE, &blocks) < 0 ? complain(spec->path, errno) : 0;
}

int errand_sync(const struct spec *spec) {
  if (!strcmp(spec->path, "/")) {
    sync(); /* Of the root and all else. */
    return 0;
  }
  struct stat found;
  int fd = open_volume(spec->path, &found);
  return fd < 0 || syncfs(fd) < 0 ? complain(spec->path, errno) : 0;
}

void print_volume(const char *path) {
  struct stat found;
  struct statvfs system;
  int fd = open_volume(path, &found);
  if (fd < 0 || fstatvfs(fd, &system) < 0) return;
  printf(",\"volume\":{\"blockBytes\":%llu,\"blocks\":%llu,\"blocksFree\":%llu,\"blocksAvailable\":%llu}",
         (unsigned long long)system.f_frsize, (unsigned long long)system.f_blocks, (unsigned long long)system.f_bfree,
         (unsigned long long)system.f_bavail);
  close(fd);
}
