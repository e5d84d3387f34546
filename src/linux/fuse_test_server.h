// For tests: a FUSE mount whose server this process is. It serves an empty folder, and misbehaves when told
// to.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "linux/fd.h"

namespace dvdi {

class FuseTestServer {
 public:
  // Mounts at `at`, which is there; nullptr and errno if that fails.
  static std::unique_ptr<FuseTestServer> mount(const std::string& at, const std::string& source);
  // Dies without unmounting, as by SIGKILL.
  ~FuseTestServer();
  FuseTestServer(const FuseTestServer&) = delete;
  FuseTestServer& operator=(const FuseTestServer&) = delete;

  // From now on requests are read and not answered: whoever waits for one cannot be killed. Until answer(),
  // which answers those, too.
  void hold();
  // Requests are not even read, as of a server that is stopped: whoever waits can be killed.
  void ignore();
  void answer();
  // Answers with that error from now on, as of a server that cannot reach its data; 0: with what was asked
  // for.
  void fail(int error) { error_ = error; }
  unsigned requests() const { return requests_; }  // that were read, but for those of the mount itself

 private:
  enum class Manner { answers, holds, ignores };
  explicit FuseTestServer(UniqueFd device);
  void serve();
  void serve_one();
  void reply(std::uint64_t unique, int error, const void* body, std::size_t size);
  void answer_attributes(std::uint64_t unique);
  void become(Manner manner);

  UniqueFd device_;
  UniqueFd wake_;
  std::mutex mutex_;
  Manner manner_ = Manner::answers;
  bool stop_ = false;
  std::vector<std::uint64_t> held_;
  std::atomic<unsigned> requests_ = 0;
  std::atomic<int> error_ = 0;
  std::thread thread_;
};

}  // namespace dvdi
