// The path of a Unix socket, made to fit into a socket address.
#pragma once

#include <string>

#include "base/result.h"
#include "linux/fd.h"

namespace dvdi::http {

// A socket address holds 107 bytes. A longer path goes through a descriptor of its folder, so it works as
// long as the file name fits.
class SocketPath {
 public:
  // unavailable where the folder is not there (yet); invalid_argument where the name is too long.
  static Result<SocketPath> open(const std::string& path);
  // For a socket address; holds as long as this object lives.
  const std::string& short_path() const { return short_path_; }

 private:
  UniqueFd folder_;
  std::string short_path_;
};

}  // namespace dvdi::http
