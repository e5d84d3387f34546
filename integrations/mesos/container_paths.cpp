#include "container_paths.h"

#include <algorithm>

namespace dvdi_mesos {

namespace {

bool lies_in(const std::string& inner, const std::string& outer) {
  if (outer == "/") return inner != "/";
  return inner.size() > outer.size() && inner.compare(0, outer.size(), outer) == 0 &&
         inner[outer.size()] == '/';
}

const char* relation(const std::string& ours, const std::string& theirs) {
  if (ours == theirs) return "is the same as";
  if (lies_in(ours, theirs)) return "lies in";
  return lies_in(theirs, ours) ? "has in it" : nullptr;
}

}  // namespace

std::string place_in_container(const std::string& path, const View& view) {
  const std::string whole = !path.empty() && path[0] == '/' ? path : view.sandbox + "/" + path;
  std::string place;
  std::size_t at = 0;
  while (at < whole.size()) {
    const std::size_t end = std::min(whole.find('/', at), whole.size());
    const std::string part = whole.substr(at, end - at);
    if (!part.empty() && part != ".") place += "/" + part;
    at = end + 1;
  }
  return place.empty() ? "/" : place;
}

std::string check_apart(const std::vector<ContainerPath>& paths, const View& view) {
  for (const ContainerPath& ours : paths) {
    if (!ours.ours || ours.path.empty()) continue;
    for (const ContainerPath& theirs : paths) {
      if (theirs.ours || theirs.path.empty()) continue;
      const char* how = relation(place_in_container(ours.path, view), place_in_container(theirs.path, view));
      if (how == nullptr) continue;
      return "the container path '" + ours.path + "' of " + ours.what + " " + how + " the container path '" +
             theirs.path + "' of " + theirs.what +
             ", which another isolator mounts: one would hide what the other shows; give the two container "
             "paths that do not lie in one another";
    }
  }
  return {};
}

}  // namespace dvdi_mesos
