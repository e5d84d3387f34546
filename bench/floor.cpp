// The floor: what prepare and cleanup of a container cannot do without, and nothing else. One HTTP hop for
// each of the two calls, the plugin's calls for volumes that nobody else uses, and durable commits of the
// same bytes: what is intended and what was done, of each of the two, or one of each where the plugin is not
// needed.
#include <fmt/format.h>
#include <sqlite3.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <mutex>
#include <string>

#include "measure.h"
#include "plain_http.h"

namespace {

// One database with one writer, as bare as SQLite's own page on durability has it.
class Commits {
 public:
  Commits(const std::string& path, std::size_t bytes) : body_(bytes, 'x') {
    check(sqlite3_open(path.c_str(), &database_), "open");
    check(sqlite3_exec(database_,
                       "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
                       "CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, body TEXT NOT NULL)",
                       nullptr, nullptr, nullptr),
          "set up");
    check(sqlite3_prepare_v2(database_, "INSERT INTO t (body) VALUES (?)", -1, &insert_, nullptr), "prepare");
  }
  ~Commits() {
    sqlite3_finalize(insert_);
    sqlite3_close(database_);
  }
  Commits(const Commits&) = delete;
  Commits& operator=(const Commits&) = delete;

  void commit() {
    const std::lock_guard lock(mutex_);
    sqlite3_bind_text(insert_, 1, body_.c_str(), static_cast<int>(body_.size()), SQLITE_STATIC);
    if (sqlite3_step(insert_) != SQLITE_DONE) check(SQLITE_ERROR, "commit");
    sqlite3_reset(insert_);
  }

 private:
  void check(int code, const char* what) {
    if (code == SQLITE_OK) return;
    fmt::print(stderr, "{}: {}\n", what, sqlite3_errmsg(database_));
    std::_Exit(1);
  }

  const std::string body_;
  std::mutex mutex_;
  sqlite3* database_ = nullptr;
  sqlite3_stmt* insert_ = nullptr;
};

struct Volume {
  std::mutex mutex;
  unsigned users = 0;
};

}  // namespace

int main(int argc, char** argv) {
  bench::Rounds how;
  std::string plugin, hop, database, options;
  unsigned volumes = 1, each = 1;
  std::size_t bytes = 2000;
  bool warm = false;
  CLI::App app("Prepare and cleanup as bare as they can be; prints one line of JSON");
  app.add_option("--plugin", plugin, "socket of the plugin")->required();
  app.add_option("--hop", hop, "socket of a server that answers anything; by default the plugin");
  app.add_option("--options", options, "JSON of Create's Opts");
  app.add_option("--database", database, "a file to commit to")->required();
  app.add_option("--threads", how.threads);
  app.add_option("--volumes", volumes, "how many there are");
  app.add_option("--each", each, "how many a container has");
  app.add_option("--bytes", bytes, "of one commit");
  app.add_option("--seconds", how.seconds);
  app.add_option("--rounds", how.rounds, "of each thread, instead of --seconds");
  app.add_flag("--warm", warm, "the volumes are mounted already");
  CLI11_PARSE(app, argc, argv);
  if (hop.empty()) hop = plugin;

  Commits store(database, bytes);
  std::vector<Volume> all(volumes);
  struct Ends {
    bench::Stream plugin, hop;
    Ends(const std::string& a, const std::string& b)
        : plugin(bench::connect_to(a)), hop(bench::connect_to(b)) {}
    static void call(bench::Stream& stream, std::string_view path, const std::string& body) {
      stream.write(bench::post(path, body));
      bench::Message message;
      if (!stream.read(message)) bench::fail("no answer");
      // Some say of a volume that is there that it cannot be created, which is no failure.
      if (path != "/VolumeDriver.Create" && message.body.find(R"("Err":")") != std::string_view::npos &&
          message.body.find(R"("Err":"")") == std::string_view::npos)
        bench::fail(std::string(message.body).c_str());
    }
  };
  std::vector<std::unique_ptr<Ends>> ends;
  for (unsigned i = 0; i < how.threads; ++i) ends.push_back(std::make_unique<Ends>(plugin, hop));

  const std::string more = options.empty() ? "" : ",\"Opts\":" + options;
  const auto body = [&](unsigned volume) {
    return R"({"Name":"floor-)" + std::to_string(volume) + R"(","ID":"floor")" + more + "}";
  };
  const std::string request(600, ' ');  // as long as a request for one volume
  bench::run_rounds(how, [&](unsigned thread, std::mt19937& generator) {
    Ends& mine = *ends[thread];
    const auto chosen = bench::choose(generator, each, volumes);
    Ends::call(mine.hop, "/prepare", request);
    store.commit();
    if (!warm) {
      for (const unsigned volume : chosen) {
        const std::lock_guard lock(all[volume].mutex);
        if (all[volume].users++ != 0) continue;
        Ends::call(mine.plugin, "/VolumeDriver.Create", body(volume));
        Ends::call(mine.plugin, "/VolumeDriver.Mount", body(volume));
      }
      store.commit();
    }
    Ends::call(mine.hop, "/cleanup", request);
    store.commit();
    if (!warm) {
      for (const unsigned volume : chosen) {
        const std::lock_guard lock(all[volume].mutex);
        if (--all[volume].users == 0) Ends::call(mine.plugin, "/VolumeDriver.Unmount", body(volume));
      }
      store.commit();
    }
  });
}
