#include "clock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "handle.h"
#include "loop.h"
#include "machine.h"

enum { STEP_MS = 100, ENTROPY_MAX = 1024 };

void clock_set(uint64_t nanoseconds) {
  if (!nanoseconds || !machine_is_vm()) return;
  int64_t off_ms = (int64_t)(nanoseconds / 1000000) - wall_ms();
  if (off_ms < STEP_MS && off_ms > -STEP_MS) return;
  struct timespec time = {(time_t)(nanoseconds / 1000000000), (long)(nanoseconds % 1000000000)};
  if (clock_settime(CLOCK_REALTIME, &time) < 0) note("the clock could not be set: %s", strerror(errno));
}

void entropy_add(const uint8_t *data, size_t length) {
  if (!length || length > ENTROPY_MAX || !machine_is_vm()) return;
  struct rand_pool_info *pool = malloc(sizeof *pool + length);
  int fd = open("/dev/random", O_RDWR | O_CLOEXEC);
  if (pool && fd >= 0) {
    pool->entropy_count = (int)(length * 8);
    pool->buf_size = (int)length;
    memcpy(pool->buf, data, length);
    if (ioctl(fd, RNDADDENTROPY, pool) < 0 || ioctl(fd, RNDRESEEDCRNG) < 0) {
      note("the random numbers could not be seeded: %s", strerror(errno));
    }
  }
  if (fd >= 0) close(fd);
  free(pool);
}
