#include "cli/dvdcli_commands.h"

#include <fmt/format.h>
#include <sys/utsname.h>

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "base/sha256.h"
#include "base/sync.h"
#include "base/text.h"
#include "daemon/client.h"
#include "daemon/open.h"
#include "spec/volume.h"

namespace dvdi::cli {

namespace {

using Verb = DvdcliCommand::Verb;

constexpr Duration other_timeout = std::chrono::minutes(2);
constexpr std::size_t readable_bytes = 80;  // of a container's id
constexpr std::size_t digest_digits = 16;   // enough that no two volumes of a node have the same

Duration timeout_of(Verb verb) {
  if (verb == Verb::mount) return dvdcli_mount_timeout;
  if (verb == Verb::unmount) return dvdcli_unmount_timeout;
  return other_timeout;
}

Error about(const DvdcliCommand& command, std::string_view operation, Error error) {
  if (error.driver.empty()) error.driver = command.driver;
  if (error.volume.empty()) error.volume = command.name;
  if (error.operation.empty()) error.operation = operation;
  return error;
}

Result<v1::ContainerRequest> request_of(const DvdcliCommand& command) {
  v1::ContainerRequest request;
  request.mutable_container_id()->set_value(dvdcli_container(command.driver, command.name).id);
  // There is no sandbox: nothing is shown to a container, so nobody looks there, and none is to be made.
  request.set_directory("/");
  v1::Volume& volume = *request.mutable_container_info()->add_volumes();
  volume.set_mode(v1::Volume::RW);
  v1::Volume::Source& source = *volume.mutable_source();
  source.set_type(v1::Volume::Source::DOCKER_VOLUME);
  v1::Volume::Source::DockerVolume& docker = *source.mutable_docker_volume();
  docker.set_driver(command.driver);
  docker.set_name(command.name);
  const auto add = [&](std::string_view key, std::string_view value) {
    v1::Parameter& option = *docker.mutable_driver_options()->add_parameter();
    option.set_key(std::string(key));
    option.set_value(std::string(value));
  };
  add(spec::option_host_only, "true");
  bool must_exist = command.explicit_create;
  for (const auto& [key, value] : command.options) {
    if (key == spec::option_explicit_create && (value == "true" || value == "false")) {
      must_exist = must_exist || value == "true";
    } else if (key.starts_with(spec::reserved_prefix)) {
      return Error{
          .code = Code::invalid_argument,
          .message = fmt::format("dvdcli has no option '{}': of the options that begin with {} it "
                                 "takes {}=true or =false",
                                 printable(key), spec::reserved_prefix, spec::option_explicit_create),
          .driver = command.driver,
          .volume = command.name,
          .operation = "mount",
          .hint = "leave it out; what the others do needs `dvdi run` or the isolator module"};
    } else {
      add(key, value);
    }
  }
  if (must_exist) add(spec::option_explicit_create, "true");
  return request;
}

class Dvdcli {
 public:
  Dvdcli(const Context& context, const DvdcliCommand& command, const DvdcliServices& services, Output& out)
      : context_(context), command_(command), services_(services), out_(out) {}

  Status perform() {
    switch (command_.verb) {
      case Verb::mount:
        return mount();
      case Verb::unmount:
        return unmount();
      case Verb::create:
        return create();
      case Verb::remove:
        return remove();
      case Verb::path:
        return path();
      case Verb::get:
        return get();
      case Verb::list:
        return list();
      case Verb::version:
        return version();
    }
    return Error{.message = "an unknown command"};
  }

 private:
  // Whoever has the state directory at the moment. A daemon that goes away in the middle is no failure of a
  // step that may be repeated: it is asked of the next one, or done without one.
  template <class Step>
  auto ask_again(Step step) -> decltype(step(std::declval<Api&>())) {
    for (;;) {
      DVDI_TRY(const auto api, open());
      auto result = step(*api);
      if (result || !daemon_is_away(result.error())) return result;
      if (!pause(context_, between_looks_for_daemon, "wait for the daemon")) return result;
    }
  }

  Result<std::unique_ptr<Api>> open() {
    DVDI_TRY(auto api, services_.open(context_));
    for (const std::string& notice : api->notices()) services_.say(notice);
    return api;
  }

  Status write_line(const std::string& text) {
    DVDI_CHECK(out_.write(text + "\n"));
    return out_.flush();
  }

  Status mount() {
    DVDI_TRY(const v1::ContainerRequest request, request_of(command_));
    const auto mount_point = ask_again([&](Api& api) -> Result<std::string> {
      // Staged: a repetition looks at the mount again, and mounts afresh what was lost.
      DVDI_CHECK(api.prepare(context_, {.owner = "dvdcli", .staged = true}, request));
      DVDI_TRY(const VolumeView view, api.volume(context_, command_.driver, command_.name));
      if (view.state == "mounted" && !view.mount_point.empty()) return view.mount_point;
      return Error{.code = Code::unavailable,
                   .message = fmt::format("it was mounted and is {} already", printable(view.state)),
                   .hint = "`dvdi volume inspect` says why; repeat the mount"};
    });
    if (!mount_point) return fail(about(command_, "mount", mount_point.error()));
    return write_line(*mount_point);
  }

