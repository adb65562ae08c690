#include "root.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "files.h"
#include "handle.h"
#include "loop.h"

#define FIXED (MS_NOSUID | MS_NOEXEC | MS_NODEV)

enum { DEVICE_WAIT_MS = 5000, DEVICE_LOOK_US = 2000, SWAP_PAGE = 4096, BUSY_TRIES = 50 };

static bool root_made;      /* The root outlives a RUN that failed: the next one has the same disks. */
static int volumes_mounted; /* Of the spec, in its order. */
static int upper_folder = -1; /* Hidden below the machine's root: held to be made whole at the end. */

static const char *say(const char *what, const char *thing) {
  static char words[500];
  snprintf(words, sizeof words, "%s %.200s: %s", what, thing, strerror(errno));
  return words;
}

static void mount_kernel(const char *type, const char *at, unsigned long flags, const char *options) {
  folder_make(at, 0755);
  if (mount(type, at, type, flags, options) < 0 && errno != EBUSY) note("%s", say("cannot mount", at));
}

static int is_module(const struct dirent *entry) { return strstr(entry->d_name, ".ko") != NULL; }

/* In the order of their names. One that the kernel has built in, or that this machine does not need, may fail. */
static void load_modules(void) {
  struct dirent **names;
  int count = scandir("/modules", &names, is_module, alphasort);
  for (int i = 0; i < count; i++) {
    char path[300];
    snprintf(path, sizeof path, "/modules/%s", names[i]->d_name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST)) note("%s", say("cannot load", path));
    if (fd >= 0) close(fd);
    unlink(path); /* The initramfs is memory. */
    free(names[i]);
  }
  if (count >= 0) free(names);
}

void root_early(void) {
  mount_kernel("proc", "/proc", FIXED, NULL);
  mount_kernel("sysfs", "/sys", FIXED, NULL);
  mount_kernel("devtmpfs", "/dev", MS_NOSUID, "mode=0755");
  load_modules();
}

/* A disk appears some time after its driver. */
static bool wait_for_device(const char *path) {
  for (int64_t until = now_ms() + DEVICE_WAIT_MS; now_ms() < until; usleep(DEVICE_LOOK_US)) {
    if (access(path, F_OK) == 0) return true;
  }
  errno = ENODEV;
  return false;
}

/* A swap file of whole pages, as mkswap writes it. */
static void make_swap(uint32_t megabytes) {
  static const char path[] = "/upper/swap";
  uint32_t header[3] = {1, megabytes * (1024 * 1024 / SWAP_PAGE) - 1, 0};
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  bool made = fd >= 0 && fallocate(fd, 0, 0, (off_t)megabytes << 20) == 0 &&
              ftruncate(fd, (off_t)megabytes << 20) == 0 &&
              pwrite(fd, header, sizeof header, 1024) == sizeof header &&
              pwrite(fd, "SWAPSPACE2", 10, SWAP_PAGE - 10) == 10 && fsync(fd) == 0 && swapon(path, 0) == 0;
  if (!made) note("%s", say("no swap:", path));
  if (fd >= 0) close(fd);
}

