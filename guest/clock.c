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
  static int random = -1; /* Stays open: after a resume somebody waits. */
  static struct {
    struct rand_pool_info head;
    uint8_t data[ENTROPY_MAX];
  } pool;
  if (random < 0) random = open("/dev/random", O_RDWR | O_CLOEXEC);
  pool.head.entropy_count = (int)(length * 8);
  pool.head.buf_size = (int)length;
  memcpy(pool.head.buf, data, length);
  if (ioctl(random, RNDADDENTROPY, &pool) < 0 || ioctl(random, RNDRESEEDCRNG) < 0) {
    note("the random numbers could not be seeded: %s", strerror(errno));
  }
}
