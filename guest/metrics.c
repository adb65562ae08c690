#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "errands.h"
#include "oom.h"

/* Kibibytes of one line of /proc/meminfo. */
static unsigned long long memory(const char *name) {
  FILE *file = fopen("/proc/meminfo", "re");
  char line[128];
  unsigned long long value = 0;
  size_t length = strlen(name);
  while (file && fgets(line, sizeof line, file)) {
    if (strncmp(line, name, length) != 0 || line[length] != ':') continue;
    sscanf(line + length + 1, "%llu", &value);
    break;
  }
  if (file) fclose(file);
  return value * 1024;
}

/* Processor time that was spent on anything, of all processors. */
static unsigned long long busy_usec(void) {
  unsigned long long user = 0, nice = 0, system = 0, irq = 0, soft = 0;
  FILE *file = fopen("/proc/stat", "re");
  if (file && fscanf(file, "cpu %llu %llu %llu %*u %*u %llu %llu", &user, &nice, &system, &irq, &soft) != 5) user = 0;
  if (file) fclose(file);
  return (user + nice + system + irq + soft) * 1000000 / (unsigned long long)sysconf(_SC_CLK_TCK);
}

int errand_metrics(const struct spec *spec) {
  double loads[3] = {0}, uptime = 0;
  unsigned processes = 0;
  FILE *file = fopen("/proc/loadavg", "re");
  if (!file || fscanf(file, "%lf %lf %lf", &loads[0], &loads[1], &loads[2]) != 3) return 1;
  file = fopen("/proc/uptime", "re");
  if (!file || fscanf(file, "%lf", &uptime) != 1) return 1;
  DIR *proc = opendir("/proc");
  for (struct dirent *entry; proc && (entry = readdir(proc));) processes += atoi(entry->d_name) > 0;
  struct statvfs root = {0};
  statvfs("/", &root);
  printf("{\"cpuUsec\":%llu,\"uptimeMs\":%.0f,\"load\":[%.2f,%.2f,%.2f],\"processes\":%u,\"oomKills\":%llu,", busy_usec(),
         uptime * 1000, loads[0], loads[1], loads[2], processes ? processes - 1 : 0, (unsigned long long)oom_kills());
  printf("\"memoryTotalBytes\":%llu,\"memoryAvailableBytes\":%llu,\"swapTotalBytes\":%llu,\"swapFreeBytes\":%llu,",
         memory("MemTotal"), memory("MemAvailable"), memory("SwapTotal"), memory("SwapFree"));
  printf("\"rootTotalBytes\":%llu,\"rootFreeBytes\":%llu", (unsigned long long)root.f_blocks * root.f_frsize,
         (unsigned long long)root.f_bavail * root.f_frsize);
  if (spec->path) print_volume(spec->path);
  printf("}\n");
  return fflush(stdout) == 0 ? 0 : 1;
}
