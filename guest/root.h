/* The root of a VM: the image read-only, a disk above it for what is written, volumes, and the kernel's own trees. */
#pragma once
#include "spec.h"

/* What PID 1 needs before it can hear a host: /proc, /sys, /dev and the kernel modules of the initramfs. */
void root_early(void);
/*
 * Builds the machine's root and moves into it, once, and mounts the volumes. Returns NULL, or words: then no volume is
 * mounted, and it may be called again.
 */
const char *root_make(const struct spec *spec);
/* Of a spec that was made and comes to nothing. */
void root_unmount_volumes(const struct spec *spec);
/* The end: nothing that was written may be lost. */
void root_unmount(const struct spec *spec);
/* "net.ipv4.ip_forward=1" */
void sysctl_set(const char *assignment);
