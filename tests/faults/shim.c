/* Faults at the border to the system, for one folder: preloaded (LD_PRELOAD) into the process under test.

   Another process, or the program itself, says what shall happen through a struct in shared memory: the file that
   the environment variable SCOPESTREAM_FAULTS names (shim.py has the same struct). So one process can try thousands
   of faults. Calls that the C library makes inside itself (fwrite) and raw system calls are not seen. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum op { WRITE, TRUNCATE, ALLOCATE, OPEN, MKDIR, RENAME, FSYNC, FDATASYNC, SYNCFS, UNLINK, RMDIR, MARK };
enum mode { COUNT, FAIL_ONCE, FAIL_FROM, SHORT, DELAY };
enum verdict { PASS, FAIL, CUT };

struct control {
  int64_t mode, operations, nth, error, delay_us, recording;
  int64_t seen, hits; /* calls that matched, and those that were tampered with */
  char root[1024], match[1024], trace[1024];
};

/* Then the two paths below the root without a terminating zero, then the data. */
struct record {
  int32_t op, path_bytes, other_bytes, flags;
  int64_t offset, length, data_bytes;
};

static struct control *control;
static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;
static int trace_file = -1;
static char trace_name[1024];

#define REAL(name) \
  static __typeof__(name) *real; \
  if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void attach(void) {
  const char *name = getenv("SCOPESTREAM_FAULTS");
  int file = name ? open(name, O_RDWR | O_CLOEXEC) : -1;
  if (file < 0) return;
  void *memory = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (memory != MAP_FAILED) control = memory;
}

static int active(void) { return control && (control->operations || control->recording); }

/* The part of an absolute path below the root ("" for the root itself), NULL for all others. */
static const char *below(const char *path) {
  size_t n = strlen(control->root);
  if (!n || strncmp(path, control->root, n) || (path[n] && path[n] != '/')) return NULL;
  return path + n;
}

static const char *path_of_file(int file, char *memory, size_t size) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t n = readlink(link, memory, size - 1);
  if (n < 0) return NULL;
  memory[n] = 0;
  return below(memory);
}

static const char *path_at(int folder, const char *path, char *memory, size_t size) {
  if (path[0] == '/') return below(path);
  char start[2048];
  if (folder == AT_FDCWD) {
    if (!getcwd(start, sizeof start)) return NULL;
  } else {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t n = readlink(link, start, sizeof start - 1);
    if (n < 0) return NULL;
    start[n] = 0;
  }
  snprintf(memory, size, "%s/%s", start, path);
  return below(memory);
}

/* The text is contained, or is not where it begins with "!". */
static int matches(const char *path) {
  const char *text = control->match;
  return *text == '!' ? !strstr(path, text + 1) : strstr(path, text) != NULL;
}

static enum verdict decide(enum op op, const char *path) {
  if (!path || !(control->operations >> op & 1) || !matches(path)) return PASS;
  int64_t number = __atomic_add_fetch(&control->seen, 1, __ATOMIC_SEQ_CST);
  int64_t mode = control->mode;
  if (mode == COUNT || (mode != DELAY && number < control->nth)) return PASS;
  if ((mode == FAIL_ONCE || mode == SHORT) && number != control->nth) return PASS;
  if (mode == SHORT && op != WRITE) return PASS;
  __atomic_add_fetch(&control->hits, 1, __ATOMIC_SEQ_CST);
  if (mode == SHORT) return CUT;
  if (mode == DELAY) {
    usleep((useconds_t)control->delay_us);
    return PASS;
  }
  errno = (int)control->error;
  return FAIL;
}

/* While calls are recorded they take turns, so that their order in the trace is the one in which they happened. */
static int begin(const char *path) {
  int recording = path && control->recording;
  if (recording) pthread_mutex_lock(&order);
  return recording;
}

static void put(const void *data, size_t size) {
  static __typeof__(write) *plain;
  if (!plain) plain = (__typeof__(write) *)dlsym(RTLD_NEXT, "write");
  while (size) {
    ssize_t n = plain(trace_file, data, size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) abort(); /* a trace with a hole would prove nothing */
    data = (const char *)data + n;
    size -= (size_t)n;
  }
}

