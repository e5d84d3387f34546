// No SIGPIPE reaches the program while this lives, on this thread.
#pragma once

#include <csignal>

namespace dvdi::http {

// libcurl is told to leave signals alone, and OpenSSL writes without MSG_NOSIGNAL: a TLS server that goes
// away would kill the program. The program's own handling of SIGPIPE is not touched.
class SigpipeBlock {
 public:
  SigpipeBlock();
  ~SigpipeBlock();
  SigpipeBlock(const SigpipeBlock&) = delete;
  SigpipeBlock& operator=(const SigpipeBlock&) = delete;

 private:
  sigset_t before_{};
  bool was_pending_ = false;
};

}  // namespace dvdi::http
