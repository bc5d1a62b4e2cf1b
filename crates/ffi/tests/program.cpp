// What a C++ program sees of the C interface; ends with 0 when all of it is as promised.
#include <sys/wait.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "network_system.h"

#define CHECK(what)                                                                  \
    do {                                                                             \
        if (!(what)) {                                                               \
            std::fprintf(stderr, "line %d: %s: %s\n", __LINE__, #what, ns_last_error()); \
            std::exit(1);                                                            \
        }                                                                            \
    } while (0)

namespace {
struct Events {
    std::mutex mutex;
    std::condition_variable more;
    std::vector<std::string> messages;
};

void echo(void*, const ns_session* session, const uint8_t* data, size_t length) {
    CHECK(ns_session_send(session, data, length) == 0);
}

void keep(void* user, const ns_session*, const uint8_t* data, size_t length) {
    auto& events = *static_cast<Events*>(user);
    std::lock_guard<std::mutex> lock(events.mutex);
    events.messages.emplace_back(reinterpret_cast<const char*>(data), length);
    events.more.notify_all();
}
}  // namespace

int main() {
    ns_server* server = nullptr;
    CHECK(ns_server_new(nullptr, &server) == -1);
    CHECK(ns_server_new("tcp://127.0.0.1:0", &server) == 0);
    ns_callbacks callbacks{nullptr, nullptr, echo, nullptr};
    CHECK(ns_server_set_callbacks(server, &callbacks) == 0);
    CHECK(ns_server_stop(server, 1000) == -660);
    for (int cycle = 0; cycle < 3; ++cycle) {
        CHECK(ns_server_start(server) == 0);
        CHECK(ns_server_start(server) == -661);
        char url[100];
        CHECK(ns_server_address(server, url, 3) == -1);
        CHECK(ns_server_address(server, url, sizeof url) == 0);

        Events events;
        ns_client* client = nullptr;
        CHECK(ns_client_new(url, &client) == 0);
        ns_callbacks kept{&events, nullptr, keep, nullptr};
        CHECK(ns_client_set_callbacks(client, &kept) == 0);
        CHECK(ns_client_send(client, reinterpret_cast<const uint8_t*>("x"), 1) == -603);
        CHECK(ns_client_stop(client, 1000) == -603);
        CHECK(ns_client_start(client) == 0);
        CHECK(ns_client_start(client) == -7);
        CHECK(ns_client_wait_connected(client, 60000) == 0);
        std::thread waiting([client] { CHECK(ns_client_wait(client) == 0); });
        for (int n = 0; n < 1000; ++n) {
            auto text = std::to_string(n);
            CHECK(ns_client_send(client, reinterpret_cast<const uint8_t*>(text.data()), text.size()) == 0);
        }
        {
            std::unique_lock<std::mutex> lock(events.mutex);
            events.more.wait(lock, [&] { return events.messages.size() == 1000; });
            for (int n = 0; n < 1000; ++n) CHECK(events.messages[n] == std::to_string(n));
        }
        CHECK(ns_client_stop(client, 5000) == 0);
        waiting.join();
        CHECK(ns_client_free(client) == 0);
        CHECK(ns_server_stop(server, 5000) == 0);
    }
    CHECK(std::string(ns_error_text(-601)) == "connection refused");
    auto child = fork();
    if (child == 0) _exit(ns_server_start(server) == -6 ? 0 : 1);
    int status = 1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(ns_server_free(server) == 0);
}
