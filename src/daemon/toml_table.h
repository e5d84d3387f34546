// Reading a TOML table key by key; a key that nobody asked for is an error. Every error names file, line and
// key. For .cpp files of this folder that read a file: toml11 takes seconds to compile.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <toml.hpp>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "base/text.h"
#include "base/time_text.h"

namespace dvdi {

// For tests of what is documented: the keys that were asked for, and those whose value in the file is not the
// one that was there before, which is the default.
struct TomlTrace {
  std::vector<std::string> asked, changed;
};

// Where the text comes from, for messages. Outlives its tables.
struct TomlFile {
  std::string name;
  std::string hint;  // of every error: where the keys are described
  TomlTrace* trace = nullptr;
};

inline Error at(const toml::value& value, const TomlFile& file, std::string_view message) {
  return Error{.code = Code::invalid_argument,
               .message = fmt::format("{}:{}: {}", file.name, value.location().line(), message),
               .hint = file.hint};
}

// Reads the keys of one table, and knows which were not asked for.
class Table {
 public:
  Table(const toml::value& table, std::string name, const TomlFile& file)
      : table_(table), name_(std::move(name)), file_(file) {}

  unsigned line() const { return static_cast<unsigned>(table_.location().line()); }
  // invalid_argument at this table's line.
  Error wrong(std::string_view message) const { return at(table_, file_, message); }
  bool has(const std::string& key) const {
    if (file_.trace != nullptr) file_.trace->asked.push_back(path(key));
    return table_.contains(key);
  }

