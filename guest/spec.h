/* What a RUN or OPEN message asks for. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SPEC_RUN_BYTES_MAX (16 * 1024 * 1024)
#define SPEC_OPEN_BYTES_MAX (512 * 1024)

enum {
  ARGV_MAX = 4096,
  ENV_MAX = 8192,
  FILES_MAX = 1024,
  VOLUMES_MAX = 32,
  ADDRESSES_MAX = 32,
  RLIMITS_MAX = 16,
  SYSCTLS_MAX = 64,
  GROUPS_MAX = 64,
};

enum stream_kind { KIND_PROGRAM, KIND_COPY_IN, KIND_COPY_OUT, KIND_PS, KIND_METRICS, KIND_GROW, KIND_SYNC, KIND_LAST = KIND_SYNC };

struct spec_file {
  uint32_t mode, uid, gid;
  char *path;
  const uint8_t *content;
  uint32_t length;
};

struct spec_rlimit {
  uint32_t resource;
  uint64_t soft, hard;
};

/* All strings end with a zero byte and lie in the message that was parsed, which must outlive this. */
struct spec {
  char *argv[ARGV_MAX + 1];
  int argc;
  char *env[ENV_MAX + 1];
  int envc;
  char *user, *workdir, *hostname, *hosts, *resolv_conf, *path;
  char *root_device, *upper_device;
  struct spec_file files[FILES_MAX];
  int files_count;
  char *volumes[VOLUMES_MAX];   /* "/dev/vdc /data" */
  int volumes_count;
  char *addresses[ADDRESSES_MAX]; /* "eth0 fdaa::2/112" */
  int addresses_count;
  char *routes[ADDRESSES_MAX];  /* "eth0 ::/0 fdaa::1", "eth0 10.0.0.1/32 -" */
  int routes_count;
  struct spec_rlimit rlimits[RLIMITS_MAX];
  int rlimits_count;
  char *sysctls[SYSCTLS_MAX];   /* "net.ipv4.ip_forward=0" */
  int sysctls_count;
  bool tty;
  uint16_t rows, columns;
  uint32_t swap_mb, mtu, timeout_ms, mode, credit;
  uint64_t time_ns;
  const uint8_t *entropy;
  uint32_t entropy_length;
  enum stream_kind kind;
};

/*
 * Parses `length` bytes at `message`, which has room for one more. Returns NULL, or what is wrong with it. Writes zero
 * bytes into the message to end the strings.
 */
const char *spec_parse(struct spec *spec, uint8_t *message, size_t length);
