// A client in the old style, against a plain socket: what is accepted arrives, in order.
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <thread>

#include "network_system/core/messaging_client.h"

#define CHECK(what)                                                     \
    do {                                                                \
        if (!(what)) {                                                  \
            std::fprintf(stderr, "line %d: %s\n", __LINE__, #what);     \
            std::exit(1);                                               \
        }                                                               \
    } while (0)

int main() {
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    CHECK(bind(listener, reinterpret_cast<sockaddr*>(&address), size) == 0);
    CHECK(listen(listener, 5) == 0);
    CHECK(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) == 0);

    auto client = std::make_shared<network_system::core::messaging_client>("old");
    auto stopped = client->stop_client();
    CHECK(!stopped && stopped.error().code == -99);
    CHECK(client->send_packet({1}).error().code == -603);
    CHECK(client->send_packet({}).error().code == -1);
    CHECK(client->start_client("127.0.0.1", ntohs(address.sin_port)));
    CHECK(client->start_client("127.0.0.1", 1).error().code == -7);
    const int peer = accept(listener, nullptr, nullptr);
    CHECK(peer >= 0);
    std::thread one([client] { client->wait_for_stop(); });
    std::thread two([client] { client->wait_for_stop(); });
    std::string sent, came;
    for (int n = 0; n < 1000; ++n) {
        const std::string text = std::to_string(n);
        // the peer may know of the connection before the client does
        while (n == 0 && !client->send_packet({text.begin(), text.end()})) std::this_thread::yield();
        if (n > 0) CHECK(client->send_packet({text.begin(), text.end()}));
        sent += text;
    }
    CHECK(client->stop_client());
    char bytes[4096];
    for (ssize_t got; (got = read(peer, bytes, sizeof bytes)) > 0;) came.append(bytes, got);
    CHECK(came == sent);
    one.join();
    two.join();
    close(peer);
    close(listener);
}
