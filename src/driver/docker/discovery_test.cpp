#include "driver/docker/discovery.h"

#include <gmock/gmock.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "driver/docker/catalog.h"
#include "driver/docker/test_support.h"

namespace dvdi::driver::docker {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::string id_a(64, 'a');
const std::string id_b(64, 'b');

class Discovery : public ::testing::Test {
 protected:
  Discovery() {
    for (const char* folder : {"run", "etc", "usr"})
      std::filesystem::create_directory(dir_.path() + "/" + folder);
  }
  std::string at(const std::string& path) const { return dir_.path() + "/" + path; }
  Roots roots() const { return {.run_dir = at("run"), .spec_dirs = {at("etc"), at("usr")}}; }

  // Bound beside and renamed: the address holds only a short path.
  void make_socket(const std::string& path) const {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    at("s").copy(std::begin(address.sun_path), sizeof(address.sun_path) - 1);
    const UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_TRUE(socket);
    ASSERT_EQ(::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    std::filesystem::create_directories(std::filesystem::path(at(path)).parent_path());
    std::filesystem::rename(at("s"), at(path));
  }
  void write(const std::string& path, const std::string& text) const { std::ofstream(at(path)) << text; }
  std::string found(const std::string& name) const {
    const auto endpoint = find_endpoint(roots(), name);
    return endpoint ? endpoint->text() : endpoint.error().message;
  }
  void expect_code(const std::string& name, Code code, const std::string& text) const {
    const auto endpoint = find_endpoint(roots(), name);
    ASSERT_FALSE(endpoint) << endpoint->text();
    EXPECT_EQ(code_name(endpoint.error().code), code_name(code)) << endpoint.error().text();
    EXPECT_EQ(endpoint.error().outcome, Outcome::not_sent);
    EXPECT_THAT(endpoint.error().message, HasSubstr(text));
  }

  testing::TempDir dir_;
};

TEST_F(Discovery, LooksInTheOrderOfTheProtocol) {
  // From the last place to the first: each new one wins.
  write("usr/p.json", R"({"Name":"p","Addr":"tcp://127.0.0.1:1"})");
  EXPECT_EQ(found("p"), "http://127.0.0.1:1");
  write("etc/p.json", R"({"Addr":"http://127.0.0.1:2/"})");
  EXPECT_EQ(found("p"), "http://127.0.0.1:2");
  write("usr/p.spec", "tcp://127.0.0.1:3\n");
  EXPECT_EQ(found("p"), "http://127.0.0.1:3");
  write("etc/p.spec", " unix:///some/where.sock \n");
  EXPECT_EQ(found("p"), "unix:///some/where.sock");
  make_socket("run/" + id_a + "/p.sock");
  EXPECT_EQ(found("p"), "unix://" + at("run/" + id_a + "/p.sock"));
  make_socket("run/p/p.sock");
  EXPECT_EQ(found("p"), "unix://" + at("run/p/p.sock"));
  make_socket("run/p.sock");
  EXPECT_EQ(found("p"), "unix://" + at("run/p.sock"));
}

TEST_F(Discovery, NotFoundNamesEveryPlace) {
  write("run/p.sock", "a file that is no socket");
  const auto endpoint = find_endpoint(roots(), "p");
  ASSERT_FALSE(endpoint);
  EXPECT_EQ(endpoint.error().code, Code::not_found);
  EXPECT_THAT(endpoint.error().message,
              AllOf(HasSubstr(at("run/p.sock")), HasSubstr(at("run/p/p.sock")),
                    HasSubstr(at("run/<id>/p.sock")), HasSubstr(at("etc/p.spec")),
                    HasSubstr(at("usr/p.spec")), HasSubstr(at("etc/p.json")), HasSubstr(at("usr/p.json"))));
}

TEST_F(Discovery, NamesThatCouldLeaveTheFoldersAreRefused) {
  make_socket("p.sock");
  make_socket("run/.p.sock");
  for (const std::string& name :
       {std::string("../p"), std::string(""), std::string("."), std::string(".."), std::string(".p"),
        std::string("a/b"), std::string("a\0b", 3), std::string("a\nb"), std::string(256, 'n')}) {
    expect_code(name, Code::invalid_argument, "cannot be the name of a driver");
  }
}

TEST_F(Discovery, TwoManagedPluginsOfOneNameAreNotGuessedBetween) {
  make_socket("run/" + id_a + "/p.sock");
  make_socket("run/" + id_b + "/p.sock");
  expect_code("p", Code::failed_precondition, id_b);
  make_socket("run/" + std::string(64, 'A') + "/q.sock");  // not an id
  expect_code("q", Code::not_found, "");
}

TEST_F(Discovery, AFileThatCannotBeUnderstoodIsAnErrorThatNamesIt) {
  for (const std::string text :
       {"", "127.0.0.1:1", "ftp://x", "unix://relative", "unix:///", "tcp://", "tcp://a b",
        "tcp://host:1/path", "http://user@host", "unix:///a\nunix:///b"}) {
    SCOPED_TRACE(text);
    write("etc/p.spec", text);
    expect_code("p", Code::failed_precondition, at("etc/p.spec"));
  }
  for (const std::string text : {"", "[]", "{}", R"({"Addr":5})", R"({"Addr":"tcp://h:1","TLSConfig":[]})",
                                 R"({"Addr":"tcp://h:1","TLSConfig":{"InsecureSkipVerify":"yes"}})"}) {
    SCOPED_TRACE(text);
    write("etc/j.json", text);
    expect_code("j", Code::failed_precondition, at("etc/j.json"));
  }
  write("etc/big.spec", "tcp://" + std::string(70000, 'h'));
  expect_code("big", Code::failed_precondition, "longer than");
  std::filesystem::create_directory(at("etc/folder.spec"));
  expect_code("folder", Code::failed_precondition, "no regular file");
  ASSERT_EQ(::mkfifo(at("etc/fifo.json").c_str(), 0600), 0);
  expect_code("fifo", Code::failed_precondition, "no regular file");
}

TEST_F(Discovery, TlsOfAJsonFile) {
  write("etc/p.json", R"({"Name":"p","Addr":"tcp://127.0.0.1:1","TLSConfig":
      {"InsecureSkipVerify":true,"CAFile":"/ca","CertFile":"/cert","KeyFile":"/key"}})");
  const auto endpoint = find_endpoint(roots(), "p");
  ASSERT_TRUE(endpoint) << endpoint.error().text();
  EXPECT_EQ(endpoint->url, "https://127.0.0.1:1");
  EXPECT_TRUE(endpoint->tls.insecure_skip_verify);
  EXPECT_EQ(endpoint->tls.ca_file, "/ca");
  EXPECT_EQ(endpoint->tls.cert_file, "/cert");
  EXPECT_EQ(endpoint->tls.key_file, "/key");
  write("etc/q.json", R"({"Addr":"http://127.0.0.1:1","TLSConfig":{"CAFile":"/ca"}})");
  const auto other = find_endpoint(roots(), "q");
  ASSERT_TRUE(other);
  EXPECT_EQ(other->url, "https://127.0.0.1:1");  // never less safe than the file asks for
  EXPECT_FALSE(other->tls.insecure_skip_verify);
  write("etc/r.json", R"({"Addr":"tcp://127.0.0.1:1","TLSConfig":null})");
  EXPECT_EQ(found("r"), "http://127.0.0.1:1");
}

TEST_F(Discovery, CatalogNamesAllAndFindsEachOnce) {
  make_socket("run/a.sock");
  make_socket("run/b/b.sock");
  make_socket("run/" + id_a + "/c.sock");
  write("run/x.sock", "no socket");
  write("etc/d.spec", "tcp://127.0.0.1:1");
  write("usr/d.json", "{}");
  write("usr/e.json", R"({"Addr":"tcp://127.0.0.1:1"})");
  write("usr/.f.json", "{}");
  write("usr/README", "");
  PluginCatalog catalog({.roots = roots(), .by_name = {{"e", {.plain_directories = true}}}});
  EXPECT_THAT(catalog.names(), ElementsAre("a", "b", "c", "d", "e"));

  const auto a = catalog.find(Context(), "a");
  ASSERT_TRUE(a);
  EXPECT_EQ((*a)->name(), "a");
  EXPECT_EQ(catalog.find(Context(), "a")->get(), a->get());
  EXPECT_FALSE((*a)->may_be_plain_directory("v"));
  const auto e = catalog.find(Context(), "e");
  ASSERT_TRUE(e);
  EXPECT_TRUE((*e)->may_be_plain_directory("v"));
  // One that was there and is away now is the business of its calls.
  std::filesystem::remove(at("run/a.sock"));
  EXPECT_TRUE(catalog.find(Context(), "a"));
  const auto x = catalog.find(Context(), "x");
  ASSERT_FALSE(x);
  EXPECT_EQ(x.error().code, Code::not_found);
  EXPECT_EQ(x.error().driver, "x");
  EXPECT_FALSE(catalog.find(Context().with_timeout(Duration::zero()), "b"));
}

TEST_F(Discovery, FoldersThatAreNotThereHoldNothing) {
  const Roots nowhere{.run_dir = at("no"), .spec_dirs = {at("no/etc")}};
  EXPECT_THAT(registered_names(nowhere), ElementsAre());
  EXPECT_EQ(find_endpoint(nowhere, "p").error().code, Code::not_found);
}

}  // namespace
}  // namespace dvdi::driver::docker