  Status duration(const char* key, Duration& into, Duration least, Duration most) {
    return take(key, [&](const toml::value& value) -> Status {
      std::optional<Duration> read;
      if (value.is_integer()) {
        read = parse_duration(std::to_string(value.as_integer()) + "s");
      } else if (value.is_string()) {
        read = parse_duration(value.as_string().str);
      }
      if (!read)
        return at(value, file_, fmt::format(R"({} must be a duration such as 30, "500ms", "2m")", path(key)));
      if (*read < least || *read > most) {
        return at(value, file_,
                  fmt::format("{} must be between {} ms and {} s", path(key), least.count() / 1'000'000,
                              most.count() / 1'000'000'000));
      }
      set(key, into, *read);
      return {};
    });
  }
  Status number(const char* key, unsigned& into, unsigned least, unsigned most) {
    return take(key, [&](const toml::value& value) -> Status {
      if (!value.is_integer() || value.as_integer() < least || value.as_integer() > most) {
        return at(value, file_,
                  fmt::format("{} must be a whole number from {} to {}", path(key), least, most));
      }
      set(key, into, static_cast<unsigned>(value.as_integer()));
      return {};
    });
  }
  // A text of digits, or a whole number; `parse` says what is wrong with it.
  template <class T>
  Status decimal(const char* key, std::optional<T>& into, Result<T> (*parse)(std::string_view)) {
    return take(key, [&](const toml::value& value) -> Status {
      if (value.is_floating())
        return at(
            value, file_,
            fmt::format("{} is a floating-point number, which is not exact: write it as a text, in quotes",
                        path(key)));
      if (!value.is_string() && !value.is_integer())
        return at(value, file_,
                  fmt::format(R"({} must be a decimal number in quotes, such as "0.05")", path(key)));
      const auto read = parse(value.is_string() ? value.as_string().str : std::to_string(value.as_integer()));
      if (!read) return at(value, file_, fmt::format("{}: {}", path(key), read.error().message));
      set<std::optional<T>>(key, into, *read);
      return {};
    });
  }
  Status mebibytes(const char* key, std::uint64_t& into) {
    constexpr unsigned shift = 20;
    auto read = static_cast<unsigned>(into >> shift);
    DVDI_CHECK(number(key, read, 0, 1U << 30U));
    into = std::uint64_t{read} << shift;
    return {};
  }
  // `check` says what is wrong with one that is not empty.
  Status text(const char* key, std::string& into,
              const std::function<Status(const std::string&)>& check = {}) {
    return take(key, [&](const toml::value& value) -> Status {
      if (!value.is_string() || value.as_string().str.empty()) {
        return at(value, file_, fmt::format("{} must be a text", path(key)));
      }
      if (const Status checked = check ? check(value.as_string().str) : Status(); !checked)
        return at(value, file_, fmt::format("{}: {}", path(key), checked.error().text()));
      set(key, into, value.as_string().str);
      return {};
    });
  }
  Status path_of_folder(const char* key, std::string& into) {
    DVDI_CHECK(text(key, into));
    if (has(key) && into.front() != '/')
      return at(table_, file_, fmt::format("{} must be an absolute path", path(key)));
    return {};
  }
  Status flag(const char* key, bool& into) {
    return take(key, [&](const toml::value& value) -> Status {
      if (!value.is_boolean()) return at(value, file_, fmt::format("{} must be true or false", path(key)));
      set(key, into, value.as_boolean());
      return {};
    });
  }
  Status texts(const char* key, std::vector<std::string>& into) {
    return take(key, [&](const toml::value& value) -> Status {
      std::vector<std::string> read;
      if (value.is_array()) {
        for (const toml::value& one : value.as_array()) {
          if (one.is_string()) read.push_back(one.as_string().str);
        }
      }
      if (!value.is_array() || read.size() != value.as_array().size()) {
        return at(value, file_, fmt::format("{} must be a list of texts", path(key)));
      }
      set(key, into, std::move(read));
      return {};
    });
  }
  Status table(const char* key, const std::function<Status(Table&)>& read) {
    return take(key, [&](const toml::value& value) -> Status {
      if (!value.is_table()) return at(value, file_, fmt::format("{} must be a table", path(key)));
      Table inner(value, path(key), file_);
      DVDI_CHECK(read(inner));
      return inner.nothing_else();
    });
  }
  // `[[key]]`, each table in the order of the file.
  Status tables(const char* key, std::size_t most, const std::function<Status(Table&)>& read) {
    return take(key, [&](const toml::value& value) -> Status {
      const bool fits = value.is_array() && std::ranges::all_of(value.as_array(), [](const toml::value& one) {
                          return one.is_table();
                        });
      if (!fits) return at(value, file_, fmt::format("{} must be tables: [[{}]]", path(key), path(key)));
      if (value.as_array().size() > most) {
        return at(value, file_, fmt::format("there are more than {} of {}", most, path(key)));
      }
      for (const toml::value& one : value.as_array()) {
        Table inner(one, path(key), file_);
        DVDI_CHECK(read(inner));
        DVDI_CHECK(inner.nothing_else());
      }
      return {};
    });
  }
  // Every key of this table is a name.
  Status names(const std::function<Status(const std::string&)>& read) {
    for (const auto& [key, value] : table_.as_table()) DVDI_CHECK(read(key));
    return {};
  }
  Status each_table(const std::function<Status(const std::string&, Table&)>& read) {
    for (const auto& [key, value] : table_.as_table()) {
      DVDI_CHECK(table(key.c_str(), [&, &name = key](Table& inner) { return read(name, inner); }));
    }
    return {};
  }
  Status nothing_else() const {
    for (const auto& [key, value] : table_.as_table()) {
      if (std::ranges::find(known_, key) == known_.end()) {
        return at(value, file_, fmt::format("unknown key {}", printable(path(key))));
      }
    }
    return {};
  }

 private:
  std::string path(const std::string& key) const { return name_.empty() ? key : name_ + "." + key; }
  template <class T>
  void set(const std::string& key, T& into, T read) {
    if (file_.trace != nullptr && into != read) file_.trace->changed.push_back(path(key));
    into = std::move(read);
  }
  Status take(const std::string& key, const std::function<Status(const toml::value&)>& read) {
    known_.push_back(key);
    if (file_.trace != nullptr) file_.trace->asked.push_back(path(key));
    if (!table_.contains(key)) return {};
    return read(table_.at(key));
  }

  const toml::value& table_;
  const std::string name_;
  const TomlFile& file_;
  std::vector<std::string> known_;
};

// Parses and reads the whole of it.
Status read_toml(const std::string& text, const TomlFile& file, const std::function<Status(Table&)>& read);

}  // namespace dvdi
