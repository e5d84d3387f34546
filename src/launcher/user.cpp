#include "launcher/user.h"

#include <fmt/format.h>
#include <unistd.h>

#include <optional>

#include "base/text.h"
#include "linux/user_id.h"

namespace dvdi::launcher {

namespace {

constexpr std::size_t max_name = 255;

Error bad_user(std::string_view text, std::string_view why, std::string_view hint = {}) {
  return {.code = Code::invalid_argument,
          .message = fmt::format("user '{}': {}", printable(text), why),
          .hint = std::string(hint)};
}

void take(Identity& identity, const Account& account) {
  identity.uid = account.uid;
  identity.gid = account.gid;
  identity.name = account.name;
  if (!account.home.empty()) identity.home = account.home;
  if (!account.shell.empty()) identity.shell = account.shell;
}

Result<Identity> unchanged(const Accounts& accounts) {
  Identity identity;
  identity.uid = ::geteuid();
  identity.gid = ::getegid();
  identity.name = std::to_string(identity.uid);
  const auto account = accounts.user(identity.uid);
  if (!account && account.error().code != Code::not_found) return account.error();
  if (account) take(identity, *account);
  identity.gid = ::getegid();
  return identity;
}

}  // namespace

Result<Identity> resolve_identity(const Accounts& accounts, std::string_view text) {
  if (text.empty()) return unchanged(accounts);
  const std::size_t colon = text.find(':');
  const std::string_view user = text.substr(0, colon);
  const bool has_group = colon != std::string_view::npos;
  const std::string_view group = has_group ? text.substr(colon + 1) : std::string_view{};
  if (user.empty() || (has_group && group.empty()) || user.size() > max_name || group.size() > max_name)
    return bad_user(text, "expected USER or USER:GROUP, each a name or a number");

  Identity identity{.change = true, .groups = {}, .name = std::string(user)};
  auto account = accounts.user(user);
  if (!account && account.error().code != Code::not_found) return account.error();
  const auto uid = parse_id(user);
  if (!account && uid) {  // a name that is all digits comes before the number, as for chown(1)
    account = accounts.user(*uid);
    if (!account && account.error().code != Code::not_found) return account.error();
  }
  if (account) {
    take(identity, *account);
  } else if (uid) {
    identity.uid = *uid;
    if (!has_group)
      return bad_user(text, "has no account in the task's root file system, so its group is not known",
                      fmt::format("name the group: {}:GROUP", user));
  } else {
    return bad_user(text, "there is no such user in the task's root file system");
  }

  if (has_group) {
    const auto found = accounts.group(group);
    if (!found && found.error().code != Code::not_found) return found.error();
    const auto gid = parse_id(group);
    if (!found && !gid) return bad_user(text, "there is no such group in the task's root file system");
    identity.gid = found ? *found : *gid;
    identity.groups = {identity.gid};
    return identity;
  }
  DVDI_TRY(identity.groups, accounts.groups_of(*account, identity.gid));
  return identity;
}

}  // namespace dvdi::launcher
