#include "spec/recover_reader.h"

#include <fmt/format.h>

#include <utility>

#include "spec/document.h"
#include "spec/problems.h"
#include "spec/request.h"
#include "spec/rules.h"

namespace dvdi::spec {

namespace {

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

Error wrong(std::string message, std::string hint = {}) {
  return Error{.code = Code::invalid_argument, .message = std::move(message), .hint = std::move(hint)};
}

}  // namespace

Error RecoverReader::at_line(Error error) const {
  error.message = fmt::format("the recover call, line {}: {}", started_, error.message);
  return error;
}

Status RecoverReader::feed(std::string_view bytes) {
  if (failed_) return fail(*failed_);
  for (const char c : bytes) {
    if (auto taken = take(c); !taken) {
      failed_ = std::move(taken).error();
      return fail(*failed_);
    }
    if (c == '\n') ++line_;
  }
  return {};
}

Status RecoverReader::take(char c) {
  switch (state_) {
    case State::head:
      return take_in_head(c);
    case State::list:
      return take_in_list(c);
    case State::after_document:
      if (is_space(c)) return {};
      started_ = line_;
      return at_line(wrong("something follows the end of the document",
                           "the lists are in the document, or each entry on a line of its own"));
    case State::lines:
      if (c == '\n') return end_line();
      if (entry_.empty()) {
        if (is_space(c)) return {};
        started_ = line_;
      }
      return keep(entry_, c);
  }
  return {};
}

Status RecoverReader::keep(std::string& buffer, char c) {
  if (buffer.size() == max_recover_entry_bytes) {
    return at_line(wrong(fmt::format("is longer than {} bytes", max_recover_entry_bytes)));
  }
  buffer += c;
  return {};
}

void RecoverReader::follow(char c) {
  if (in_string_) {
    if (escaped_) {
      escaped_ = false;
    } else if (c == '\\') {
      escaped_ = true;
    } else if (c == '"') {
      in_string_ = false;
    }
    return;
  }
  if (c == '"') in_string_ = true;
  if (c == '{' || c == '[') ++depth_;
  if (c == '}' || c == ']') --depth_;
}

Status RecoverReader::take_in_head(char c) {
  if (head_.empty()) {
    if (is_space(c)) return {};
    started_ = line_;
    if (c != '{') return at_line(wrong("an object is expected, with owner and work_dir"));
  }
  const bool was_in_string = in_string_;
  const int was_at = depth_;
  DVDI_CHECK(keep(head_, c));
  follow(c);
  if (was_at != 1) return {};
  if (was_in_string || in_string_) {
    // The text of a string of the top level: is it the name of a list?
    if (!was_in_string) {
      text_.clear();
    } else if (in_string_ && text_.size() < 16) {
      text_ += c;
    }
    return {};
  }
  if (c == '[' && (text_ == "containers" || text_ == "orphans")) {
    list_of_containers_ = text_ == "containers";
    bool& seen = list_of_containers_ ? seen_containers_ : seen_orphans_;
    if (seen) return at_line(wrong(fmt::format("{} is there twice", text_)));
    seen = document_ = true;
    after_comma_ = false;
    entry_.clear();
    state_ = State::list;
    return {};
  }
  return depth_ == 0 ? end_head() : Status();
}

Status RecoverReader::take_in_list(char c) {
  if (!in_string_ && depth_ == 2 && (c == ',' || c == ']')) {
    const bool empty = entry_.empty();
    if (empty && (c == ',' || after_comma_)) {
      started_ = line_;
      return at_line(wrong("a list has a comma too many"));
    }
    if (!empty) DVDI_CHECK(end_element());
    after_comma_ = c == ',';
    if (c == ',') return {};
    depth_ = 1;
    state_ = State::head;
    text_.clear();
    return keep(head_, c);
  }
  if (entry_.empty()) {
    if (is_space(c)) return {};
    started_ = line_;
  }
  DVDI_CHECK(keep(entry_, c));
  follow(c);
  if (depth_ < 2) return at_line(wrong("a bracket is closed that was not opened"));
  return {};
}

Status RecoverReader::end_element() {
  const std::string text = std::exchange(entry_, {});
  return deliver(text, list_of_containers_);
}

Status RecoverReader::end_head() {
  state_ = document_ ? State::after_document : State::lines;
  entry_.clear();
  return {};
}

Status RecoverReader::end_line() {
  while (!entry_.empty() && is_space(entry_.back())) entry_.pop_back();
  if (entry_.empty()) return {};
  const std::string text = std::exchange(entry_, {});
  auto parsed = json::parse(text, "it");
  if (!parsed) return at_line(std::move(parsed).error());
  const json::object* object = parsed->if_object();
  const json::value* container = object == nullptr ? nullptr : object->if_contains("container");
  const json::value* orphan = object == nullptr ? nullptr : object->if_contains("orphan");
  if ((container == nullptr) == (orphan == nullptr)) {
    return at_line(wrong(R"(a line after the first is {"container": …} or {"orphan": …})"));
  }
  return deliver(container != nullptr ? *container : *orphan, container != nullptr);
}

Status RecoverReader::deliver(const std::string& text, bool container) {
  const auto parsed = json::parse(text, "the entry");
  if (!parsed) return at_line(parsed.error());
  return deliver(*parsed, container);
}

Status RecoverReader::count_entry() {
  if (++entries_ <= max_recover_entries) return {};
  return at_line(wrong(fmt::format("there are more than {} containers and orphans", max_recover_entries)));
}

Status RecoverReader::deliver(const json::value& value, bool container) {
  DVDI_CHECK(count_entry());
  if (container) {
    auto state = parse_container_state(value, rules_);
    if (!state) return at_line(std::move(state).error());
    return receiver_.container(*std::move(state));
  }
  auto id = container_id_text(value);
  if (!id) return at_line(std::move(id).error());
  return receiver_.orphan(*std::move(id));
}

Result<RecoverHead> RecoverReader::finish() {
  if (failed_) return *failed_;
  const auto ended = [&]() -> Status {
    if (state_ == State::lines) return end_line();  // the last line need not end with a line feed
    if (state_ == State::after_document) return {};
    started_ = line_;
    return at_line(wrong(head_.empty() ? "it is empty: an object with owner and work_dir is expected"
                                       : "it ends in the middle of a document"));
  };
  if (auto status = ended(); !status) {
    failed_ = std::move(status).error();
    return *failed_;
  }
  DVDI_TRY(const json::value parsed, json::parse(head_, "the first object of the recover call"));
  const json::object& object = parsed.get_object();
  Problems problems;
  RecoverHead head;
  const Text owner = text_at(object, "owner", "", problems);
  if (!owner.reported) {
    if (owner.value.size() > max_path_bytes) {
      problems.add("owner", fmt::format("is longer than {} bytes", max_path_bytes));
    } else if (owner.value.empty()) {
      problems.add("owner", "is required", "the real path of the agent's work directory");
    } else if (owner.value.find('\0') != std::string::npos) {
      problems.add("owner", "has a NUL character");
    }
  }
  const Text work_dir = text_at(object, "work_dir", "", problems);
  if (!work_dir.value.empty()) check_absolute_path(work_dir, "the work directory", problems);
  if (const json::value* complete = present(object, "complete")) {
    if (complete->is_bool()) {
      head.complete = complete->get_bool();
    } else {
      problems.add("complete", fmt::format("is {}, not true or false", kind(*complete)));
    }
  }
  for (const std::string_view name : {"containers", "orphans"}) {
    const json::value* list = present(object, name);
    // Written with an escape in its name, or no array.
    const bool read = name == "containers" ? seen_containers_ : seen_orphans_;
    if (list != nullptr && !read) problems.add(name, "is no array that can be read here");
  }
  if (!problems.empty()) return problems.error("the head of the recover call");
  head.owner = owner.value;
  head.work_dir = work_dir.value;
  return head;
}

}  // namespace dvdi::spec
