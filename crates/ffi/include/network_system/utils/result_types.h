// Results of the old API: Result<T>, VoidResult, error_info and the error codes.
#pragma once

#include <string>
#include <utility>
#include <variant>

namespace network_system {

struct error_info {
    int code = 0;
    std::string message, source, details;
};

template <typename T>
class Result {
public:
    Result(T value) : state_(std::move(value)) {}
    Result(error_info error) : state_(std::move(error)) {}
    bool is_ok() const { return state_.index() == 0; }
    bool is_err() const { return !is_ok(); }
    explicit operator bool() const { return is_ok(); }
    const T& value() const { return std::get<0>(state_); }
    T& value() { return std::get<0>(state_); }
    const error_info& error() const { return std::get<1>(state_); }

private:
    std::variant<T, error_info> state_;
};

using VoidResult = Result<std::monostate>;

inline VoidResult ok() { return VoidResult(std::monostate{}); }
template <typename T>
Result<T> ok(T value) { return Result<T>(std::move(value)); }
template <typename T>
Result<T> error(int code, const std::string& message, const std::string& source = "network_system",
                const std::string& details = "") {
    return Result<T>(error_info{code, message, source, details});
}
inline VoidResult error_void(int code, const std::string& message,
                             const std::string& source = "network_system",
                             const std::string& details = "") {
    return error<std::monostate>(code, message, source, details);
}

}  // namespace network_system
