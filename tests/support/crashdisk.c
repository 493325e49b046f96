/* Notes every change of files below $CRASHDISK_FOLDER, in order, into the file $CRASHDISK_LOG: what a disk is asked to do.
 *
 * Loaded with LD_PRELOAD. With $CRASHDISK_FAIL=CALL:NUMBER:ERRNO the numbered call (from 1; CALL is sync or write) on a
 * log of SQLite (a name that ends in -wal) fails once, without being carried out. crashdisk.py reads the notes:
 * operation, four bytes of path length, path, eight bytes of offset, four bytes of length, data; all little-endian.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int notes = -2;
static int writes_seen, syncs_seen;

static int path_of(int file, char *path, size_t size) {
    const char *folder = getenv("CRASHDISK_FOLDER");
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, size - 1);
    if (folder == NULL || length < 0) return 0;
    path[length] = 0;
    return strncmp(path, folder, strlen(folder)) == 0;
}

static void put(const void *data, size_t size) {
    while (size > 0) {
        ssize_t done = syscall(SYS_write, notes, data, size);
        if (done < 0) abort();
        data = (const char *)data + done;
        size -= (size_t)done;
    }
}

static void note(char operation, const char *path, int64_t offset, const void *data, uint32_t size) {
    uint32_t path_size = (uint32_t)strlen(path);
    pthread_mutex_lock(&lock);
    if (notes == -2) {
        const char *name = getenv("CRASHDISK_LOG");
        notes = name ? (int)syscall(SYS_openat, AT_FDCWD, name, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600) : -1;
    }
    if (notes >= 0) {
        put(&operation, 1);
        put(&path_size, 4);
        put(path, path_size);
        put(&offset, 8);
        put(&size, 4);
        if (data != NULL) put(data, size);
    }
    pthread_mutex_unlock(&lock);
}

static int fails(const char *call, const char *path, int *seen) {
    const char *wish = getenv("CRASHDISK_FAIL");
    size_t length = strlen(path), name = strlen(call);
    int number, code;
    if (wish == NULL || length < 4 || strcmp(path + length - 4, "-wal") != 0) return 0;
    if (strncmp(wish, call, name) != 0 || sscanf(wish + name, ":%d:%d", &number, &code) != 2) return 0;
    if (++*seen != number) return 0;
    errno = code;
    return 1;
}

static ssize_t written(int file, const void *data, size_t size, int64_t offset) {
    char path[4096];
    int ours = path_of(file, path, sizeof path);
    if (ours && fails("write", path, &writes_seen)) return -1;
    int64_t where = offset >= 0 ? offset : (int64_t)lseek(file, 0, SEEK_CUR);
    if (ours && offset < 0 && (fcntl(file, F_GETFL) & O_APPEND)) where = -1;
    ssize_t done = offset >= 0 ? syscall(SYS_pwrite64, file, data, size, offset) : syscall(SYS_write, file, data, size);
    if (ours && done > 0) note('w', path, where, data, (uint32_t)done);
    return done;
}

ssize_t write(int file, const void *data, size_t size) { return written(file, data, size, -1); }
ssize_t pwrite(int file, const void *data, size_t size, off_t offset) { return written(file, data, size, offset); }
ssize_t pwrite64(int file, const void *data, size_t size, off64_t offset) { return written(file, data, size, offset); }

static int cut(int file, int64_t size) {
    char path[4096];
    int done = (int)syscall(SYS_ftruncate, file, size);
    if (done == 0 && path_of(file, path, sizeof path)) note('t', path, size, NULL, 0);
    return done;
}

int ftruncate(int file, off_t size) { return cut(file, size); }
int ftruncate64(int file, off64_t size) { return cut(file, size); }

static int synced(int file, long call) {
    char path[4096];
    int ours = path_of(file, path, sizeof path);
    if (ours && fails("sync", path, &syncs_seen)) return -1;
    int done = (int)syscall(call, file);
    if (ours && done == 0) note('s', path, 0, NULL, 0);
    return done;
}

int fsync(int file) { return synced(file, SYS_fsync); }
int fdatasync(int file) { return synced(file, SYS_fdatasync); }

int unlink(const char *path) {
    const char *folder = getenv("CRASHDISK_FOLDER");
    int done = (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    if (done == 0 && folder != NULL && strncmp(path, folder, strlen(folder)) == 0) note('u', path, 0, NULL, 0);
    return done;
}
