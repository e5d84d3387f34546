#include "driver/driver.h"

namespace dvdi::driver {

std::string_view operation_name(Operation operation) {
  switch (operation) {
    case Operation::create:
      return "create";
    case Operation::remove:
      return "remove";
    case Operation::get:
      return "get";
    case Operation::list:
      return "list";
    case Operation::path:
      return "path";
    case Operation::mount:
      return "mount";
    case Operation::unmount:
      return "unmount";
    case Operation::capabilities:
      return "capabilities";
  }
  return "?";
}

}  // namespace dvdi::driver
