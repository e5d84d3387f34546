#include "event/nats_stream.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/json.h"
#include "base/text.h"

namespace dvdi {

namespace {

// Error numbers of JetStream's API (err_code); they mean the same in every version.
constexpr std::int64_t stream_not_found = 10059;
constexpr std::int64_t stream_name_in_use = 10058;
constexpr std::int64_t no_message_found = 10037;
constexpr std::int64_t wrong_expected_stream = 10060;
constexpr std::int64_t message_too_large = 10054;

// Long enough for a batch that is repeated after a restart of either side; each id takes memory in the
// server.
constexpr std::int64_t duplicate_window_ns = std::int64_t{600} * 1'000'000'000;

std::int64_t number(const json::value& from, std::string_view name) {
  const json::value* const found = json::find(from, name);
  if (found == nullptr || !found->is_number()) return 0;
  boost::system::error_code error;
  const auto value = found->to_number<std::int64_t>(error);
  return error ? 0 : value;
}

bool flag(const json::value& from, std::string_view name) {
  const json::value* const found = json::find(from, name);
  return found != nullptr && found->is_bool() && found->get_bool();
}

// An answer of JetStream that says no.
Error refusal(std::string_view what, const json::value& error) {
  Error refused{.code = Code::failed_precondition,
                .message = fmt::format("{}: JetStream answers: {} ({})", what,
                                       printable(json::text_or_empty(error, "description"), 400),
                                       number(error, "err_code")),
                .outcome = Outcome::refused};
  if (number(error, "code") >= 500) refused.code = Code::unavailable;
  if (number(error, "err_code") == stream_not_found) refused.code = Code::not_found;
  return refused;
}

Error nobody(std::string_view what) {
  return Error{.code = Code::unavailable,
               .message = fmt::format("{}: the server says that nobody answers there", what),
               .hint =
                   "JetStream must be switched on (nats-server -js, or jetstream {} in its configuration), "
                   "also for the account of this user",
               .outcome = Outcome::not_sent};
}

// The answer's JSON.
Result<json::value> ask(NatsConnection& connection, const Context& context, const std::string& call,
                        std::string_view request, std::string_view what) {
  DVDI_TRY(const NatsReply reply, connection.request(context, "$JS.API." + call, {}, request, what));
  if (reply.nobody) return nobody(what);
  return json::parse(reply.payload, fmt::format("{}: the answer", what));
}

Result<std::string> from_base64(std::string_view text, std::string_view what) {
  std::string bytes;
  bytes.reserve(text.size() / 4 * 3);
  std::uint32_t bits = 0;
  int have = 0;
  for (const char c : text.substr(0, std::min(text.find('='), text.size()))) {
    constexpr std::string_view alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const auto value = alphabet.find(c);
    if (value == std::string_view::npos)
      return Error{.code = Code::corrupted, .message = fmt::format("{}: the answer has no base64", what)};
    bits = (bits << 6U) | static_cast<std::uint32_t>(value);
    have += 6;
    if (have < 8) continue;
    have -= 8;
    bytes.push_back(static_cast<char>((bits >> static_cast<unsigned>(have)) & 0xffU));
  }
  return bytes;
}

// Does a stream's subject take events of some node? `ours` is the subject of the settings.
bool takes(std::string_view pattern, std::string_view ours) {
  const auto theirs = split(pattern, '.');
  auto wanted = split(ours, '.');
  // A node, and types of three words: dvdi.mount.mounted. Which node is not known here.
  const std::size_t node = wanted.size();
  for (const std::string_view one : {"NODE", "dvdi", "mount", "mounted"}) wanted.push_back(one);
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    if (i >= theirs.size()) return false;
    if (theirs[i] == ">") return true;
    if (theirs[i] != "*" && theirs[i] != wanted[i] && i != node) return false;
  }
  return theirs.size() == wanted.size();
}

}  // namespace

std::string NatsStream::named(std::string_view doing) const {
  return fmt::format("{} the stream {}", doing, settings_->stream);
}

