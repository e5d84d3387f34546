// Reads the body of a recover call as it arrives: a hundred thousand containers need no large buffer.
//
// Lines:         {"owner": …, "work_dir": …, "complete": true}, then one line a container or orphan,
//                {"container": ContainerState} or {"orphan": ContainerID}
// One document:  {"owner": …, "work_dir": …, "complete": true, "containers": […], "orphans": […]}
//
// Which of the two it is, the first object tells: whether it has one of the lists.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "spec/agent.h"

namespace dvdi::spec {

inline constexpr std::size_t max_recover_entry_bytes = 1 << 20;  // one line, one element, or the rest
inline constexpr std::size_t max_recover_entries = 1'000'000;    // containers and orphans together

struct RecoverHead {
  std::string owner;
  std::string work_dir;   // "": not given
  bool complete = false;  // absent counts as false: then nothing is dropped
};

class RecoverReader {
 public:
  // An error of these ends the reading with that error.
  struct Receiver {
    std::function<Status(ContainerState)> container;
    std::function<Status(std::string)> orphan;  // its id
  };

  RecoverReader(AgentRules rules, Receiver receiver)
      : rules_(std::move(rules)), receiver_(std::move(receiver)) {}

  // The next bytes, in pieces of any size. Holds two entries at most. After an error: the same error.
  Status feed(std::string_view bytes);
  // At the end of the body. In one document the lists may come before the rest, so only now is the head
  // known.
  Result<RecoverHead> finish();

 private:
  enum class State { head, list, after_document, lines };

  Status take(char c);
  Status take_in_head(char c);
  Status take_in_list(char c);
  Status end_element();
  Status end_head();
  Status end_line();
  Status keep(std::string& buffer, char c);
  Status deliver(const std::string& text, bool container);
  Status deliver(const json::value& value, bool container);
  Status count_entry();
  Error at_line(Error error) const;
  void follow(char c);  // strings and depth

  const AgentRules rules_;
  const Receiver receiver_;
  State state_ = State::head;
  std::size_t line_ = 1;     // of the byte that comes next
  std::size_t started_ = 1;  // the line that the entry in work began on
  int depth_ = 0;
  bool in_string_ = false;
  bool escaped_ = false;
  bool document_ = false;  // a list was seen
  std::string text_;       // of the last string at the top level of the head, as written
  std::string head_;       // the head without the elements of its lists
  std::string entry_;      // the line or element in work
  bool list_of_containers_ = false;
  bool after_comma_ = false;
  bool seen_containers_ = false, seen_orphans_ = false;
  std::size_t entries_ = 0;
  std::optional<Error> failed_;
};

}  // namespace dvdi::spec
