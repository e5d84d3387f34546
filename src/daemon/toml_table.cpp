#include "daemon/toml_table.h"

#include <sstream>

namespace dvdi {

namespace {

Error not_toml(const std::string& where, const std::exception& exception) {
  return Error{.code = Code::invalid_argument,
               .message = fmt::format("{} is not TOML: {}", where,
                                      printable(trim(split(exception.what(), '\n').front()), 400))};
}

}  // namespace

Status read_toml(const std::string& text, const TomlFile& file, const std::function<Status(Table&)>& read) {
  try {
    std::istringstream stream(text);
    const toml::value root = toml::parse(stream, file.name);
    Table table(root, "", file);
    DVDI_CHECK(read(table));
    return table.nothing_else();
  } catch (const toml::exception& exception) {
    return not_toml(fmt::format("{}:{}", file.name, exception.location().line()), exception);
  } catch (const std::exception& exception) {
    return not_toml(file.name, exception);
  }
}

}  // namespace dvdi
