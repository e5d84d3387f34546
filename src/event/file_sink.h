// Events as lines of JSON, appended to a file.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include "event/sink.h"
#include "linux/fd.h"

namespace dvdi {

class FileSink final : public Sink {
 public:
  explicit FileSink(FileSinkSettings settings) : path_(std::move(settings.path)) {}

  Status deliver(const Context& context, const std::vector<StoredEvent>& batch) override;
  void sent_again_until(std::uint64_t sequence) override;
  // Of the file that is at the path now, not of those that were rotated away. Reads all of it; corrupted if a
  // line of that node was changed.
  Result<SinkHead> head(const Context& context, const std::string& node_id) override;
  Status test(const Context& context) override;
  std::string where() const override;

 private:
  // The file that is at the path now; made if none is.
  Status open_current();
  // Puts an end that a crash tore in order, and finds out what of `node` is there already.
  Status look_at_end(const Context& context, const std::string& node);
  Result<std::string> last_line(const Context& context, off_t end) const;
  Status append(const Context& context, const std::vector<const StoredEvent*>& batch);
  std::string doing(std::string_view what) const;

  const std::string path_;
  UniqueFd file_;
  bool looked_ = false;            // at the end of what a process before this one left
  std::uint64_t again_until_ = 0;  // up to there lines are appended although they may be there
  std::uint64_t there_ = 0;        // lines that a process before this one has appended
  std::uint64_t appended_ = 0;     // lines of a batch that failed
  bool unsynced_ = false;
};

}  // namespace dvdi
