// The raw client, the ceiling: plain sockets, no message API. Also the load of `rate`, for every
// server that speaks length-prefixed frames.
#include "raw.h"
#include <sys/prctl.h>

static size_t read_room, write_room;
static args_t *a;
static size_t frame;

static char *pack(int frames, char kind) {
  char *b = aligned_alloc(PAGE, ((size_t)frames * frame + PAGE) / PAGE * PAGE);
  for (int i = 0; i < frames; i++) {
    put_u32(b + (size_t)i * frame, (uint32_t)a->size);
    fill_message(b + (size_t)i * frame + 4, a->size, kind);
  }
  return b;
}

static uint64_t body_sum(const char *packed) { return sum_of(packed + 4, (size_t)a->size) - token(packed + 4); }

// Gives `frames` packed frames the token t and counts them as sent.
static void stamp(char *packed, size_t frames, uint64_t t, uint64_t body, tally_t *sent) {
  for (size_t i = 0; i < frames; i++) set_token(packed + i * frame + 4, t);
  sent->count += frames;
  sent->sum += frames * (body + t);
}

// Adds every whole frame to the tally; returns how many there are.
static size_t take(const char *b, size_t have, tally_t *got) {
  size_t n = have / frame;
  for (size_t i = 0; i < n; i++) {
    if (get_u32(b + i * frame) != (uint32_t)a->size) die("raw: not our frame");
    tally_add(got, b + i * frame + 4, (size_t)a->size);
  }
  return n;
}

static void read_exact(int fd, char *b, size_t n) {
  while (n) {
    ssize_t r = recv(fd, b, n, 0);
    if (r <= 0) die("raw: closed");
    b += r;
    n -= (size_t)r;
  }
}

