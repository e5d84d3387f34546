// Who the task runs as.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace dvdi::launcher {

struct Identity {
  bool change = false;  // false: the caller's identity is kept, and so are its groups
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;  // supplementary
  std::string name;           // the number where it has no name
  std::string home = "/";
  std::string shell = "/bin/sh";
};

struct Account {
  std::string name;
  uid_t uid = 0;
  gid_t gid = 0;
  std::string home;
  std::string shell;
};

// The accounts of one root file system.
class Accounts {
 public:
  virtual ~Accounts() = default;
  // not_found if there is none.
  virtual Result<Account> user(std::string_view name) const = 0;
  virtual Result<Account> user(uid_t uid) const = 0;
  virtual Result<gid_t> group(std::string_view name) const = 0;
  // Every group that the user is a member of, `primary` included.
  virtual Result<std::vector<gid_t>> groups_of(const Account& account, gid_t primary) const = 0;
};

// From the text of /etc/passwd and /etc/group. Lines that are not of that form are passed over.
class FileAccounts final : public Accounts {
 public:
  FileAccounts(std::string passwd, std::string group);
  // Reads both beneath the folder `rootfs` (a descriptor); a file that is not there is empty.
  static Result<FileAccounts> read(int rootfs);

  Result<Account> user(std::string_view name) const override;
  Result<Account> user(uid_t uid) const override;
  Result<gid_t> group(std::string_view name) const override;
  Result<std::vector<gid_t>> groups_of(const Account& account, gid_t primary) const override;

 private:
  std::string passwd_;
  std::string group_;
};

// Those of the host, by the C library: files, LDAP, whatever nsswitch.conf says.
class HostAccounts final : public Accounts {
 public:
  Result<Account> user(std::string_view name) const override;
  Result<Account> user(uid_t uid) const override;
  Result<gid_t> group(std::string_view name) const override;
  Result<std::vector<gid_t>> groups_of(const Account& account, gid_t primary) const override;
};

// `text`: USER[:GROUP], names or numbers; "" keeps the caller's identity. With a GROUP the task has that
// group alone; without, the user's own and supplementary groups. A number without an account needs a GROUP:
// there is no safe guess.
Result<Identity> resolve_identity(const Accounts& accounts, std::string_view text);

}  // namespace dvdi::launcher
