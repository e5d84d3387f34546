#include "http/connection.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <exception>
#include <utility>

#include "http/answer_text.h"
#include "http/exchange.h"

namespace dvdi::http {

namespace {

// What a client may still send after an answer that ends its connection, and for how long: a connection that
// is closed while something is unread tells the client of a failure, which may hide the answer from it.
constexpr std::size_t linger_bytes = std::size_t{1} << 20U;
constexpr Duration linger_time = std::chrono::seconds(1);

const std::atomic<bool> always = true;

}  // namespace

Connection::Connection(UniqueFd socket, const Caller& peer, bool refused, const ServerCommon& common)
    : common_(common), peer_(peer), refused_(refused), socket_(std::move(socket), common.stop_event.get()) {}

void Connection::serve() {
  try {
    while (serve_request()) {
    }
  } catch (const std::exception&) {
    socket_.close();  // no memory for this connection: it ends, and the other ones do not
  }
  socket_.close();
}

void Connection::cancel(bool& reason) {
  std::stop_source running = [&] {
    const std::lock_guard lock(mutex_);
    reason = true;
    return current_;
  }();
  running.request_stop();  // runs what waits for it: not with the lock
}

void Connection::client_gone() { cancel(gone_); }
void Connection::stop() { cancel(stopped_); }

bool Connection::end_if_kept() {
  const std::lock_guard lock(mutex_);
  if (!kept_) return false;
  kept_ = false;
  // For reading alone: the answer to what came before must still go out.
  return ::shutdown(socket_.get(), SHUT_RD) == 0;
}

std::stop_token Connection::begin() {
  const std::lock_guard lock(mutex_);
  current_ = std::stop_source();
  if (gone_ || stopped_) current_.request_stop();  // nothing waits for it yet
  return current_.get_token();
}

bool Connection::wait_for_request() {
  if (unparsed_.capacity() > 1024) unparsed_ = {};  // idle connections are many
  const BootTime deadline = common_.clock->boot() + common_.limits.idle_timeout;
  for (;;) {
    std::array<pollfd, 2> descriptors{
        pollfd{.fd = socket_.get(), .events = POLLIN, .revents = 0},
        pollfd{.fd = common_.drain_event.get(), .events = POLLIN, .revents = 0}};
    const Duration left = std::max(deadline - common_.clock->boot(), Duration::zero());
    const auto milliseconds = std::chrono::ceil<std::chrono::milliseconds>(left).count();
    // One wait, not slices: an idle server does not wake.
    const int ready = ::poll(descriptors.data(), descriptors.size(),
                             static_cast<int>(std::min<std::int64_t>(milliseconds, INT_MAX)));
    if (ready < 0 && errno != EINTR) return false;
    if (descriptors[0].revents != 0) return true;  // what came before the drain is still served
    if (descriptors[1].revents != 0) return false;
    if (common_.clock->boot() >= deadline) return false;
  }
}

bool Connection::read_head(RequestParser& parser, std::string& body, std::optional<Refusal>& refusal) {
  const Context context = Context(*common_.clock).with_timeout(common_.limits.header_timeout);
  bool started = !unparsed_.empty();
  for (;;) {
    auto used = parser.feed(unparsed_, body);
    if (!used) {
      refusal = std::move(used).error();
      return false;
    }
    unparsed_.erase(0, *used);
    if (parser.head_done()) return true;
    const auto more = socket_.receive(context, unparsed_);
    started = started || !unparsed_.empty();
    if (!more) {
      if (more.error().code == Code::deadline_exceeded)
        refusal = Refusal{.status = 408, .text = "the head of the request did not come in time"};
      return false;
    }
    if (!*more) {
      if (started) refusal = Refusal{.status = 400, .text = "the request ended before its head was complete"};
      return false;
    }
  }
}

void Connection::run_handler(const Context& context, IncomingRequest& request, Answer& answer) {
  if (refused_) {
    constexpr std::string_view text = "the server has too many connections; try again later";
    std::ignore = answer.send(503, problem_type, problem_body(503, text));
    return;
  }
  try {
    common_.handler(context, request, answer);
  } catch (const std::exception&) {
    // Out of memory, most likely: one request fails, the other ones do not. Its answer is 500, or cut off.
    if (answer.started()) answer.fail();
  }
}

bool Connection::serve_request() {
  const auto keep = [&](bool kept) {
    const std::lock_guard lock(mutex_);
    kept_ = kept;
  };
  keep(has_served_);
  const bool comes = !unparsed_.empty() || wait_for_request();
  keep(false);
  if (!comes) return false;
  has_served_ = true;
  RequestParser parser(common_.limits.header_bytes);
  std::string body;
  std::optional<Refusal> refusal;
  if (!read_head(parser, body, refusal)) {
    if (refusal) refuse(*refusal);
    return false;
  }
  const Context context = Context(*common_.clock).with_caller(peer_).with_stop(begin());
  const Exchange::Surroundings around{.socket = socket_,
                                      .unparsed = unparsed_,
                                      .peer = peer_,
                                      .limits = common_.limits,
                                      .ends = refused_ ? always : common_.draining};
  Exchange exchange(around, parser, std::move(body), context);
  run_handler(context, exchange, exchange);
  exchange.finish();
  if (exchange.reusable()) return true;
  if (exchange.answered_early()) linger();
  return false;
}

void Connection::refuse(const Refusal& refusal) {
  const std::string answer = problem_answer(refusal.status, refusal.text, common_.clock->wall());
  if (socket_.send(Context(*common_.clock), {answer}, common_.limits.write_timeout)) linger();
}

void Connection::linger() {
  socket_.end_of_sending();
  const Context context = Context(*common_.clock).with_timeout(linger_time);
  for (std::size_t seen = 0; seen < linger_bytes;) {
    unparsed_.clear();
    const auto more = socket_.receive(context, unparsed_);
    if (!more || !*more) return;
    seen += unparsed_.size();
  }
}

}  // namespace dvdi::http
