// Form 3: a Marathon 1.x app, as far as running it once and its volumes are concerned.
#pragma once

#include "base/json.h"
#include "spec/mesos.h"

namespace dvdi::spec {

FileContents read_marathon_app(const json::object& app, Problems& problems);

}  // namespace dvdi::spec
