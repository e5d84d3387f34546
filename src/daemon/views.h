// From rows of the ledger to what the Api shows.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "daemon/api.h"
#include "store/ledger.h"

namespace dvdi {

// nullopt: there is none.
Result<std::optional<ContainerView>> container_view(Reader& reader, const ContainerKey& key);
Result<std::vector<ContainerView>> container_views(Reader& reader, bool ended);
// Every volume that the ledger knows: mounted, referred to, owed, held by others, or just known.
Result<std::vector<VolumeView>> volume_views(Reader& reader);

}  // namespace dvdi
