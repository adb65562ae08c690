#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "errands.h"

enum { SOCKETS_MAX = 1024, PROCESSES_MAX = 1000, DESCRIPTORS_MAX = 4096, COMMAND_BYTES = 4096 };

struct listening {
  unsigned long long inode;
  const char *proto;
  char address[64];
};

static struct listening sockets[SOCKETS_MAX];
static int sockets_count;

static int by_number(const struct dirent **a, const struct dirent **b) { return atoi((*a)->d_name) - atoi((*b)->d_name); }
static int is_pid(const struct dirent *entry) { return isdigit((unsigned char)entry->d_name[0]); }

/* A file of /proc as bytes; the length, or -1. */
static ssize_t read_proc(const char *pid, const char *name, char *into, size_t size) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%.16s/%.16s", pid, name);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t got = fd < 0 ? -1 : read(fd, into, size - 1);
  if (fd >= 0) close(fd);
  if (got >= 0) into[got] = 0;
  return got;
}

static void print_json(const char *text, size_t length) {
  putchar('"');
  for (size_t i = 0; i < length; i++) {
    unsigned char c = (unsigned char)text[i];
    if (c == '"' || c == '\\') printf("\\%c", c);
    else if (c < 32) printf("\\u%04x", c);
    else putchar(c);
  }
  putchar('"');
}

/* "0100007F:1F90" of /proc/net: words of the machine's byte order. */
static void print_address(const char *hex, char *into, size_t size) {
  uint32_t words[4] = {0};
  unsigned port = 0;
  char text[INET6_ADDRSTRLEN] = "?";
  bool v6 = strcspn(hex, ":") == 32;
  for (int i = 0; i < (v6 ? 4 : 1); i++) sscanf(hex + (size_t)i * 8, "%8x", &words[i]);
  sscanf(hex + strcspn(hex, ":"), ":%x", &port);
  inet_ntop(v6 ? AF_INET6 : AF_INET, words, text, sizeof text);
  snprintf(into, size, v6 ? "[%s]:%u" : "%s:%u", text, port);
}

static void read_table(const char *table, const char *proto, unsigned wanted_state) {
  char path[32], line[512], local[64];
  unsigned state;
  snprintf(path, sizeof path, "/proc/net/%s", table);
  FILE *file = fopen(path, "re");
  while (file && sockets_count < SOCKETS_MAX && fgets(line, sizeof line, file)) {
    struct listening *socket = &sockets[sockets_count];
    if (sscanf(line, " %*d: %63s %*s %x %*s %*s %*s %*s %*s %llu", local, &state, &socket->inode) != 3) continue;
    if (state != wanted_state || !socket->inode) continue;
    socket->proto = proto;
    print_address(local, socket->address, sizeof socket->address);
    sockets_count++;
  }
  if (file) fclose(file);
}

static void print_sockets(const char *pid) {
  char path[300], target[64];
  snprintf(path, sizeof path, "/proc/%.16s/fd", pid);
  DIR *folder = opendir(path);
  int printed = 0, looked = 0;
  for (struct dirent *entry; folder && looked++ < DESCRIPTORS_MAX && (entry = readdir(folder));) {
    snprintf(path, sizeof path, "/proc/%.16s/fd/%.20s", pid, entry->d_name);
    ssize_t got = readlink(path, target, sizeof target - 1);
    unsigned long long inode = 0;
    if (got <= 0 || (target[got] = 0, sscanf(target, "socket:[%llu]", &inode) != 1)) continue;
    for (int i = 0; i < sockets_count; i++) {
      if (sockets[i].inode != inode) continue;
      printf("%s{\"proto\":\"%s\",\"address\":\"%s\"}", printed++ ? "," : "", sockets[i].proto, sockets[i].address);
    }
  }
  if (folder) closedir(folder);
}

static bool print_process(const char *pid, double uptime, bool is_first) {
  char stat[1024], command[COMMAND_BYTES], path[64], directory[PATH_MAX];
  unsigned long long user, system, start;
  long long pages;
  ssize_t length = read_proc(pid, "cmdline", command, sizeof command);
  if (read_proc(pid, "stat", stat, sizeof stat) < 0 || length < 0) return false;
  char *fields = strrchr(stat, ')');
  if (!fields || sscanf(fields, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d %*d %*d %*d %*d %llu %*u %lld",
                        &user, &system, &start, &pages) != 4) {
    return false;
  }
  while (length > 0 && (!command[length - 1] || command[length - 1] == ' ')) length--;
  for (ssize_t i = 0; i < length; i++) command[i] = command[i] ? command[i] : ' ';
  snprintf(path, sizeof path, "/proc/%.16s/cwd", pid);
  ssize_t place = readlink(path, directory, sizeof directory);
  double ticks = (double)sysconf(_SC_CLK_TCK), seconds = uptime - (double)start / ticks;
  if (seconds < 0) seconds = 0;
  printf("%s{\"pid\":%s,\"stime\":%llu,\"rtime\":%.0f,\"cpu\":%.0f,\"rss\":%lld,\"command\":", is_first ? "" : ",", pid,
         (unsigned long long)((double)system / ticks), seconds,
         seconds > 0 ? 100 * (double)(user + system) / ticks / seconds : 0.0, pages * sysconf(_SC_PAGESIZE));
  print_json(command, (size_t)length);
  printf(",\"directory\":");
  print_json(directory, place > 0 ? (size_t)place : 0);
  printf(",\"listen_sockets\":[");
  print_sockets(pid);
  printf("]}");
  return true;
}

int errand_ps(const struct spec *spec) {
  (void)spec;
  static const char *tables[][2] = {{"tcp", "tcp"}, {"tcp6", "tcp"}, {"udp", "udp"}, {"udp6", "udp"}};
  for (int i = 0; i < 4; i++) read_table(tables[i][0], tables[i][1], i < 2 ? 10 : 7);
  double uptime = 0;
  FILE *file = fopen("/proc/uptime", "re");
  if (!file || fscanf(file, "%lf", &uptime) != 1) return 1;
  struct dirent **pids;
  int count = scandir("/proc", &pids, is_pid, by_number), printed = 0;
  printf("[");
  for (int i = 0; i < count && printed < PROCESSES_MAX; i++) {
    if (atoi(pids[i]->d_name) != (int)getpid() && print_process(pids[i]->d_name, uptime, !printed)) printed++;
  }
  printf("]\n");
  return fflush(stdout) == 0 ? 0 : 1;
}
