#include "store/rebuilt.h"

#include "base/json.h"
#include "store/codec.h"

namespace dvdi {

namespace {

constexpr const char* name = "rebuilt";

std::int64_t number(const json::value& from, std::string_view member) {
  const json::value* found = json::find(from, member);
  return found != nullptr && found->is_int64() ? found->get_int64() : 0;
}

}  // namespace

Result<std::optional<RebuiltBooks>> rebuilt_books(Reader& reader) {
  DVDI_TRY(const std::string text, reader.meta(name));
  if (text.empty()) return std::optional<RebuiltBooks>();
  DVDI_TRY(const json::value from, json::parse(text, "what the ledger knows of its past"));
  RebuiltBooks books;
  books.when = {.wall = wall_time(number(from, "wall")),
                .boot = boot_time(number(from, "boot")),
                .boot_id = std::string(json::text_or_empty(from, "boot_id"))};
  books.aside = json::text_or_empty(from, "aside");
  books.why = json::text_or_empty(from, "why");
  if (const json::value* answered = json::find(from, "answered"); answered != nullptr) {
    if (const json::array* all = answered->if_array()) {
      for (const json::value& one : *all) {
        if (one.is_string()) books.answered.emplace_back(one.get_string());
      }
    }
  }
  return std::optional(std::move(books));
}

Status put(Transaction& transaction, const RebuiltBooks& books) {
  json::array answered;
  for (const std::string& one : books.answered) answered.emplace_back(one);
  return transaction.put_meta(name, json::serialize(json::object({{"wall", nanoseconds(books.when.wall)},
                                                                  {"boot", nanoseconds(books.when.boot)},
                                                                  {"boot_id", books.when.boot_id},
                                                                  {"aside", books.aside},
                                                                  {"why", books.why},
                                                                  {"answered", std::move(answered)}})));
}

}  // namespace dvdi
