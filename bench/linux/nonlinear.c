/*
 * What the live kernel's remap_file_pages(2) costs: the other side of the benchmark rows "linux/...".
 *
 *   nonlinear cycle [PAGES [SEED]]            write, remap, read, unmap: the whole life of a nonlinear window
 *   nonlinear cycle-nonblock [PAGES [SEED]]   the same, each remap with MAP_NONBLOCK
 *   nonlinear remap [PAGES [CALLS [SEED]]]    one random page a call, alone: without MAP_NONBLOCK, then with
 *   nonlinear discontinuities                 how many one-page discontinuities fit until ENOMEM
 *
 * Each measurement is one JSON object on a line of stdout. A failure is one too, with an "error" member, and a
 * sentence on stderr. Exit: 0 measured, 1 the kernel refused or showed a wrong page, 2 wrong arguments.
 *
 * The memory is MAP_SHARED|MAP_ANONYMOUS, so a tmpfs file underneath. Since 4.0 the kernel emulates the call with
 * one vma for each discontinuity and stops at vm.max_map_count, 65530 unless raised: hence 60000 pages by default.
 *
 * The work is a function of the seed, so that another program (bench/random.ts) does the same and compares checksums:
 *   generator    xorshift32: x ^= x << 13, x ^= x >> 17, x ^= x << 5, on 32 bits; the first output is after one step
 *   permutation  p[i] = i, then for i = n-1 down to 1 swap p[i] with p[next() % (i + 1)]
 *   calls        for each call window page = next() % pages, then file page = next() % pages
 *   stamp        first 32-bit word of file page p: p * 0x9e3779b1 + 1 (mod 2^32)
 *   checksum     h = h * 31 + word, over the window pages in order, from 0 (mod 2^32)
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { DEFAULT_PAGES = 60000, REMAP_PAGES = 32768, REMAP_CALLS = 100000, SAMPLE_PAGES = 1000 };
enum { DISCONTINUITIES_CAP = 4000000 };
static const uint32_t DEFAULT_SEED = 20020514;

static size_t page_bytes;

static uint32_t next_random(uint32_t *state) {
  uint32_t x = *state;
  x ^= x << 13;
  x ^= x >> 17;
  x ^= x << 5;
  return *state = x;
}

static double now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static long max_map_count(void) {
  long n = -1;
  FILE *f = fopen("/proc/sys/vm/max_map_count", "r");
  if (f) {
    if (fscanf(f, "%ld", &n) != 1) n = -1;
    fclose(f);
  }
  return n;
}

/* Reports a call that failed on its page or call number `at` and ends the program. */
static void fail(const char *what, const char *call, int err, uint32_t at) {
  long limit = max_map_count();
  printf("{\"what\":\"%s\",\"error\":\"%s\",\"errno\":%d,\"message\":\"%s\",\"at\":%" PRIu32 ",\"maxMapCount\":%ld}\n",
         what, call, err, strerror(err), at, limit);
  fflush(stdout);
  fprintf(stderr, "nonlinear %s: %s failed at %" PRIu32 ": %s\n", what, call, at, strerror(err));
  if (err == ENOMEM && strcmp(call, "remap_file_pages") == 0)
    fprintf(stderr, "each discontinuity is a vma here and vm.max_map_count is %ld: use fewer pages\n", limit);
  exit(1);
}

static void wrong_page(const char *what, uint32_t got, uint32_t expected) {
  printf("{\"what\":\"%s\",\"error\":\"checksum\",\"checksum\":%" PRIu32 ",\"expected\":%" PRIu32 "}\n", what, got,
         expected);
  fflush(stdout);
  fprintf(stderr, "nonlinear %s: the window does not show the pages it was told to\n", what);
  exit(1);
}

static void *allocate(const char *what, size_t n, size_t each) {
  void *p = calloc(n ? n : 1, each);
  if (!p) fail(what, "calloc", ENOMEM, 0);
  memset(p, 0, n * each); /* its own page faults happen now, not while something is timed */
  return p;
}

