// For tests about usage: a use that goes on is a row of the books, and nothing else.
#pragma once

#include "store/ledger.h"

namespace dvdi {

// The use of that volume begins: `start` is not looked at.
inline Status begin_use(Transaction& transaction, const UsageInterval& use) {
  switch (use.kind) {
    case UsageInterval::Kind::referenced:
      DVDI_CHECK(transaction.put(ContainerRow{.key = use.container,
                                              .digest = "d",
                                              .attribution = use.attribution,
                                              .engine = {.pid = 1, .start_ticks = 1},
                                              .since = transaction.now()}));
      return transaction.put(ReferenceRow{.container = use.container,
                                          .volume = use.volume,
                                          .since = transaction.now(),
                                          .size_bytes = use.size_bytes,
                                          .volume_type = use.volume_type});
    case UsageInterval::Kind::mounted:
      return transaction.put(MountRow{.volume = use.volume,
                                      .mount_id = "m",
                                      .state = MountState::mounted,
                                      .mount_point = "/m",
                                      .since = transaction.now(),
                                      .size_bytes = use.size_bytes,
                                      .volume_type = use.volume_type});
    case UsageInterval::Kind::provisioned:
      return transaction.put(VolumeRow{.volume = use.volume,
                                       .since = transaction.now(),
                                       .size_bytes = use.size_bytes,
                                       .type = use.volume_type});
  }
  return {};
}

inline Status end_use(Transaction& transaction, UsageInterval use) {
  switch (use.kind) {
    case UsageInterval::Kind::referenced: {
      DVDI_TRY(const auto reference, transaction.reference(use.container, use.volume));
      use.start = reference->since;
      DVDI_CHECK(transaction.erase_reference(use.container, use.volume));
      break;
    }
    case UsageInterval::Kind::mounted: {
      DVDI_TRY(const auto mount, transaction.mount(use.volume));
      use.start = mount->since;
      DVDI_CHECK(transaction.erase_mount(use.volume));
      break;
    }
    case UsageInterval::Kind::provisioned: {
      DVDI_TRY(const auto volume, transaction.volume(use.volume));
      use.start = volume->since;
      DVDI_CHECK(transaction.erase_volume(use.volume));
      break;
    }
  }
  return transaction.close_usage(use);
}

}  // namespace dvdi
