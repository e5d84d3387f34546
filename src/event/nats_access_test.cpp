// Who a nats sink is to a server, and who a server is to it.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "event/nats_server_test_support.h"
#include "event/nats_sink.h"
#include "linux/process.h"

namespace dvdi {
namespace {

using std::chrono::seconds;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class NatsAccessTest : public testing::Test {
 protected:
  static Context in() { return Context().with_timeout(seconds(60)); }
  static Status test(const NatsSinkSettings& settings) {
    auto sink = make_nats_sink(settings);
    if (!sink) return fail(sink.error());
    EXPECT_THAT((*sink)->where(), Not(HasSubstr("S3cret")));
    return (*sink)->test(in());
  }
};

TEST_F(NatsAccessTest, UserAndPassword) {
  NatsServer server("jetstream { store_dir: STORE }\nauthorization { user: sink, password: S3cret-right }");
  server.start();
  NatsSinkSettings settings;
  settings.url = server.url();
  settings.create_stream = true;
  Status done = test(settings);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Code::permission_denied) << done.error().text();
  settings.user = "sink";
  settings.password_file = server.write("password", "S3cret-wrong\n");
  done = test(settings);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Code::permission_denied) << done.error().text();
  EXPECT_THAT(done.error().text(), Not(HasSubstr("S3cret")));
  // Read again at the next connect.
  server.write("password", "S3cret-right\n");
  done = test(settings);
  EXPECT_TRUE(done) << done.error().text();
  server.write("password", "S3cret-right\n", 0644);
  done = test(settings);
  ASSERT_FALSE(done);
  EXPECT_THAT(done.error().text(), AllOf(HasSubstr("password_file"), HasSubstr("open to every user")));
  settings.password_file = server.folder() + "/none";
  EXPECT_FALSE(test(settings));
}

TEST_F(NatsAccessTest, Token) {
  NatsServer server("jetstream { store_dir: STORE }\nauthorization { token: S3cret-token }");
  server.start();
  NatsSinkSettings settings;
  settings.url = server.url();
  settings.create_stream = true;
  settings.token_file = server.write("token", "S3cret-other");
  Status done = test(settings);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Code::permission_denied);
  EXPECT_THAT(done.error().text(), Not(HasSubstr("S3cret")));
  server.write("token", "S3cret-token");
  done = test(settings);
  EXPECT_TRUE(done) << done.error().text();
}

TEST_F(NatsAccessTest, AUserThatMayNotIsToldSo) {
  NatsServer server(
      "jetstream { store_dir: STORE }\nauthorization { users: [ { user: sink, password: S3cret, permissions: "
      "{"
      " publish: [\"dvdi.>\", \"$JS.API.STREAM.INFO.dvdi\", \"$JS.API.STREAM.MSG.GET.dvdi\"],"
      " subscribe: \"_INBOX.>\" } }, { user: admin, password: x } ] }");
  server.start();
  NatsSinkSettings settings;
  settings.url = server.url();
  settings.user = "sink";
  settings.password_file = server.write("password", "S3cret");
  settings.create_stream = true;
  Status done = test(settings);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Code::permission_denied) << done.error().text();
  EXPECT_THAT(done.error().message, HasSubstr("$JS.API.STREAM.CREATE.dvdi"));
  NatsSinkSettings admin = settings;
  admin.user = "admin";
  admin.password_file = server.write("admin", "x");
  ASSERT_TRUE(test(admin));
  // With the stream there, these permissions are enough for all that a sink does.
  settings.create_stream = false;
  auto sink = make_nats_sink(settings);
  done = (*sink)->deliver(in(), test_events(node_a, 1, 2));
  EXPECT_TRUE(done) << done.error().text();
  EXPECT_EQ((*sink)->head(in(), node_a)->count, 2U);
  done = (*sink)->deliver(in(), test_events(node_a, 1, 2));  // duplicates are looked at
  EXPECT_TRUE(done) << done.error().text();
}

TEST_F(NatsAccessTest, WithoutJetStream) {
  NatsServer server("");
  server.start();
  NatsSinkSettings settings;
  settings.url = server.url();
  const Status done = test(settings);
  ASSERT_FALSE(done);
  EXPECT_THAT(done.error().hint, HasSubstr("JetStream must be switched on"));
}

class NatsTlsTest : public NatsAccessTest {
 protected:
  NatsTlsTest()
      : server_(
            "jetstream { store_dir: STORE }\n"
            "tls { cert_file: FOLDER/server.pem, key_file: FOLDER/server.key, ca_file: FOLDER/ca.pem,"
            " verify: true }") {}
  void SetUp() override {
    run("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=ca -days 2 -keyout ca.key "
        "-out ca.pem");
    run("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=no -days 2 -keyout no.key "
        "-out no.pem");
    certificate("server", "subjectAltName=DNS:localhost,IP:127.0.0.1");
    certificate("client", "extendedKeyUsage=clientAuth");
    server_.start();
    settings_.create_stream = true;
    settings_.url = server_.url("tls");
    settings_.tls = {
        .ca_file = file("ca.pem"), .cert_file = file("client.pem"), .key_file = file("client.key")};
  }
  std::string file(const std::string& name) const { return server_.folder() + "/" + name; }
  void certificate(const std::string& name, const std::string& extension) const {
    server_.write(name + ".ext", extension);
    run(fmt::format(
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={0} -keyout {0}.key -out {0}.csr",
        name));
    run(
        fmt::format("x509 -req -in {0}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile {0}.ext "
                    "-out {0}.pem",
                    name));
  }
  void run(const std::string& arguments) const {
    std::vector<std::string> argv{"openssl"};
    for (std::size_t at = 0; at <= arguments.size();) {
      const std::size_t end = std::min(arguments.find(' ', at), arguments.size());
      std::string one = arguments.substr(at, end - at);
      for (const char* const ending : {".key", ".pem", ".csr", ".ext"}) {
        if (one.ends_with(ending)) one = file(one);
      }
      argv.push_back(std::move(one));
      at = end + 1;
    }
    const auto result = run_program(in(), argv);
    ASSERT_TRUE(result) << result.error().text();
    ASSERT_EQ(result->exit_code, 0) << result->output;
  }

  NatsServer server_;
  NatsSinkSettings settings_;
};

TEST_F(NatsTlsTest, BothSidesMustBeWhoTheySay) {
  auto sink = make_nats_sink(settings_);
  Status done = (*sink)->deliver(in(), test_events(node_a, 1, 200));
  EXPECT_TRUE(done) << done.error().text();
  EXPECT_EQ((*sink)->head(in(), node_a)->count, 200U);
  NatsSinkSettings other = settings_;
  other.url = server_.url("tls", "localhost");
  done = test(other);
  EXPECT_TRUE(done) << done.error().text();

  other.tls.ca_file = file("no.pem");
  done = test(other);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Code::io) << done.error().text();
  other = settings_;
  other.tls.cert_file = other.tls.key_file = "";
  EXPECT_FALSE(test(other));
}

TEST_F(NatsTlsTest, TheNameOfTheServerIsLookedAt) {
  server_.kill();
  certificate("server", "subjectAltName=DNS:elsewhere.example");
  server_.start();
  const Status done = test(settings_);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Code::io) << done.error().text();
  settings_.tls.insecure_skip_verify = true;
  EXPECT_TRUE(test(settings_));
}

}  // namespace
}  // namespace dvdi