static void note(enum op op, const char *path, const char *other, int flags, int64_t offset, int64_t length,
                 const struct iovec *pieces, int64_t data_bytes) {
  int error = errno;
  if (trace_file < 0 || strcmp(trace_name, control->trace)) {
    static __typeof__(open) *plain;
    if (!plain) plain = (__typeof__(open) *)dlsym(RTLD_NEXT, "open");
    if (trace_file >= 0) close(trace_file);
    trace_file = plain(control->trace, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (trace_file < 0) abort();
    strcpy(trace_name, control->trace);
  }
  struct record record = {op, (int32_t)strlen(path), other ? (int32_t)strlen(other) : 0, flags, offset, length,
                          data_bytes};
  put(&record, sizeof record);
  put(path, (size_t)record.path_bytes);
  if (other) put(other, (size_t)record.other_bytes);
  for (; data_bytes > 0; pieces++) {
    size_t size = pieces->iov_len < (size_t)data_bytes ? pieces->iov_len : (size_t)data_bytes;
    put(pieces->iov_base, size);
    data_bytes -= (int64_t)size;
  }
  errno = error;
}

static void end(int recording) {
  if (recording) pthread_mutex_unlock(&order);
}

/* Called by the program under test: a text in the trace, among the calls before and after it. */
void scopestream_faults_mark(const char *text) {
  struct iovec piece = {(void *)text, strlen(text)};
  if (!control || !control->recording) return;
  pthread_mutex_lock(&order);
  note(MARK, "", NULL, 0, 0, 0, &piece, (int64_t)piece.iov_len);
  pthread_mutex_unlock(&order);
}

/* -- bytes ------------------------------------------------------------------------------------------------------- */

/* `offset` is where the bytes went, or -1 for where the file is now. */
static void note_write(int file, const char *path, const struct iovec *pieces, int64_t offset, ssize_t n) {
  if (offset < 0) offset = lseek(file, 0, SEEK_CUR) - n;
  note(WRITE, path, NULL, 0, offset, n, pieces, n);
}

#define BYTES(call, whole, pieces, at) \
  char memory[4096]; \
  const char *path = active() ? path_of_file(file, memory, sizeof memory) : NULL; \
  enum verdict verdict = path ? decide(WRITE, path) : PASS; \
  if (verdict == FAIL) return -1; \
  if (verdict == CUT) whole \
  if (!path) return call; \
  int recording = begin(path); \
  ssize_t n = call; \
  if (recording && n > 0) note_write(file, path, pieces, at, n); \
  end(recording); \
  return n

#define HALF { size = size > 1 ? size / 2 : size; }
#define ONE (&(struct iovec){(void *)data, size})

ssize_t write(int file, const void *data, size_t size) {
  REAL(write);
  BYTES(real(file, data, size), HALF, ONE, -1);
}
ssize_t pwrite(int file, const void *data, size_t size, off_t offset) {
  REAL(pwrite);
  BYTES(real(file, data, size, offset), HALF, ONE, offset);
}
ssize_t pwrite64(int file, const void *data, size_t size, off64_t offset) {
  REAL(pwrite64);
  BYTES(real(file, data, size, offset), HALF, ONE, offset);
}

/* Keeps the first half of the bytes. */
static int halve(struct iovec *to, const struct iovec *from, int count) {
  size_t total = 0;
  for (int i = 0; i < count; i++) total += from[i].iov_len;
  size_t left = total > 1 ? total / 2 : total;
  int n = 0;
  for (; n < count && left; n++) {
    to[n] = from[n];
    if (to[n].iov_len > left) to[n].iov_len = left;
    left -= to[n].iov_len;
  }
  return n;
}

#define HALVES { count = halve(fewer, pieces, count); pieces = fewer; }

ssize_t writev(int file, const struct iovec *pieces, int count) {
  REAL(writev);
  struct iovec fewer[1024];
  BYTES(real(file, pieces, count), HALVES, pieces, -1);
}
ssize_t pwritev(int file, const struct iovec *pieces, int count, off_t offset) {
  REAL(pwritev);
  struct iovec fewer[1024];
  BYTES(real(file, pieces, count, offset), HALVES, pieces, offset);
}
ssize_t pwritev64(int file, const struct iovec *pieces, int count, off64_t offset) {
  REAL(pwritev64);
  struct iovec fewer[1024];
  BYTES(real(file, pieces, count, offset), HALVES, pieces, offset);
}
ssize_t pwritev2(int file, const struct iovec *pieces, int count, off_t offset, int flags) {
  REAL(pwritev2);
  struct iovec fewer[1024];
  BYTES(real(file, pieces, count, offset, flags), HALVES, pieces, offset);
}
ssize_t pwritev64v2(int file, const struct iovec *pieces, int count, off64_t offset, int flags) {
  REAL(pwritev64v2);
  struct iovec fewer[1024];
  BYTES(real(file, pieces, count, offset, flags), HALVES, pieces, offset);
}

/* -- files that are open ----------------------------------------------------------------------------------------- */

#define ON_FILE(op, call, failed, flags, offset, length) \
  char memory[4096]; \
  const char *path = active() ? path_of_file(file, memory, sizeof memory) : NULL; \
  if (path && decide(op, path) == FAIL) return failed; \
  if (!path) return call; \
  int recording = begin(path); \
  int result = call; \
  if (recording && !result) note(op, path, NULL, flags, offset, length, NULL, 0); \
  end(recording); \
  return result

int ftruncate(int file, off_t length) { REAL(ftruncate); ON_FILE(TRUNCATE, real(file, length), -1, 0, 0, length); }
int ftruncate64(int file, off64_t length) { REAL(ftruncate64); ON_FILE(TRUNCATE, real(file, length), -1, 0, 0, length); }
int fallocate(int file, int mode, off_t offset, off_t length) {
  REAL(fallocate);
  ON_FILE(ALLOCATE, real(file, mode, offset, length), -1, mode, offset, length);
}
int fallocate64(int file, int mode, off64_t offset, off64_t length) {
  REAL(fallocate64);
  ON_FILE(ALLOCATE, real(file, mode, offset, length), -1, mode, offset, length);
}
int posix_fallocate(int file, off_t offset, off_t length) {
  REAL(posix_fallocate);
  ON_FILE(ALLOCATE, real(file, offset, length), errno, 0, offset, length);
}
int posix_fallocate64(int file, off64_t offset, off64_t length) {
  REAL(posix_fallocate64);
  ON_FILE(ALLOCATE, real(file, offset, length), errno, 0, offset, length);
}
int fsync(int file) { REAL(fsync); ON_FILE(FSYNC, real(file), -1, 0, 0, 0); }
int fdatasync(int file) { REAL(fdatasync); ON_FILE(FDATASYNC, real(file), -1, 0, 0, 0); }
int syncfs(int file) { REAL(syncfs); ON_FILE(SYNCFS, real(file), -1, 0, 0, 0); }

/* -- names ------------------------------------------------------------------------------------------------------- */

#define ON_NAME(op, call, folder, name) \
  char memory[4096]; \
  const char *path = active() ? path_at(folder, name, memory, sizeof memory) : NULL; \
  if (path && decide(op, path) == FAIL) return -1; \
  if (!path) return call; \
  int recording = begin(path); \
  int result = call; \
  if (recording && !result) note(op, path, NULL, 0, 0, 0, NULL, 0); \
  end(recording); \
  return result

int mkdir(const char *name, mode_t mode) { REAL(mkdir); ON_NAME(MKDIR, real(name, mode), AT_FDCWD, name); }
int mkdirat(int at, const char *name, mode_t mode) { REAL(mkdirat); ON_NAME(MKDIR, real(at, name, mode), at, name); }
int unlink(const char *name) { REAL(unlink); ON_NAME(UNLINK, real(name), AT_FDCWD, name); }
int remove(const char *name) { REAL(remove); ON_NAME(UNLINK, real(name), AT_FDCWD, name); }
int rmdir(const char *name) { REAL(rmdir); ON_NAME(RMDIR, real(name), AT_FDCWD, name); }
int unlinkat(int at, const char *name, int flags) {
  REAL(unlinkat);
  ON_NAME((flags & AT_REMOVEDIR ? RMDIR : UNLINK), real(at, name, flags), at, name);
}

/* A fault of a rename is one of the new name. */
#define ON_NAMES(call, from_folder, from, to_folder, to, flags) \
  char memory[4096], more[4096]; \
  const char *path = active() ? path_at(from_folder, from, memory, sizeof memory) : NULL; \
  const char *other = path ? path_at(to_folder, to, more, sizeof more) : NULL; \
  if (other && decide(RENAME, other) == FAIL) return -1; \
  if (!other) return call; \
  int recording = begin(path); \
  int result = call; \
  if (recording && !result) note(RENAME, path, other, flags, 0, 0, NULL, 0); \
  end(recording); \
  return result

int rename(const char *from, const char *to) {
  REAL(rename);
  ON_NAMES(real(from, to), AT_FDCWD, from, AT_FDCWD, to, 0);
}
int renameat(int from_at, const char *from, int to_at, const char *to) {
  REAL(renameat);
  ON_NAMES(real(from_at, from, to_at, to), from_at, from, to_at, to, 0);
}
int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
  REAL(renameat2);
  ON_NAMES(real(from_at, from, to_at, to, flags), from_at, from, to_at, to, (int)flags);
}

