#include "oom.h"

#include <stdio.h>

uint64_t oom_kills(void) {
  FILE *file = fopen("/proc/vmstat", "re");
  char line[128];
  unsigned long long kills = 0;
  while (file && fgets(line, sizeof line, file)) {
    if (sscanf(line, "oom_kill %llu", &kills) == 1) break;
  }
  if (file) fclose(file);
  return kills;
}
