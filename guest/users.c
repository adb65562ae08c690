#include "users.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LINE_BYTES = 16384, FIELDS = 7, FILE_BYTES_MAX = 16 * 1024 * 1024 };

struct entry {
  char line[LINE_BYTES];
  char *fields[FIELDS];
  int count;
};

/* A pipe or an endless device in the place of a list would keep PID 1 for ever: then there is no list. */
static FILE *open_list(const char *path) {
  struct stat found;
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  bool is_list = fd >= 0 && fstat(fd, &found) == 0 && S_ISREG(found.st_mode) && found.st_size <= FILE_BYTES_MAX;
  FILE *file = is_list ? fdopen(fd, "r") : NULL;
  if (fd >= 0 && !file) close(fd);
  return file;
}

/* The next line of a file as "a:b:c"; fields that it lacks are empty. */
static bool next_entry(FILE *file, struct entry *entry) {
  static char empty[1];
  if (!fgets(entry->line, sizeof entry->line, file)) return false;
  entry->line[strcspn(entry->line, "\r\n")] = 0;
  char *rest = entry->line;
  for (int i = 0; i < FIELDS; i++) entry->fields[i] = rest ? strsep(&rest, ":") : empty;
  return true;
}

static bool is_number(const char *text, unsigned *number) {
  if (!*text || strlen(text) > 10 || text[strspn(text, "0123456789")]) return false;
  unsigned long long value = strtoull(text, NULL, 10);
  *number = (unsigned)value;
  return value < 0xffffffffULL;
}

/* Finds the entry whose name, or else whose number in the third field, is `wanted`. */
static bool find_entry(const char *path, const char *wanted, struct entry *entry) {
  unsigned number = 0, own;
  bool numeric = is_number(wanted, &number), found = false;
  for (int by_name = 1; by_name >= 0 && !found; by_name--) {
    FILE *file = by_name || numeric ? open_list(path) : NULL;
    while (file && !found && next_entry(file, entry)) {
      if (!is_number(entry->fields[2], &own)) continue;
      found = by_name ? strcmp(entry->fields[0], wanted) == 0 : own == number;
    }
    if (file) fclose(file);
  }
  return found;
}

static bool is_member(char *members, const char *name) {
  for (char *member; (member = strsep(&members, ","));) {
    if (strcmp(member, name) == 0) return true;
  }
  return false;
}

/* The groups that list the user, as a login would give them. */
static void add_groups(struct user *user, const char *name) {
  struct entry *entry = malloc(sizeof *entry);
  FILE *file = open_list("/etc/group");
  unsigned gid;
  while (entry && file && user->groups_count < USER_GROUPS_MAX && next_entry(file, entry)) {
    if (!is_number(entry->fields[2], &gid) || !is_member(entry->fields[3], name)) continue;
    user->groups[user->groups_count++] = gid;
  }
  if (file) fclose(file);
  free(entry);
}

static const char *say_missing(const char *what, const char *name, const char *file) {
  static char words[400];
  snprintf(words, sizeof words, "the image has no %s \"%.200s\" in %s; use one that it has, or a number", what, name, file);
  return words;
}

static const char *find_user(struct user *user, char *wanted, const char *group, struct entry *entry) {
  unsigned number = 0, gid = 0;
  bool numeric = is_number(wanted, &number);
  bool found = find_entry("/etc/passwd", wanted, entry);
  if (!found && !numeric) return say_missing("user", wanted, "/etc/passwd");
  user->uid = number;
  if (found) {
    if (is_number(entry->fields[2], &number)) user->uid = number;
    if (is_number(entry->fields[3], &gid)) user->gid = gid;
    snprintf(user->home, sizeof user->home, "%s", *entry->fields[5] ? entry->fields[5] : "/");
    if (!*group) add_groups(user, entry->fields[0]);
  } else {
    strcpy(user->home, user->uid == 0 ? "/root" : "/");
  }
  if (!*group) return NULL;
  numeric = is_number(group, &gid);
  if (find_entry("/etc/group", group, entry)) is_number(entry->fields[2], &gid);
  else if (!numeric) return say_missing("group", group, "/etc/group");
  user->gid = gid;
  return NULL;
}

const char *user_find(struct user *user, const char *wanted) {
  memset(user, 0, sizeof *user);
  char name[256];
  if (snprintf(name, sizeof name, "%s", wanted && *wanted ? wanted : "0") >= (int)sizeof name) {
    return "the name of the user is too long";
  }
  char *group = strchr(name, ':');
  if (group) *group++ = 0;
  struct entry *entry = malloc(sizeof *entry);
  if (!entry) return "no memory to read /etc/passwd";
  const char *wrong = find_user(user, *name ? name : strcpy(name, "0"), group ? group : "", entry);
  free(entry);
  return wrong;
}
