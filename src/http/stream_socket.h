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

 private:
  Status wait(const Context& context, short events);

  UniqueFd socket_;
  int stop_event_;
};

}  // namespace dvdi::http
