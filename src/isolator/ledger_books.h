// The books of the chain, read from the ledger.
#pragma once

#include "isolator/chain.h"
#include "store/ledger.h"

namespace dvdi::isolator {

// Thread-safe.
class LedgerBooks final : public Books {
 public:
  explicit LedgerBooks(Ledger& ledger) : ledger_(ledger) {}  // outlives this

  Result<std::optional<ContainerRow>> find(const Context& context, const ContainerKey& key) override;
  Result<std::vector<std::string>> children(const Context& context, const ContainerKey& key) override;

 private:
  Ledger& ledger_;
};

}  // namespace dvdi::isolator
