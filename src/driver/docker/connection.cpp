#include "driver/docker/connection.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/random.h"
#include "base/text.h"
#include "driver/docker/protocol.h"

namespace dvdi::driver::docker {

namespace {

Duration with_jitter(Duration delay) {
  const Duration quarter = delay / 4;
  if (quarter <= Duration::zero()) return delay;
  const auto spread = static_cast<std::uint64_t>(2 * quarter.count());
  return delay - quarter + Duration(static_cast<Duration::rep>(random_u64() % spread));
}

double seconds_of(Duration duration) { return std::chrono::duration<double>(duration).count(); }

constexpr std::size_t most_idle_connections = 16;  // to one plugin

bool worth_another_attempt(const Error& error) {
  // not_found is the plugin's socket that is not there: it was when this driver was found.
  return error.outcome == Outcome::not_sent &&
         (error.code == Code::unavailable || error.code == Code::not_found);
}

Error gave_up(const Error& last, const std::string& tried, unsigned attempts, Duration waited) {
  Error error;
  error.code = Code::unavailable;
  error.message = fmt::format("the plugin cannot be reached{}{}: tried {} {} in {:.1f} s, the last time: {}",
                              tried.empty() ? "" : " at ", tried, attempts, attempts == 1 ? "time" : "times",
                              seconds_of(waited), last.message);
  error.hint = "is the plugin running?";
  error.outcome = Outcome::not_sent;
  return error;
}

}  // namespace

http::Request plugin_request(const Context& context, std::string_view path, std::string body) {
  http::Request request{.method = http::Method::post, .path = std::string(path)};
  request.headers.push_back(fmt::format("Accept: {}", media_type));
  request.headers.emplace_back("Content-Type: application/json");
  if (!context.trace_id().empty()) {
    request.headers.push_back(fmt::format("X-Dvdi-Trace-Id: {}", printable(context.trace_id(), 128)));
  }
  request.body = std::move(body);
  return request;
}

Connection::Connection(Locate locate, Patience patience)
    : locate_(std::move(locate)), connections_(most_idle_connections), patience_(patience) {}

Result<http::Response> Connection::call(const Context& context, const http::Request& request,
                                        const http::Limits& limits) {
  const BootTime start = context.clock().boot();
  const auto waited = [&] { return context.clock().boot() - start; };
  Duration delay = patience_.first_delay;
  std::string tried;
  for (unsigned attempts = 1;; ++attempts) {
    if (auto ended = context.check("call the plugin"); !ended) {
      Error error = std::move(ended).error();
      error.outcome = Outcome::not_sent;
      return error;
    }
    auto answer = attempt(context, request, limits, tried);
    if (answer || !worth_another_attempt(answer.error())) return answer;

    const Duration left = std::min(patience_.total - waited(), context.remaining());
    constexpr Duration too_short = std::chrono::milliseconds(5);
    if (left < too_short) return gave_up(answer.error(), tried, attempts, waited());
    // A last attempt before the patience or the deadline ends, not at its very end.
    Duration next = std::min(with_jitter(delay), patience_.total - waited());
    if (next >= context.remaining()) next = context.remaining() / 2;
    if (auto ended = pause(context, next, "wait for the plugin"); !ended) {
      if (!context.cancelled()) return gave_up(answer.error(), tried, attempts, waited());
      Error error = std::move(ended).error();
      error.outcome = Outcome::not_sent;
      error.attached.push_back(gave_up(answer.error(), tried, attempts, waited()));
      return error;
    }
    delay = std::min(delay * 2, patience_.longest_delay);
  }
}

Result<http::Response> Connection::attempt(const Context& context, const http::Request& request,
                                           const http::Limits& limits, std::string& tried) {
  DVDI_TRY(const http::Endpoint endpoint, locate_());
  tried = endpoint.text();
  const std::string generation = endpoint.generation();
  if (!activated(generation)) {
    DVDI_CHECK(activate(context, endpoint));
    set_activated(generation);
  }
  auto answer = connections_.send(context, endpoint, request, limits);
  // Nobody there, or gone in the middle: whoever listens next has not been asked yet.
  if (!answer && (answer.error().code == Code::unavailable || answer.error().code == Code::io))
    set_activated("");
  return answer;
}

Status Connection::activate(const Context& context, const http::Endpoint& endpoint) {
  const auto not_sent = [&](Error error) {
    error.outcome = Outcome::not_sent;  // that is: of the call that was to follow
    if (error.code == Code::resource_exhausted || error.code == Code::corrupted)
      error.code = Code::driver_violation;
    error.message = fmt::format("/Plugin.Activate at {}: {}", printable(endpoint.text()), error.message);
    return fail(std::move(error));
  };
  auto answer = connections_.send(context, endpoint, plugin_request(context, "/Plugin.Activate", ""));
  if (!answer) return not_sent(std::move(answer).error());
  auto object = interpret(*answer, EmptyAnswer::violation);
  if (!object) return not_sent(std::move(object).error());
  auto names = parse_implements(*object);
  if (!names) return not_sent(std::move(names).error());
  if (std::ranges::find(*names, "VolumeDriver") == names->end()) {
    std::string list;
    for (const std::string& one : *names) list += (list.empty() ? "" : ", ") + one;
    return not_sent({.code = Code::unsupported,
                     .message = fmt::format("the plugin is no volume driver; it implements: {}",
                                            list.empty() ? "nothing" : printable(list))});
  }
  return {};
}

bool Connection::activated(const std::string& generation) {
  const Lock lock(mutex_);
  return activated_ == generation;
}

void Connection::set_activated(const std::string& generation) {
  const Lock lock(mutex_);
  activated_ = generation;
}

}  // namespace dvdi::driver::docker
