#include "spec.h"

#include "bytes.h"

enum tag {
  T_ARGV = 1,
  T_ENV = 2,
  T_USER = 3,
  T_WORKDIR = 4,
  T_HOSTNAME = 5,
  T_HOSTS = 6,
  T_RESOLV_CONF = 7,
  T_FILE = 8,
  T_VOLUME = 9,
  T_ADDRESS = 10,
  T_ROUTE = 11,
  T_TTY = 12,
  T_RLIMIT = 13,
  T_SWAP_MB = 14,
  T_ROOT_DEVICE = 15,
  T_UPPER_DEVICE = 16,
  T_MTU = 17,
  T_SYSCTL = 18,
  T_TIME_NS = 19,
  T_ENTROPY = 20,
  T_TIMEOUT_MS = 21,
  T_KIND = 22,
  T_PATH = 23,
  T_MODE = 24,
  T_CREDIT = 25,
};

struct field {
  uint16_t tag;
  uint32_t length;
  uint8_t *data;
};

static const char *too_many = "a list in the message is too long";

static const char *add_text(char **list, int *count, int max, struct field field) {
  if (*count >= max) return too_many;
  list[(*count)++] = (char *)field.data;
  return NULL;
}

static const char *add_file(struct spec *spec, struct field field) {
  if (spec->files_count >= FILES_MAX) return too_many;
  if (field.length < 14) return "a file field is too short";
  uint16_t path_length = get16(field.data + 12);
  if (14U + path_length >= field.length) return "a file's path is longer than its field";
  if (field.data[14 + path_length] != 0) return "a file's path has no end";
  spec->files[spec->files_count++] = (struct spec_file){
      get32(field.data), get32(field.data + 4), get32(field.data + 8), (char *)field.data + 14,
      field.data + 15 + path_length, field.length - 15 - path_length};
  return NULL;
}

static const char *add_rlimit(struct spec *spec, struct field field) {
  if (spec->rlimits_count >= RLIMITS_MAX) return too_many;
  if (field.length != 20) return "a limit field has the wrong size";
  spec->rlimits[spec->rlimits_count++] =
      (struct spec_rlimit){get32(field.data), get64(field.data + 4), get64(field.data + 12)};
  return NULL;
}

static const char *take_number(uint32_t *into, struct field field) {
  if (field.length != 4) return "a number field has the wrong size";
  *into = get32(field.data);
  return NULL;
}

static const char *take_text(char **into, struct field field) {
  *into = (char *)field.data;
  return NULL;
}

/* Texts are used as C strings: a zero byte inside would hide the rest of them. */
static bool is_text(uint16_t tag) {
  return tag <= T_RESOLV_CONF || (tag >= T_VOLUME && tag <= T_ROUTE) || tag == T_ROOT_DEVICE ||
         tag == T_UPPER_DEVICE || tag == T_SYSCTL || tag == T_PATH;
}

static const char *take_field(struct spec *spec, struct field field) {
  uint32_t number = 0;
  if (is_text(field.tag) && memchr(field.data, 0, field.length)) return "a text has a zero byte in it";
  switch (field.tag) {
    case T_ARGV: return add_text(spec->argv, &spec->argc, ARGV_MAX, field);
    case T_ENV: return add_text(spec->env, &spec->envc, ENV_MAX, field);
    case T_USER: return take_text(&spec->user, field);
    case T_WORKDIR: return take_text(&spec->workdir, field);
    case T_HOSTNAME: return take_text(&spec->hostname, field);
    case T_HOSTS: return take_text(&spec->hosts, field);
    case T_RESOLV_CONF: return take_text(&spec->resolv_conf, field);
    case T_FILE: return add_file(spec, field);
    case T_VOLUME: return add_text(spec->volumes, &spec->volumes_count, VOLUMES_MAX, field);
    case T_ADDRESS: return add_text(spec->addresses, &spec->addresses_count, ADDRESSES_MAX, field);
    case T_ROUTE: return add_text(spec->routes, &spec->routes_count, ADDRESSES_MAX, field);
    case T_TTY:
      if (field.length != 4) return "a terminal field has the wrong size";
      spec->tty = true;
      spec->rows = get16(field.data);
      spec->columns = get16(field.data + 2);
      return NULL;
    case T_RLIMIT: return add_rlimit(spec, field);
    case T_SWAP_MB: return take_number(&spec->swap_mb, field);
    case T_ROOT_DEVICE: return take_text(&spec->root_device, field);
    case T_UPPER_DEVICE: return take_text(&spec->upper_device, field);
    case T_MTU: return take_number(&spec->mtu, field);
    case T_SYSCTL: return add_text(spec->sysctls, &spec->sysctls_count, SYSCTLS_MAX, field);
    case T_TIME_NS:
      if (field.length != 8) return "a time field has the wrong size";
      spec->time_ns = get64(field.data);
      return NULL;
    case T_ENTROPY:
      spec->entropy = field.data;
      spec->entropy_length = field.length;
      return NULL;
    case T_TIMEOUT_MS: return take_number(&spec->timeout_ms, field);
    case T_KIND:
      if (take_number(&number, field) || number > KIND_LAST) return "an unknown kind of stream";
      spec->kind = (enum stream_kind)number;
      return NULL;
    case T_PATH: return take_text(&spec->path, field);
    case T_MODE: return take_number(&spec->mode, field);
    case T_CREDIT: return take_number(&spec->credit, field);
    default: return NULL; /* A newer host may say more. */
  }
}

const char *spec_parse(struct spec *spec, uint8_t *message, size_t length) {
  memset(spec, 0, sizeof *spec);
  size_t at = 0;
  while (at < length) {
    if (length - at < 6) return "the message ends inside a field";
    struct field field = {get16(message + at), get32(message + at + 2), message + at + 6};
    /* The header of this field has been read: its first byte may end the text before it. */
    message[at] = 0;
    if (field.length > length - at - 6) return "a field is longer than its message";
    const char *wrong = take_field(spec, field);
    if (wrong) return wrong;
    at += 6 + field.length;
  }
  message[length] = 0;
  return NULL;
}
