// What the program, the ancestor and the helpers of a HelperPool say to one another. Only helper_pool.cpp and
// helper_process.cpp use it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "linux/helper_pool.h"

namespace dvdi::helper {

constexpr std::size_t message_limit = std::size_t{1} << 20;

// Precedes the bytes of a request and of a reply.
struct Header {
  HelperFunction function = nullptr;  // valid in every helper: all are forks of one image; unused in a reply
  std::uint64_t size = 0;
};

// The ancestor's answer to "fork"; a helper's socket and pidfd travel with it where `error` is 0.
struct Forked {
  pid_t pid = 0;
  int error = 0;
};

// A result as bytes. Larger than message_limit: an error that says so instead.
std::string encode(const Result<std::string>& result);
// Bytes that were not written by encode() give an error of Code::internal.
Result<std::string> decode(std::string_view bytes);

// The whole life of the ancestor, which answers on `control` and forks helpers. Never returns.
[[noreturn]] void run_ancestor(int control, pid_t program);

}  // namespace dvdi::helper
