#include "daemon/api.h"

#include <fmt/format.h>

#include "base/text.h"

namespace dvdi {

Result<ContainerView> pick_container(const std::vector<ContainerView>& all, const std::string& id) {
  std::vector<const ContainerView*> found;
  for (const ContainerView& view : all) {
    if (view.id == id || view.owner + "/" + view.id == id) return view;
    if (!id.empty() && view.id.starts_with(id)) found.push_back(&view);
  }
  if (found.size() == 1) return *found.front();
  return Error{.code = found.empty() ? Code::not_found : Code::invalid_argument,
               .message = found.empty()
                              ? fmt::format("no container {}", printable(id))
                              : fmt::format("{} containers begin with {}", found.size(), printable(id)),
               .hint = "`dvdi ps --all` lists them; ended ones are kept for an hour"};
}

Error no_container(const isolator::ContainerKey& key) {
  return Error{.code = Code::not_found,
               .message = fmt::format("no container {}", printable(key.text())),
               .hint = "ended ones are kept for an hour"};
}

}  // namespace dvdi