static const char *mount_upper(const struct spec *spec) {
  folder_make("/upper", 0755);
  if (spec->upper_device && *spec->upper_device) {
    if (!wait_for_device(spec->upper_device)) return say("no disk for what the machine writes:", spec->upper_device);
    if (mount(spec->upper_device, "/upper", "ext4", MS_NOATIME, NULL) < 0) return say("cannot mount", spec->upper_device);
  } else if (mount("tmpfs", "/upper", "tmpfs", 0, "mode=0755") < 0) {
    return say("cannot mount", "/upper");
  }
  if (spec->swap_mb) make_swap(spec->swap_mb);
  else unlink("/upper/swap"); /* Of an earlier start, on a disk that is kept. */
  upper_folder = open("/upper", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  folder_make("/upper/files", 0755);
  folder_make("/upper/work", 0755);
  return NULL;
}

static const char *mount_root(const struct spec *spec) {
  const char *image = spec->root_device && *spec->root_device ? spec->root_device : "/dev/vda";
  folder_make("/image", 0755);
  folder_make("/root", 0755);
  if (!wait_for_device(image)) return say("no disk with the image:", image);
  if (mount(image, "/image", "squashfs", MS_RDONLY, NULL) < 0) return say("cannot mount the image", image);
  const char *wrong = mount_upper(spec);
  if (wrong) return wrong;
  if (mount("overlay", "/root", "overlay", 0, "lowerdir=/image,upperdir=/upper/files,workdir=/upper/work") < 0) {
    return say("cannot mount", "the machine's root");
  }
  return NULL;
}

/* The image's own folder by that name is hidden; something else by that name gives way. */
static const char *move_into_root(const char *from, const char *to) {
  struct stat found;
  if (lstat(to, &found) < 0 || !S_ISDIR(found.st_mode)) {
    unlink(to);
    if (mkdir(to, 0755) < 0) return say("cannot make", to);
  }
  return mount(from, to, NULL, MS_MOVE, NULL) < 0 ? say("cannot move", from) : NULL;
}

static const char *switch_root(void) {
  const char *wrong = move_into_root("/dev", "/root/dev");
  if (!wrong) wrong = move_into_root("/proc", "/root/proc");
  if (!wrong) wrong = move_into_root("/sys", "/root/sys");
  if (wrong) return wrong;
  unlink("/init");
  if (chdir("/root") < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0) {
    return say("cannot move into", "the machine's root");
  }
  return NULL;
}

static void mount_system(void) {
  mount_kernel("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "ptmxmode=0666,mode=0620,gid=5");
  mount_kernel("tmpfs", "/dev/shm", FIXED, "mode=1777,size=50%");
  mount_kernel("mqueue", "/dev/mqueue", FIXED, NULL);
  mount_kernel("cgroup2", "/sys/fs/cgroup", FIXED, NULL);
  static const char *links[][2] = {{"/proc/self/fd", "/dev/fd"}, {"/proc/self/fd/0", "/dev/stdin"},
                                   {"/proc/self/fd/1", "/dev/stdout"}, {"/proc/self/fd/2", "/dev/stderr"}};
  for (size_t i = 0; i < sizeof links / sizeof *links; i++) (void)!symlink(links[i][0], links[i][1]);
  folder_make("/run", 0755);
  if (access("/tmp", F_OK) < 0) folder_make("/tmp", 01777);
}

/* "DEVICE PATH"; a file system that is smaller than its disk, as after an extension while stopped, is grown. */
static const char *mount_volume(const char *words) {
  char device[128], path[4096];
  if (sscanf(words, "%127s %4095[^\n]", device, path) != 2) return say("cannot understand the volume", words);
  if (!wait_for_device(device)) return say("no disk for the volume", path);
  int because = folder_make(path, 0755);
  errno = because;
  if (because) return say("cannot make the folder of the volume", path);
  if (mount(device, path, "ext4", MS_NOATIME | MS_NODEV | MS_NOSUID, NULL) < 0) return say("cannot mount the volume", path);
  return NULL;
}

/*
 * A kernel that is almost out of memory can spend its time on reading the same program pages again and again, for ever and
 * without an end in sight. With this, what was used within the last second stays, and when that is too much something dies.
 */
static void end_thrashing(void) {
  static const char *settings[][2] = {{"/sys/kernel/mm/lru_gen/enabled", "y"}, {"/sys/kernel/mm/lru_gen/min_ttl_ms", "1000"}};
  for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
    int fd = open(settings[i][0], O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write_all(fd, settings[i][1], strlen(settings[i][1]))) note("%s", say("cannot set", settings[i][0]));
    if (fd >= 0) close(fd);
  }
}

/* What was mounted before the move into the root: the next RUN mounts it again. */
static void unmount_root(void) {
  umount2("/root", 0);
  swapoff("/upper/swap");
  if (upper_folder >= 0) close(upper_folder);
  upper_folder = -1;
  umount2("/upper", 0);
  umount2("/image", 0);
}

static const char *make_once(const struct spec *spec) {
  const char *wrong = mount_root(spec);
  if (wrong) {
    unmount_root();
    return wrong;
  }
  wrong = switch_root();
  if (wrong) return wrong;
  mount_system();
  end_thrashing();
  root_made = true;
  return NULL;
}

const char *root_make(const struct spec *spec) {
  const char *wrong = root_made ? NULL : make_once(spec);
  volumes_mounted = 0;
  while (!wrong && volumes_mounted < spec->volumes_count) {
    wrong = mount_volume(spec->volumes[volumes_mounted]);
    if (!wrong) volumes_mounted++;
  }
  if (wrong) root_unmount_volumes(spec);
  return wrong;
}

/* A process that could not become the command may be on its way out. */
static bool unmount_when_idle(const char *path) {
  for (int tries = 0; tries < BUSY_TRIES; tries++, usleep(DEVICE_LOOK_US)) {
    if (umount2(path, 0) == 0) return true;
  }
  return false;
}

void root_unmount_volumes(const struct spec *spec) {
  while (volumes_mounted > 0) {
    const char *path = strchr(spec->volumes[--volumes_mounted], ' ');
    if (!path || unmount_when_idle(++path)) continue;
    mount(NULL, path, NULL, MS_REMOUNT | MS_RDONLY, NULL);
    umount2(path, MNT_DETACH);
  }
}

void root_unmount(const struct spec *spec) {
  sync();
  root_unmount_volumes(spec);
  if (upper_folder < 0) return;
  syncfs(upper_folder);
  ioctl(upper_folder, FIFREEZE, 0); /* Whole on its disk, as after an unmount. */
}

void sysctl_set(const char *assignment) {
  char path[200] = "/proc/sys/";
  size_t at = strlen(path), name = strcspn(assignment, "=");
  if (!assignment[name] || name + at >= sizeof path) return;
  for (size_t i = 0; i < name; i++) path[at + i] = assignment[i] == '.' ? '/' : assignment[i];
  const char *value = assignment + name + 1;
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0 || write_all(fd, value, strlen(value))) note("%s", say("cannot set", assignment));
  if (fd >= 0) close(fd);
}
