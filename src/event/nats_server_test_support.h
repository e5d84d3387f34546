// A real nats-server for tests: Debian's, started and killed by them, on a port and a folder of its own.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include "store/event_log.h"

namespace dvdi {

class NatsServer {
 public:
  // `config`: what a configuration file says besides the address; JetStream is in the folder `store`.
  explicit NatsServer(std::string config = "jetstream { store_dir: STORE }");
  ~NatsServer();
  NatsServer(const NatsServer&) = delete;
  NatsServer& operator=(const NatsServer&) = delete;

  // Until it listens; the same port and store each time.
  void start();
  // SIGKILL, and waits for its end.
  void kill();
  void signal(int number) const;

  const std::string& folder() const { return folder_; }
  std::string write(const std::string& name, std::string_view text, mode_t mode = 0600) const;  // its path
  std::string url(const std::string& scheme = "nats", const std::string& host = "127.0.0.1") const;

 private:
  std::string folder_, config_;
  std::string port_ = "-1";
  pid_t pid_ = 0;
  int log_ = -1;
};

// A node, as events name it.
inline const std::string node_a = "103b50db-7527-42cf-8693-895bacf33a48";
// Events `first` to `last` of a node: a whole chain from number 1 on. Those with `text` have it in them.
std::vector<StoredEvent> test_events(const std::string& node, std::uint64_t first, std::uint64_t last,
                                     const std::string& text = "");

}  // namespace dvdi
