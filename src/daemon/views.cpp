#include "daemon/views.h"

#include <map>

namespace dvdi {

namespace {

ContainerView view_of(const ContainerRow& row) {
  ContainerView view;
  view.owner = row.key.owner;
  view.id = row.key.id;
  view.state = container_state_name(row.state);
  view.framework = row.attribution.framework;
  view.role = row.attribution.role;
  view.principal = row.attribution.principal;
  view.task_id = row.attribution.task_id;
  view.task_name = row.attribution.task_name;
  view.user = row.attribution.user;
  view.labels = row.attribution.labels;
  view.pid = row.init ? row.init->pid : 0;
  view.since = rfc3339(row.since.wall);
  view.ended = row.ended ? rfc3339(row.ended->wall) : "";
  view.kept = row.note;
  return view;
}

void add_uses(const ReferenceRow& row, std::vector<ContainerView::VolumeUse>& uses) {
  for (const auto& use : row.uses) {
    uses.push_back({row.volume.driver, row.volume.name, use.container_path, use.read_only ? "ro" : "rw"});
  }
  if (row.uses.empty()) uses.push_back({row.volume.driver, row.volume.name, "", "rw"});
}

}  // namespace

Result<std::optional<ContainerView>> container_view(Reader& reader, const ContainerKey& key) {
  DVDI_TRY(const auto row, reader.container(key));
  if (!row) return std::optional<ContainerView>();
  DVDI_TRY(const auto references, reader.references_of(key));
  ContainerView view = view_of(*row);
  for (const ReferenceRow& one : references) add_uses(one, view.volumes);
  return std::optional(std::move(view));
}

Result<std::vector<ContainerView>> container_views(Reader& reader, bool ended) {
  DVDI_TRY(const auto rows, ended ? reader.containers() : reader.live_containers());
  DVDI_TRY(const auto references, reader.references());
  std::map<ContainerKey, std::vector<ContainerView::VolumeUse>> uses;
  for (const ReferenceRow& row : references) add_uses(row, uses[row.container]);
  std::vector<ContainerView> views;
  views.reserve(rows.size());
  for (const ContainerRow& row : rows) {
    views.push_back(view_of(row));
    if (const auto found = uses.find(row.key); found != uses.end())
      views.back().volumes = std::move(found->second);
  }
  return views;
}

Result<std::vector<VolumeView>> volume_views(Reader& reader) {
  std::map<VolumeKey, VolumeView> views;
  const auto view_of = [&](const VolumeKey& key) -> VolumeView& {
    VolumeView& view = views[key];
    view.driver = key.driver;
    view.name = key.name;
    return view;
  };
  DVDI_TRY(const auto volumes, reader.volumes());
  for (const VolumeRow& row : volumes) view_of(row.volume).size_bytes = row.size_bytes;
  DVDI_TRY(const auto mounts, reader.mounts());
  for (const MountRow& row : mounts) {
    VolumeView& view = view_of(row.volume);
    view.state = mount_state_name(row.state);
    view.mount_id = row.id_for_driver();
    view.mount_point = row.mount_point;
    if (row.identity) {
      view.fs_type = row.identity->fs_type;
      view.source = row.identity->source;
    }
    view.since = rfc3339(row.since.wall);
    if (row.state == MountState::unknown && row.pending == MountRow::Pending::lost) {
      view.lost = row.note.empty() ? "its mount is gone" : row.note;
    }
  }
  DVDI_TRY(const auto references, reader.references());
  for (const ReferenceRow& row : references) {
    VolumeView& view = view_of(row.volume);
    view.containers.push_back(row.container.text());
    view.exclusive = view.exclusive || row.exclusive;
  }
  DVDI_TRY(const auto debts, reader.debts());
  for (const DebtRow& row : debts) {
    view_of(row.volume).owed = VolumeView::Debt{.since = rfc3339(row.since.wall),
                                                .last_error = row.last_error,
                                                .next_try = row.parked ? "" : rfc3339(row.next_try.wall),
                                                .attempts = row.attempts,
                                                .parked = row.parked};
  }
  DVDI_TRY(const auto foreigns, reader.foreigns());
  for (const ForeignRow& row : foreigns) {
    VolumeView& view = view_of(row.volume);
    view.foreign_since = rfc3339(row.since.wall);
    view.foreign_evidence = row.evidence;
  }
  std::vector<VolumeView> out;
  out.reserve(views.size());
  for (auto& [key, view] : views) out.push_back(std::move(view));
  return out;
}

}  // namespace dvdi
