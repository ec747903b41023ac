/* Ends the process, or fails, at the n-th call that changes files below one folder. Preloaded by fault_runner.py.

   The numbers lie in memory that forked processes share, so that the parent sets them and reads the count. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static struct shared {
    volatile long seen, at;
    volatile int error; /* 0: kill */
    char last[64];
} *shared;

static __thread int inside;

__attribute__((constructor)) static void begin(void) {
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    shared->at = -1;
}

void fault_set(long at, int error) { shared->seen = 0; shared->at = at; shared->error = error; shared->last[0] = 0; }
long fault_seen(void) { return shared->seen; }
const char *fault_last(void) { return shared->last; }

static int below(const char *path) {
    const char *folder = getenv("FAULTS_BELOW");
    return folder && path && strncmp(path, folder, strlen(folder)) == 0;
}

/* Whether this call is to fail. */
static int due(const char *call, const char *path, int fd, int at_fd) {
    char link[64], full[PATH_MAX];
    int result = 0;
    if (inside || !shared) return 0;
    inside = 1;
    if (fd >= 0 || (path && path[0] != '/')) {
        ssize_t length;
        if (fd >= 0 || at_fd >= 0) snprintf(link, sizeof link, "/proc/self/fd/%d", fd >= 0 ? fd : at_fd);
        else strcpy(link, "/proc/self/cwd");
        length = readlink(link, full, sizeof full - 1);
        full[length > 0 ? length : 0] = 0;
        if (fd < 0 && length > 0 && length + strlen(path) + 2 < sizeof full) { strcat(full, "/"); strcat(full, path); }
        path = full;
    }
    if (below(path)) {
        long number = __sync_fetch_and_add(&shared->seen, 1);
        if (number == shared->at) {
            snprintf(shared->last, sizeof shared->last, "%s", call);
            if (shared->error == 0) kill(getpid(), SIGKILL);
            errno = shared->error;
            result = 1;
        }
    }
    inside = 0;
    return result;
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *data, size_t size) { REAL(write); return due("write", NULL, fd, -1) ? -1 : real(fd, data, size); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { REAL(pwrite); return due("pwrite", NULL, fd, -1) ? -1 : real(fd, data, size, at); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { REAL(pwrite64); return due("pwrite", NULL, fd, -1) ? -1 : real(fd, data, size, at); }
int fsync(int fd) { REAL(fsync); return due("fsync", NULL, fd, -1) ? -1 : real(fd); }
int fdatasync(int fd) { REAL(fdatasync); return due("fdatasync", NULL, fd, -1) ? -1 : real(fd); }
int ftruncate(int fd, off_t size) { REAL(ftruncate); return due("ftruncate", NULL, fd, -1) ? -1 : real(fd, size); }
int ftruncate64(int fd, off64_t size) { REAL(ftruncate64); return due("ftruncate", NULL, fd, -1) ? -1 : real(fd, size); }
int truncate(const char *path, off_t size) { REAL(truncate); return due("truncate", path, -1, -1) ? -1 : real(path, size); }
int truncate64(const char *path, off64_t size) { REAL(truncate64); return due("truncate", path, -1, -1) ? -1 : real(path, size); }
int rename(const char *from, const char *to) { REAL(rename); return due("rename", to, -1, -1) ? -1 : real(from, to); }
int renameat(int a, const char *from, int b, const char *to) { REAL(renameat); return due("rename", to, -1, b) ? -1 : real(a, from, b, to); }
int unlink(const char *path) { REAL(unlink); return due("unlink", path, -1, -1) ? -1 : real(path); }
int unlinkat(int at, const char *path, int flags) { REAL(unlinkat); return due("unlink", path, -1, at) ? -1 : real(at, path, flags); }
int rmdir(const char *path) { REAL(rmdir); return due("rmdir", path, -1, -1) ? -1 : real(path); }
int mkdir(const char *path, mode_t mode) { REAL(mkdir); return due("mkdir", path, -1, -1) ? -1 : real(path, mode); }
int mkdirat(int at, const char *path, mode_t mode) { REAL(mkdirat); return due("mkdir", path, -1, at) ? -1 : real(at, path, mode); }
int link(const char *from, const char *to) { REAL(link); return due("link", to, -1, -1) ? -1 : real(from, to); }
int linkat(int a, const char *from, int b, const char *to, int flags) { REAL(linkat); return due("link", to, -1, b) ? -1 : real(a, from, b, to, flags); }
int chmod(const char *path, mode_t mode) { REAL(chmod); return due("chmod", path, -1, -1) ? -1 : real(path, mode); }
int utimensat(int at, const char *path, const struct timespec times[2], int flags) {
    REAL(utimensat);
    return due("utime", path, path ? -1 : at, at) ? -1 : real(at, path, times, flags);
}

#define MODE(flags) mode_t mode = 0; if ((flags) & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }
#define CHANGES(flags) ((flags) & (O_CREAT | O_TRUNC))

int open(const char *path, int flags, ...) { MODE(flags) REAL(open); return CHANGES(flags) && due("open", path, -1, -1) ? -1 : real(path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) REAL(open64); return CHANGES(flags) && due("open", path, -1, -1) ? -1 : real(path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE(flags) REAL(openat); return CHANGES(flags) && due("open", path, -1, at) ? -1 : real(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE(flags) REAL(openat64); return CHANGES(flags) && due("open", path, -1, at) ? -1 : real(at, path, flags, mode); }

FILE *fopen(const char *path, const char *how) { REAL(fopen); return strpbrk(how, "wa+") && due("open", path, -1, -1) ? NULL : real(path, how); }
FILE *fopen64(const char *path, const char *how) { REAL(fopen64); return strpbrk(how, "wa+") && due("open", path, -1, -1) ? NULL : real(path, how); }
size_t fwrite(const void *data, size_t size, size_t count, FILE *file) {
    REAL(fwrite);
    return due("write", NULL, fileno(file), -1) ? 0 : real(data, size, count, file);
}
