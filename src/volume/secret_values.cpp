#include "volume/secret_values.h"

#include <algorithm>

#include "base/text.h"

namespace dvdi::volume {

namespace {

constexpr std::string_view in_place_of_it = "<secret>";
// Values of one or two characters are no secrets, and would be found everywhere.
constexpr std::size_t least_length = 3;
constexpr std::string_view cut_mark = "…";

void replace_all(std::string& text, const std::string& what) {
  for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + in_place_of_it.size())) {
    text.replace(at, what.size(), in_place_of_it);
  }
}

// A long answer is cut, perhaps in the middle of the value.
void replace_cut(std::string& text, const std::string& what) {
  for (auto mark = text.find(cut_mark); mark != std::string::npos;
       mark = text.find(cut_mark, mark + cut_mark.size())) {
    for (std::size_t length = std::min(what.size(), mark); length >= least_length; --length) {
      if (text.compare(mark - length, length, what, 0, length) != 0) continue;
      text.replace(mark - length, length, in_place_of_it);
      mark += in_place_of_it.size() - length;
      break;
    }
  }
}

void redact(Error& error, const std::string& secret) {
  for (std::string* text : {&error.message, &error.hint}) {
    // What a driver says is shown with its control characters spelt out.
    for (const std::string& form : {secret, printable(secret, 4 * secret.size())}) {
      replace_all(*text, form);
      replace_cut(*text, form);
    }
  }
  for (Error& one : error.attached) redact(one, secret);
}

// Errors that have words of the driver's in them.
bool quotes_the_driver(const Error& error) {
  return error.code == Code::driver_error || error.code == Code::driver_violation;
}

void withhold(Error& error) {
  if (quotes_the_driver(error)) {
    error.message =
        "the driver answered with an error, whose text is withheld: the volume has secret options that are "
        "not known any more";
    error.hint = "the driver's own log has it";
  }
  for (Error& one : error.attached) withhold(one);
}

}  // namespace

bool has_secrets(const driver::Options& options, const Policy& policy) {
  return std::ranges::any_of(options, [&](const auto& option) {
    return option.second.size() >= least_length && policy.is_secret(option.first);
  });
}

void SecretValues::learn(const VolumeKey& volume, const driver::Options& options, bool had_some) {
  if (!has_secrets(options, policy_)) return;
  const Lock lock(mutex_);
  if (volumes_.size() >= max_volumes && !volumes_.contains(volume)) volumes_.erase(volumes_.begin());
  const auto [at, is_new] = volumes_.try_emplace(volume);
  if (is_new) at->second.all = !had_some;
  for (const auto& [name, value] : options) {
    if (value.size() >= least_length && policy_.is_secret(name)) at->second.texts.insert(value);
  }
}

void SecretValues::forget(const VolumeKey& volume) {
  const Lock lock(mutex_);
  volumes_.erase(volume);
}

bool SecretValues::knows_all(const VolumeKey& volume) const {
  const Lock lock(mutex_);
  const auto found = volumes_.find(volume);
  return found != volumes_.end() && found->second.all;
}

Error SecretValues::without(Error error, const VolumeKey& volume, bool had_some) const {
  if (had_some && !knows_all(volume)) withhold(error);
  const Lock lock(mutex_);
  for (const auto& [key, values] : volumes_) {
    if (key.driver != volume.driver || (!volume.name.empty() && key.name != volume.name)) continue;
    for (const std::string& text : values.texts) redact(error, text);
  }
  return error;
}

}  // namespace dvdi::volume
