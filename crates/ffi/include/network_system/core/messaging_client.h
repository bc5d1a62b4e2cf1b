// The old client: bytes without framing.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "../../network_system.h"
#include "../utils/result_types.h"

namespace network_system::core {

class messaging_client : public std::enable_shared_from_this<messaging_client> {
public:
    explicit messaging_client(std::string_view id) : id_(id) {}
    messaging_client(const messaging_client&) = delete;
    messaging_client& operator=(const messaging_client&) = delete;
    ~messaging_client() { (void)stop_client(); }

    // Success before there is a connection, as ever.
    VoidResult start_client(std::string_view host, unsigned short port) {
        if (host.empty()) return error_void(-1, "the host is empty");
        std::lock_guard<std::mutex> lock(starts_);
        if (current()) return error_void(-7, "the client is started already");
        const bool bare_v6 = host.find(':') != host.npos && host.front() != '[';
        const std::string name = bare_v6 ? "[" + std::string(host) + "]" : std::string(host);
        const std::string url = "tcp://" + name + ":" + std::to_string(port) + "?framing=raw";
        ns_client* made = nullptr;
        int code = ns_client_new(url.c_str(), &made);
        std::shared_ptr<ns_client> client(made, [](ns_client* old) { (void)ns_client_free(old); });
        if (code == 0) code = ns_client_start(made);
        if (code != 0) return error_void(code, ns_last_error());
        std::lock_guard<std::mutex> swap(mutex_);
        client_ = std::move(client);
        return ok();
    }

    VoidResult stop_client() {
        std::lock_guard<std::mutex> lock(starts_);
        auto client = current();
        if (!client) return error_void(-99, "the client is not started");
        const int code = ns_client_stop(client.get(), 5000);
        if (code != 0) return error_void(code, ns_last_error());
        std::lock_guard<std::mutex> swap(mutex_);
        client_.reset();
        return ok();
    }

    void wait_for_stop() {
        if (auto client = current()) (void)ns_client_wait(client.get());
    }

    VoidResult send_packet(std::vector<uint8_t> data) {
        if (data.empty()) return error_void(-1, "the message is empty");
        auto client = current();
        if (!client) return error_void(-603, "the client is not connected");
        const int code = ns_client_send(client.get(), data.data(), data.size());
        return code == 0 ? ok() : error_void(code, ns_last_error());
    }

private:
    std::shared_ptr<ns_client> current() {
        std::lock_guard<std::mutex> lock(mutex_);
        return client_;
    }

    std::string id_;
    std::mutex starts_, mutex_;
    std::shared_ptr<ns_client> client_;
};

}  // namespace network_system::core