Status NatsStream::check(const Context& context) {
  const std::string what = named("look at");
  const std::string call = "STREAM.INFO." + settings_->stream;
  DVDI_TRY(json::value info, ask(*connection_, context, call, "", what));
  if (const json::value* error = json::find(info, "error"); error != nullptr) {
    Error refused = refusal(what, *error);
    if (refused.code != Code::not_found) return refused;
    refused.hint = fmt::format(
        "create_stream = true, or: nats stream add {} --subjects '{}.>' --storage file --retention limits "
        "--dupe-window 10m --defaults",
        settings_->stream, settings_->subject);
    if (!settings_->create_stream) return refused;
    DVDI_CHECK(create(context));
    DVDI_TRY(info, ask(*connection_, context, call, "", what));
    if (const json::value* again = json::find(info, "error"); again != nullptr) return refusal(what, *again);
  }
  const json::value* const config = json::find(info, "config");
  if (config == nullptr)
    return Error{.code = Code::corrupted, .message = fmt::format("{}: the answer has no config", what)};
  const auto unfit = [&](std::string why, std::string hint) {
    return Error{.code = Code::failed_precondition,
                 .message = fmt::format("{}: {}", what, why),
                 .hint = std::move(hint)};
  };
  bool taken = false;
  if (const json::value* subjects = json::find(*config, "subjects");
      subjects != nullptr && subjects->is_array()) {
    taken = std::ranges::any_of(subjects->get_array(), [&](const json::value& one) {
      return one.is_string() && takes(std::string_view(one.get_string()), settings_->subject);
    });
  }
  if (!taken) {
    return unfit(fmt::format("it does not take the subjects {}.NODE.TYPE", settings_->subject),
                 fmt::format("nats stream edit {} --subjects '{}.>'", settings_->stream, settings_->subject));
  }
  // A stream of these kinds says that it has stored what it then does not keep for who comes later.
  if (const auto kind = json::text_or_empty(*config, "retention"); kind != "limits") {
    return unfit(fmt::format("its retention is '{}': events would go with the first who reads them, or where "
                             "nobody reads",
                             printable(kind, 40)),
                 "a stream with --retention limits");
  }
  if (number(*config, "max_msgs_per_subject") > 0) {
    return unfit("it has max_msgs_per_subject: the chain would have gaps where a type is frequent",
                 "limit its age or size instead");
  }
  if (flag(*config, "no_ack")) return unfit("it confirms nothing (no_ack)", "a stream that acknowledges");
  if (flag(*config, "sealed")) return unfit("it is sealed", "another stream");
  return {};
}

Status NatsStream::create(const Context& context) {
  const std::string what = named("create");
  const json::value wanted = {{"name", settings_->stream},
                              {"subjects", json::array{settings_->subject + ".>"}},
                              {"retention", "limits"},
                              {"storage", "file"},
                              // Where its owner limits it, the oldest go, as in a log; nothing is refused.
                              {"discard", "old"},
                              {"max_consumers", -1},
                              {"max_msgs", -1},
                              {"max_bytes", -1},
                              {"max_age", 0},
                              {"max_msgs_per_subject", -1},
                              {"max_msg_size", -1},
                              {"num_replicas", 1},
                              {"duplicate_window", duplicate_window_ns}};
  DVDI_TRY(const json::value made,
           ask(*connection_, context, "STREAM.CREATE." + settings_->stream, json::serialize(wanted), what));
  const json::value* const error = json::find(made, "error");
  // Two nodes may begin at the same time; check() says whether the other's will do.
  if (error == nullptr || number(*error, "err_code") == stream_name_in_use) return {};
  return refusal(what, *error);
}

Result<std::uint64_t> NatsStream::count(const Context& context, const std::string& filter) {
  const std::string what = fmt::format("{} for messages under {}", named("look in"), filter);
  DVDI_TRY(const json::value info, ask(*connection_, context, "STREAM.INFO." + settings_->stream,
                                       json::serialize(json::value{{"subjects_filter", filter}}), what));
  if (const json::value* error = json::find(info, "error"); error != nullptr) return refusal(what, *error);
  std::uint64_t sum = 0;
  const json::value* const state = json::find(info, "state");
  const json::value* const subjects = state == nullptr ? nullptr : json::find(*state, "subjects");
  if (subjects == nullptr || !subjects->is_object()) return sum;  // no message
  for (const auto& subject : subjects->get_object())
    sum += static_cast<std::uint64_t>(std::max<std::int64_t>(number(*subjects, subject.key()), 0));
  return sum;
}

