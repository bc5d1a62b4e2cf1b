// The raw server: frames walked and echoed where they lie in the read buffer.
// PORT: one epoll thread, any number of connections. PORT+1: a blocking thread per connection.
#include "raw.h"
#include <pthread.h>

typedef struct conn {
  int fd;
  tally_t tally;
  char *rest; /* an unfinished frame: owned only while there is one */
  size_t have;
  size_t at; /* place in `all` */
} conn_t;

static conn_t **all;
static size_t open_count, open_cap;
static size_t room;

static int listen_on(int port) {
  int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
  struct sockaddr_in a = loopback(port);
  tune(fd);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(fd, (struct sockaddr *)&a, sizeof a) || listen(fd, 4096)) { perror("listen"); exit(1); }
  return fd;
}

static int flush(int fd, char kind, const char *p, size_t n) {
  if (!n) return 0;
  if (kind != K_BROADCAST) return write_all(fd, p, n);
  for (size_t i = 0; i < open_count; i++) write_all(all[i]->fd, p, n);
  return 0;
}

// Handles every whole frame in b[0..have]; returns the bytes used, or -1.
static ssize_t serve(int fd, char *b, size_t have, tally_t *tally) {
  size_t pos = 0, run = 0; /* b[run..pos]: frames of one kind that leave together */
  char kind = K_ECHO;
  while (have - pos >= 4) {
    size_t len = get_u32(b + pos);
    if (len > MOST) return -1;
    if (have - pos - 4 < len) break;
    char *m = b + pos + 4;
    pos += 4 + len;
    if (m[0] == kind) continue;
    if (m[0] == K_SINK) {
      if (pos - 4 - len > run && flush(fd, kind, b + run, pos - 4 - len - run)) return -1;
      tally_add(tally, m, len);
      run = pos;
    } else if (m[0] == K_ECHO || m[0] == K_BROADCAST) {
      if (flush(fd, kind, b + run, pos - 4 - len - run)) return -1;
      run = pos - 4 - len;
      kind = m[0];
    } else {
      char answer[4 + CTRL_LEN];
      if (flush(fd, kind, b + run, pos - 4 - len - run)) return -1;
      put_u32(answer, CTRL_LEN);
      tally_answer(tally, answer + 4);
      if (write_all(fd, answer, sizeof answer)) return -1;
      run = pos;
    }
  }
  return flush(fd, kind, b + run, pos - run) ? -1 : (ssize_t)pos;
}

static void *serve_blocking(void *arg) {
  int fd = (int)(intptr_t)arg;
  buffer_t b = buffer(MOST, room);
  char *start = b.base;
  tally_t tally = {0, 0};
  for (;;) {
    ssize_t n = recv(fd, b.base, b.room, 0), used;
    if (n <= 0) break;
    size_t have = (size_t)(b.base - start) + (size_t)n;
    if ((used = serve(fd, start, have, &tally)) < 0) break;
    have -= (size_t)used;
    memmove(b.base - have, start + used, have);
    start = b.base - have;
  }
  close(fd);
  return NULL;
}

static void *blocking_acceptor(void *arg) {
  int l = (int)(intptr_t)arg;
  for (;;) {
    int fd = accept(l, NULL, NULL);
    if (fd < 0) continue;
    pthread_t t;
    pthread_create(&t, NULL, serve_blocking, (void *)(intptr_t)fd);
    pthread_detach(t);
  }
  return NULL;
}

static void accept_one(int l, int ep) {
  int fd = accept4(l, NULL, NULL, SOCK_NONBLOCK);
  if (fd < 0) return;
  conn_t *c = calloc(1, sizeof *c);
  c->fd = fd;
  if (open_count == open_cap) {
    open_cap = open_cap ? 2 * open_cap : 256;
    all = realloc(all, open_cap * sizeof *all);
  }
  c->at = open_count;
  all[open_count++] = c;
  struct epoll_event ev = {.events = EDGE, .data.ptr = c};
  epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
}

static void drop(conn_t *c) {
  all[c->at] = all[--open_count];
  all[c->at]->at = c->at;
  close(c->fd);
  free(c->rest);
  free(c);
}

// Reads and answers once; whether there may be more.
static int turn(conn_t *c, buffer_t *b) {
  char *start = b->base - c->have;
  if (c->have) memcpy(start, c->rest, c->have);
  ssize_t r = recv(c->fd, b->base, b->room, 0), used;
  if (r < 0 && errno == EAGAIN) return 0;
  if (r <= 0 || (used = serve(c->fd, start, c->have + (size_t)r, &c->tally)) < 0) { drop(c); return 0; }
  size_t left = c->have + (size_t)r - (size_t)used;
  if (left) {
    c->rest = realloc(c->rest, left);
    memcpy(c->rest, start + used, left);
  } else if (c->rest) {
    free(c->rest);
    c->rest = NULL;
  }
  c->have = left;
  return (size_t)r == b->room;
}

void serve_forever(int port) {
  room = knob("RAW_READ", READ_ROOM);
  int l = listen_on(port), ep = epoll_create1(0);
  pthread_t t;
  pthread_create(&t, NULL, blocking_acceptor, (void *)(intptr_t)listen_on(port + 1));
  struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL}, evs[1024];
  epoll_ctl(ep, EPOLL_CTL_ADD, l, &ev);
  buffer_t b = buffer(MOST, room);
  server_ready();
  for (;;) {
    int n = epoll_wait(ep, evs, 1024, -1);
    for (int i = 0; i < n; i++) {
      conn_t *c = evs[i].data.ptr;
      if (!c) accept_one(l, ep);
      else
        while (turn(c, &b)) {
        }
    }
  }
}
