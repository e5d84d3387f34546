// Texts and groups of a report as small numbers: what the inner loop of a report works on. Only for this
// folder.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <numeric>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "event/usage.h"

namespace dvdi {

// Numbers for texts, from 0 on.
class TextNumbers {
 public:
  std::uint32_t of(std::string_view text) {
    // Neighbours in the table are often of one task.
    if (!texts_.empty() && text == *texts_[last_]) return last_;
    auto found = numbers_.find(text);
    if (found == numbers_.end()) {
      found = numbers_.emplace(std::string(text), static_cast<std::uint32_t>(texts_.size())).first;
      texts_.push_back(&found->first);
    }
    return last_ = found->second;
  }
  const std::string& text(std::uint32_t number) const { return *texts_[number]; }
  std::size_t size() const { return texts_.size(); }
  void clear() {
    numbers_.clear();
    texts_.clear();
    last_ = 0;
  }
  // The place of each number's text among all of them.
  std::vector<std::uint32_t> ranks() const {
    std::vector<std::uint32_t> order(texts_.size()), ranks(texts_.size());
    std::iota(order.begin(), order.end(), 0U);
    std::ranges::sort(order, {}, [&](std::uint32_t number) -> const std::string& { return *texts_[number]; });
    for (std::uint32_t place = 0; place < order.size(); ++place) ranks[order[place]] = place;
    return ranks;
  }

 private:
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };
  std::unordered_map<std::string, std::uint32_t, Hash, std::equal_to<>> numbers_;
  std::vector<const std::string*> texts_;  // the map's keys stay where they are
  std::uint32_t last_ = 0;
};

// The sums of groups; a group is `width` numbers.
class GroupSums {
 public:
  explicit GroupSums(std::size_t width) : width_(width), slots_(1024) {}

  std::size_t size() const { return sums_.size(); }
  UsageSum& sum(std::size_t group) { return sums_[group]; }
  const std::uint32_t* key(std::size_t group) const { return &keys_[group * width_]; }

  // Grows; what sum() gave before may have moved.
  UsageSum& of(const std::uint32_t* key) {
    if (sums_.size() * 2 >= slots_.size()) grow();
    std::uint32_t& slot = find(key);
    if (slot == 0) {
      keys_.insert(keys_.end(), key, key + width_);
      sums_.emplace_back();
      slot = static_cast<std::uint32_t>(sums_.size());
    }
    return sums_[slot - 1];
  }

 private:
  // Its place: empty (0), or the group's number and one.
  std::uint32_t& find(const std::uint32_t* key) {
    std::uint64_t hash = 0;
    for (std::size_t i = 0; i < width_; ++i) {
      hash = (hash ^ key[i]) * 0x9e3779b97f4a7c15U;
      hash ^= hash >> 32U;
    }
    for (std::size_t at = hash;; ++at) {
      std::uint32_t& slot = slots_[at & (slots_.size() - 1)];
      if (slot == 0 || std::equal(key, key + width_, this->key(slot - 1))) return slot;
    }
  }
  void grow() {
    slots_.assign(slots_.size() * 2, 0);
    for (std::size_t group = 0; group < sums_.size(); ++group) {
      find(key(group)) = static_cast<std::uint32_t>(group + 1);
    }
  }

  std::size_t width_;
  std::vector<std::uint32_t> slots_;  // a power of two of them
  std::vector<std::uint32_t> keys_;
  std::vector<UsageSum> sums_;
};

}  // namespace dvdi
