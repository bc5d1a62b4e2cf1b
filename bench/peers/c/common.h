// What every C and C++ peer shares: arguments, clock, messages and their sums, latencies, the result.
//
//   prog server PORT
//   prog client PORT WORKLOAD SIZE CONNS WINDOW SECONDS
//
// A message: its kind, 7 bytes of body, a token (8 bytes: the time it was sent, or its number), body.
// Its sum is the wrapping sum of its 8-byte words, so sum(message) = sum(body) + token.
#pragma once
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define K_ECHO 'P'      /* send it back */
#define K_SINK 'S'      /* count it */
#define K_END 'E'       /* answer with count and sum of this connection's K_SINK */
#define K_BROADCAST 'B' /* send it to every connection */
#define CTRL_LEN 64     /* size of an END message and of its answer */
#define CONNECT_MAX 5000 /* each connection keeps its port for a minute */

// Socket buffers of all who can set them: what is under way stays in the processor's cache, and no
// full window stalls the sender.
#define SOCKET_SEND (256 * 1024)
#define SOCKET_RECEIVE (4 << 20) /* see socket_receive() */
#define READ_ROOM (128 * 1024)   /* bytes that one read takes at most */
#define STREAM_BATCH (64 * 1024) /* bytes that a stream packs for one write */

typedef struct {
  int server, port, size, conns, window;
  const char *workload;
  double secs;
} args_t;

static inline args_t parse_args(int argc, char **argv) {
  args_t a = {0, 0, 64, 1, 1, "", 1.0};
  if (argc == 3 && !strcmp(argv[1], "server")) {
    a.server = 1;
    a.port = atoi(argv[2]);
    return a;
  }
  if (argc != 8 || strcmp(argv[1], "client")) {
    fprintf(stderr, "usage: %s server PORT | client PORT WORKLOAD SIZE CONNS WINDOW SECONDS\n", argv[0]);
    exit(2);
  }
  a.port = atoi(argv[2]);
  a.workload = argv[3];
  a.size = atoi(argv[4]);
  a.conns = atoi(argv[5]);
  a.window = atoi(argv[6]);
  a.secs = atof(argv[7]);
  return a;
}

static inline void die(const char *why) {
  fprintf(stderr, "%s\n", why);
  exit(1);
}

// The receive buffer to ask for; 0 where the system allows less, and its own tuning is better.
static inline int socket_receive(void) {
  static int bytes = -1;
  long most = 0;
  if (bytes >= 0) return bytes;
  FILE *f = fopen("/proc/sys/net/core/rmem_max", "r");
  if (f && fscanf(f, "%ld", &most) != 1) most = 0;
  if (f) fclose(f);
  return bytes = most >= SOCKET_RECEIVE ? SOCKET_RECEIVE : 0;
}

static inline uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static inline double cpu_s(void) {
  struct rusage r;
  getrusage(RUSAGE_SELF, &r);
  return (double)r.ru_utime.tv_sec + (double)r.ru_stime.tv_sec +
         ((double)r.ru_utime.tv_usec + (double)r.ru_stime.tv_usec) / 1e6;
}

// For libraries that hand over one message at a time: reading the clock costs as much as a small
// message, so with a window it is read for every 16th.
typedef struct { uint64_t n, t; int every; } lazy_clock_t;
static inline uint64_t lazy_now(lazy_clock_t *c) {
  if (c->n++ % (uint64_t)c->every == 0) c->t = now_ns();
  return c->t;
}
static inline lazy_clock_t lazy_clock(int window) {
  lazy_clock_t c = {0, 0, window >= 16 ? 16 : 1};
  return c;
}

