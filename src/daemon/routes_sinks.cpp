#include "daemon/routes_call.h"

namespace dvdi {

Status Routes::sinks(Call& call) {
  DVDI_CHECK(permit(call, Action::read_sinks));
  DVDI_CHECK(call.only({}));
  DVDI_TRY(const auto all, parts_.api.sinks(*call.context));
  return call.give({{"sinks", list(all)}});
}

Status Routes::compare_sink(Call& call) {
  DVDI_CHECK(permit(call, Action::verify_events, {}, call.path[2]));
  DVDI_CHECK(call.only({}));
  DVDI_TRY(const Compared compared, parts_.api.compare_events(*call.context, call.path[2]));
  return call.give(wire::to_json(compared));
}

Status Routes::test_sink(Call& call) {
  DVDI_CHECK(permit(call, Action::change_sink, {}, call.path[2]));
  DVDI_CHECK(parts_.api.test_sink(*call.context, call.path[2]));
  return call.give({{"name", call.path[2]}});
}

Status Routes::pause_sink(Call& call) {
  DVDI_CHECK(permit(call, Action::change_sink, {}, call.path[2]));
  DVDI_CHECK(parts_.api.pause_sink(call.to_the_end(), call.path[2]));
  return call.give({{"name", call.path[2]}});
}

Status Routes::resume_sink(Call& call) {
  DVDI_CHECK(permit(call, Action::change_sink, {}, call.path[2]));
  DVDI_CHECK(parts_.api.resume_sink(call.to_the_end(), call.path[2]));
  return call.give({{"name", call.path[2]}});
}

Status Routes::replay_sink(Call& call) {
  DVDI_CHECK(permit(call, Action::change_sink, {}, call.path[2]));
  DVDI_TRY(const json::value body, call.body());
  DVDI_CHECK(only_members(body, {"from"}));
  const json::value* from = json::find(body, "from");
  boost::system::error_code error;
  const auto number = from != nullptr && from->is_number() ? from->to_number<std::int64_t>(error) : 0;
  if (error || number < 1) return wrong("from: the number of an event is needed");
  DVDI_CHECK(parts_.api.replay_sink(call.to_the_end(), call.path[2], static_cast<std::uint64_t>(number)));
  return call.give({{"name", call.path[2]}, {"from", number}});
}

}  // namespace dvdi
