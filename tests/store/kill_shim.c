/* Counts the calls that change files, and at a chosen one kills the process or says that the disk is full.

   gcc -shared -fPIC -O1 -o kill_shim.so kill_shim.c -ldl ; LD_PRELOAD=./kill_shim.so ; arm() by ctypes. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { OFF, COUNT, KILL, TEAR, FULL };
#define LIMIT 20000

static volatile int mode = OFF;
static long target, count, grain;
static char kinds[LIMIT][16];
static long tearable[LIMIT];

void arm(int how, long at, long grain_bytes) { target = at; count = 0; grain = grain_bytes; mode = how; }
long counted(void) { return count; }
const char *kind_of(long i) { return kinds[i]; }
long tear_of(long i) { return tearable[i]; }

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int is_file(int fd) {
    struct stat s;
    return fd > 2 && fstat(fd, &s) == 0 && S_ISREG(s.st_mode) && s.st_nlink > 0; /* not memory */
}

/* Bytes of a write that reach the file when it is torn in the middle: up to a multiple of `grain` in the file. */
static long torn_part(long offset, long size) {
    if (grain <= 0) return 0;
    long middle = (offset + size / 2 + grain - 1) / grain * grain;
    long part = middle - offset;
    if (part >= size) part -= grain;
    return part > 0 ? part : 0;
}

/* 1 where the call must fail for want of space; does not return where it must kill. */
static int step(const char *kind, long torn, int grows, int fd, const void *data, long offset) {
    if (mode == OFF) return 0;
    long i = count++;
    if (i < LIMIT) { strncpy(kinds[i], kind, 15); tearable[i] = torn; }
    if (mode == FULL) return i >= target && grows;
    if (i != target || mode == COUNT) return 0;
    if (mode == TEAR && torn > 0 && REAL(pwrite64)(fd, data, torn, offset) != torn) _exit(99);
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

static int write_step(const char *kind, int fd, const void *data, long size, long offset) {
    struct stat s;
    fstat(fd, &s);
    return step(kind, torn_part(offset, size), offset + size > s.st_size, fd, data, offset);
}

static ssize_t full(void) { errno = ENOSPC; return -1; }

ssize_t write(int fd, const void *data, size_t size) {
    if (mode && is_file(fd) && write_step("write", fd, data, size, lseek(fd, 0, SEEK_CUR))) return full();
    return REAL(write)(fd, data, size);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    if (mode && is_file(fd) && write_step("pwrite", fd, data, size, offset)) return full();
    return REAL(pwrite64)(fd, data, size, offset);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return pwrite64(fd, data, size, offset); }

static int truncate_step(int fd, long size) {
    struct stat s;
    return is_file(fd) && fstat(fd, &s) == 0 && step("ftruncate", 0, size > s.st_size, fd, 0, 0);
}
int ftruncate64(int fd, off64_t size) {
    return mode && truncate_step(fd, size) ? (int)full() : REAL(ftruncate64)(fd, size);
}
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }
int posix_fallocate64(int fd, off64_t offset, off64_t size) {
    return mode && is_file(fd) && step("fallocate", 0, 1, fd, 0, 0) ? ENOSPC : REAL(posix_fallocate64)(fd, offset, size);
}
int posix_fallocate(int fd, off_t offset, off_t size) { return posix_fallocate64(fd, offset, size); }

int rename(const char *from, const char *to) {
    if (mode) step("rename", 0, 0, -1, 0, 0);
    return REAL(rename)(from, to);
}
int unlink(const char *path) {
    if (mode && access(path, F_OK) == 0) step("unlink", 0, 0, -1, 0, 0);
    return REAL(unlink)(path);
}
int fsync(int fd) {
    if (mode && is_file(fd)) step("fsync", 0, 0, -1, 0, 0);
    return REAL(fsync)(fd);
}

static void open_step(int flags) {
    if (mode && (flags & (O_CREAT | O_TRUNC)) && (flags & O_ACCMODE) != O_RDONLY) step("open", 0, 0, -1, 0, 0);
}
#define OPEN(name)                                                  \
    int name(const char *path, int flags, ...) {                    \
        va_list args;                                               \
        va_start(args, flags);                                      \
        mode_t bits = flags & O_CREAT ? va_arg(args, mode_t) : 0;   \
        va_end(args);                                               \
        open_step(flags);                                           \
        return REAL(name)(path, flags, bits);                       \
    }
OPEN(open)
OPEN(open64)
