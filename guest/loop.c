#include "loop.h"

#include <limits.h>
#include <poll.h>
#include <time.h>

enum { WATCHES_MAX = 256, ROUND_MS_MAX = 60000 };

static struct pollfd watched[WATCHES_MAX];
static struct {
  ready_function ready;
  void *context;
} callbacks[WATCHES_MAX];
static int watches;
static int64_t wake_at = INT64_MAX;

static int64_t clock_ms(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

int64_t now_ms(void) { return clock_ms(CLOCK_MONOTONIC); }
int64_t wall_ms(void) { return clock_ms(CLOCK_REALTIME); }

void loop_watch(int fd, short events, ready_function ready, void *context) {
  if (fd < 0 || watches == WATCHES_MAX) return;
  watched[watches] = (struct pollfd){.fd = fd, .events = events};
  callbacks[watches].ready = ready;
  callbacks[watches++].context = context;
}

void loop_deadline(int64_t at_ms) {
  if (at_ms < wake_at) wake_at = at_ms;
}

void loop_round(void) {
  int64_t wait = wake_at == INT64_MAX ? ROUND_MS_MAX : wake_at - now_ms();
  if (wait < 0) wait = 0;
  if (wait > ROUND_MS_MAX) wait = ROUND_MS_MAX;
  int count = watches;
  int ready = poll(watched, (nfds_t)count, (int)wait);
  watches = 0;
  wake_at = INT64_MAX;
  for (int i = 0; ready > 0 && i < count; i++) {
    if (watched[i].revents) callbacks[i].ready(callbacks[i].context, watched[i].revents);
  }
}
