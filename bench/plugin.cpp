// A Docker volume plugin that does no more than one must: a volume is a tmpfs, so that a mount is a mount.
// For benchmarks, on both sides of each comparison.
#include <sys/mount.h>
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <set>

#include "plain_http.h"

namespace json = boost::json;

namespace {

struct Volume {
  std::mutex mutex;  // of one volume: others go on
  std::set<std::string, std::less<>> ids;
};

class Plugin {
 public:
  Plugin(std::string base, std::chrono::milliseconds delay, bool hang)
      : base_(std::move(base)), delay_(delay), hang_(hang) {}

  std::string handle(std::string_view path, std::string_view body) {
    if (path == "/Plugin.Activate") return R"({"Implements":["VolumeDriver"]})";
    if (path == "/VolumeDriver.Capabilities") return R"({"Capabilities":{"Scope":"local"}})";
    if (path == "/VolumeDriver.List") return list();
    std::error_code error;
    const json::value request = json::parse(body, error);
    const json::object* members = error ? nullptr : request.if_object();
    const json::value* named = members == nullptr ? nullptr : members->if_contains("Name");
    if (named == nullptr || !named->is_string()) return R"({})";  // a call that does nothing: one hop
    const std::string name(named->get_string());
    const json::value* id_member = members->if_contains("ID");
    const std::string id(id_member != nullptr && id_member->is_string()
                             ? std::string_view(id_member->get_string())
                             : std::string_view());
    if (path == "/VolumeDriver.Create") {
      find(name, true);
      return R"({"Err":""})";
    }
    const std::shared_ptr<Volume> volume = find(name, false);
    if (!volume) return R"({"Err":"no such volume"})";
    if (path == "/VolumeDriver.Mount") return mount_it(name, id, *volume);
    if (path == "/VolumeDriver.Unmount") return unmount_it(name, id, *volume);
    if (path == "/VolumeDriver.Remove") {
      const std::lock_guard lock(mutex_);
      volumes_.erase(name);
      return R"({"Err":""})";
    }
    const std::lock_guard lock(volume->mutex);
    const std::string point = volume->ids.empty() ? std::string() : point_of(name);
    if (path == "/VolumeDriver.Path")
      return json::serialize(json::object{{"Mountpoint", point}, {"Err", ""}});
    return json::serialize(
        json::object{{"Volume", json::object{{"Name", name}, {"Mountpoint", point}}}, {"Err", ""}});
  }

 private:
  std::string point_of(const std::string& name) const { return base_ + "/" + name; }

  std::shared_ptr<Volume> find(const std::string& name, bool make) {
    const std::lock_guard lock(mutex_);
    const auto found = volumes_.find(name);
    if (found != volumes_.end()) return found->second;
    if (!make) return nullptr;
    return volumes_.emplace(name, std::make_shared<Volume>()).first->second;
  }

  std::string list() {
    json::array all;
    const std::lock_guard lock(mutex_);
    for (const auto& [name, volume] : volumes_) all.push_back(json::object{{"Name", name}});
    return json::serialize(json::object{{"Volumes", std::move(all)}, {"Err", ""}});
  }

  std::string mount_it(const std::string& name, const std::string& id, Volume& volume) const {
    while (hang_) std::this_thread::sleep_for(std::chrono::hours(1));
    const std::lock_guard lock(volume.mutex);
    const std::string point = point_of(name);
    if (volume.ids.empty()) {
      if (delay_.count() > 0) std::this_thread::sleep_for(delay_);
      ::mkdir(point.c_str(), 0755);
      if (::mount("bench", point.c_str(), "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=777") != 0)
        return json::serialize(json::object{{"Err", std::string("mount: ") + std::strerror(errno)}});
    }
    volume.ids.insert(id);
    return json::serialize(json::object{{"Mountpoint", point}, {"Err", ""}});
  }

  std::string unmount_it(const std::string& name, const std::string& id, Volume& volume) const {
    const std::lock_guard lock(volume.mutex);
    if (volume.ids.contains(id) && volume.ids.size() == 1) {
      if (delay_.count() > 0) std::this_thread::sleep_for(delay_);
      if (::umount2(point_of(name).c_str(), UMOUNT_NOFOLLOW) != 0)
        return json::serialize(json::object{{"Err", std::string("umount: ") + std::strerror(errno)}});
    }
    volume.ids.erase(id);
    return R"({"Err":""})";
  }

  const std::string base_;
  const std::chrono::milliseconds delay_;
  const bool hang_;
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Volume>, std::less<>> volumes_;
};

}  // namespace

int main(int argc, char** argv) {
  std::string socket, base;
  std::int64_t delay = 0;
  bool hang = false;
  CLI::App app("A Docker volume plugin whose volumes are empty tmpfs");
  app.add_option("--socket", socket, "listen here")->required();
  app.add_option("--base", base, "an absolute folder that exists: volumes are mounted below it")->required();
  app.add_option("--delay-ms", delay, "what the first Mount and the last Unmount of a volume take at least");
  app.add_flag("--hang", hang, "answer no Mount");
  CLI11_PARSE(app, argc, argv);
  Plugin plugin(base, std::chrono::milliseconds(delay), hang);
  bench::serve(socket,
               [&](std::string_view path, std::string_view body) { return plugin.handle(path, body); });
}
