#include "isolator/order.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

namespace dvdi::isolator {

namespace {

Error wrong(std::string message) {
  return Error{.code = Code::invalid_argument, .message = "ordering the isolators: " + std::move(message)};
}

Result<std::map<Property, const Isolator*>> providers_of(
    const std::vector<std::unique_ptr<Isolator>>& isolators) {
  std::map<Property, const Isolator*> providers;
  for (const auto& isolator : isolators) {
    for (const Property property : isolator->provides()) {
      const auto [other, first] = providers.emplace(property, isolator.get());
      if (!first && other->second != isolator.get())
        return wrong(fmt::format("'{}' and '{}' both provide {}",
                                 std::min(other->second->name(), isolator->name()),
                                 std::max(other->second->name(), isolator->name()), property_name(property)));
    }
  }
  return providers;
}

}  // namespace

std::string_view property_name(Property property) {
  switch (property) {
    case Property::host_paths:
      return "host paths";
    case Property::mount_instructions:
      return "mount instructions";
  }
  return "an unknown property";
}

Result<std::vector<std::unique_ptr<Isolator>>> in_order(std::vector<std::unique_ptr<Isolator>> isolators) {
  std::ranges::sort(isolators, {}, [](const auto& isolator) { return isolator->name(); });
  for (std::size_t i = 1; i < isolators.size(); ++i) {
    if (isolators[i - 1]->name() == isolators[i]->name())
      return wrong(fmt::format("'{}' is there twice", isolators[i]->name()));
  }
  DVDI_TRY(const auto providers, providers_of(isolators));
  for (const auto& isolator : isolators) {
    for (const Property property : isolator->needs()) {
      if (!providers.contains(property))
        return wrong(fmt::format("'{}' needs {}, which no isolator provides", isolator->name(),
                                 property_name(property)));
    }
  }

  std::vector<std::unique_ptr<Isolator>> ordered;
  std::set<const Isolator*> placed;
  const auto ready = [&](const std::unique_ptr<Isolator>& isolator) {
    return std::ranges::all_of(isolator->needs(),
                               [&](Property property) { return placed.contains(providers.at(property)); });
  };
  while (!isolators.empty()) {
    const auto next = std::ranges::find_if(isolators, ready);  // they are sorted: the first by name
    if (next == isolators.end()) {
      std::string names;
      for (const auto& isolator : isolators)
        names += fmt::format("{}'{}'", names.empty() ? "" : ", ", isolator->name());
      return wrong(fmt::format("{} need one another in a circle", names));
    }
    placed.insert(next->get());
    ordered.push_back(std::move(*next));
    isolators.erase(next);
  }
  return ordered;
}

}  // namespace dvdi::isolator
