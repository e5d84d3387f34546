// `dvdi doctor`: can this machine do it, and is the state healthy? Looks only.

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "base/sync.h"
#include "daemon/catalog.h"
#include "daemon/config.h"
#include "daemon/open.h"
#include "linux/holders.h"
#include "linux/mount_api.h"
#include "linux/mount_table.h"
#include "store/damage.h"
#include "store/ledger.h"
#include "store/rebuilt.h"

namespace dvdi {

namespace {

using Level = Finding::Level;

constexpr Duration driver_patience = std::chrono::seconds(3);

Finding root() {
  if (::geteuid() == 0) return {Level::ok, "root", "running as root", ""};
  return {Level::problem, "root", fmt::format("running as uid {}", ::geteuid()),
          "mounting needs root: use sudo, or a root shell"};
}

// In a helper: a mount namespace and a pid namespace of its own.
Result<std::string> try_namespaces(std::string_view /*request*/) {
  if (::unshare(CLONE_NEWNS | CLONE_NEWPID) != 0)
    return os_error("unshare(CLONE_NEWNS | CLONE_NEWPID)", errno);
  return std::string();
}

Finding namespaces(const Context& context, HelperPool& helpers) {
  const auto made = helpers.run(context, "make namespaces", try_namespaces, "");
  if (made) return {Level::ok, "namespaces", "mount and pid namespaces can be made", ""};
  return {Level::problem, "namespaces", made.error().message,
          "a task needs them: not in a chroot, and a container needs CAP_SYS_ADMIN"};
}

Finding mount_api() {
  utsname kernel{};
  ::uname(&kernel);
  const UniqueFd slash(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
  const auto tree = clone_mount(slash.get(), Depth::top);
  if (!tree) {
    return {Level::problem, "mount API", fmt::format("Linux {}: {}", kernel.release, tree.error().message),
            "Linux 6.1 or younger, and root, are needed"};
  }
  return {Level::ok, "mount API",
          fmt::format(
              "Linux {}: open_tree works{}", kernel.release,
              kernel_features().statmount ? ", statmount too" : "; no statmount (6.8): the fallback is used"),
          ""};
}

Finding propagation(const std::string& state_dir) {
  const auto table = MountTable::read();
  if (!table) return {Level::problem, "propagation", table.error().text(), "is /proc mounted?"};
  const MountEntry* entry = table->containing(state_dir);
  if (entry == nullptr) return {Level::problem, "propagation", "no mount contains the state directory", ""};
  const std::string where =
      fmt::format("{} lies on mount {} ({})", state_dir, entry->mount_point, entry->fs_type);
  if (entry->shared) return {Level::ok, "propagation", where + ", which is shared", ""};
  return {Level::warning, "propagation", where + ", which is private",
          "mounts made below it are not seen by programs in other mount namespaces, and an unmount does not "
          "reach copies there: `mount --make-rshared " +
              std::string(entry->mount_point) + "`"};
}

Finding device(const char* path, const char* subject, const char* needed_for) {
  if (::access(path, R_OK | W_OK) == 0) return {Level::ok, subject, fmt::format("{} is there", path), ""};
  return {Level::warning, subject, fmt::format("{}: {}", path, std::generic_category().message(errno)),
          fmt::format("needed for {}", needed_for)};
}

Finding programs() {
  std::string missing;
  for (const char* program : {"mkfs.ext4", "mkfs.xfs", "blkid"}) {
    bool found = false;
    for (const char* folder :
         {"/usr/local/sbin/", "/usr/local/bin/", "/usr/sbin/", "/usr/bin/", "/sbin/", "/bin/"}) {
      found = found || ::access((std::string(folder) + program).c_str(), X_OK) == 0;
    }
    if (!found) missing += (missing.empty() ? "" : ", ") + std::string(program);
  }
  if (missing.empty()) return {Level::ok, "programs", "mkfs.ext4, mkfs.xfs and blkid are there", ""};
  return {Level::warning, "programs", "not there: " + missing,
          "volumes of type=image need them: packages e2fsprogs, xfsprogs, util-linux"};
}

// What became of a damaged database, for whoever wants to know what it said.
void set_aside_databases(const std::string& path, const std::optional<RebuiltBooks>& books,
                         std::vector<Finding>& findings) {
  for (const std::string& aside : databases_set_aside(path)) {
    const bool latest = books && books->aside == aside;
    findings.push_back(
        {Level::warning, "state",
         latest ? fmt::format(
                      "{} was damaged and set aside on {} ({}); the books were rebuilt from the kernel's "
                      "mounts, the drivers and lists of live containers",
                      aside, rfc3339(books->when.wall), books->why)
                : fmt::format("{} was damaged and set aside", aside),
         "its events and usage may still be readable: `sqlite3 FILE .recover`; then keep it elsewhere or "
         "remove "
         "it"});
  }
  if (books && books->aside.empty())
    findings.push_back(
        {Level::warning, "state",
         fmt::format("the books were rebuilt on {}: {}", rfc3339(books->when.wall), books->why), ""});
}

void state(const Context& context, const std::string& state_dir, std::vector<Finding>& findings) {
  const std::string path = state_dir + "/state.db";
  struct stat status{};
  if (::stat(path.c_str(), &status) != 0 || status.st_size == 0) {
    findings.push_back({Level::ok, "state", fmt::format("nothing in {} yet", state_dir), ""});
    return;
  }
  if (const auto checked = Ledger::check(path); !checked) {
    const bool damaged = checked.error().code == Code::corrupted;
    findings.push_back(
        {Level::problem, "state", checked.error().text(),
         damaged ? "end the daemon and all commands: the next one that starts alone sets it aside and "
                   "rebuilds the books; do not delete it"
                 : "can this user read it?"});
    set_aside_databases(path, {}, findings);
    return;
  }
  auto ledger = Ledger::open(context, path);
  if (!ledger) {
    findings.push_back({Level::problem, "state", ledger.error().text(), ledger.error().hint});
    return;
  }
  std::vector<MountRow> mounts;
  std::vector<DebtRow> debts;
  std::vector<ForeignRow> foreigns;
  std::vector<DriverRow> drivers;
  std::vector<ContainerRow> containers;
  std::optional<RebuiltBooks> books;
  const auto read = (*ledger)->read(context, "look at the state", [&](Reader& reader) -> Status {
    DVDI_TRY(mounts, reader.mounts());
    DVDI_TRY(debts, reader.debts());
    DVDI_TRY(foreigns, reader.foreigns());
    DVDI_TRY(drivers, reader.drivers());
    DVDI_TRY(containers, reader.containers());
    DVDI_TRY(books, rebuilt_books(reader));
    return {};
  });
  if (!read) {
    findings.push_back({Level::problem, "state", read.error().text(), ""});
    return;
  }
  findings.push_back({Level::ok, "state", fmt::format("{} is whole: {} mounts", path, mounts.size()), ""});
  set_aside_databases(path, books, findings);
  for (const ContainerRow& row : containers) {
    if (row.note.empty() || row.state == ContainerState::ended) continue;
    findings.push_back({Level::warning, "container " + row.key.text(),
                        fmt::format("is kept although its owner does not know it: {}", row.note),
                        "end what is left of it; its owner's next start releases its volumes"});
  }
  for (const MountRow& row : mounts) {
    if (row.state == MountState::mounted) continue;
    if (row.pending == MountRow::Pending::found) {
      findings.push_back(
          {Level::warning, "volume " + row.volume.text(),
           fmt::format("is mounted at {} since before the books were rebuilt; for whom, is not known",
                       row.mount_point),
           "a container that asks for it takes it over; if nobody uses it: `dvdi volume release`"});
      continue;
    }
    const bool owed =
        std::ranges::any_of(debts, [&](const DebtRow& debt) { return debt.volume == row.volume; });
    if (row.pending == MountRow::Pending::lost && row.state == MountState::unknown) {
      findings.push_back(
          {Level::warning, "volume " + row.volume.text(),
           fmt::format("its mount at {} was lost at {}: {}", row.mount_point, rfc3339(row.since.wall),
                       row.note),
           "tasks that have it keep what they have; the next one that asks for the volume gets a "
           "fresh mount, if its driver and its server are there"});
    } else if (!owed) {
      findings.push_back({Level::warning, "volume " + row.volume.text(),
                          fmt::format("is {} since {}", mount_state_name(row.state), rfc3339(row.since.wall)),
                          "if no command is at work on it, the next one settles it"});
    }
  }
  for (const DebtRow& debt : debts) {
    findings.push_back({debt.parked ? Level::problem : Level::warning, "volume " + debt.volume.text(),
                        fmt::format("an unmount is owed since {}, {} attempts: {}", rfc3339(debt.since.wall),
                                    debt.attempts, debt.last_error),
                        debt.parked ? "not tried again by itself: mend the driver, then use the volume once"
                                    : "later commands try again"});
  }
  for (const ForeignRow& row : foreigns) {
    findings.push_back({Level::ok, "volume " + row.volume.text(),
                        fmt::format("somebody else holds it too: {}", row.evidence), ""});
  }
  for (const DriverRow& row : drivers) {
    if (row.state == DriverState::up) continue;
    findings.push_back({Level::warning, "driver " + row.name,
                        fmt::format("{} since {}, by its last calls: {}", driver_state_name(row.state),
                                    rfc3339(row.since.wall), row.reason),
                        "what it answers just now is below; the next call to it decides"});
  }
}

void stuck_helpers(const Context& context, std::vector<Finding>& findings) {
  constexpr std::size_t most = 100;
  const auto stuck = find_stuck_helpers(context, most);
  if (stuck.empty()) {
    findings.push_back({Level::ok, "helpers", "no helper process is stuck in the kernel", ""});
    return;
  }
  findings.push_back(
      {Level::warning, "helpers", fmt::format("stuck in the kernel: process {}", fmt::join(stuck, ", ")),
       "a file system hangs, and its volume is fenced (`dvdi volume inspect`): mend or end what serves it"});
}

void drivers(const Context& context, const Config& config, HelperPool& helpers,
             std::vector<Finding>& findings) {
  NodeCatalog catalog(config.state_dir, helpers, config.docker);
  Mutex mutex;
  std::vector<std::function<void()>> work;
  for (const std::string& name : catalog.names()) {
    work.emplace_back([&, name] {
      const Context bounded = context.with_timeout(driver_patience);
      const auto ask = [&]() -> Status {
        DVDI_TRY(const auto driver, catalog.find(bounded, name));
        DVDI_CHECK(driver->capabilities(bounded));
        return {};
      };
      const auto answered = ask();
      const Lock lock(mutex);
      findings.push_back(answered
                             ? Finding{Level::ok, "driver " + name, "answers", ""}
                             : Finding{Level::problem, "driver " + name, answered.error().text(),
                                       "is the plugin running? its socket or spec file may be a remainder"});
    });
  }
  run_parallel(std::move(work));
  std::ranges::sort(findings.end() - static_cast<std::ptrdiff_t>(catalog.names().size()), findings.end(), {},
                    [](const Finding& finding) { return finding.subject; });
}

}  // namespace

std::vector<Finding> diagnose(const Context& context, const OpenOptions& options, HelperPool& helpers) {
  std::vector<Finding> findings = {root()};
  const auto config = load_config(options.config_file, options.state_dir);
  if (!config) {
    findings.push_back({Level::problem, "configuration", config.error().text(), config.error().hint});
    return findings;
  }
  findings.push_back(namespaces(context, helpers));
  findings.push_back(mount_api());
  findings.push_back(propagation(config->state_dir));
  findings.push_back(device("/dev/fuse", "FUSE", "plugins that mount by FUSE, such as rclone"));
  findings.push_back(device("/dev/loop-control", "loop devices", "local volumes of type=image"));
  findings.push_back(programs());
  stuck_helpers(context, findings);
  state(context, config->state_dir, findings);
  drivers(context, *config, helpers, findings);
  return findings;
}

}  // namespace dvdi
