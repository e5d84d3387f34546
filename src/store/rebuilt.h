// What the ledger knows of its own past: that it took the place of a damaged one.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "store/ledger.h"

namespace dvdi {

struct RebuiltBooks {
  Moment when;
  std::string aside;  // where the damaged database is, with -wal and -shm beside it; "" if there was none
  std::string why;
  std::vector<std::string> answered;  // drivers that have listed their volumes since
};

// nullopt: the ledger took no other's place.
Result<std::optional<RebuiltBooks>> rebuilt_books(Reader& reader);
Status put(Transaction& transaction, const RebuiltBooks& books);

}  // namespace dvdi
