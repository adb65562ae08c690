/* The one main process of this machine: from the message that asks for it to the record of its end. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "spec.h"

enum machine_state { MACHINE_WAITING, MACHINE_RUNNING, MACHINE_ENDING, MACHINE_ENDED };

struct exit_record {
  uint32_t code, signal;
  bool oom;
  int64_t at_ms;
};

/* In a VM, PID 1 also makes the root, the network and the clock, and restarts the VM at the end. */
void machine_begin(bool is_vm);
bool machine_is_vm(void);
enum machine_state machine_state(void);
bool machine_runs(void);
pid_t machine_pid(void);
/* 16 random bytes of this boot. */
const uint8_t *machine_boot_id(void);

/* Returns NULL and keeps the message, or says why not; `users_fault` when the image or the config is to blame. */
const char *machine_start(uint8_t *message, size_t length, bool *users_fault);
void machine_signal(uint32_t number);
/* Signals, and kills after `timeout_ms`. */
void machine_stop(uint32_t number, uint32_t timeout_ms);
void machine_prepare(void);
bool machine_reap(pid_t pid, int status);
const struct exit_record *machine_end(void);
void machine_exit_acked(void);
/* The end is told again to each new host, after all output. */
void machine_new_host(void);

/* For programs run beside it: its environment with `spec`'s on top (to be freed), its folder, its limits. */
char **machine_environment(const struct spec *spec);
const char *machine_workdir(void);
const struct spec_rlimit *machine_rlimits(int *count);