static uint32_t *permutation(const char *what, uint32_t n, uint32_t seed) {
  uint32_t *p = allocate(what, n, sizeof *p);
  for (uint32_t i = 0; i < n; i++) p[i] = i;
  for (uint32_t i = n - 1; i > 0; i--) {
    uint32_t j = next_random(&seed) % (i + 1);
    uint32_t t = p[i];
    p[i] = p[j];
    p[j] = t;
  }
  return p;
}

static uint32_t stamp(uint32_t page) { return page * UINT32_C(0x9e3779b1) + 1; }

static volatile uint32_t *word_of(char *window, uint32_t page) {
  return (volatile uint32_t *)(window + (size_t)page * page_bytes);
}

static uint32_t fold(char *window, uint32_t pages) {
  uint32_t h = 0;
  for (uint32_t i = 0; i < pages; i++) h = h * 31 + *word_of(window, i);
  return h;
}

static char *map_window(const char *what, uint32_t pages) {
  char *w = mmap(NULL, (size_t)pages * page_bytes, PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (w == MAP_FAILED) fail(what, "mmap", errno, pages);
  return w;
}

static void stamp_all(char *window, uint32_t pages) {
  for (uint32_t i = 0; i < pages; i++) *word_of(window, i) = stamp(i);
}

static void unmap_window(const char *what, char *window, uint32_t pages) {
  if (munmap(window, (size_t)pages * page_bytes)) fail(what, "munmap", errno, pages);
}

static void cycle(uint32_t pages, uint32_t seed, int flags) {
  const char *what = "cycle";
  uint32_t *shown = permutation(what, pages, seed);
  uint32_t expected = 0;
  for (uint32_t i = 0; i < pages; i++) expected = expected * 31 + stamp(shown[i]);
  char *window = map_window(what, pages);

  double t0 = now_ns();
  stamp_all(window, pages);
  double t1 = now_ns();
  for (uint32_t i = 0; i < pages; i++)
    if (remap_file_pages(window + (size_t)i * page_bytes, page_bytes, 0, shown[i], flags))
      fail(what, "remap_file_pages", errno, i);
  double t2 = now_ns();
  uint32_t checksum = fold(window, pages);
  double t3 = now_ns();
  unmap_window(what, window, pages);
  double t4 = now_ns();

  if (checksum != expected) wrong_page(what, checksum, expected);
  printf("{\"what\":\"cycle\",\"pages\":%" PRIu32 ",\"seed\":%" PRIu32 ",\"nonblock\":%s,\"nsPerPage\":%.1f,"
         "\"writeNsPerPage\":%.1f,\"remapNsPerPage\":%.1f,\"readNsPerPage\":%.1f,\"unmapNsPerPage\":%.1f,"
         "\"checksum\":%" PRIu32 "}\n",
         pages, seed, flags & MAP_NONBLOCK ? "true" : "false", (t4 - t0) / pages, (t1 - t0) / pages,
         (t2 - t1) / pages, (t3 - t2) / pages, (t4 - t3) / pages, checksum);
  free(shown);
}

static void remap(uint32_t pages, uint32_t calls, uint32_t seed, int flags) {
  const char *what = "remap";
  uint32_t *at = allocate(what, calls, sizeof *at);
  uint32_t *page = allocate(what, calls, sizeof *page);
  uint32_t *shown = allocate(what, pages, sizeof *shown);
  uint32_t state = seed, expected = 0;
  for (uint32_t i = 0; i < pages; i++) shown[i] = i;
  for (uint32_t k = 0; k < calls; k++) {
    at[k] = next_random(&state) % pages;
    page[k] = next_random(&state) % pages;
    shown[at[k]] = page[k];
  }
  for (uint32_t i = 0; i < pages; i++) expected = expected * 31 + stamp(shown[i]);
  char *window = map_window(what, pages);
  stamp_all(window, pages);

  double t0 = now_ns();
  for (uint32_t k = 0; k < calls; k++)
    if (remap_file_pages(window + (size_t)at[k] * page_bytes, page_bytes, 0, page[k], flags))
      fail(what, "remap_file_pages", errno, k);
  double t1 = now_ns();

  uint32_t checksum = fold(window, pages);
  unmap_window(what, window, pages);
  if (checksum != expected) wrong_page(what, checksum, expected);
  printf("{\"what\":\"remap\",\"pages\":%" PRIu32 ",\"calls\":%" PRIu32 ",\"seed\":%" PRIu32
         ",\"nonblock\":%s,\"nsPerCall\":%.1f,\"checksum\":%" PRIu32 "}\n",
         pages, calls, seed, flags & MAP_NONBLOCK ? "true" : "false", (t1 - t0) / calls, checksum);
  free(at);
  free(page);
  free(shown);
}

/*
 * Shows the file backwards, page by page: window page i shows file page n-1-i, so no two neighbours ever merge.
 * (n is even: no page is at its linear place.) The first SAMPLE_PAGES are stamped i+1 and verified.
 */
static void discontinuities(void) {
  const char *what = "discontinuities";
  long limit = max_map_count();
  uint32_t pages = DISCONTINUITIES_CAP;
  if (limit > 0 && limit < DISCONTINUITIES_CAP - 8192) pages = ((uint32_t)limit + 8192) & ~UINT32_C(1);
  char *window = map_window(what, pages);
  for (uint32_t i = 0; i < SAMPLE_PAGES; i++) *word_of(window, pages - 1 - i) = i + 1;

  uint32_t count = 0;
  int err = 0;
  double t0 = now_ns();
  while (count < pages) {
    if (remap_file_pages(window + (size_t)count * page_bytes, page_bytes, 0, pages - 1 - count, MAP_NONBLOCK)) {
      err = errno;
      break;
    }
    count++;
  }
  double t1 = now_ns();

  if (err != 0 && err != ENOMEM) fail(what, "remap_file_pages", err, count);
  if (count < SAMPLE_PAGES) fail(what, "remap_file_pages", err, count);
  uint32_t expected = 0, checksum = fold(window, SAMPLE_PAGES);
  for (uint32_t i = 0; i < SAMPLE_PAGES; i++) expected = expected * 31 + i + 1;
  if (checksum != expected) wrong_page(what, checksum, expected);
  printf("{\"what\":\"discontinuities\",\"count\":%" PRIu32 ",\"stoppedBy\":%s,\"maxMapCount\":%ld,\"nsPerPage\":%.1f,"
         "\"checksum\":%" PRIu32 "}\n",
         count, err ? "\"ENOMEM\"" : "null", limit, (t1 - t0) / count, checksum);
}

static void usage(void) {
  fputs("usage: nonlinear cycle|cycle-nonblock [PAGES [SEED]]\n"
        "       nonlinear remap [PAGES [CALLS [SEED]]]\n"
        "       nonlinear discontinuities\n",
        stderr);
  exit(2);
}

/* Argument number `index` if it is there: a whole decimal number from 1 to 2^31-1. */
static uint32_t number(int argc, char **argv, int index, uint32_t otherwise) {
  if (index >= argc) return otherwise;
  char *end;
  errno = 0;
  unsigned long long n = strtoull(argv[index], &end, 10);
  if (errno || *end || argv[index][0] < '0' || argv[index][0] > '9' || n < 1 || n > INT32_MAX) usage();
  return (uint32_t)n;
}

int main(int argc, char **argv) {
  page_bytes = (size_t)sysconf(_SC_PAGESIZE);
  const char *command = argc > 1 ? argv[1] : "";
  int is_cycle = strcmp(command, "cycle") == 0, is_nonblock = strcmp(command, "cycle-nonblock") == 0;
  if ((is_cycle || is_nonblock) && argc <= 4) {
    cycle(number(argc, argv, 2, DEFAULT_PAGES), number(argc, argv, 3, DEFAULT_SEED), is_nonblock ? MAP_NONBLOCK : 0);
  } else if (strcmp(command, "remap") == 0 && argc <= 5) {
    uint32_t pages = number(argc, argv, 2, REMAP_PAGES), calls = number(argc, argv, 3, REMAP_CALLS);
    uint32_t seed = number(argc, argv, 4, DEFAULT_SEED);
    remap(pages, calls, seed, 0);
    remap(pages, calls, seed, MAP_NONBLOCK);
  } else if (strcmp(command, "discontinuities") == 0 && argc == 2) {
    discontinuities();
  } else {
    usage();
  }
  return 0;
}
