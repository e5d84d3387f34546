#include "daemon/policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/policy_check.h"

namespace dvdi {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;
using testing::SizeIs;

Policy policy(const std::string& text) {
  auto parsed = parse_policy(text, "p.toml");
  EXPECT_TRUE(parsed) << parsed.error().text();
  return parsed ? *std::move(parsed) : Policy();
}

std::string problem(const std::string& text) {
  const auto parsed = parse_policy(text, "p.toml");
  return parsed ? std::string("no error") : parsed.error().text();
}

using Options = std::vector<std::pair<std::string, std::string>>;

void add_volume(v1::ContainerRequest& request, const std::string& driver, const std::string& name,
                const Options& options = {}, v1::Volume::Mode mode = v1::Volume::RW) {
  v1::Volume& volume = *request.mutable_container_info()->add_volumes();
  volume.set_container_path("path-" + name);
  volume.set_mode(mode);
  volume.mutable_source()->set_type(v1::Volume::Source::DOCKER_VOLUME);
  auto& docker = *volume.mutable_source()->mutable_docker_volume();
  docker.set_driver(driver);
  docker.set_name(name);
  for (const auto& [key, value] : options) {
    auto& parameter = *docker.mutable_driver_options()->add_parameter();
    parameter.set_key(key);
    parameter.set_value(value);
  }
}

v1::ContainerRequest one(const std::string& driver, const std::string& name, const Options& options = {},
                         v1::Volume::Mode mode = v1::Volume::RW) {
  v1::ContainerRequest request;
  add_volume(request, driver, name, options, mode);
  return request;
}

v1::ContainerRequest host(const std::string& path) {
  v1::ContainerRequest request;
  v1::Volume& volume = *request.mutable_container_info()->add_volumes();
  volume.set_container_path("there");
  volume.set_mode(v1::Volume::RO);
  volume.set_host_path(path);
  return request;
}

bool allows(const Policy& policy, const Subject& subject, const v1::ContainerRequest& request) {
  return policy.decide(subject, request).allowed;
}

TEST(Policy, WithoutAFileRootMayEverythingButSetuidProgramsAndDevices) {
  const Policy none;
  const Subject root;
  EXPECT_TRUE(allows(none, root, one("local", "a", {{"size", "1G"}, {"dvdi.ownership", "user"}})));
  EXPECT_TRUE(allows(none, root, host("/etc")));
  EXPECT_FALSE(allows(none, root, one("local", "a", {{"dvdi.suid", "true"}})));
  EXPECT_FALSE(allows(none, root, one("local", "a", {{"dvdi.dev", "true"}})));
}

TEST(Policy, WithoutAFileOthersGetNoHostPathsAndNoOwners) {
  const Policy none;
  const Subject member{.trusted = false};
  EXPECT_TRUE(allows(none, member, one("local", "a")));
  EXPECT_FALSE(allows(none, member, one("local", "a", {{"dvdi.ownership", "user"}})));
  EXPECT_FALSE(allows(none, member, one("local", "a", {{"dvdi.ownership", "idmap"}})));
  EXPECT_FALSE(allows(none, member, host("/srv/x")));
}

TEST(Policy, AnEmptyFileDeniesEveryVolume) {
  const Policy empty = policy("");
  EXPECT_FALSE(allows(empty, {}, one("local", "a")));
  EXPECT_TRUE(allows(empty, {}, v1::ContainerRequest())) << "no volume, nothing to deny";
  EXPECT_TRUE(allows(policy("default = \"allow\""), {}, one("local", "a")));
  EXPECT_FALSE(allows(policy("default = \"allow\""), {}, one("local", "a", {{"dvdi.suid", "true"}})));
}

TEST(Policy, TheFirstRuleThatMatchesDecides) {
  const Policy ordered = policy(R"(
[[rule]]
name = "secret"
effect = "deny"
volumes = ["secret-*"]
reason = "ask security"
[[rule]]
name = "web"
effect = "allow"
roles = ["web", "web/*"]
drivers = ["local"]
)");
  const Subject web{.role = "web/front"};
  EXPECT_TRUE(allows(ordered, web, one("local", "a")));
  EXPECT_FALSE(allows(ordered, web, one("local", "secret-a")));
  EXPECT_FALSE(allows(ordered, web, one("nfs", "a")));
  EXPECT_FALSE(allows(ordered, {.role = "batch"}, one("local", "a")));
  EXPECT_FALSE(allows(ordered, web, host("/srv"))) << "the rule is about volumes";

  v1::ContainerRequest both = one("local", "a");
  add_volume(both, "local", "secret-b");
  const Decision decision = ordered.decide(web, both, true);
  EXPECT_FALSE(decision.allowed);
  ASSERT_THAT(decision.volumes, SizeIs(2));
  EXPECT_TRUE(decision.volumes[0].allowed);
  EXPECT_EQ(decision.volumes[0].rule, "web");
  EXPECT_EQ(decision.volumes[0].line, 7U);
  EXPECT_THAT(decision.volumes[0].passed_over,
              ElementsAre(Pair("rule 'secret' (line 2)", "it is not about a volume of this name")));
  EXPECT_EQ(decision.volumes[1].position, 1U);
  EXPECT_EQ(decision.volumes[1].volume, "local/secret-b");
  EXPECT_EQ(decision.volumes[1].why, "rule 'secret' (line 2) denies it: ask security");
  EXPECT_THAT(ordered.decide(web, both).volumes[0].passed_over, IsEmpty()) << "only where it is wanted";
}

TEST(Policy, EachOfWhomMustMatch) {
  const Policy all = policy(R"(
[[rule]]
name = "r"
effect = "allow"
principals = ["p"]
roles = ["r"]
users = ["u"]
frameworks = ["f-*"]
owners = ["run"]
)");
  const Subject right{.owner = "run", .principal = "p", .role = "r", .framework = "f-1", .user = "u"};
  EXPECT_TRUE(allows(all, right, one("d", "v")));
  for (const auto member :
       {&Subject::owner, &Subject::principal, &Subject::role, &Subject::framework, &Subject::user}) {
    Subject wrong = right;
    wrong.*member = "other";
    EXPECT_FALSE(allows(all, wrong, one("d", "v")));
    wrong.*member = "";
    EXPECT_FALSE(allows(all, wrong, one("d", "v")));
  }
}

TEST(Policy, AUserIsMatchedByNameAndByNumber) {
  const Policy no_root =
      policy("default = \"allow\"\n[[rule]]\nname = \"r\"\neffect = \"deny\"\nusers = [\"root\"]");
  const auto may = [&](const Policy& by, const std::string& user) {
    v1::ContainerRequest request = one("d", "v");
    request.mutable_command()->set_user(user);
    return allows(by, subject_of(std::nullopt, "run", request), request);
  };
  EXPECT_FALSE(may(no_root, ""));
  EXPECT_FALSE(may(no_root, "root:staff"));
  EXPECT_FALSE(may(no_root, "0"));
  EXPECT_FALSE(may(no_root, "0:5"));
  EXPECT_FALSE(may(no_root, "000"));
  EXPECT_TRUE(may(no_root, "alice"));
  Policy names =
      policy("default = \"allow\"\n[[rule]]\nname = \"r\"\neffect = \"deny\"\nusers = [\"alice\", \"77\"]");
  EXPECT_THAT(names.user_names(), ElementsAre("alice"));
  EXPECT_TRUE(names.looks_at_users());
  EXPECT_TRUE(may(names, "1000"));
  names.set_user_ids({{"alice", 1000}});
  EXPECT_FALSE(may(names, "1000"));
  EXPECT_FALSE(may(names, "77:1"));
  EXPECT_FALSE(policy("").looks_at_users());
}

TEST(Policy, OptionsOfARuleThatAllowsAreAllThereMayBe) {
  const Policy some = policy(R"(
[[rule]]
name = "small"
effect = "allow"
drivers = ["local"]
options = { size = ["?G", "10G"], type = ["image"] }
)");
  EXPECT_TRUE(allows(some, {}, one("local", "a")));
  EXPECT_TRUE(allows(some, {}, one("local", "a", {{"size", "5G"}, {"type", "image"}})));
  EXPECT_TRUE(allows(some, {}, one("local", "a", {{"dvdi.exclusive", "true"}}))) << "no option of a driver";
  EXPECT_FALSE(allows(some, {}, one("local", "a", {{"size", "50G"}})));
  EXPECT_FALSE(allows(some, {}, one("local", "a", {{"size", "5G"}, {"password", "x"}})));
  const Decision decision = some.decide({}, one("local", "a", {{"size", "geheim"}}), true);
  EXPECT_THAT(decision.volumes[0].passed_over[0].second,
              testing::AllOf(HasSubstr("'size'"), testing::Not(HasSubstr("geheim"))));
}

TEST(Policy, OptionsOfARuleThatDeniesAreEachEnough) {
  const Policy some = policy(R"(
default = "allow"
[[rule]]
name = "no"
effect = "deny"
options = { device = ["*"], type = ["tmpfs"] }
)");
  EXPECT_TRUE(allows(some, {}, one("d", "a")));
  EXPECT_TRUE(allows(some, {}, one("d", "a", {{"type", "image"}})));
  EXPECT_FALSE(allows(some, {}, one("d", "a", {{"type", "tmpfs"}})));
  EXPECT_FALSE(allows(some, {}, one("d", "a", {{"type", "image"}, {"device", ""}})));
  // What is too long to be compared is denied, not let through.
  EXPECT_FALSE(allows(some, {}, one("d", "a", {{"type", std::string(max_matched_bytes + 1, 'x')}})));
  EXPECT_TRUE(allows(some, {}, one("d", "a", {{"type", std::string(max_matched_bytes, 'x')}})));
}

TEST(Policy, ALongValueFitsOnlyTheStarOfARuleThatAllows) {
  const auto with = [](const std::string& pattern) {
    return policy("[[rule]]\nname = \"r\"\neffect = \"allow\"\noptions = { k = [\"" + pattern + "\"] }");
  };
  const auto request = one("d", "a", {{"k", std::string(max_matched_bytes + 1, 'x')}});
  EXPECT_FALSE(allows(with("x*"), {}, request));
  EXPECT_TRUE(allows(with("*"), {}, request));
}

TEST(Policy, HostPathsAreComparedInNormalForm) {
  const Policy paths = policy("[[rule]]\nname = \"r\"\neffect = \"allow\"\nhost_paths = [\"/srv/web/*\"]");
  EXPECT_TRUE(allows(paths, {}, host("/srv/web/a")));
  EXPECT_TRUE(allows(paths, {}, host("/srv//web/./a/b/")));
  EXPECT_FALSE(allows(paths, {}, host("/srv/web")));
  EXPECT_FALSE(allows(paths, {}, host("/srv/web/../../etc")));
  EXPECT_FALSE(allows(paths, {}, host("//etc")));
  EXPECT_FALSE(allows(paths, {}, one("local", "a"))) << "the rule is about host paths";
  EXPECT_TRUE(allows(paths, {.trusted = false}, host("/srv/web/a"))) << "it names them";
  EXPECT_TRUE(paths.decide_host_path({}, "/srv/web/x", false).allowed);
  v1::ContainerRequest source = host("");
  source.mutable_container_info()->mutable_volumes(0)->mutable_source()->set_type(
      v1::Volume::Source::HOST_PATH);
  source.mutable_container_info()->mutable_volumes(0)->mutable_source()->mutable_host_path()->set_path(
      "/etc");
  EXPECT_FALSE(allows(paths, {}, source));
  EXPECT_TRUE(allows(paths, {}, host("relative"))) << "of the sandbox";
}

TEST(Policy, WhatOnlyRootGetsNeedsARuleThatNamesIt) {
  const Policy broad = policy("[[rule]]\nname = \"r\"\neffect = \"allow\"");
  EXPECT_TRUE(allows(broad, {}, host("/srv")));
  EXPECT_FALSE(allows(broad, {.trusted = false}, host("/srv")));
  const auto owner = one("d", "v", {{"dvdi.ownership", "user"}});
  EXPECT_TRUE(allows(broad, {}, owner));
  EXPECT_FALSE(allows(broad, {.trusted = false}, owner));
  EXPECT_TRUE(allows(policy("[[rule]]\nname = \"r\"\neffect = \"allow\"\npermit = [\"ownership\"]"),
                     {.trusted = false}, owner));
}

TEST(Policy, Permits) {
  const Policy suid = policy("[[rule]]\nname = \"r\"\neffect = \"allow\"\npermit = [\"suid\"]");
  EXPECT_TRUE(allows(suid, {}, one("d", "v", {{"dvdi.suid", "true"}})));
  EXPECT_FALSE(allows(suid, {}, one("d", "v", {{"dvdi.suid", "true"}, {"dvdi.dev", "true"}})));
}

TEST(Policy, ARuleThatAllowsPermitsOnlyWhatItNames) {
  const auto suid = one("d", "v", {{"dvdi.suid", "true"}});
  const auto dev = one("d", "v", {{"dvdi.dev", "true"}});
  const std::string rule = "[[rule]]\nname = \"r\"\neffect = \"allow\"\n";
  EXPECT_FALSE(allows(policy(rule), {}, suid));
  EXPECT_FALSE(allows(policy(rule), {}, dev));
  EXPECT_FALSE(allows(policy(rule + "permit = [\"dev\", \"ownership\"]"), {}, suid));
  EXPECT_FALSE(allows(policy(rule + "permit = [\"suid\", \"ownership\"]"), {}, dev));
  EXPECT_TRUE(allows(policy(rule + "permit = [\"dev\"]"), {}, dev));
  // The search goes on, and a later rule may permit it.
  EXPECT_TRUE(
      allows(policy(rule + "[[rule]]\nname = \"s\"\neffect = \"allow\"\npermit = [\"suid\"]"), {}, suid));
}

TEST(Policy, Mode) {
  const Policy reading = policy("[[rule]]\nname = \"r\"\neffect = \"allow\"\nmode = \"ro\"");
  EXPECT_TRUE(allows(reading, {}, one("d", "v", {}, v1::Volume::RO)));
  EXPECT_FALSE(allows(reading, {}, one("d", "v")));
}

TEST(Policy, APrincipalComesFromFrameworkRoleUserLabelInThisOrder) {
  const Policy map = policy(R"(
default = "allow"
[principals.framework]
f = "by-framework"
[principals.role]
r = "by-role"
[principals.user]
u = "by-user"
"77" = "by-number"
[principals.label]
"team=a=b" = "by-label"
)");
  v1::Attribution labels;
  v1::Label& label = *labels.mutable_labels()->add_labels();
  label.set_key("team");
  label.set_value("a=b");
  Subject subject{.role = "r", .framework = "f", .user = "u"};
  EXPECT_EQ(map.principal_of(subject, labels), "by-framework");
  subject.framework = "g";
  EXPECT_EQ(map.principal_of(subject, labels), "by-role");
  subject.role = "";
  EXPECT_EQ(map.principal_of(subject, labels), "by-user");
  subject.user = "v";
  EXPECT_EQ(map.principal_of(subject, labels), "by-label");
  EXPECT_EQ(map.principal_of(subject, {}), "");
  subject.uid = 77;
  EXPECT_EQ(map.principal_of(subject, labels), "by-number");
  subject.uid = {};
  subject.trusted = false;
  EXPECT_EQ(map.principal_of(subject, labels), "") << "a label is the caller's word";
}

TEST(Policy, AdmitFillsInThePrincipalBeforeItDecides) {
  const Policy map = policy(R"(
[[rule]]
name = "team"
effect = "allow"
principals = ["team-web"]
[principals.role]
web = "team-web"
)");
  v1::ContainerRequest request = one("d", "v");
  EXPECT_EQ(admit(map, subject_of(0, "run", request), request).error().code, Code::permission_denied);
  request.mutable_attribution()->set_role("web");
  const auto admitted = admit(map, subject_of(0, "run", request), request);
  ASSERT_TRUE(admitted) << admitted.error().text();
  EXPECT_EQ(admitted->attribution().principal(), "team-web");
  request.mutable_attribution()->set_principal("other");
  const auto kept = admit(map, subject_of(0, "run", request), request);
  ASSERT_FALSE(kept) << "what the request says is not replaced";
  EXPECT_THAT(kept.error().text(),
              HasSubstr("d/v may not be used: no rule is about it, and the default is to deny [p.toml]"));
}

TEST(PolicyFile, ErrorsNameFileLineAndKey) {
  EXPECT_THAT(problem("\ncolour = 1"), HasSubstr("p.toml:2: unknown key colour"));
  EXPECT_THAT(problem("default = \"maybe\""), HasSubstr("default must be one of allow, deny"));
  EXPECT_THAT(problem("rule = 1"), HasSubstr("rule must be tables: [[rule]]"));
  EXPECT_THAT(problem("[[rule]]\neffect = \"allow\""), HasSubstr("p.toml:1: rule.name is required"));
  EXPECT_THAT(problem("[[rule]]\nname = \"a\""), HasSubstr("rule.effect must be one of allow, deny"));
  const std::string rule = "[[rule]]\nname = \"a\"\neffect = \"allow\"\n";
  EXPECT_THAT(problem(rule + "colour = 1"), HasSubstr("p.toml:4: unknown key rule.colour"));
  EXPECT_THAT(problem(rule + "volumes = []"), HasSubstr("volumes is empty"));
  EXPECT_THAT(problem(rule + "volumes = \"a\""), HasSubstr("p.toml:4: rule.volumes must be a list of texts"));
  EXPECT_THAT(problem(rule + "host_paths = [\"srv\"]"), HasSubstr("begin with / or *"));
  EXPECT_THAT(problem(rule + "mode = \"rx\""), HasSubstr("rule.mode must be one of ro, rw"));
  EXPECT_THAT(problem(rule + "permit = [\"root\"]"), HasSubstr("permit must be one of suid, dev, ownership"));
  EXPECT_THAT(problem(rule + "options = { size = [] }"), HasSubstr("size is empty"));
  EXPECT_THAT(problem(rule + rule), HasSubstr("there is a rule 'a' already"));
  EXPECT_THAT(problem("[[rule]]\nname = \"a\"\neffect = \"deny\"\npermit = [\"suid\"]"),
              HasSubstr("no meaning"));
  EXPECT_THAT(problem("[principals.label]\nteam = \"x\""), HasSubstr("must be KEY=VALUE"));
  EXPECT_THAT(problem("[principals.colour]\nx = \"y\""), HasSubstr("unknown key principals.colour"));
  EXPECT_THAT(problem("x = "), HasSubstr("not TOML"));
}

TEST(PolicyFile, Limits) {
  const std::string rule = "[[rule]]\nname = \"a\"\neffect = \"allow\"\n";
  EXPECT_EQ(problem(rule + "volumes = [\"" + std::string(max_pattern_bytes, 'a') + "\"]"), "no error");
  EXPECT_THAT(problem(rule + "volumes = [\"" + std::string(max_pattern_bytes + 1, 'a') + "\"]"),
              HasSubstr("longer than 255 bytes"));
  std::string list = "\"a\"";
  for (std::size_t i = 1; i < max_patterns_per_list; ++i) list += ",\"a\"";
  EXPECT_EQ(problem(rule + "volumes = [" + list + "]"), "no error");
  EXPECT_THAT(problem(rule + "volumes = [" + list + ",\"a\"]"), HasSubstr("more than 256 patterns"));
  std::string many;
  for (std::size_t i = 0; i <= max_policy_rules; ++i)
    many += "[[rule]]\nname = \"" + std::to_string(i) + "\"\neffect = \"deny\"\n";
  EXPECT_THAT(problem(many), HasSubstr("more than 1000"));
  EXPECT_THAT(problem(std::string(max_policy_bytes + 1, '#')), HasSubstr("larger than 256 KiB"));
}

// `alice` is 1000:1000 on the host and 0:0 in a root file system that somebody made.
Result<MemberUser> users(const std::string& user, const std::string& rootfs) {
  if (user.starts_with("alice")) {
    return rootfs.empty() ? MemberUser{.uid = 1000, .gid = 1000} : MemberUser{.uid = 0, .gid = 0};
  }
  return Error{.code = Code::invalid_argument, .message = "no user " + user};
}

PolicyAnswer answer(const std::string& text, const v1::ContainerRequest& request,
                    const PolicyQuestion& question) {
  auto answered = check_policy(policy(text), request, question, users);
  EXPECT_TRUE(answered) << answered.error().text();
  return answered ? *std::move(answered) : PolicyAnswer();
}

TEST(PolicyCheck, DecidesAsTheEngineWould) {
  const std::string text =
      "[[rule]]\nname = \"r\"\neffect = \"allow\"\nprincipals = [\"p\"]\n[principals.role]\nweb = \"p\"\n";
  const auto request = one("d", "v");
  EXPECT_FALSE(answer(text, request, {}).allowed);
  const auto mapped = answer(text, request, {.role = "web"});
  EXPECT_TRUE(mapped.allowed);
  EXPECT_EQ(mapped.subject.principal, "p");
  EXPECT_EQ(mapped.subject.owner, "run");
  EXPECT_TRUE(answer(text, request, {.principal = "p"}).allowed);
  EXPECT_FALSE(answer(text, request, {.principal = "q"}).allowed);
}

TEST(PolicyCheck, SomebodyElseIsAMemberOfTheGroup) {
  const std::string all = "[[rule]]\nname = \"r\"\neffect = \"allow\"";
  const auto member = answer(all, one("d", "v"), {.as = "alice"});
  EXPECT_TRUE(member.allowed);
  EXPECT_EQ(member.subject.owner, "uid:1000");
  EXPECT_EQ(member.subject.user, "1000");
  EXPECT_FALSE(member.subject.trusted);
  const auto claims = answer(all, one("d", "v"), {.as = "77", .role = "web"});
  EXPECT_FALSE(claims.allowed);
  EXPECT_EQ(claims.access->rule, "no role");
  EXPECT_FALSE(answer(all, host("/srv"), {.as = "77"}).allowed);
  EXPECT_FALSE(check_policy(policy(all), one("d", "v"), {.as = "bob"}, users)) << "nobody of that name";
}

TEST(PolicyCheck, UsersAreLookedUpWhereTheTaskFindsThem) {
  const std::string no_root =
      "default = \"allow\"\n[[rule]]\nname = \"r\"\neffect = \"deny\"\nusers = [\"root\"]";
  v1::ContainerRequest request = one("d", "v");
  request.mutable_command()->set_user("alice");
  EXPECT_TRUE(answer(no_root, request, {}).allowed);
  request.set_rootfs("/images/a");
  EXPECT_FALSE(answer(no_root, request, {}).allowed) << "there, alice is 0";
  request.mutable_command()->set_user("stranger");
  EXPECT_TRUE(answer(no_root, request, {}).allowed) << "not known here: by the name alone";
  const std::string no_alice =
      "default = \"allow\"\n[[rule]]\nname = \"r\"\neffect = \"deny\"\nusers = [\"alice\"]";
  request.clear_rootfs();
  request.mutable_command()->set_user("1000:1");
  EXPECT_FALSE(answer(no_alice, request, {}).allowed);
}

}  // namespace
}  // namespace dvdi
