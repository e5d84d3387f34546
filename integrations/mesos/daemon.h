// dvdid as the module sees it: one call, which waits; and how another thread ends it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "dvdi/dvdi.h"

namespace dvdi_mesos {

// Cancelled once and for good. What runs says how it is ended; of that there is one at a time.
class Cancellation {
 public:
  void cancel() {
    const std::lock_guard<std::mutex> lock(mutex_);
    cancelled_ = true;
    if (end_) end_();
  }
  bool cancelled() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return cancelled_;
  }
  // `end` is called at once if it is cancelled already, and not any more once another one is set.
  void ended_by(std::function<void()> end) {
    const std::lock_guard<std::mutex> lock(mutex_);
    end_ = std::move(end);
    if (cancelled_ && end_) end_();
  }

 private:
  mutable std::mutex mutex_;
  bool cancelled_ = false;
  std::function<void()> end_;
};

struct Reply {
  dvdi_code code = DVDI_OK;
  dvdi_outcome outcome = DVDI_OUTCOME_NONE;
  std::string text;  // of an error, for a person
  std::string body;
};

class Daemon {
 public:
  virtual ~Daemon() = default;
  virtual Reply call(const char* method, const std::string& path, const std::string& body,
                     std::int64_t timeout_ms, Cancellation& cancellation) = 0;
  virtual std::string where() const = 0;  // for a person
};

// By libdvdi. `socket` "": its default. Null: no memory.
std::unique_ptr<Daemon> connect_daemon(const std::string& socket);

}  // namespace dvdi_mesos