Result<std::optional<NatsStored>> NatsStream::message(const Context& context, const std::string& request,
                                                      std::string_view what) {
  DVDI_TRY(const json::value answer,
           ask(*connection_, context, "STREAM.MSG.GET." + settings_->stream, request, what));
  if (const json::value* error = json::find(answer, "error"); error != nullptr) {
    if (number(*error, "err_code") == no_message_found) return std::optional<NatsStored>();
    return refusal(what, *error);
  }
  const json::value* const found = json::find(answer, "message");
  if (found == nullptr || number(*found, "seq") <= 0)
    return Error{.code = Code::corrupted, .message = fmt::format("{}: the answer has no message", what)};
  DVDI_TRY(std::string payload, from_base64(json::text_or_empty(*found, "data"), what));
  return std::optional(NatsStored{.sequence = static_cast<std::uint64_t>(number(*found, "seq")),
                                  .payload = std::move(payload)});
}

Result<std::optional<NatsStored>> NatsStream::newest(const Context& context, const std::string& filter) {
  return message(context, json::serialize(json::value{{"last_by_subj", filter}}),
                 fmt::format("{} for the newest message under {}", named("look in"), filter));
}

Result<std::optional<NatsStored>> NatsStream::next(const Context& context, const std::string& filter,
                                                   std::uint64_t from) {
  return message(context, json::serialize(json::value{{"seq", from}, {"next_by_subj", filter}}),
                 fmt::format("{} for a message under {}", named("look in"), filter));
}

Result<std::optional<NatsStored>> NatsStream::at(const Context& context, std::uint64_t sequence) {
  return message(context, json::serialize(json::value{{"seq", sequence}}),
                 fmt::format("{} for message {}", named("look in"), sequence));
}

Status NatsStream::publish(const Context& context, const std::string& subject, const std::string& id,
                           std::string_view payload) {
  const std::string what = fmt::format("publish event {} to the stream {}", id, settings_->stream);
  const NatsHeaders headers{{"Nats-Msg-Id", id},
                            // A stream that takes our subjects, but is another, refuses.
                            {"Nats-Expected-Stream", settings_->stream},
                            {"content-type", "application/cloudevents+json"}};
  if (const std::size_t size = NatsConnection::size_of(headers) + payload.size();
      size > connection_->max_payload()) {
    return Error{.code = Code::resource_exhausted,
                 .message = fmt::format("{}: it has {} bytes with its headers, and the server takes "
                                        "max_payload = {} at most",
                                        what, size, connection_->max_payload()),
                 .hint = "raise max_payload in the server's configuration; the sink waits and skips nothing",
                 .outcome = Outcome::not_sent};
  }
  DVDI_TRY(const NatsReply reply, connection_->request(context, subject, headers, payload, what));
  if (reply.nobody) {
    return Error{.code = Code::unavailable,
                 .message = fmt::format("{}: no stream takes the subject {}", what, subject),
                 .hint = "is the stream still there, with its subjects, and is JetStream switched on?",
                 .outcome = Outcome::refused};
  }
  DVDI_TRY(const json::value ack, json::parse(reply.payload, fmt::format("{}: the answer", what)));
  if (const json::value* error = json::find(ack, "error"); error != nullptr) {
    Error refused = refusal(what, *error);
    if (const std::int64_t code = number(*error, "err_code"); code == wrong_expected_stream) {
      refused.hint = fmt::format("another stream takes the subject {}", subject);
    } else if (code == message_too_large) {
      refused.hint = fmt::format("raise max_msg_size of the stream: the event has {} bytes", payload.size());
    }
    return refused;
  }
  const std::int64_t sequence = number(ack, "seq");
  if (json::text_or_empty(ack, "stream") != settings_->stream || sequence <= 0) {
    return Error{
        .code = Code::corrupted,
        .message = fmt::format("{}: the answer confirms nothing: {}", what, printable(reply.payload)),
        .outcome = Outcome::unknown};
  }
  if (!flag(ack, "duplicate")) return {};
  // The server keeps ids longer than messages (a purge forgets none), and tells nothing about the content.
  DVDI_TRY(const std::optional<NatsStored> there, at(context, static_cast<std::uint64_t>(sequence)));
  if (there && there->payload == payload) return {};
  return Error{
      .code = Code::failed_precondition,
      .message = fmt::format("{}: the stream has had this id already, as its message {}, which {}", what,
                             sequence, there ? "is another event" : "is not there any more"),
      .hint =
          there
              ? "two nodes with the same id, or a ledger from a backup? It goes when the stream's duplicate "
                "window has passed, and then the chain in the stream has a fork"
              : "it goes when the stream's duplicate window has passed",
      .outcome = Outcome::refused};
}

}  // namespace dvdi
