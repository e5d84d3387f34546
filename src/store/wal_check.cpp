#include "store/wal_check.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "linux/fd.h"

namespace dvdi {

namespace {

// https://sqlite.org/walformat.html
constexpr std::size_t log_header = 32;
constexpr std::size_t frame_header = 24;
constexpr std::size_t index_header = 48;
constexpr std::uint32_t index_version = 3007000;
constexpr std::uint32_t frames_at_once = 64;
constexpr std::uint32_t magic_little = 0x377f0682;
constexpr std::uint32_t magic_big = 0x377f0683;

using Bytes = std::span<const unsigned char>;

std::uint32_t big(Bytes from, std::size_t at) {
  return (std::uint32_t{from[at]} << 24U) | (std::uint32_t{from[at + 1]} << 16U) |
         (std::uint32_t{from[at + 2]} << 8U) | std::uint32_t{from[at + 3]};
}

std::uint32_t native(Bytes from, std::size_t at) {
  std::uint32_t value = 0;
  std::memcpy(&value, from.data() + at, sizeof(value));
  return value;
}

struct Sum {
  std::uint32_t one = 0, two = 0;
  bool operator==(const Sum&) const = default;
};

template <class Word>
Sum add(Sum sum, Bytes data, Word word) {
  for (std::size_t i = 0; i + 8 <= data.size(); i += 8) {
    sum.one += word(data, i) + sum.two;
    sum.two += word(data, i + 4) + sum.one;
  }
  return sum;
}

Sum little_sum(Sum sum, Bytes data) {
  return add(sum, data, [](Bytes from, std::size_t at) { return __builtin_bswap32(big(from, at)); });
}
Sum big_sum(Sum sum, Bytes data) { return add(sum, data, big); }

// Up to `size` bytes from `offset`; fewer at the end of the file.
Result<std::size_t> read_at(int fd, std::span<unsigned char> to, std::size_t offset,
                            const std::string& path) {
  std::size_t size = 0;
  while (size < to.size()) {
    const ssize_t got = ::pread(fd, to.data() + size, to.size() - size, static_cast<off_t>(offset + size));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return os_error("read " + path, errno);
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
  }
  return size;
}

struct Index {
  std::uint32_t page_size = 0;
  std::uint32_t frames = 0;  // that were committed
  Sum sum;                   // of the last of them
  std::array<unsigned char, 8> salt{};
};

// nullopt: it says nothing reliable, as after a writer was killed while it wrote it.
Result<std::optional<Index>> read_index(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd && errno == ENOENT) return std::optional<Index>();
  if (!fd) return os_error("open " + path, errno);
  std::array<unsigned char, 2 * index_header> bytes{};
  DVDI_TRY(const std::size_t size, read_at(fd.get(), bytes, 0, path));
  const Bytes first(bytes.data(), index_header);
  if (size < bytes.size() || std::memcmp(bytes.data(), bytes.data() + index_header, index_header) != 0 ||
      native(first, 0) != index_version || bytes[12] != 1) {
    return std::optional<Index>();
  }
  const Sum stored{native(first, 40), native(first, 44)};
  if (add(Sum(), first.subspan(0, 40), native) != stored) return std::optional<Index>();
  std::uint16_t page_size = 0;
  std::memcpy(&page_size, bytes.data() + 14, sizeof(page_size));
  Index index;
  index.page_size = (page_size & 0xfe00U) + ((page_size & 0x0001U) << 16U);
  index.frames = native(first, 16);
  index.sum = {native(first, 24), native(first, 28)};
  std::memcpy(index.salt.data(), bytes.data() + 32, index.salt.size());
  return std::optional(index);
}

}  // namespace

Result<std::optional<std::string>> find_log_damage(const std::string& log, const std::string& index) {
  DVDI_TRY(const auto known, read_index(index));
  if (!known || known->frames == 0 || known->page_size < 512) return std::optional<std::string>();
  const auto damaged = [&](const std::string& how) { return std::optional(fmt::format("{} {}", log, how)); };
  const UniqueFd fd(::open(log.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd && errno == ENOENT) return damaged(fmt::format("is not there, and held {} pages", known->frames));
  if (!fd) return os_error("open " + log, errno);
  std::array<unsigned char, log_header> header{};
  DVDI_TRY(const std::size_t size, read_at(fd.get(), header, 0, log));
  if (size < header.size()) return damaged(fmt::format("is cut short: it held {} pages", known->frames));
  const std::uint32_t magic = big(header, 0);
  if (magic != magic_little && magic != magic_big) return damaged("does not begin as a log does");
  const auto sum_of = magic == magic_big ? big_sum : little_sum;
  Sum sum = sum_of(Sum(), Bytes(header).subspan(0, 24));
  if (sum != Sum{big(header, 24), big(header, 28)} || big(header, 8) != known->page_size ||
      std::memcmp(header.data() + 16, known->salt.data(), known->salt.size()) != 0) {
    return damaged("has a damaged header");
  }
  const std::size_t frame_size = frame_header + known->page_size;
  std::vector<unsigned char> read(frame_size * std::min(known->frames, frames_at_once));
  std::size_t got = 0;
  for (std::uint32_t i = 0; i < known->frames; ++i) {
    const std::size_t at = i % frames_at_once * frame_size;
    if (at == 0) {
      DVDI_TRY(got, read_at(fd.get(), read, log_header + std::size_t{i} * frame_size, log));
    }
    if (got < at + frame_size) {
      return damaged(fmt::format("is cut short: it held {} pages, now {}", known->frames, i));
    }
    const Bytes bytes = Bytes(read).subspan(at, frame_size);
    sum = sum_of(sum, bytes.subspan(0, 8));
    sum = sum_of(sum, bytes.subspan(frame_header));
    if (std::memcmp(bytes.data() + 8, known->salt.data(), known->salt.size()) != 0 ||
        sum != Sum{big(bytes, 16), big(bytes, 20)}) {
      return damaged(fmt::format("is damaged in page {} of {}", i + 1, known->frames));
    }
  }
  if (sum != known->sum) return damaged("is not the one that was written last");
  return std::optional<std::string>();
}

}  // namespace dvdi