/* Only what may change something: O_RDONLY is 0. */
#define ON_OPEN(call, folder, name, flags) \
  char memory[4096]; \
  int changes = (flags & O_ACCMODE) != O_RDONLY || flags & O_CREAT; \
  const char *path = changes && active() ? path_at(folder, name, memory, sizeof memory) : NULL; \
  if (path && decide(OPEN, path) == FAIL) return -1; \
  if (!path) return call; \
  int recording = begin(path); \
  int result = call; \
  if (recording && result >= 0) note(OPEN, path, NULL, flags, 0, 0, NULL, 0); \
  end(recording); \
  return result

#define MODE_OF(flags) \
  mode_t mode = 0; \
  if (flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE) { \
    va_list more_arguments; \
    va_start(more_arguments, flags); \
    mode = va_arg(more_arguments, mode_t); \
    va_end(more_arguments); \
  }

int open(const char *name, int flags, ...) {
  REAL(open);
  MODE_OF(flags)
  ON_OPEN(real(name, flags, mode), AT_FDCWD, name, flags);
}
int open64(const char *name, int flags, ...) {
  REAL(open64);
  MODE_OF(flags)
  ON_OPEN(real(name, flags, mode), AT_FDCWD, name, flags);
}
int openat(int at, const char *name, int flags, ...) {
  REAL(openat);
  MODE_OF(flags)
  ON_OPEN(real(at, name, flags, mode), at, name, flags);
}
int openat64(int at, const char *name, int flags, ...) {
  REAL(openat64);
  MODE_OF(flags)
  ON_OPEN(real(at, name, flags, mode), at, name, flags);
}
