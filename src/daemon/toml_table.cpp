#include "daemon/toml_table.h"

#include <sstream>

namespace dvdi {

Status read_toml(const std::string& text, const TomlFile& file, const std::function<Status(Table&)>& read) {
  try {
    std::istringstream stream(text);
    const toml::value root = toml::parse(stream, file.name);
    Table table(root, "", file);
    DVDI_CHECK(read(table));
    return table.nothing_else();
  } catch (const std::exception& exception) {
    return Error{.code = Code::invalid_argument,
                 .message = fmt::format("{} is not TOML: {}", file.name,
                                        printable(trim(split(exception.what(), '\n').front()), 400))};
  }
}

}  // namespace dvdi
