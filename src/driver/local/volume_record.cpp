#include "driver/local/volume_record.h"

#include <fmt/format.h>

#include <charconv>

#include "base/json.h"
#include "base/sha256.h"
#include "base/text.h"

namespace dvdi::driver::local {

namespace {

constexpr std::size_t longest_escaped = 140;
constexpr std::size_t kept_of_long = 100;

constexpr std::size_t digest_digits = 32;

std::string digest(std::string_view text) { return sha256_hex(text).substr(0, digest_digits); }

bool stays(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

}  // namespace

std::string escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (stays(c) || (c == '.' && !out.empty())) {
      out += c;
    } else {
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

Result<std::string> unescape(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    unsigned char byte = 0;
    const std::string_view digits = text.substr(i + 1, 2);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), byte, 16);
    if (digits.size() != 2 || error != std::errc() || end != digits.data() + 2) {
      return Error{.code = Code::corrupted, .message = fmt::format("'{}' is not escaped", printable(text))};
    }
    out += static_cast<char>(byte);
    i += 2;
  }
  return out;
}

std::string folder_name(std::string_view volume) {
  std::string folder = escape(volume);
  if (folder.size() <= longest_escaped) return folder;
  // `~` is always escaped: no other volume's folder looks like this.
  return fmt::format("{}~{}", folder.substr(0, kept_of_long), digest(volume));
}

std::string to_json(const VolumeRecord& record) {
  json::object options;
  for (const auto& [name, text] : to_options(record.options)) options[name] = text;
  // The name is escaped because it may hold any bytes, and JSON only Unicode.
  return json::serialize(json::object{{"version", 1},
                                      {"name", escape(record.name)},
                                      {"created_at", record.created_at},
                                      {"owner_set", record.owner_set},
                                      {"options", std::move(options)}}) +
         "\n";
}

Result<VolumeRecord> from_json(std::string_view text, std::string_view what) {
  const auto damaged = [&](std::string_view why) {
    return Error{.code = Code::corrupted,
                 .message = fmt::format("{}: {}", what, why),
                 .hint = "the volume's data is untouched; repair or restore that file"};
  };
  const auto parsed = json::parse(text, what);
  if (!parsed) return damaged(parsed.error().message);
  const json::value* version = json::find(*parsed, "version");
  if (version == nullptr || !version->is_int64() || version->get_int64() != 1) {
    return damaged("it is not of version 1");
  }
  const json::value* options = json::find(*parsed, "options");
  const json::value* owner_set = json::find(*parsed, "owner_set");
  if (options == nullptr || !options->is_object() || owner_set == nullptr || !owner_set->is_bool()) {
    return damaged("options or owner_set is missing");
  }
  Options texts;
  for (const auto& member : options->get_object()) {
    if (!member.value().is_string()) return damaged("an option is no text");
    texts.emplace(std::string(member.key()), std::string(member.value().get_string()));
  }
  const auto stated = parse_options(texts);
  if (!stated) return damaged(stated.error().message);
  const auto complete_options = complete(*stated);
  if (!complete_options) return damaged(complete_options.error().message);
  auto name = unescape(json::text_or_empty(*parsed, "name"));
  if (!name || name->empty()) return damaged("the name is missing");
  return VolumeRecord{.name = *std::move(name),
                      .options = *complete_options,
                      .created_at = std::string(json::text_or_empty(*parsed, "created_at")),
                      .owner_set = owner_set->get_bool()};
}

}  // namespace dvdi::driver::local
