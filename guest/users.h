/* Users and groups by name or number, from the image's own files; nothing of a C library's name service. */
#pragma once
#include <sys/types.h>

enum { USER_GROUPS_MAX = 64 };

struct user {
  uid_t uid;
  gid_t gid;
  gid_t groups[USER_GROUPS_MAX];
  int groups_count;
  char home[256];
};

/* `name|uid[:group|gid]`; NULL or empty is root. Returns NULL, or words for a person. */
const char *user_find(struct user *user, const char *wanted);
