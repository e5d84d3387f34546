// A plugin over TCP and TLS, registered by .spec and .json files.
#include <gtest/gtest.h>

#include "driver/docker/catalog.h"
#include "driver/docker/test_support.h"

namespace dvdi::driver::docker {
namespace {

using testing::ChildProcess;
using testing::FaultyPlugin;
using testing::impatient;
using testing::minute;
using testing::TempDir;

class DockerDriverTls : public ::testing::Test {
 protected:
  // Two authorities, a server's certificate of the first and a client's certificate of each.
  static void SetUpTestSuite() {
    certificates = std::make_unique<TempDir>();
    make_authority("ca");
    make_authority("other-ca");
    make_certificate("server", "ca", "subjectAltName=IP:127.0.0.1");
    make_certificate("elsewhere", "ca", "subjectAltName=DNS:elsewhere.invalid");
    make_certificate("client", "ca", "extendedKeyUsage=clientAuth");
    make_certificate("stranger", "other-ca", "extendedKeyUsage=clientAuth");
  }
  static void TearDownTestSuite() { certificates.reset(); }

  static std::string file(const std::string& name) { return certificates->path() + "/" + name; }

  static void openssl(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "openssl");
    arguments.emplace_back("-batch");
    ChildProcess process(arguments, certificates->path());
    ASSERT_EQ(process.wait(), 0);
  }
  static void make_authority(const std::string& name) {
    openssl({"req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", "/CN=" + name, "-keyout", file(name + ".key"), "-out", file(name + ".pem")});
  }
  static void make_certificate(const std::string& name, const std::string& authority,
                               const std::string& extension) {
    openssl({"req",

             "-x509",
             "-newkey",
             "ec",
             "-pkeyopt",
             "ec_paramgen_curve:P-256",
             "-nodes",
             "-days",
             "2",
             "-subj",
             "/CN=" + name,
             "-addext",
             extension,
             "-addext",
             "basicConstraints=critical,CA:FALSE",
             "-CA",
             file(authority + ".pem"),
             "-CAkey",
             file(authority + ".key"),
             "-keyout",
             file(name + ".key"),
             "-out",
             file(name + ".pem")});
  }

  void start(const std::string& certificate, bool ask_client = false) {
    std::vector<std::string> arguments{"--port", "0"};
    if (!certificate.empty()) {
      arguments.insert(arguments.end(),
                       {"--tls-cert", file(certificate + ".pem"), "--tls-key", file(certificate + ".key")});
    }
    if (ask_client) arguments.insert(arguments.end(), {"--tls-client-ca", file("ca.pem")});
    plugin_ = std::make_unique<FaultyPlugin>(arguments);
  }
  Result<std::vector<VolumeInfo>> list_with(const std::string& suffix, const std::string& text) {
    const std::string folder = plugin_->run_dir();
    std::ofstream(folder + "/p." + suffix) << text;
    PluginCatalog catalog(
        {.roots = {.run_dir = folder + "/none", .spec_dirs = {folder}}, .settings = impatient()});
    DVDI_TRY(const auto driver, catalog.find(minute(), "p"));
    return driver->list(minute());
  }
  Result<std::vector<VolumeInfo>> list_with_tls(const std::string& config) {
    return list_with("json", fmt::format(R"({{"Name":"p","Addr":"tcp://{}","TLSConfig":{}}})",
                                         plugin_->address(), config));
  }
  std::string ca() const { return fmt::format(R"("CAFile":"{}")", file("ca.pem")); }
  std::string pair(const std::string& name) const {
    return fmt::format(R"("CertFile":"{}","KeyFile":"{}")", file(name + ".pem"), file(name + ".key"));
  }
  static void expect_not_sent(const Result<std::vector<VolumeInfo>>& result) {
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, Code::io) << result.error().text();  // trying again would not help
    EXPECT_EQ(result.error().outcome, Outcome::not_sent) << result.error().text();
    EXPECT_EQ(result.error().driver, "p");
  }

  inline static std::unique_ptr<TempDir> certificates;
  std::unique_ptr<FaultyPlugin> plugin_;
};

TEST_F(DockerDriverTls, PlainTcpByASpecFile) {
  start("");
  const auto all = list_with("spec", "tcp://" + plugin_->address());
  EXPECT_TRUE(all) << all.error().text();
}

TEST_F(DockerDriverTls, AServerOfTheGivenAuthorityIsTrusted) {
  start("server");
  const auto all = list_with_tls("{" + ca() + "}");
  EXPECT_TRUE(all) << all.error().text();
}

TEST_F(DockerDriverTls, AServerThatIsNotProvedIsNotCalled) {
  start("server");
  expect_not_sent(list_with_tls("{}"));  // the machine's authorities do not know it
  expect_not_sent(list_with_tls(fmt::format(R"({{"CAFile":"{}"}})", file("other-ca.pem"))));
  expect_not_sent(list_with_tls(R"({"CAFile":"/does/not/exist"})"));
  start("elsewhere");
  expect_not_sent(list_with_tls("{" + ca() + "}"));  // another host's certificate
}

TEST_F(DockerDriverTls, VerificationCanBeSwitchedOff) {
  start("elsewhere");
  const auto all = list_with_tls(R"({"InsecureSkipVerify":true})");
  EXPECT_TRUE(all) << all.error().text();
}

TEST_F(DockerDriverTls, AServerMayAskForAClientCertificate) {
  start("server", true);
  const auto all = list_with_tls(fmt::format("{{{},{}}}", ca(), pair("client")));
  EXPECT_TRUE(all) << all.error().text();
  EXPECT_FALSE(list_with_tls(fmt::format("{{{},{}}}", ca(), pair("stranger"))));
  EXPECT_FALSE(list_with_tls("{" + ca() + "}"));
}

TEST_F(DockerDriverTls, PlainHttpToATlsServerIsNoAnswer) {
  start("server");
  const auto all = list_with("spec", "http://" + plugin_->address());
  ASSERT_FALSE(all);
  EXPECT_EQ(all.error().outcome, Outcome::not_sent);  // /Plugin.Activate failed
}

}  // namespace
}  // namespace dvdi::driver::docker
