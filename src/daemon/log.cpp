#include "daemon/log.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <cstdlib>
#include <memory>

#include "base/text.h"

namespace dvdi::log {

namespace {

constexpr std::size_t longest_line = std::size_t{16} << 10U;

// The journal's priority of a line: <3> error, <4> warning, <6> info, <7> debug.
class Priority final : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm& /*time*/,
              spdlog::memory_buf_t& to) override {
    const std::string_view text = message.level >= spdlog::level::err    ? "<3>"
                                  : message.level >= spdlog::level::warn ? "<4>"
                                  : message.level >= spdlog::level::info ? "<6>"
                                                                         : "<7>";
    to.append(text.data(), text.data() + text.size());
  }
  std::unique_ptr<custom_flag_formatter> clone() const override { return std::make_unique<Priority>(); }
};

spdlog::level::level_enum level_of(Level level) {
  switch (level) {
    case Level::error:
      return spdlog::level::err;
    case Level::warning:
      return spdlog::level::warn;
    case Level::info:
      return spdlog::level::info;
    case Level::debug:
      break;
  }
  return spdlog::level::debug;
}

void write(spdlog::level::level_enum level, std::string_view text) {
  // One line an entry, whatever comes from outside.
  spdlog::default_logger_raw()->log(level, printable(text, longest_line));
}

}  // namespace

void start(Level least) {
  auto logger = std::make_shared<spdlog::logger>("dvdid", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  auto formatter = std::make_unique<spdlog::pattern_formatter>(spdlog::pattern_time_type::utc);
  formatter->add_flag<Priority>('*');
  const bool journal =
      std::getenv("JOURNAL_STREAM") != nullptr;  // NOLINT(concurrency-mt-unsafe): nothing here changes it
  formatter->set_pattern(journal ? "%*%v" : "%Y-%m-%dT%H:%M:%S.%eZ %l %v");
  logger->set_formatter(std::move(formatter));
  logger->set_level(level_of(least));
  logger->flush_on(spdlog::level::trace);
  spdlog::set_default_logger(std::move(logger));
}

void set_level(Level least) { spdlog::default_logger_raw()->set_level(level_of(least)); }
void error(std::string_view text) { write(spdlog::level::err, text); }
void warning(std::string_view text) { write(spdlog::level::warn, text); }
void info(std::string_view text) { write(spdlog::level::info, text); }
void debug(std::string_view text) { write(spdlog::level::debug, text); }

}  // namespace dvdi::log
