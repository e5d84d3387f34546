// Every problem of a request, each with its place: a person corrects all of them at once.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace dvdi::spec {

// `container.volumes[2].external`, `env["a b"]`: places as a person would look them up in the request.
std::string member(std::string_view place, std::string_view key);
std::string element(std::string_view place, std::size_t index);

// A text from the request in quotes, safe to show. Never for the value of a driver option: it may be a
// secret.
std::string quoted(std::string_view text);

class Problems {
 public:
  // `message` completes "PLACE: …". Beyond a limit problems are counted only: a hostile request of a megabyte
  // must not make an error of a hundred.
  void add(std::string_view place, std::string_view message, std::string_view hint = {});

  void add(Problems&& others);

  std::size_t count() const { return count_; }
  bool empty() const { return count_ == 0; }

  // One invalid_argument error, `what` and the count; the problems are attached.
  Error error(std::string_view what) const;

 private:
  std::vector<Error> kept_;
  std::size_t count_ = 0;
};

}  // namespace dvdi::spec
