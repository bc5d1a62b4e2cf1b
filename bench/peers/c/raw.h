// What both halves of the raw program share: sockets, a page-aligned buffer, and writing all of it.
#pragma once
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include "common.h"

#define PAGE 4096
#define HEAD (16 * PAGE)
#define MOST (64 * 1024) /* the largest message */

// New bytes are read to the start of a page, which the kernel copies to fastest; an unfinished
// frame (bytes[start..base]) is moved in front of them.
typedef struct {
  char *base;
  size_t room;
} buffer_t;

static inline buffer_t buffer(int size, size_t room) {
  size_t frame = (size_t)size + 4;
  size_t head = (frame + HEAD) / PAGE * PAGE;
  if (room < 2 * frame) room = 2 * frame;
  char *p = aligned_alloc(PAGE, head + (room + PAGE - 1) / PAGE * PAGE);
  if (!p) die("raw: no memory");
  buffer_t b = {p + head, room};
  return b;
}

// What the runner may set, to find or use what is best for a workload.
static inline size_t knob(const char *name, size_t usual) {
  const char *v = getenv(name);
  return v ? strtoull(v, NULL, 10) : usual;
}

// Before connect or listen: buffers decide the window, and accepted connections inherit all of it.
static inline void tune(int fd) {
  int one = 1, out = (int)knob("RAW_SEND", SOCKET_SEND), in = (int)knob("RAW_RECEIVE", (size_t)socket_receive());
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (out) setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &out, sizeof out);
  if (in) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &in, sizeof in);
}

static inline struct sockaddr_in loopback(int port) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  return a;
}

static inline int dial(int port) {
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in a = loopback(port);
  tune(fd);
  if (connect(fd, (struct sockaddr *)&a, sizeof a)) { perror("connect"); exit(1); }
  return fd;
}

static inline int write_all(int fd, const char *p, size_t n) {
  while (n) {
    ssize_t w = send(fd, p, n, MSG_NOSIGNAL);
    if (w < 0) {
      if (errno != EAGAIN) return -1;
      struct pollfd q = {fd, POLLOUT, 0};
      poll(&q, 1, 1000);
      continue;
    }
    p += w;
    n -= (size_t)w;
  }
  return 0;
}

// Both read until a read is short: no further event comes for what is left.
#define EDGE (EPOLLIN | EPOLLET)

void serve_forever(int port);
