// How often the daemon was asked for what, and how it answered: for metrics.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <tuple>

#include "base/sync.h"
#include "http/server.h"

namespace dvdi {

// Thread-safe.
class RequestCounts {
 public:
  // Method and path as the table of routes has them ("GET", "/v1/volumes/*/*"), never as they were sent: so
  // there are only so many. Both "" where nothing is at the address. And the status.
  using Key = std::tuple<std::string_view, std::string_view, int>;
  struct Counts {
    std::map<Key, std::uint64_t> answered;
    unsigned running = 0;
  };
  Counts counts() const {
    const Lock lock(mutex_);
    return counts_;
  }

 private:
  friend class CountedAnswer;
  mutable Mutex mutex_;
  Counts counts_;
};

// An answer that is counted before it goes out: whoever has it finds it counted. For the handler's thread.
class CountedAnswer final : public http::Answer {
 public:
  CountedAnswer(http::Answer& answer, RequestCounts* counts) : answer_(answer), counts_(counts) {
    if (counts_ == nullptr) return;
    const Lock lock(counts_->mutex_);
    ++counts_->counts_.running;
  }
  ~CountedAnswer() override {
    if (counts_ == nullptr) return;
    count(of_silence);
    const Lock lock(counts_->mutex_);
    --counts_->counts_.running;
  }
  CountedAnswer(const CountedAnswer&) = delete;
  CountedAnswer& operator=(const CountedAnswer&) = delete;

  // Texts that live for ever.
  void is_for(std::string_view method, std::string_view path) {
    method_ = method;
    path_ = path;
  }

  Status send(int status, std::string_view content_type, std::string_view body) override {
    count(status);
    return answer_.send(status, content_type, body);
  }
  Status start(int status, std::string_view content_type) override {
    count(status);
    return answer_.start(status, content_type);
  }
  Status write(const Context& context, std::string_view piece) override {
    return answer_.write(context, piece);
  }
  void fail() override { answer_.fail(); }
  bool started() const override { return answer_.started(); }

 private:
  static constexpr int of_silence = 500;  // what the server answers for a handler that says nothing

  void count(int status) {
    if (counts_ == nullptr || counted_) return;
    counted_ = true;
    const Lock lock(counts_->mutex_);
    ++counts_->counts_.answered[{method_, path_, status}];
  }

  http::Answer& answer_;
  RequestCounts* const counts_;
  std::string_view method_, path_;
  bool counted_ = false;
};

}  // namespace dvdi
