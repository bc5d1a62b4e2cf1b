// Boost.Beast WebSocket, binary messages, one thread. Beast allows one async_write of one message at
// a time per stream, so queued messages leave one by one.
#include <algorithm>
#include <boost/asio.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/websocket.hpp>
#include <deque>
#include "callbacks.hpp"

namespace net = boost::asio;
namespace beast = boost::beast;
namespace ws = beast::websocket;
using tcp = net::ip::tcp;
using err = beast::error_code;

template <template <class> class H>
struct Conn : std::enable_shared_from_this<Conn<H>> {
  ws::stream<tcp::socket, false> s;  // no permessage-deflate
  H<Conn> handler;
  beast::flat_buffer in;
  std::deque<std::vector<char>> queue;
  std::vector<std::vector<char>> spare;
  bool writing = false, in_batch = false;

  Conn(tcp::socket sock, H<Conn> h) : s(std::move(sock)), handler(h) {
    s.binary(true);
    s.auto_fragment(false);
    s.write_buffer_bytes(64 * 1024);
  }
  void begin_batch() { in_batch = true; }
  void end_batch() {
    in_batch = false;
    if (!writing && !queue.empty()) write();
  }
  void close() {
    err e;
    s.next_layer().close(e);
  }
  void send(const char *p, size_t n) {
    std::vector<char> m;
    if (!spare.empty()) {
      m.swap(spare.back());
      spare.pop_back();
    }
    m.assign(p, p + n);
    queue.push_back(std::move(m));
    if (!writing && !in_batch) write();
  }
  void write() {
    writing = true;
    s.async_write(net::buffer(queue.front()), [self = this->shared_from_this()](err e, size_t) {
      if (e) return;
      self->spare.push_back(std::move(self->queue.front()));
      self->queue.pop_front();
      self->writing = false;
      if (self->queue.empty()) self->handler.drained(*self);
      if (!self->writing && !self->queue.empty()) self->write();
    });
  }
  void read() {
    s.async_read(in, [self = this->shared_from_this()](err e, size_t n) {
      if (e) { self->ended(); return; }
      self->handler.message(*self, (const char *)self->in.data().data(), n);
      self->in.consume(n);
      self->read();
    });
  }
  void ended() {
    if constexpr (std::is_same_v<H<Conn>, Server<Conn>>) {
      auto &all = Server<Conn>::everyone();
      all.erase(std::find(all.begin(), all.end(), this));
    }
  }
};

using ServerConn = Conn<Server>;
using ClientConn = Conn<Client>;

template <class S>
static void tune(S &s) {
  err e;
  s.set_option(tcp::no_delay(true), e);
  s.set_option(net::socket_base::send_buffer_size(SOCKET_SEND), e);
  if (int n = socket_receive()) s.set_option(net::socket_base::receive_buffer_size(n), e);
}

struct Acceptor {
  tcp::acceptor acc;
  void next() {
    acc.async_accept([this](err e, tcp::socket s) {
      if (!e) {
        auto c = std::make_shared<ServerConn>(std::move(s), Server<ServerConn>{});
        c->s.async_accept([c](err e) {
          if (e) return;
          Server<ServerConn>::everyone().push_back(c.get());
          c->read();
        });
      }
      next();
    });
  }
};

int main(int argc, char **argv) {
  args_t a = parse_args(argc, argv);
  net::io_context io(BOOST_ASIO_CONCURRENCY_HINT_UNSAFE);
  tcp::endpoint at{net::ip::address_v4::loopback(), (uint16_t)a.port};
  if (a.server) {
    Acceptor s{tcp::acceptor(io, tcp::v4())};
    s.acc.set_option(tcp::acceptor::reuse_address(true));
    tune(s.acc);  // inherited
    s.acc.bind(at);
    s.acc.listen(4096);
    s.next();
    server_ready();
    io.run();
    return 0;
  }
  Bench b;
  b.a = a;
  b.stop = [&] { io.stop(); };
  auto dial = [&](Client<ClientConn> h) {
    tcp::socket s(io, tcp::v4());
    tune(s);
    s.connect(at);
    auto c = std::make_shared<ClientConn>(std::move(s), h);
    c->s.handshake("localhost", "/");
    c->read();
    return c;
  };
  return run_client<ClientConn>(b, dial, [&] {
    io.restart();
    io.run();
  });
}
