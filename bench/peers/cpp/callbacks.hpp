// What asio and Beast share: what a server does with a message, and every workload of a client, for
// any connection with send(bytes, length), begin_batch(), end_batch() and close().
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>
#include "../c/common.h"

// A server's connections, for broadcasts.
template <class C>
struct Server {
  tally_t tally{};
  static std::vector<C *> &everyone() {
    static std::vector<C *> all;
    return all;
  }
  void message(C &c, const char *p, size_t n) {
    if (p[0] == K_SINK) { tally_add(&tally, p, n); return; }
    if (p[0] == K_ECHO) { c.send(p, n); return; }
    if (p[0] == K_BROADCAST) {
      for (C *other : everyone()) other->send(p, n);
      return;
    }
    char answer[CTRL_LEN];
    tally_answer(&tally, answer);
    c.send(answer, CTRL_LEN);
  }
  void drained(C &) {}
};

// What all connections of a client share.
struct Bench {
  args_t a;
  lat_t lat{};
  tally_t sent{}, got{};
  lazy_clock_t clock{};
  uint64_t t0 = 0, end = 0, body = 0;
  double c0 = 0;
  std::vector<char> msg;
  std::function<void()> stop;
  bool ended = false;

  void pattern(int size, char kind) {
    msg.resize((size_t)size);
    fill_message(msg.data(), size, kind);
    body = sum_of(msg.data(), msg.size());
  }
  void begin() {
    c0 = cpu_s();
    t0 = now_ns();
    end = t0 + (uint64_t)(a.secs * 1e9);
  }
  template <class C>
  void send(C &c, uint64_t t) {
    set_token(msg.data(), t);
    sent.count++;
    sent.sum += body + t;
    c.send(msg.data(), msg.size());
  }
};

enum class Role { once, echo, stream, fanout };

template <class C>
struct Client {
  Bench *b;
  Role role = Role::once;

  void message(C &c, const char *p, size_t n) {
    if (role == Role::stream) {
      tally_check(b->sent, tally_read(p));
      b->got = b->sent;
      b->stop();
      return;
    }
    tally_add(&b->got, p, n);
    if (role == Role::once) { b->stop(); return; }
    if (role == Role::fanout) {
      if (b->got.count % (uint64_t)b->a.conns) return;
      uint64_t t = now_ns();
      if (t < b->end) b->send(c, t);
      else if (b->got.count == b->sent.count * (uint64_t)b->a.conns) b->stop();
      return;
    }
    uint64_t t = lazy_now(&b->clock);
    if (b->a.window == 1) lat_add(&b->lat, t - token(p));
    if (t < b->end) b->send(c, t);
    else if (b->got.count == b->sent.count) b->stop();
  }

  // Everything queued is written: a stream goes on.
  void drained(C &c) {
    if (role != Role::stream || b->ended) return;
    c.begin_batch();
    size_t bytes = 0;
    do {
      b->send(c, b->sent.count);
      bytes += b->msg.size() + 4;
    } while (bytes + b->msg.size() + 4 <= STREAM_BATCH);
    if (now_ns() >= b->end) {
      char e[CTRL_LEN];
      fill_message(e, CTRL_LEN, K_END);
      c.send(e, CTRL_LEN);
      b->ended = true;
    }
    c.end_batch();
  }
};

// Runs the workload. `dial` connects; `run` runs the event loop until b.stop is called.
template <class C, class Dial>
int run_client(Bench &b, Dial dial, std::function<void()> run) {
  std::string w = b.a.workload;
  auto once = [&] {
    auto c = dial(Client<C>{&b});
    b.pattern(CTRL_LEN, K_ECHO);
    b.send(*c, now_ns());
    run();
    tally_check(b.sent, b.got);
    return c;
  };
  if (w == "connect" || w == "idle") {
    bool hold = w == "idle";
    std::vector<std::shared_ptr<C>> kept;
    uint64_t most = hold ? (uint64_t)b.a.conns : CONNECT_MAX;
    b.begin();
    uint64_t t = b.t0;
    while (b.got.count < most && (hold || t < b.end)) {
      auto c = once();
      if (hold) kept.push_back(c);
      else c->close();
      uint64_t u = now_ns();
      lat_add(&b.lat, u - t);
      t = u;
    }
    if (hold) hold_open();
    else report(&b.a, b.got.count, t - b.t0, &b.lat, b.c0);
    return 0;
  }
  std::vector<std::shared_ptr<C>> cs;
  for (int i = 0; i < b.a.conns; i++) cs.push_back(once());  // the server has all of them
  b.sent = b.got = tally_t{};
  b.clock = lazy_clock(b.a.window);
  b.pattern(b.a.size, w == "stream" ? K_SINK : w == "fanout" ? K_BROADCAST : K_ECHO);
  for (auto &c : cs) c->handler.role = w == "stream" ? Role::stream : w == "fanout" ? Role::fanout : Role::echo;
  b.begin();
  if (w == "stream") cs[0]->handler.drained(*cs[0]);
  else
    for (auto &c : cs) {
      c->begin_batch();
      for (int j = 0; j < b.a.window; j++) b.send(*c, now_ns());
      c->end_batch();
      if (w == "fanout") break;
    }
  run();
  uint64_t ns = now_ns() - b.t0;
  if (w == "fanout") {
    b.sent.sum *= (uint64_t)b.a.conns;
    b.sent.count *= (uint64_t)b.a.conns;
  }
  tally_check(b.sent, b.got);
  report(&b.a, b.got.count, ns, &b.lat, b.c0);
  return 0;
}
