#include "invariants.h"

#include <algorithm>

#include "base/json.h"

namespace dvdi::simulation {

const MountRow* Invariants::Snapshot::mount(const VolumeKey& volume) const {
  const auto found = std::ranges::find(mounts, volume, &MountRow::volume);
  return found == mounts.end() ? nullptr : &*found;
}

// False if SQLite is in the middle of something that keeps readers away: the next look will do.
bool Invariants::read() {
  if (!ledger_) return false;
  const SimulatedScheduler::Alone alone(parts_.scheduler);
  Snapshot next;
  const Context context = Context(parts_.clock).with_timeout(std::chrono::milliseconds(20));
  const auto done = ledger_->read(context, "check the invariants", [&](Reader& reader) -> Status {
    DVDI_TRY(next.containers, reader.containers());
    DVDI_TRY(next.references, reader.references());
    DVDI_TRY(next.mounts, reader.mounts());
    DVDI_TRY(next.debts, reader.debts());
    DVDI_TRY(next.foreigns, reader.foreigns());
    DVDI_TRY(next.volumes, reader.volumes());
    const std::uint64_t known = verifier_.last();
    DVDI_TRY(next.events, reader.events(known == 0 ? 0 : known - 1, 100'000));
    DVDI_TRY(const auto head, reader.head());
    next.head = head.first;
    return {};
  });
  if (!done && done.error().code == Code::deadline_exceeded) return false;
  if (!done) broken("the ledger cannot be read: " + done.error().text());
  next.boot_id = ledger_->boot_id();
  now_ = std::move(next);
  return true;
}

void Invariants::check() {
  if (!read()) return;
  ++checks_;
  check_events();
  check_replay();
  check_mounts();
  check_containers();
  check_drivers();
}

void Invariants::check_events() {
  std::size_t from = 0;
  if (last_) {
    // Whoever reads events acts on them: what was there once, is there for ever, crashes included.
    if (now_.events.empty() || now_.events.front().sequence != last_->sequence ||
        now_.events.front().hash != last_->hash) {
      broken(fmt::format("event {} was there and is no more: the newest is {}", last_->sequence, now_.head));
    }
    from = 1;
  }
  for (std::size_t i = from; i < now_.events.size(); ++i) {
    if (auto good = verifier_.next(now_.events[i]); !good) broken(good.error().text());
    apply(now_.events[i]);
  }
  if (!now_.events.empty()) last_ = now_.events.back();
}

void Invariants::apply(const StoredEvent& event) {
  const auto body = json::parse(event.body, "an event");
  if (!body) broken(body.error().text());
  const json::value& data = *json::find(*body, "data");
  const auto text = [&](std::string_view name) { return std::string(json::text_or_empty(data, name)); };
  const std::string type(json::text_or_empty(*body, "type"));
  const VolumeKey volume{text("driver"), text("volume")};
  const ContainerKey container{text("owner"), text("container")};
  const auto starts = [&](std::string_view prefix) { return type.starts_with(prefix); };
  if (starts("dvdi.mount.")) {
    const std::string from = text("from");
    const auto known = replayed_.mounts.find(volume);
    const std::string before = known == replayed_.mounts.end() ? "absent" : known->second.first;
    if (from != before) {
      broken(fmt::format("event {}: {} of {} comes from {}, where it was {}", event.sequence, type,
                         volume.text(), from, before));
    }
    std::string to = type.substr(std::string_view("dvdi.mount.").size());
    if (to == "lost") to = text("to");
    if (to == "failed" || to == "unmounted" || to == "absent") {
      replayed_.mounts.erase(volume);
    } else {
      replayed_.mounts[volume] = {to, text("mount_id")};
    }
  } else if (type == "dvdi.container.failed") {
    replayed_.containers.erase(container);
  } else if (starts("dvdi.container.") && type != "dvdi.container.kept") {
    replayed_.containers[container] = type.substr(std::string_view("dvdi.container.").size());
  } else if (type == "dvdi.reference.added") {
    if (!replayed_.references.insert({container, volume}).second) broken("a reference was added twice");
  } else if (type == "dvdi.reference.removed") {
    if (replayed_.references.erase({container, volume}) == 0) broken("a reference was removed twice");
  } else if (type == "dvdi.debt.paid" || type == "dvdi.debt.taken_over") {
    if (replayed_.debts.erase(volume) == 0) broken("a debt was paid that there was not");
  } else if (starts("dvdi.debt.")) {
    bool& parked = replayed_.debts[volume];
    parked = parked || type == "dvdi.debt.parked";
    if (type == "dvdi.debt.recorded" || type == "dvdi.debt.resumed") parked = false;
  } else if (type == "dvdi.foreign.found") {
    replayed_.foreigns.insert(volume);
  } else if (type == "dvdi.foreign.cleared") {
    replayed_.foreigns.erase(volume);
  } else if (type == "dvdi.volume.created" || type == "dvdi.volume.seen") {
    replayed_.volumes.insert(volume);
  } else if (type == "dvdi.volume.removed") {
    replayed_.volumes.erase(volume);
  }
}

void Invariants::check_replay() {
  Replayed tables;
  for (const MountRow& row : now_.mounts) {
    tables.mounts[row.volume] = {std::string(mount_state_name(row.state)), row.mount_id};
  }
  for (const ContainerRow& row : now_.containers) {
    if (row.state != ContainerState::ended) tables.containers[row.key] = container_state_name(row.state);
  }
  for (const ReferenceRow& row : now_.references) tables.references.insert({row.container, row.volume});
  for (const DebtRow& row : now_.debts) tables.debts[row.volume] = row.parked;
  for (const ForeignRow& row : now_.foreigns) tables.foreigns.insert(row.volume);
  for (const VolumeRow& row : now_.volumes) tables.volumes.insert(row.volume);
  std::erase_if(replayed_.containers, [](const auto& one) { return one.second == "ended"; });
  if (tables.mounts != replayed_.mounts) {
    std::string what = "the events say other mounts than the table:";
    for (const auto& [volume, state] : tables.mounts)
      what += fmt::format("\n  table: {} {} {}", volume.text(), state.first, state.second);
    for (const auto& [volume, state] : replayed_.mounts)
      what += fmt::format("\n  events: {} {} {}", volume.text(), state.first, state.second);
    broken(what);
  }
  if (tables.containers != replayed_.containers) {
    std::string what = "the events say other containers than the table:";
    for (const auto& [key, state] : tables.containers)
      what += fmt::format("\n  table: {} {}", key.text(), state);
    for (const auto& [key, state] : replayed_.containers)
      what += fmt::format("\n  events: {} {}", key.text(), state);
    broken(what);
  }
  if (tables.references != replayed_.references) broken("the events say other references than the table");
  if (tables.debts != replayed_.debts) broken("the events say other debts than the table");
  if (tables.foreigns != replayed_.foreigns) broken("the events say other foreign holders than the table");
  if (tables.volumes != replayed_.volumes) broken("the events say other volumes than the table");
}

void Invariants::check_mounts() {
  for (const MountRow& row : now_.mounts) {
    if (row.since.boot_id != now_.boot_id || row.state != MountState::mounted || !row.identity) continue;
    const std::uint64_t id = row.identity->mount_id;
    if (!parts_.kernel.has(id) && !taken_away_.contains(id)) {
      broken(fmt::format("{} is mounted by the ledger and not in the kernel's table", row.volume.text()));
    }
  }
  for (const DebtRow& debt : now_.debts) {
    const MountRow* row = now_.mount(debt.volume);
    if (row == nullptr || row->mount_id != debt.mount_id) {
      broken(fmt::format("an unmount of {} is owed and there is no such mount", debt.volume.text()));
    }
  }
  for (const ReferenceRow& reference : now_.references) {
    const bool known = std::ranges::any_of(now_.containers, [&](const ContainerRow& row) {
      return row.key == reference.container && row.state != ContainerState::ended;
    });
    if (!known) broken(fmt::format("{} is ended and refers to a volume", reference.container.text()));
    if (now_.mount(reference.volume) == nullptr && reference.since.boot_id == now_.boot_id) {
      // While a prepare begins anew after an unmount that was under way, there is a moment without a row.
      const auto user = containers.find(reference.container);
      if (user != containers.end() && user->second.live() &&
          !taken_away_.contains(user->second.held.at(reference.volume))) {
        broken(fmt::format("{} refers to {}, which has no row", reference.container.text(),
                           reference.volume.text()));
      }
    }
    for (const ReferenceRow& other : now_.references) {
      if (other.volume == reference.volume && other.container != reference.container &&
          (other.exclusive || reference.exclusive)) {
        broken(fmt::format("{} has {} exclusively, and {} has it too",
                           (reference.exclusive ? reference : other).container.text(),
                           reference.volume.text(),
                           (reference.exclusive ? other : reference).container.text()));
      }
    }
  }
}

void Invariants::check_containers() {
  for (const auto& [key, container] : containers) {
    const auto row = std::ranges::find(now_.containers, key, &ContainerRow::key);
    if (container.over && container.calls == 0) {
      if (row != now_.containers.end() && row->state != ContainerState::ended) {
        broken(fmt::format("the end of {} was acknowledged, and it is {}", key.text(),
                           container_state_name(row->state)));
      }
      continue;
    }
    if (!container.live()) continue;
    if (row == now_.containers.end() ||
        (row->state != ContainerState::prepared && row->state != ContainerState::running)) {
      broken(fmt::format("{} was acknowledged and is {}", key.text(),
                         row == now_.containers.end() ? "gone" : container_state_name(row->state)));
    }
    if (container.running && (!row->init || row->init->pid != container.init)) {
      broken(fmt::format("the task of {} was acknowledged and is not recorded", key.text()));
    }
    for (const VolumeKey& volume : container.volumes) {
      const bool refers = std::ranges::any_of(now_.references, [&](const ReferenceRow& one) {
        return one.container == key && one.volume == volume;
      });
      if (!refers) broken(fmt::format("{} lost its reference to {}", key.text(), volume.text()));
      const std::uint64_t id = container.held.at(volume);
      if (taken_away_.contains(id)) continue;
      const MountRow* mount = now_.mount(volume);
      if (id == 0) {  // a plain directory
        if (mount == nullptr || mount->state != MountState::mounted)
          broken(fmt::format("{} has {}, and the ledger says {}", key.text(), volume.text(),
                             mount == nullptr ? "nothing" : mount_state_name(mount->state)));
        continue;
      }
      if (!parts_.kernel.has(id)) broken(fmt::format("{} lost the mount of {}", key.text(), volume.text()));
      if (mount == nullptr || mount->state != MountState::mounted || !mount->identity ||
          mount->identity->mount_id != id) {
        broken(fmt::format("{} has {} mounted, and the ledger says {}", key.text(), volume.text(),
                           mount == nullptr ? "nothing" : mount_state_name(mount->state)));
      }
    }
  }
}

// Nothing is held of a driver that the ledger does not know: what else would give it back?
void Invariants::check_drivers() {
  for (const auto& [name, driver] : parts_.drivers.all()) {
    // Nothing shows a plain directory whose Mount was not answered, nor how often a call was counted.
    if (driver->manner().counts_calls || driver->manner().plain_directories) continue;
    for (const auto& [volume, state] : driver->volumes()) {
      // Its mount was taken away behind its back: "nothing is mounted" is then true, whatever the driver
      // says.
      if (state.kernel_id != 0 && !parts_.kernel.has(state.kernel_id)) continue;
      const MountRow* row = now_.mount({name, volume});
      for (const std::string& id : state.users) {
        if (id.starts_with("docker")) continue;
        if (row == nullptr || row->mount_id != id) {
          broken(fmt::format("driver {} has {} mounted for {}, of which the ledger knows nothing", name,
                             volume, id));
        }
      }
    }
  }
}

void Invariants::mount_sent(const std::string& driver, const std::string& volume, const std::string& id) {
  if (!read()) return;
  const MountRow* row = now_.mount({driver, volume});
  if (row == nullptr || row->mount_id != id || row->state != MountState::mounting) {
    broken(fmt::format("Mount of {}/{} for {} is sent, and the ledger says {}", driver, volume, id,
                       row == nullptr ? "nothing" : mount_state_name(row->state)));
  }
}

void Invariants::unmounted(const std::string& driver, const std::string& volume, const std::string& id,
                           std::uint64_t kernel_id) {
  if (taken_away_.contains(kernel_id)) return;  // its server had gone: it was lost before
  for (const auto& [key, container] : containers) {
    const auto held = container.held.find({driver, volume});
    if (!container.live() || held == container.held.end() || held->second != kernel_id) continue;
    // Docker's driver may have forgotten that there are others, and one that counts may count wrong.
    const auto found = parts_.drivers.all().find(driver);
    if (id.starts_with("docker") || found->second->manner().counts_calls) continue;
    broken(fmt::format("the mount of {}/{} was unmounted for {} while {} uses it", driver, volume, id,
                       key.text()));
  }
  if (kernel_id != 0) taken_away_.insert(kernel_id);
}

void Invariants::reboot() {
  // What has ended is not remembered by the next boot.
  std::erase_if(containers, [](const auto& one) { return one.second.over; });
  for (auto& [key, container] : containers) {
    container.ending = true;
    container.prepared = false;
    container.init = 0;
  }
}

void Invariants::check_end() {
  check();
  if (!now_.mounts.empty()) {
    broken(fmt::format("at the end {} is {}", now_.mounts.front().volume.text(),
                       mount_state_name(now_.mounts.front().state)));
  }
  if (!now_.references.empty()) broken("a reference is left at the end");
  if (!now_.debts.empty()) broken("a debt is left at the end");
  for (const auto& [name, driver] : parts_.drivers.all()) {
    // Nothing shows a plain directory whose Mount was not answered, nor how often a call was counted.
    if (driver->manner().counts_calls || driver->manner().plain_directories) continue;
    for (const auto& [volume, state] : driver->volumes()) {
      if (!state.users.empty() && parts_.kernel.has(state.kernel_id))
        broken(fmt::format("driver {} has users of {} at the end", name, volume));
      if (parts_.kernel.at(driver->mount_point(volume)) != nullptr)
        broken(fmt::format("{}/{} is mounted at the end", name, volume));
    }
  }
  if (!now_.foreigns.empty() && std::ranges::none_of(parts_.drivers.all(), [](const auto& one) {
        return one.second->manner().counts_calls;
      })) {
    broken("a foreign holder is left at the end");
  }
  const auto moment = ledger_->now(parts_.clock);
  std::multiset<std::string> open, expected;
  const SimulatedScheduler::Alone alone(parts_.scheduler);
  const Context context = Context(parts_.clock).with_timeout(std::chrono::seconds(1));
  const auto done = ledger_->read(context, "check the usage", [&](Reader& reader) {
    const UsageColumns columns{.driver = true, .volume = true};
    return reader.usage(moment, WallTime(), WallTime::max(), columns, [&](const UsageRecord& one) {
      const std::string volume = fmt::format("{}/{}", one.driver, one.volume);
      if (one.open && one.kind == UsageInterval::Kind::provisioned) open.insert(volume);
      if (one.open && one.kind != UsageInterval::Kind::provisioned)
        broken("usage of " + volume + " is still counted at the end");
      return true;
    });
  });
  if (!done) broken(done.error().text());
  for (const VolumeRow& row : now_.volumes) expected.insert(row.volume.text());
  if (open != expected) broken("the provisioned time that is counted is not that of the volumes");
}

}  // namespace dvdi::simulation
