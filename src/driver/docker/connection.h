// The way to one plugin: find it, wait for it, introduce ourselves, call it.
#pragma once

#include <functional>
#include <string>

#include "base/context.h"
#include "base/sync.h"
#include "http/client.h"

namespace dvdi::driver::docker {

// How long a call waits for a plugin that is not there yet: between attempts to connect first_delay, doubled
// each time up to longest_delay, give or take a quarter.
struct Patience {
  Duration total = std::chrono::seconds(15);
  Duration first_delay = std::chrono::milliseconds(100);
  Duration longest_delay = std::chrono::seconds(8);

  bool operator==(const Patience&) const = default;
};

// Thread-safe; calls run side by side.
class Connection {
 public:
  using Locate = std::function<Result<http::Endpoint>()>;

  // `locate` is asked before each attempt: a plugin that starts again may listen elsewhere.
  Connection(Locate locate, Patience patience);

  // POSTs and gives the answer, whatever its status. Only attempts to connect are repeated, never a request
  // that may have been sent. What goes wrong before it is sent, /Plugin.Activate included, is not_sent.
  Result<http::Response> call(const Context& context, const http::Request& request,
                              const http::Limits& limits);

 private:
  Result<http::Response> attempt(const Context& context, const http::Request& request,
                                 const http::Limits& limits, std::string& tried);
  Status activate(const Context& context, const http::Endpoint& endpoint);
  bool activated(const std::string& generation);
  void set_activated(const std::string& generation);

  Locate locate_;
  http::Connections connections_;
  Patience patience_;
  Mutex mutex_;            // never held during a call
  std::string activated_;  // the generation of the server that has answered /Plugin.Activate; "": none
};

// The path of a call as the protocol writes it, with the headers that all calls have.
http::Request plugin_request(const Context& context, std::string_view path, std::string body);

}  // namespace dvdi::driver::docker
