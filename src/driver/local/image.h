// Images: a file with a file system in it, and the loop device that shows it as a block device.
#pragma once

#include <string>

#include "base/context.h"
#include "driver/local/options.h"
#include "linux/fd.h"

namespace dvdi::driver::local {

// Makes the file `image` in `folder`, sparse, of the size that the options say, and formats it. `path` is
// where that is. Only a file that this very call made is ever formatted, and only if it holds nothing.
Status make_image(const Context& context, int folder, const std::string& path, const VolumeOptions& options);

struct LoopDevice {
  UniqueFd fd;  // the device goes when this is closed and it is not mounted
  std::string path;
};

// The loop device of this image: the one that it has, because one image behind two devices is a destroyed
// file system, else a new one.
Result<LoopDevice> attach_loop(int image, const std::string& path);

}  // namespace dvdi::driver::local
