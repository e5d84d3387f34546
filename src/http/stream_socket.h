// One connected socket of the server: bytes in and out, with an end to every wait.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

#include "base/context.h"
#include "linux/fd.h"

namespace dvdi::http {

// For one thread. Never raises SIGPIPE.
class StreamSocket {
 public:
  // `stop_event` is a descriptor that is readable once the server stops: it ends every wait.
  StreamSocket(UniqueFd socket, int stop_event);

  // Appends what has come, some 16 KiB at most. False: the other side sends nothing more. Errors: io,
  // deadline_exceeded, cancelled.
  Result<bool> receive(const Context& context, std::string& into);
  // The same without a wait; true also where nothing has come.
  Result<bool> receive_now(std::string& into);
  // All of it. `timeout` is for each wait until the other side takes some more.
  Status send(const Context& context, std::initializer_list<std::string_view> pieces, Duration timeout);
  void end_of_sending();
  void close();
  int get() const { return socket_.get(); }
  // The other side has closed it with something of ours unread, or before we sent: what a receive() or send()
  // that failed has found.
  bool was_reset() const { return was_reset_; }
  UniqueFd release() { return std::move(socket_); }

 private:
  Status wait(const Context& context, short events);
  Error failed(std::string_view what);

  UniqueFd socket_;
  int stop_event_;
  bool was_reset_ = false;
};

}  // namespace dvdi::http
