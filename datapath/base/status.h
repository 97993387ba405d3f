// Status and Result<T>: how the control path reports failure.
//
// A Status carries a code (the gRPC codes, by meaning), one sentence for the operator that names the object at fault,
// why, and what would be accepted, and optionally `field`, the path of the request field at fault
// ("options:remote_ip"). Nothing on the packet path uses these: a packet that cannot go on is dropped with a
// DropReason. Both are [[nodiscard]], copyable, and hold no references. vswitchd/rpc translates Status to grpc::Status
// in one place.
#pragma once

#include <cassert>
#include <string>
#include <utility>
#include <variant>

namespace vswitch {

enum class StatusCode {
  ok,
  invalid_argument,     // the request is wrong whatever the state of the switch
  not_found,            // a named bridge, port, rule or device does not exist
  already_exists,       // what was to be created is there
  failed_precondition,  // right request, wrong state (device down, UDP port taken, ...)
  resource_exhausted,   // a limit or the disk is full
  unavailable,          // try again later
  unimplemented,        // a known feature that this version does not have
  aborted,              // a concurrent change won
  internal,             // our bug, or the system broke a promise
};

class [[nodiscard]] Status {
 public:
  Status() = default;  // ok
  Status(StatusCode code, std::string message, std::string field = {})
      : code_(code), message_(std::move(message)), field_(std::move(field)) {}

  bool ok() const { return code_ == StatusCode::ok; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }
  const std::string& field() const { return field_; }
  // The same failure with "prefix: " in front of the sentence (e.g. a file and line).
  Status with_prefix(const std::string& prefix) const {
    return ok() ? *this : Status(code_, prefix + ": " + message_, field_);
  }
  bool operator==(const Status&) const = default;

 private:
  StatusCode code_ = StatusCode::ok;
  std::string message_;
  std::string field_;
};

inline Status invalid_argument(std::string message, std::string field = {}) {
  return {StatusCode::invalid_argument, std::move(message), std::move(field)};
}
inline Status not_found(std::string message, std::string field = {}) {
  return {StatusCode::not_found, std::move(message), std::move(field)};
}
inline Status already_exists(std::string message, std::string field = {}) {
  return {StatusCode::already_exists, std::move(message), std::move(field)};
}
inline Status failed_precondition(std::string message, std::string field = {}) {
  return {StatusCode::failed_precondition, std::move(message), std::move(field)};
}
inline Status resource_exhausted(std::string message, std::string field = {}) {
  return {StatusCode::resource_exhausted, std::move(message), std::move(field)};
}
inline Status unimplemented(std::string message, std::string field = {}) {
  return {StatusCode::unimplemented, std::move(message), std::move(field)};
}
inline Status unavailable(std::string message) { return {StatusCode::unavailable, std::move(message)}; }
inline Status internal_error(std::string message) { return {StatusCode::internal, std::move(message)}; }

// A value or the Status that says why there is none.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}  // NOLINT: implicit on purpose, `return value;`
  Result(Status status) : state_(std::move(status)) { assert(!std::get<Status>(state_).ok()); }  // NOLINT

  bool ok() const { return std::holds_alternative<T>(state_); }
  explicit operator bool() const { return ok(); }
  Status status() const { return ok() ? Status() : std::get<Status>(state_); }
  // REQUIRES: ok()
  T& value() & { return std::get<T>(state_); }
  const T& value() const& { return std::get<T>(state_); }
  T&& value() && { return std::get<T>(std::move(state_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  std::variant<Status, T> state_;
};

#define VSWITCH_RETURN_IF_ERROR(expression)                                               \
  do {                                                                                    \
    if (::vswitch::Status vs_status_ = (expression); !vs_status_.ok()) return vs_status_; \
  } while (false)

}  // namespace vswitch