  Status unmount() {
    const auto key = dvdcli_container(command_.driver, command_.name);
    bool ours = false;
    std::optional<VolumeView> left;
    const auto owed = ask_again([&](Api& api) -> Result<std::vector<isolator::Owed>> {
      if (!ours) {
        DVDI_TRY(const auto containers, api.containers(context_, false));
        ours = std::ranges::any_of(
            containers, [&](const ContainerView& one) { return one.owner == key.owner && one.id == key.id; });
      }
      DVDI_TRY(auto debts, api.cleanup(context_, key));
      if (ours) return debts;
      DVDI_TRY(const auto known, api.volumes(context_, false));
      for (const VolumeView& one : known.volumes) {
        if (one.driver == command_.driver && one.name == command_.name) left = one;
      }
      return debts;
    });
    if (!owed) return fail(about(command_, "unmount", owed.error()));
    for (const isolator::Owed& one : *owed) {
      services_.say(
          fmt::format("warning: volume '{}' of driver '{}' is given back, but was not unmounted: {} (the "
                      "unmount is owed: "
                      "dvdid or the next command tries again, `dvdi volume inspect` shows it)",
                      printable(one.volume), printable(one.driver), one.reason));
    }
    if (left && !left->state.empty() && left->state != "absent") {
      services_.say(
          fmt::format("dvdcli has no mount of volume '{}' of driver '{}' on record; it is {}, and left as it "
                      "is (`dvdi volume "
                      "inspect` shows who uses it)",
                      printable(command_.name), printable(command_.driver), printable(left->state)));
    }
    return {};
  }

  Status create() {
    DVDI_TRY(const auto api, open());
    const auto created = api->create_volume(context_, command_.driver, command_.name, command_.options);
    if (!created) return fail(about(command_, "create", created.error()));
    services_.write_error_line(printable(command_.name));
    return {};
  }

  Status remove() {
    DVDI_TRY(const auto api, open());
    const auto removed = api->remove_volume(context_, command_.driver, command_.name);
    if (!removed) return fail(about(command_, "remove", removed.error()));
    return {};
  }

  Result<VolumeView> look() {
    auto view = ask_again([&](Api& api) { return api.volume(context_, command_.driver, command_.name); });
    if (!view) return fail(about(command_, "get", view.error()));
    return view;
  }

  Status path() {
    DVDI_TRY(const VolumeView view, look());
    // Not mounted by dvdi (state ""): what the driver says. In between there is no place that can be relied
    // on.
    const bool there = view.state.empty() || view.state == "absent" || view.state == "mounted";
    if (!there || view.mount_point.empty()) return {};
    return write_line(view.mount_point);
  }

  Status get() {
    DVDI_TRY(const VolumeView view, look());
    return write_line(view.name);
  }

  Status list() {
    const auto names = ask_again([&](Api& api) { return api.driver_volumes(context_, command_.driver); });
    if (!names) return fail(about(command_, "list", names.error()));
    for (const std::string& name : *names) DVDI_CHECK(out_.write(name + "\n"));
    return out_.flush();
  }

  // The original's lines. What it is built from is its version: no branch, commit or time goes into a build.
  Status version() {
    std::error_code unknown;
    const std::filesystem::path binary = std::filesystem::read_symlink("/proc/self/exe", unknown);
    utsname system{};
    ::uname(&system);
    DVDI_CHECK(out_.write(fmt::format(
        "Binary: {}\nSemVer: {}\nOsArch: {}-{}\nBranch: unknown\nCommit: unknown\nFormed: unknown\n",
        binary.string(), DVDI_VERSION, system.sysname, system.machine)));
    return out_.flush();
  }

  const Context context_;
  const DvdcliCommand& command_;
  const DvdcliServices& services_;
  Output& out_;
};

}  // namespace

// A container's id has neither `/` nor, where it is not nested, `.`; names have both, and more bytes. So the
// id is what can be read of them, and a digest that tells any two volumes apart.
isolator::ContainerKey dvdcli_container(const std::string& driver, const std::string& name) {
  std::string id = (driver + "-" + name).substr(0, readable_bytes);
  std::ranges::replace_if(
      id,
      [](char c) {
        return !((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-');
      },
      '_');
  // Neither has a NUL: where the one ends and the other begins is certain.
  id += "-" + sha256_hex(driver + '\0' + name).substr(0, digest_digits);
  return {.owner = "dvdcli", .id = std::move(id)};
}

Status dvdcli(const Context& context, const DvdcliCommand& command, const DvdcliServices& services,
              Output& out) {
  return Dvdcli(context.with_timeout(timeout_of(command.verb)), command, services, out).perform();
}

}  // namespace dvdi::cli
