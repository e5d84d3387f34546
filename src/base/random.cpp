#include "base/random.h"

#include <fmt/format.h>
#include <sys/random.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>

namespace dvdi {

namespace {

std::atomic<std::uint64_t (*)()> installed = nullptr;

template <class T>
T random_value() {
  T value{};
  if (const auto source = installed.load(std::memory_order_relaxed); source != nullptr) {
    constexpr std::size_t bytes_of_a_word = 8;
    static_assert(sizeof(T) % bytes_of_a_word == 0);
    std::array<std::uint64_t, sizeof(T) / bytes_of_a_word> words{};
    for (auto& word : words) word = source();
    std::memcpy(&value, words.data(), sizeof value);
    return value;
  }
  // Small reads from the initialised pool are never short and never fail; without randomness ids would
  // collide.
  if (getrandom(&value, sizeof value, 0) != static_cast<ssize_t>(sizeof value)) std::abort();
  return value;
}

}  // namespace

void install_random(std::uint64_t (*source)()) { installed = source; }

std::uint64_t random_u64() { return random_value<std::uint64_t>(); }

std::string random_uuid() {
  auto b = random_value<std::array<std::uint8_t, 16>>();
  b[6] = static_cast<std::uint8_t>((b[6] & 0x0fU) | 0x40U);
  b[8] = static_cast<std::uint8_t>((b[8] & 0x3fU) | 0x80U);
  return fmt::format(
      "{:02x}{:02x}{:02x}{:02x}-{:02x}{:02x}-{:02x}{:02x}-{:02x}{:02x}-{:02x}{:02x}{:02x}{:02x}{:02x}{:02x}",
      b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}

}  // namespace dvdi
