#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "event/sink.h"

namespace dvdi {

namespace {

constexpr std::size_t longest_url = 2048;

template <class... Kinds>
struct Overloaded : Kinds... {
  using Kinds::operator()...;
};
template <class... Kinds>
Overloaded(Kinds...) -> Overloaded<Kinds...>;

Error wrong(std::string message) {
  return Error{.code = Code::invalid_argument, .message = std::move(message)};
}

// Without what may be secret: user and password, query and fragment.
std::string shown_url(std::string_view url) {
  std::string_view scheme;
  if (const auto end = url.find("://"); end != std::string_view::npos) {
    scheme = url.substr(0, end + 3);
    url.remove_prefix(end + 3);
  }
  const auto host_end = std::min(url.find_first_of("/?#"), url.size());
  if (const auto at = url.substr(0, host_end).rfind('@'); at != std::string_view::npos)
    url.remove_prefix(at + 1);
  const auto end = url.find_first_of("?#");
  return printable(std::string(scheme) + std::string(url.substr(0, end)) +
                   (end == std::string_view::npos ? "" : "?..."));
}

Status check_url(std::string_view url, std::initializer_list<std::string_view> schemes) {
  if (url.size() > longest_url) return wrong(fmt::format("url is longer than {} bytes", longest_url));
  if (std::ranges::any_of(url, [](unsigned char c) { return c <= ' ' || c >= 0x7f; }))
    return wrong("url has a character that belongs in no URL");
  const auto scheme =
      std::ranges::find_if(schemes, [&](std::string_view one) { return url.starts_with(one); });
  if (scheme == schemes.end())
    return wrong(fmt::format("url must begin with {}", fmt::join(schemes, " or ")));
  const std::string_view rest = url.substr(scheme->size());
  const std::string_view host = rest.substr(0, rest.find_first_of("/?#"));
  if (host.empty()) return wrong("url names no host");
  if (host.find('@') != std::string_view::npos)
    return wrong(
        "url must not have a user or a password in it: it is shown to people; there are keys for that");
  if (rest.find('#') != std::string_view::npos) return wrong("url must not have a fragment (#...)");
  return {};
}

Status check_path(std::string_view key, const std::string& path, bool needed) {
  if (path.empty() && !needed) return {};
  if (path.empty()) return wrong(fmt::format("{} is needed", key));
  if (path.front() != '/' || path.find('\0') != std::string::npos)
    return wrong(fmt::format("{} must be an absolute path", key));
  return {};
}

Status check_tls(const http::Tls& tls) {
  DVDI_CHECK(check_path("ca_file", tls.ca_file, false));
  DVDI_CHECK(check_path("cert_file", tls.cert_file, false));
  DVDI_CHECK(check_path("key_file", tls.key_file, false));
  if (tls.cert_file.empty() != tls.key_file.empty()) return wrong("cert_file and key_file belong together");
  return {};
}

Status check_kind(const FileSinkSettings& file) {
  DVDI_CHECK(check_path("path", file.path, true));
  if (file.path.back() == '/') return wrong("path must name a file");
  return {};
}

Status check_kind(const WebhookSinkSettings& webhook) {
  if (webhook.url.empty()) return wrong("url is needed");
  DVDI_CHECK(check_url(webhook.url, {"http://", "https://"}));
  DVDI_CHECK(check_path("secret_file", webhook.secret_file, false));
  return check_tls(webhook.tls);
}

Status check_kind(const NatsSinkSettings& nats) {
  for (const std::string_view url : split(nats.url, ',')) {
    DVDI_CHECK(check_url(trim(url), {"nats://", "tls://"}));
  }
  for (const auto& [key, path] :
       {std::pair<const char*, const std::string&>{"credentials_file", nats.credentials_file},
        {"password_file", nats.password_file},
        {"token_file", nats.token_file}}) {
    DVDI_CHECK(check_path(key, path, false));
  }
  if (nats.user.empty() != nats.password_file.empty()) return wrong("user and password_file belong together");
  const int ways = (nats.credentials_file.empty() ? 0 : 1) + (nats.user.empty() ? 0 : 1) +
                   (nats.token_file.empty() ? 0 : 1);
  if (ways > 1) return wrong("of credentials_file, user with password_file, and token_file only one can be");
  const auto is_token = [](std::string_view text, std::string_view more) {
    return !text.empty() && std::ranges::all_of(text, [&](unsigned char c) {
      return std::isalnum(c) != 0 || c == '-' || c == '_' ||
             more.find(static_cast<char>(c)) != std::string_view::npos;
    });
  };
  if (!is_token(nats.stream, "")) return wrong("stream must be letters, digits, - and _");
  if (!is_token(nats.subject, ".") || nats.subject.front() == '.' || nats.subject.back() == '.' ||
      nats.subject.find("..") != std::string::npos)
    return wrong("subject must be letters, digits, -, _, and dots between them");
  return check_tls(nats.tls);
}

}  // namespace

std::string_view type_of(const SinkSettings& settings) {
  return std::visit(Overloaded{[](const FileSinkSettings&) { return std::string_view("file"); },
                               [](const WebhookSinkSettings&) { return std::string_view("webhook"); },
                               [](const NatsSinkSettings&) { return std::string_view("nats"); }},
                    settings.kind);
}

std::vector<std::string> sink_names(const std::vector<SinkSettings>& sinks) {
  std::vector<std::string> names;
  names.reserve(sinks.size());
  for (const SinkSettings& one : sinks) names.push_back(one.name);
  return names;
}

std::string where_of(const SinkSettings& settings) {
  return std::visit(Overloaded{[](const FileSinkSettings& file) { return printable(file.path, 4096); },
                               [](const WebhookSinkSettings& webhook) { return shown_url(webhook.url); },
                               [](const NatsSinkSettings& nats) {
                                 std::string urls;
                                 for (const std::string_view url : split(nats.url, ','))
                                   urls += (urls.empty() ? "" : ",") + shown_url(trim(url));
                                 return fmt::format("{} stream {}", urls, printable(nats.stream));
                               }},
                    settings.kind);
}

Status check_settings(const SinkSettings& settings) {
  const std::string& name = settings.name;
  if (name.empty() || name.size() > longest_sink_name || !std::ranges::all_of(name, [](unsigned char c) {
        return std::isalnum(c) != 0 || c == '-' || c == '_';
      })) {
    return wrong(fmt::format("'{}' is no name of a sink: 1 to {} letters, digits, - and _",
                             printable(name, 80), longest_sink_name));
  }
  if (settings.backoff_cap < settings.backoff) return wrong("backoff_cap must not be below backoff");
  return std::visit([](const auto& kind) { return check_kind(kind); }, settings.kind);
}

}  // namespace dvdi