// Writes all of it without blocking in a write: poll says that a third of the buffer is free, a blocked
// write goes on with every little bit.
static void write_in_large(int fd, const char *p, size_t n) {
  while (n) {
    ssize_t w = send(fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (w < 0 && errno != EAGAIN) die("raw: closed");
    if (w < 0) {
      struct pollfd q = {fd, POLLOUT, 0};
      poll(&q, 1, 1000);
      continue;
    }
    p += w;
    n -= (size_t)w;
  }
}

static void stream(void) {
  int fd = dial(a->port);
  size_t k = write_room / frame ? write_room / frame : 1;
  char *b = pack((int)k, K_SINK), answer[4 + CTRL_LEN];
  uint64_t body = body_sum(b);
  tally_t sent = {0, 0};
  double c0 = cpu_s();
  uint64_t t0 = now_ns(), end = t0 + (uint64_t)(a->secs * 1e9);
  while (now_ns() < end) {
    for (size_t i = 0; i < k; i++) stamp(b + i * frame, 1, sent.count, body, &sent);
    write_in_large(fd, b, k * frame);
  }
  put_u32(answer, CTRL_LEN);
  fill_message(answer + 4, CTRL_LEN, K_END);
  write_all(fd, answer, sizeof answer);
  read_exact(fd, answer, sizeof answer);
  uint64_t t1 = now_ns();
  tally_check(sent, tally_read(answer + 4));
  report(a, sent.count, t1 - t0, NULL, c0);
}

static void pingpong(void) {
  int fd = dial(a->port + 1);
  char *b = pack(1, K_ECHO), *r = pack(1, K_ECHO);
  uint64_t body = body_sum(b);
  lat_t l = {0};
  tally_t sent = {0, 0}, got = {0, 0};
  double c0 = cpu_s();
  uint64_t t0 = now_ns(), end = t0 + (uint64_t)(a->secs * 1e9), t = t0;
  while (t < end) {
    stamp(b, 1, t, body, &sent);
    write_all(fd, b, frame);
    read_exact(fd, r, frame);
    take(r, frame, &got);
    uint64_t u = now_ns();
    lat_add(&l, u - t);
    t = u;
  }
  tally_check(sent, got);
  report(a, got.count, t - t0, &l, c0);
}

// One connection, a window. Never blocks in a write, so that the server may.
static void pipeline(void) {
  int fd = dial(a->port + 1);
  size_t k = read_room / frame ? read_room / frame : 1;
  if (k > (size_t)a->window) k = (size_t)a->window;
  char *b = pack((int)k, K_ECHO);
  buffer_t in = buffer(a->size, read_room);
  char *start = in.base;
  uint64_t body = body_sum(b);
  tally_t sent = {0, 0}, got = {0, 0};
  size_t owed = (size_t)a->window, out = 0, at = 0; /* frames to send; bytes of b to send, sent */
  double c0 = cpu_s();
  uint64_t t0 = now_ns(), end = t0 + (uint64_t)(a->secs * 1e9), t = t0;
  while (t < end || got.count < sent.count || out > at) {
    while (out > at || owed) {
      if (out == at) {
        size_t m = owed < k ? owed : k;
        stamp(b, m, t, body, &sent);
        owed -= m;
        out = m * frame;
        at = 0;
      }
      ssize_t w = send(fd, b + at, out - at, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (w < 0 && errno != EAGAIN) die("raw: closed");
      if (w < 0) break;
      at += (size_t)w;
    }
    if (out > at) {
      struct pollfd q = {fd, POLLIN | POLLOUT, 0};
      poll(&q, 1, 1000);
    }
    ssize_t x = recv(fd, in.base, in.room, out > at ? MSG_DONTWAIT : 0);
    if (x == 0) die("raw: closed");
    if (x < 0) continue;
    size_t have = (size_t)(in.base - start) + (size_t)x, n = take(start, have, &got);
    have -= n * frame;
    memmove(in.base - have, start + n * frame, have);
    start = in.base - have;
    t = now_ns();
    if (t < end) owed += n;
    else owed = 0;
  }
  tally_check(sent, got);
  report(a, got.count, now_ns() - t0, NULL, c0);
}

// Connections that an epoll set watches, each proved by an echo, with its number as data.
static int *dial_all(int ep) {
  int *fd = calloc((size_t)a->conns, sizeof *fd);
  char *b = pack(1, K_ECHO), *r = pack(1, K_ECHO);
  for (int i = 0; i < a->conns; i++) {
    struct epoll_event ev = {.events = EDGE, .data.u32 = (uint32_t)i};
    fd[i] = dial(a->port);
    write_all(fd[i], b, frame); /* the server has it */
    read_exact(fd[i], r, frame);
    epoll_ctl(ep, EPOLL_CTL_ADD, fd[i], &ev);
  }
  return fd;
}

// The unfinished frames of many connections, which share one buffer to read into.
typedef struct { buffer_t in; char *rest; size_t *have; char *start; int more; } inbox_t;

static inbox_t inbox(void) {
  inbox_t x = {buffer(a->size, read_room), malloc((size_t)a->conns * frame), calloc((size_t)a->conns, sizeof(size_t)), NULL, 0};
  return x;
}

// Reads once from a connection, and says in x->more whether there may be more; returns how many whole
// frames lie at x->start.
static size_t fill(inbox_t *x, int fd, uint32_t i, tally_t *got) {
  char *rest = x->rest + i * frame;
  x->start = x->in.base - x->have[i];
  memcpy(x->start, rest, x->have[i]);
  ssize_t r = recv(fd, x->in.base, x->in.room, MSG_DONTWAIT);
  if (r == 0 || (r < 0 && errno != EAGAIN)) die("raw: closed");
  x->more = r == (ssize_t)x->in.room;
  if (r < 0) return 0;
  size_t have = x->have[i] + (size_t)r, n = take(x->start, have, got);
  x->have[i] = have - n * frame;
  memcpy(rest, x->start + n * frame, x->have[i]);
  return n;
}

static void many(void) {
  int ep = epoll_create1(0), *fd = dial_all(ep);
  struct epoll_event evs[1024];
  inbox_t x = inbox();
  char *b = pack(a->window, K_ECHO);
  uint64_t body = body_sum(b);
  lat_t l = {0};
  tally_t sent = {0, 0}, got = {0, 0};
  double c0 = cpu_s();
  uint64_t t0 = now_ns(), end = t0 + (uint64_t)(a->secs * 1e9), t = t0;
  for (int i = 0; i < a->conns; i++) {
    t = now_ns();
    stamp(b, (size_t)a->window, t, body, &sent);
    write_all(fd[i], b, frame * (size_t)a->window);
  }
  while (t < end || got.count < sent.count) {
    int k = epoll_wait(ep, evs, 1024, 1000);
    for (int q = 0; q < k; q++) {
      uint32_t i = evs[q].data.u32;
      do {
        size_t n = fill(&x, fd[i], i, &got);
        t = now_ns();
        if (a->window == 1 && n) lat_add(&l, t - token(x.start + 4));
        if (t >= end || !n) continue;
        stamp(x.start, n, t, body, &sent); /* what came is what is sent next */
        write_all(fd[i], x.start, n * frame);
      } while (x.more);
    }
  }
  tally_check(sent, got);
  report(a, got.count, t - t0, &l, c0);
}

// The first connection broadcasts, all receive. A window of broadcasts is under way.
static void fanout(void) {
  int ep = epoll_create1(0), *fd = dial_all(ep);
  struct epoll_event evs[1024];
  inbox_t x = inbox();
  char *b = pack(a->window, K_BROADCAST);
  uint64_t body = body_sum(b);
  tally_t sent = {0, 0}, got = {0, 0};
  double c0 = cpu_s();
  uint64_t t0 = now_ns(), end = t0 + (uint64_t)(a->secs * 1e9), t = t0;
  uint64_t n = (uint64_t)a->conns, window = (uint64_t)a->window;
  for (;;) {
    uint64_t due = t < end ? got.count / n + window - sent.count : 0;
    if (due) {
      stamp(b, due, t, body, &sent);
      write_all(fd[0], b, due * frame);
    }
    if (got.count == sent.count * n) break;
    int k = epoll_wait(ep, evs, 1024, 1000);
    for (int q = 0; q < k; q++) do fill(&x, fd[evs[q].data.u32], evs[q].data.u32, &got);
      while (x.more);
    t = now_ns();
  }
  sent.count *= n;
  sent.sum *= n;
  tally_check(sent, got);
  report(a, got.count, t - t0, NULL, c0);
}

// WINDOW messages a second over all connections, each sent when it is due, answered or not; latency
// counts from the due time. Works with every server of length-prefixed frames.
static void rate(void) {
  int ep = epoll_create1(0), *fd = dial_all(ep);
  struct epoll_event evs[1024];
  inbox_t x = inbox();
  char *b = pack(1, K_ECHO);
  uint64_t body = body_sum(b), next = 0, total = (uint64_t)(a->secs * a->window);
  double gap = 1e9 / a->window;
  lat_t l = {0};
  tally_t sent = {0, 0}, got = {0, 0};
  prctl(PR_SET_TIMERSLACK, 1);
  double c0 = cpu_s();
  uint64_t t0 = now_ns(), t = t0, at = 0; /* at: bytes of the present frame that are sent */
  while (got.count < total) {
    if (t > t0 + (uint64_t)(a->secs * 3e9)) die("raw: the server does not keep up");
    int full = 0;
    uint64_t due = 0;
    while (next < total && !full) {
      due = t0 + (uint64_t)((double)next * gap);
      if (due > t) break;
      if (!at) stamp(b, 1, due, body, &sent);
      ssize_t w = send(fd[next % (uint64_t)a->conns], b + at, frame - at, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (w < 0 && errno != EAGAIN) die("raw: closed");
      full = w < 0;
      if (w > 0) at += (uint64_t)w;
      if (at == frame) { at = 0; next++; }
    }
    uint64_t wait = full ? 20000 : next < total ? due - t : 1000000;
    struct timespec ts = {(time_t)(wait / 1000000000u), (long)(wait % 1000000000u)};
    int k = epoll_pwait2(ep, evs, 1024, &ts, NULL);
    for (int q = 0; q < k; q++) {
      uint32_t i = evs[q].data.u32;
      do {
        size_t n = fill(&x, fd[i], i, &got);
        t = now_ns();
        for (size_t j = 0; j < n; j++) lat_add(&l, t - token(x.start + j * frame + 4));
      } while (x.more);
    }
    t = now_ns();
  }
  tally_check(sent, got);
  report(a, got.count, t - t0, &l, c0);
}

static void open_one_by_one(int hold) {
  char *b = pack(1, K_ECHO), *r = pack(1, K_ECHO);
  uint64_t body = body_sum(b), most = hold ? (uint64_t)a->conns : CONNECT_MAX;
  lat_t l = {0};
  tally_t sent = {0, 0}, got = {0, 0};
  double c0 = cpu_s();
  uint64_t t0 = now_ns(), end = t0 + (uint64_t)(a->secs * 1e9), t = t0;
  while (got.count < most && (hold || t < end)) {
    int fd = dial(a->port);
    stamp(b, 1, t, body, &sent);
    write_all(fd, b, frame);
    read_exact(fd, r, frame);
    take(r, frame, &got);
    if (!hold) close(fd);
    uint64_t u = now_ns();
    lat_add(&l, u - t);
    t = u;
  }
  tally_check(sent, got);
  if (hold) hold_open();
  else report(a, got.count, t - t0, &l, c0);
}

int main(int argc, char **argv) {
  args_t args = parse_args(argc, argv);
  a = &args;
  frame = (size_t)a->size + 4;
  if (a->size < 16 || a->size > MOST) die("raw: messages of 16 B to 64 KiB");
  read_room = knob("RAW_READ", READ_ROOM);
  write_room = knob("RAW_WRITE", STREAM_BATCH);
  if (a->server) serve_forever(a->port);
  else if (!strcmp(a->workload, "stream")) stream();
  else if (!strcmp(a->workload, "connect")) open_one_by_one(0);
  else if (!strcmp(a->workload, "idle")) open_one_by_one(1);
  else if (!strcmp(a->workload, "rate")) rate();
  else if (!strcmp(a->workload, "fanout")) fanout();
  else if (a->conns == 1 && a->window == 1) pingpong();
  else if (a->conns == 1) pipeline();
  else many();
}
