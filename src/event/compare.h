// The chain of this node against what a sink says that it has: a sink is out of reach for who rewrites the
// chain here.
#pragma once

#include <string>

#include "event/sink.h"
#include "store/ledger.h"

namespace dvdi {

struct Compared {
  SinkHead sink;
  bool same = false;     // the sink's newest event is this node's event of that number
  std::string not_told;  // why something could not be compared; "" where everything was
};

// What the ledger says that a sink has confirmed. To be read before the sink is asked.
struct Confirmed {
  std::uint64_t sequence = 0;
  bool passed_over = false;  // some of it was dropped, and the sink has got nothing since
};
Result<Confirmed> confirmed_by(Reader& reader, const std::string& name);

// `rotates`: the sink begins anew now and then, and may have nothing. corrupted, with what differs:
//   - the sink's newest event is another one here, or is not here although it should be
//   - the sink has less than it confirmed
//   - the sink misses events in between that were not dropped for it
// What a sink has not got yet is no difference.
Result<Compared> compare_with_sink(Reader& reader, const std::string& name, const Confirmed& confirmed,
                                   const SinkHead& head, bool rotates);

}  // namespace dvdi
