#include "isolator/ledger_books.h"

namespace dvdi::isolator {

Result<std::optional<ContainerRow>> LedgerBooks::find(const Context& context, const ContainerKey& key) {
  std::optional<ContainerRow> row;
  DVDI_CHECK(ledger_.read(context, "look for a container", [&](Reader& reader) -> Status {
    DVDI_TRY(row, reader.container(key));
    return {};
  }));
  return row;
}

Result<std::vector<std::string>> LedgerBooks::children(const Context& context, const ContainerKey& key) {
  std::vector<std::string> children;
  DVDI_CHECK(ledger_.read(context, "look for nested containers", [&](Reader& reader) -> Status {
    DVDI_TRY(children, reader.live_children(key));
    return {};
  }));
  return children;
}

}  // namespace dvdi::isolator
