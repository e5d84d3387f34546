// For the tests of sinks: events as the ledger has them, and a folder.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "base/sha256.h"
#include "event/sink.h"

namespace dvdi {

inline const std::string& test_node() {
  static const std::string node = "11111111-2222-4333-8444-555555555555";
  return node;
}

// Events that follow each other, numbered from 1 on, as a ledger makes them.
class EventMaker {
 public:
  explicit EventMaker(std::string node = test_node()) : node_(std::move(node)) {}

  StoredEvent next(std::size_t extra_bytes = 0) {
    Event event{.type = "dvdi.test.event"};
    event.volume = VolumeKey{.driver = "local", .name = "a"};
    if (extra_bytes > 0) event.reason = std::string(extra_bytes, 'x');
    StoredEvent stored;
    stored.sequence = ++sequence_;
    stored.body = event_body(event, sequence_, node_, hash_, WallTime(std::chrono::seconds(1'800'000'000)));
    stored.hash = sha256_hex(stored.body);
    hash_ = stored.hash;
    return stored;
  }
  std::vector<StoredEvent> some(std::size_t count) {
    std::vector<StoredEvent> events;
    for (std::size_t i = 0; i < count; ++i) events.push_back(next());
    return events;
  }

 private:
  const std::string node_;
  std::uint64_t sequence_ = 0;
  std::string hash_ = genesis_hash();
};

inline std::vector<std::string> lines_of(const std::vector<StoredEvent>& events) {
  std::vector<std::string> lines;
  for (const StoredEvent& one : events) lines.push_back(one.json());
  return lines;
}

inline std::string content_of(const std::string& path) {
  const std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// Without their newlines; a last line that has none is not one.
inline std::vector<std::string> lines_in(const std::string& path) {
  std::vector<std::string> lines;
  std::string rest = content_of(path);
  for (std::size_t end = 0; (end = rest.find('\n')) != std::string::npos; rest.erase(0, end + 1))
    lines.push_back(rest.substr(0, end));
  return lines;
}

inline void write_file(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::trunc | std::ios::binary) << text;
}

class TestFolder {
 public:
  TestFolder() {
    std::string pattern = "/tmp/dvdi-sink-XXXXXX";
    path_ = ::mkdtemp(pattern.data());
  }
  ~TestFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace dvdi
