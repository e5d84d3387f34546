// Where a volume appears in a container: which path of the host its container path means, and what is there.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>

#include "base/context.h"
#include "dvdi/v1/launch.pb.h"
#include "linux/beneath.h"
#include "linux/helper_pool.h"

namespace dvdi::isolator {

// The folders of a container, as real paths of the host.
struct View {
  std::string sandbox;
  std::string sandbox_in_container;  // where the task sees it; the same as `sandbox` without rootfs
  std::string rootfs;                // "": the host's root
};

struct Place {
  v1::ContainerMountInfo::Beneath beneath = v1::ContainerMountInfo::HOST;
  std::string root;      // of the host: the sandbox, the rootfs, or "" for the host's root
  std::string relative;  // below it, without `.`, `//` and `/` at either end
  std::string path() const { return root + '/' + relative; }
};

// Pure. An absolute path that lies in the place of the sandbox means the sandbox, as does every relative
// path. invalid_argument: `..`, the root or the sandbox itself, a folder that would hide the sandbox.
Result<Place> place_of(const View& view, std::string_view container_path);

// Is `path` below `folder`? Both without `.`, `//` and `/` at the end.
bool lies_in(std::string_view path, std::string_view folder);
// Parents before what lies in them; the rest as the alphabet says.
bool parents_first(std::string_view left, std::string_view right);

// What is at a path.
struct PathInfo {
  std::string path;  // real: without symbolic links
  bool directory = true;
  mode_t mode = 0;  // permission bits
  uid_t uid = 0;
  gid_t gid = 0;
};

struct Owner {
  uid_t uid = 0;
  gid_t gid = 0;
};

// The next three are for folders that cannot hang: sandbox, rootfs, /tmp.

Result<PathInfo> look_at_folder(const std::string& path);

struct MakeOptions {
  Links links = Links::none;
  Leaf leaf = Leaf::directory;
  std::optional<Owner> owner;            // of what is made; absent: root
  std::optional<mode_t> last_mode = {};  // of the last component, if it is made; absent: 0755
};
struct MadePath {
  PathInfo info;
  bool made = false;  // it was not there
};
// `relative` beneath `root`, made where it is missing.
Result<MadePath> make_path(const std::string& root, const std::string& relative, const MakeOptions& options);
// nullopt if there is nothing; a symbolic link is an error.
Result<std::optional<PathInfo>> look_beneath(const std::string& root, const std::string& relative);

// The rest can block on somebody's file system and runs in a helper.

// not_found if there is nothing; symbolic links are followed.
Result<PathInfo> inspect_path(const Context& context, HelperPool& helpers, const std::string& path);
// A place inside a mounted volume for a volume that is nested in it. Without `may_make` it must be there.
// Symbolic links are refused: whoever can write to the volume could have made them. `key`: of the helper's
// work.
Result<PathInfo> make_in_volume(const Context& context, HelperPool& helpers, const std::string& volume,
                                const std::string& relative, Leaf leaf, bool may_make,
                                const std::string& key = {});

}  // namespace dvdi::isolator
