// Standalone asio, one thread: large reads, every reply of a read leaves in one async_write (double
// buffer), TCP_NODELAY, no scheduler locks.
#include <algorithm>
#include <asio.hpp>
#include "callbacks.hpp"

using asio::ip::tcp;
static constexpr size_t kRead = READ_ROOM;

template <template <class> class H>
struct Conn : std::enable_shared_from_this<Conn<H>> {
  tcp::socket sock;
  H<Conn> handler;
  std::unique_ptr<char[]> in{new char[kRead]};
  size_t have = 0, cap = kRead;
  std::vector<char> queued, flying;
  bool writing = false, in_batch = false;

  Conn(tcp::socket s, H<Conn> h) : sock(std::move(s)), handler(h) {}
  void begin_batch() { in_batch = true; }
  void end_batch() {
    in_batch = false;
    flush();
  }
  void close() {
    std::error_code e;
    sock.close(e);
  }

  void send(const char *p, size_t n) {
    size_t at = queued.size();
    queued.resize(at + 4 + n);
    put_u32(queued.data() + at, (uint32_t)n);
    memcpy(queued.data() + at + 4, p, n);
    if (!in_batch) flush();
  }

  void flush() {
    if (writing || queued.empty()) return;
    writing = true;
    flying.swap(queued);
    asio::async_write(sock, asio::buffer(flying), [self = this->shared_from_this()](std::error_code e, size_t) {
      self->writing = false;
      self->flying.clear();
      if (e) return;
      self->handler.drained(*self);
      self->flush();
    });
  }

  void read() {
    sock.async_read_some(asio::buffer(in.get() + have, cap - have),
                         [self = this->shared_from_this()](std::error_code e, size_t n) {
                           if (e) { self->ended(); return; }
                           self->have += n;
                           self->parse();
                           self->read();
                         });
  }

  void ended() {
    if constexpr (std::is_same_v<H<Conn>, Server<Conn>>) {
      auto &all = Server<Conn>::everyone();
      all.erase(std::find(all.begin(), all.end(), this));
    }
  }

  void parse() {
    size_t pos = 0;
    begin_batch();
    while (have - pos >= 4) {
      size_t len = get_u32(in.get() + pos);
      if (have - pos - 4 < len) {
        if (len + 4 > cap) {
          std::unique_ptr<char[]> big(new char[len + 4]);
          memcpy(big.get(), in.get() + pos, have - pos);
          in.swap(big);
          have -= pos;
          pos = 0;
          cap = len + 4;
        }
        break;
      }
      handler.message(*this, in.get() + pos + 4, len);
      pos += 4 + len;
    }
    have -= pos;
    if (have && pos) memmove(in.get(), in.get() + pos, have);
    end_batch();
  }
};

using ServerConn = Conn<Server>;
using ClientConn = Conn<Client>;

template <class S>
static void tune(S &s) {
  std::error_code e;
  s.set_option(tcp::no_delay(true), e);
  s.set_option(asio::socket_base::send_buffer_size(SOCKET_SEND), e);
  if (int n = socket_receive()) s.set_option(asio::socket_base::receive_buffer_size(n), e);
}

struct Acceptor {
  tcp::acceptor acc;
  void next() {
    acc.async_accept([this](std::error_code e, tcp::socket s) {
      if (!e) {
        auto c = std::make_shared<ServerConn>(std::move(s), Server<ServerConn>{});
        Server<ServerConn>::everyone().push_back(c.get());
        c->read();
      }
      next();
    });
  }
};

int main(int argc, char **argv) {
  args_t a = parse_args(argc, argv);
  asio::io_context io(ASIO_CONCURRENCY_HINT_UNSAFE);
  tcp::endpoint at{asio::ip::address_v4::loopback(), (uint16_t)a.port};
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
    c->read();
    return c;
  };
  return run_client<ClientConn>(b, dial, [&] {
    io.restart();
    io.run();
  });
}