static inline void put_u32(char *p, uint32_t v) { v = __builtin_bswap32(v); memcpy(p, &v, 4); }
static inline uint32_t get_u32(const char *p) { uint32_t v; memcpy(&v, p, 4); return __builtin_bswap32(v); }
static inline void put_u64(char *p, uint64_t v) { memcpy(p, &v, 8); }
static inline uint64_t get_u64(const char *p) { uint64_t v; memcpy(&v, p, 8); return v; }
static inline void set_token(char *m, uint64_t t) { put_u64(m + 8, t); }
static inline uint64_t token(const char *m) { return get_u64(m + 8); }

// A message with token 0; size is at least 16.
static inline void fill_message(char *m, int size, char kind) {
  for (int i = 0; i < size; i++) m[i] = (char)((i * 37 + 11) % 251);
  m[0] = kind;
  set_token(m, 0);
}

static inline uint64_t sum_of(const char *m, size_t n) {
  uint64_t s = 0, tail = 0;
  size_t words = n / 8;
  for (size_t i = 0; i < words; i++) s += get_u64(m + i * 8);
  if (n % 8) memcpy(&tail, m + words * 8, n % 8);
  return s + tail;
}

typedef struct { uint64_t count, sum; } tally_t;
static inline void tally_add(tally_t *t, const char *m, size_t n) {
  t->count++;
  t->sum += sum_of(m, n);
}
// The answer to K_END.
static inline void tally_answer(const tally_t *t, char *m) {
  fill_message(m, CTRL_LEN, K_END);
  put_u64(m + 8, t->count);
  put_u64(m + 16, t->sum);
}
static inline void tally_check(tally_t sent, tally_t got) {
  if (sent.count == got.count && sent.sum == got.sum) return;
  fprintf(stderr, "delivery: sent %llu (sum %llx), arrived %llu (sum %llx)\n", (unsigned long long)sent.count,
          (unsigned long long)sent.sum, (unsigned long long)got.count, (unsigned long long)got.sum);
  exit(1);
}
static inline tally_t tally_read(const char *answer) {
  tally_t t = {get_u64(answer + 8), get_u64(answer + 16)};
  return t;
}

typedef struct {
  uint32_t *v;
  size_t n, cap;
} lat_t;

static inline void lat_add(lat_t *l, uint64_t ns) {
  if (l->n == l->cap) {
    l->cap = l->cap ? l->cap * 2 : 1u << 16;
    l->v = (uint32_t *)realloc(l->v, l->cap * sizeof(uint32_t));
  }
  l->v[l->n++] = ns > 0xffffffffu ? 0xffffffffu : (uint32_t)ns;
}

static inline int lat_cmp(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return x < y ? -1 : x > y;
}

static inline double lat_at(const lat_t *l, double q) {
  size_t i = (size_t)(q * (double)l->n);
  return l->v[i < l->n ? i : l->n - 1] / 1000.0;
}

// One result line. cpu0 is cpu_s() at the start of the measurement.
static inline void report(const args_t *a, uint64_t count, uint64_t ns, lat_t *l, double cpu0) {
  double cpu = cpu_s() - cpu0, s = (double)ns / 1e9;
  printf("{\"value\":%.1f,\"count\":%llu,\"secs\":%.4f,\"cpu_s\":%.4f", (double)count / s, (unsigned long long)count, s, cpu);
  if (l && l->n && (a->window == 1 || !strcmp(a->workload, "rate"))) {
    qsort(l->v, l->n, sizeof(uint32_t), lat_cmp);
    printf(",\"p50_us\":%.2f,\"p99_us\":%.2f,\"p999_us\":%.2f,\"max_us\":%.2f", lat_at(l, .5), lat_at(l, .99),
           lat_at(l, .999), lat_at(l, 1));
  }
  printf("}\n");
  fflush(stdout);
}

static inline void server_ready(void) {
  printf("READY\n");
  fflush(stdout);
}

// All connections are open; stay so until the runner closes stdin.
static inline void hold_open(void) {
  char c;
  printf("HOLD\n");
  fflush(stdout);
  while (read(0, &c, 1) > 0) {
  }
}
