// What the calls to one driver show of its state: up, slow or down.
#pragma once

#include <map>
#include <string>

#include "base/clock.h"
#include "base/error.h"
#include "driver/driver.h"
#include "store/types.h"

namespace dvdi::volume {

// How a call ended, as far as it says something about the driver.
struct CallEnd {
  driver::Operation operation = driver::Operation::get;
  Duration took = Duration::zero();
  Duration deadline = Duration::zero();  // what the driver had for it
  const Error* error = nullptr;          // absent: it went well
  bool given_up = false;                 // it ended because its caller did, before the deadline
};

// Not thread-safe: its owner has a lock anyway.
//
//   down  nobody listens, or an operation had no answer until its deadline
//   slow  an operation took more than half of its deadline, or its caller gave up waiting after that
//   up    else; also where the answer was an error
//
// Each operation is looked at by itself: a driver that answers Get and hangs in Mount is down until a Mount
// is answered. What nobody listens to, any answer ends.
class DriverHealth {
 public:
  void ended(const CallEnd& end);

  DriverState state() const;
  std::string reason() const;  // one sentence; "" where it is up

 private:
  struct Judged {
    DriverState state = DriverState::up;
    std::string reason;
  };
  std::string unreachable_;  // why, where nobody listened at last
  std::map<driver::Operation, Judged> operations_;
};

}  // namespace dvdi::volume
