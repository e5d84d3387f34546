// Paths beneath a folder: neither `..`, nor a symbolic link, nor a rename at the wrong moment leads out of
// it.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "linux/fd.h"

namespace dvdi {

// What a symbolic link on the way means.
enum class Links {
  none,    // an error: for folders that a task can write to, the sandbox above all
  inside,  // followed as if the folder were `/`, so that none leads out: for root file systems, and for the
           // host's own root
};

// Opens `path` beneath the folder `root` (a descriptor; AT_FDCWD is none). A leading `/` means the folder
// itself. `flags` as for open(2); O_CLOEXEC is added. Links that the kernel resolves by magic (/proc/PID/fd)
// are never followed.
Result<UniqueFd> open_beneath(int root, std::string_view path, int flags, Links links);

// The folder `path` of this process's own root, for use as `root`.
Result<UniqueFd> open_directory(const std::string& path);

// Where the file or folder `fd` is, without the links on the way to it, as the kernel's tables name it.
Result<std::string> real_path(int fd);

enum class Leaf { directory, file };

struct CreatedPath {
  UniqueFd fd;  // O_PATH, of the last component
  // What was not there, outermost first, relative to the root: for giving it an owner, or taking it back.
  std::vector<std::string> made;
};

struct CreateOptions {
  Links links = Links::none;
  Leaf leaf = Leaf::directory;  // what the last component is; those before it are folders
  mode_t mode = 0755;           // of what is made, whatever the umask; a file gets it without the x bits
};

// Opens `path` beneath `root` and makes what is missing, component by component. What is there is left as it
// is; something of the other kind is an error, and so is `..`.
Result<CreatedPath> create_beneath(int root, std::string_view path, const CreateOptions& options);

}  // namespace dvdi
