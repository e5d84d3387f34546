#include "linux/helper_wire.h"

#include <fmt/format.h>

#include <cstring>

namespace dvdi::helper {

namespace {

constexpr unsigned attached_depth = 4;

class Writer {
 public:
  explicit Writer(std::string& out) : out_(out) {}
  void number(std::uint64_t value) {
    char bytes[sizeof value];
    std::memcpy(bytes, &value, sizeof value);
    out_.append(bytes, sizeof value);
  }
  void text(std::string_view value) {
    number(value.size());
    out_ += value;
  }
  void error(const Error& error, unsigned depth) {
    number(static_cast<std::uint64_t>(error.code));
    number(static_cast<std::uint64_t>(error.outcome));
    number(error.attempt);
    for (const std::string* one :
         {&error.message, &error.driver, &error.volume, &error.operation, &error.hint}) {
      text(*one);
    }
    number(depth == 0 ? 0 : error.attached.size());
    if (depth == 0) return;
    for (const Error& one : error.attached) this->error(one, depth - 1);
  }

 private:
  std::string& out_;
};

class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}
  bool number(std::uint64_t& value) {
    if (bytes_.size() < sizeof value) return false;
    std::memcpy(&value, bytes_.data(), sizeof value);
    bytes_.remove_prefix(sizeof value);
    return true;
  }
  bool text(std::string& value) {
    std::uint64_t size = 0;
    if (!number(size) || size > bytes_.size()) return false;
    value = bytes_.substr(0, size);
    bytes_.remove_prefix(size);
    return true;
  }
  bool error(Error& error, unsigned depth) {
    std::uint64_t code = 0;
    std::uint64_t outcome = 0;
    std::uint64_t attempt = 0;
    std::uint64_t attached = 0;
    if (!number(code) || !number(outcome) || !number(attempt)) return false;
    if (code > static_cast<std::uint64_t>(Code::internal)) return false;
    if (outcome > static_cast<std::uint64_t>(Outcome::unknown)) return false;
    error.code = static_cast<Code>(code);
    error.outcome = static_cast<Outcome>(outcome);
    error.attempt = static_cast<unsigned>(attempt);
    for (std::string* one : {&error.message, &error.driver, &error.volume, &error.operation, &error.hint}) {
      if (!text(*one)) return false;
    }
    if (!number(attached) || attached > bytes_.size() || (depth == 0 && attached != 0)) return false;
    for (std::uint64_t i = 0; i < attached; ++i) {
      if (!this->error(error.attached.emplace_back(), depth - 1)) return false;
    }
    return true;
  }
  bool at_end() const { return bytes_.empty(); }

 private:
  std::string_view bytes_;
};

}  // namespace

std::string encode(const Result<std::string>& result) {
  std::string out;
  Writer writer(out);
  writer.number(result ? 1 : 0);
  if (result) {
    writer.text(*result);
  } else {
    writer.error(result.error(), attached_depth);
  }
  if (out.size() <= message_limit) return out;
  // The effect has taken place: say so rather than let it seem undone.
  return encode(
      Error{.code = Code::resource_exhausted,
            .message = fmt::format("the answer of the helper is larger than {} bytes", message_limit),
            .outcome = Outcome::unknown});
}

Result<std::string> decode(std::string_view bytes) {
  Reader reader(bytes);
  std::uint64_t good = 0;
  if (reader.number(good) && good == 1) {
    std::string value;
    if (reader.text(value) && reader.at_end()) return value;
  } else if (good == 0) {
    Error error;
    if (reader.error(error, attached_depth) && reader.at_end()) return error;
  }
  return Error{.code = Code::internal,
               .message = "the answer of the helper cannot be understood",
               .outcome = Outcome::unknown};
}

}  // namespace dvdi::helper
