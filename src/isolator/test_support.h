// What the isolators' tests share: a scripted isolator, books that are a map, a folder that goes away,
// helpers.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "isolator/chain.h"
#include "linux/helper_pool.h"

namespace dvdi::isolator::test {

class TempDir {
 public:
  TempDir() : path_(std::filesystem::temp_directory_path() / "dvdi-isolator-XXXXXX") {
    std::string name = path_.string();
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    path_ = name;
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::string text() const { return path_.string(); }
  std::string make_folder(const std::string& name) const {
    std::filesystem::create_directories(path_ / name);
    return *this / name;
  }

 private:
  std::filesystem::path path_;
};

// Started before the first test, while the program has one thread (helpers.cpp of the tests).
HelperPool& helpers();

// Thread-safe.
class Log {
 public:
  void add(std::string line) {
    const std::lock_guard lock(mutex_);
    lines_.push_back(std::move(line));
  }
  std::vector<std::string> lines() const {
    const std::lock_guard lock(mutex_);
    return lines_;
  }
  void clear() {
    const std::lock_guard lock(mutex_);
    lines_.clear();
  }

 private:
  mutable std::mutex mutex_;
  std::vector<std::string> lines_;
};

class FakeBooks final : public Books {
 public:
  Result<std::optional<ContainerRow>> find(const Context&, const ContainerKey& key) override {
    const std::lock_guard lock(mutex_);
    if (broken_) return *broken_;
    const auto row = rows_.find(key);
    if (row == rows_.end()) return std::optional<ContainerRow>();
    return std::optional<ContainerRow>(row->second);
  }
  Result<std::vector<std::string>> children(const Context&, const ContainerKey&) override {
    const std::lock_guard lock(mutex_);
    return children_;
  }
  void put(const ContainerKey& key, ContainerState state, const std::string& digest) {
    const std::lock_guard lock(mutex_);
    ContainerRow row;
    row.key = key;
    row.state = state;
    row.digest = digest;
    rows_[key] = row;
  }
  void erase(const ContainerKey& key) {
    const std::lock_guard lock(mutex_);
    rows_.erase(key);
  }
  void set_children(std::vector<std::string> children) {
    const std::lock_guard lock(mutex_);
    children_ = std::move(children);
  }
  void fail_with(std::optional<Error> error) {
    const std::lock_guard lock(mutex_);
    broken_ = std::move(error);
  }

 private:
  std::mutex mutex_;
  std::map<ContainerKey, ContainerRow> rows_;
  std::vector<std::string> children_;
  std::optional<Error> broken_;
};

struct Script {
  std::vector<Property> provides = {};
  std::vector<Property> needs = {};
  std::function<Status(const Context&, Preparation&)> prepare = {};
  std::function<Status()> isolate = {};
  std::function<Result<std::vector<Owed>>(const Context&, const std::vector<Failure>&)> cleanup = {};
  std::function<Status(const std::vector<Failure>&)> recover = {};
};

// Writes down each call, with the names of the isolators that failed before it, and does what its script
// says.
class Scripted final : public Isolator {
 public:
  Scripted(std::string name, Log& log, Script script)
      : name_(std::move(name)), log_(log), script_(std::move(script)) {}
  std::string_view name() const override { return name_; }
  std::vector<Property> provides() const override { return script_.provides; }
  std::vector<Property> needs() const override { return script_.needs; }
  Status prepare(const Context& context, Preparation& preparation) override {
    log_.add("prepare " + name_);
    return script_.prepare ? script_.prepare(context, preparation) : Status();
  }
  Status isolate(const Context&, const ContainerKey&, pid_t pid, bool /*watch*/) override {
    log_.add("isolate " + name_ + " " + std::to_string(pid));
    return script_.isolate ? script_.isolate() : Status();
  }
  Result<std::vector<Owed>> cleanup(const Context& context, const ContainerKey&,
                                    const std::vector<Failure>& before) override {
    log_.add("cleanup " + name_ + told(before));
    return script_.cleanup ? script_.cleanup(context, before)
                           : Result<std::vector<Owed>>(std::vector<Owed>());
  }
  Result<volume::Recovered> recover(const Context&, const RecoverRequest&,
                                    const std::vector<Failure>& before) override {
    log_.add("recover " + name_ + told(before));
    if (script_.recover) DVDI_CHECK(script_.recover(before));
    return volume::Recovered();
  }

 private:
  static std::string told(const std::vector<Failure>& before) {
    std::string names;
    for (const Failure& failure : before) names += " !" + failure.isolator;
    return names;
  }
  std::string name_;
  Log& log_;
  Script script_;
};

inline Error broken(const std::string& message) { return Error{.code = Code::io, .message = message}; }

inline std::vector<std::string> messages(const std::vector<Error>& errors) {
  std::vector<std::string> result;
  for (const Error& error : errors) result.push_back(error.message);
  return result;
}

// What a chain needs, around scripted isolators.
struct ChainWorld {
  TempDir folder;
  std::unique_ptr<KeyedLocks> locks = *KeyedLocks::open(folder / "locks");
  FakeBooks books;
  Log log;
  Context context;
  ContainerKey key{.owner = "run", .id = "c"};
  v1::ContainerRequest request;

  template <class... Isolators>
  std::unique_ptr<Chain> chain(std::pair<std::string, Script> first, Isolators... rest) {
    std::vector<std::unique_ptr<Isolator>> isolators;
    const auto add = [&](std::pair<std::string, Script> one) {
      isolators.push_back(std::make_unique<Scripted>(one.first, log, one.second));
    };
    add(std::move(first));
    (add(std::move(rest)), ...);
    auto built = Chain::build(std::move(isolators), {.container_locks = *locks, .books = books});
    EXPECT_TRUE(built) << built.error().text();
    return std::move(*built);
  }
  Result<v1::ContainerLaunchInfo> prepare(Chain& chain) {
    return chain.prepare(context, key, request, folder.text(), true);
  }
};

}  // namespace dvdi::isolator::test
