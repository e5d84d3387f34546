#include "event/webhook_sink.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <thread>

#include "base/sync.h"
#include "event/sink_conformance_test.h"

namespace dvdi {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

// A web server that takes one request after the other, and answers as it is told to.
class WebServer {
 public:
  struct Seen {
    std::string head, body;
  };

  WebServer() : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::bind(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    socklen_t size = sizeof address;
    EXPECT_EQ(::getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
    EXPECT_EQ(::listen(socket_.get(), 16), 0);
    url_ = fmt::format("http://127.0.0.1:{}/in?key=hidden", ntohs(address.sin_port));
    thread_ = std::thread([this] { run(); });
  }
  ~WebServer() {
    ::shutdown(socket_.get(), SHUT_RDWR);
    thread_.join();
  }
  WebServer(const WebServer&) = delete;
  WebServer& operator=(const WebServer&) = delete;

  const std::string& url() const { return url_; }
  // The whole answer; "": hangs up when the request has come.
  void answer(std::string text) {
    const Lock lock(mutex_);
    answer_ = std::move(text);
  }
  std::vector<Seen> seen() {
    const Lock lock(mutex_);
    return seen_;
  }

 private:
  void run() {
    for (;;) {
      const UniqueFd client(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!client) return;
      std::string text;
      std::size_t whole = 0;
      std::string piece(std::size_t{1} << 20U, '\0');
      while (whole == 0 || text.size() < whole) {
        const ssize_t got = ::recv(client.get(), piece.data(), piece.size(), 0);
        if (got <= 0) break;
        text.append(piece, 0, static_cast<std::size_t>(got));
        const auto end = text.find("\r\n\r\n");
        const auto length = text.find("Content-Length: ");
        if (whole == 0 && end != std::string::npos && length != std::string::npos)
          whole = end + 4 + std::stoul(text.substr(length + 16));
      }
      if (whole == 0) continue;
      const auto head = text.find("\r\n\r\n");
      std::string answer;
      {
        const Lock lock(mutex_);
        seen_.push_back({text.substr(0, head), text.substr(head + 4)});
        answer = answer_;
      }
      static_cast<void>(::send(client.get(), answer.data(), answer.size(), MSG_NOSIGNAL));
    }
  }

  UniqueFd socket_;
  std::string url_;
  Mutex mutex_;
  std::vector<Seen> seen_;
  std::string answer_ = "HTTP/1.1 204 No Content\r\n\r\n";
  std::thread thread_;
};

std::string status_line(const std::string& status, const std::string& headers = {}) {
  return "HTTP/1.1 " + status + "\r\nContent-Length: 0\r\n" + headers + "\r\n";
}

// The events of an array: none of ours has "},{"specversion" inside of a text unescaped.
std::vector<std::string> events_in(const std::string& body) {
  std::vector<std::string> events;
  EXPECT_TRUE(body.starts_with("[") && body.ends_with("]")) << body.substr(0, 100);
  std::string rest = body.substr(1, body.size() - 2);
  while (!rest.empty()) {
    const auto end = rest.find(R"(},{"specversion")");
    if (end == std::string::npos) {
      events.push_back(std::exchange(rest, {}));
    } else {
      events.push_back(rest.substr(0, end + 1));
      rest.erase(0, end + 2);
    }
  }
  return events;
}

class WebReceiver final : public Receiver {
 public:
  std::unique_ptr<Sink> sink() override {
    return std::make_unique<WebhookSink>(
        WebhookSinkSettings{.url = server_.url(), .tls = {}, .secret_file = {}});
  }
  std::vector<std::string> received() override {
    std::vector<std::string> all;
    for (const auto& one : server_.seen()) {
      for (std::string& event : events_in(one.body)) all.push_back(std::move(event));
    }
    return all;
  }
  void break_it() override { server_.answer(status_line("500 No")); }
  void mend() override { server_.answer(status_line("202 Accepted")); }
  bool can_be_asked() const override { return false; }

 private:
  WebServer server_;
};

Result<std::unique_ptr<Receiver>> make_receiver() {
  return std::unique_ptr<Receiver>(std::make_unique<WebReceiver>());
}
INSTANTIATE_TEST_SUITE_P(Webhook, SinkConformance, testing::Values(ReceiverFactory{&make_receiver}));

class WebhookTest : public testing::Test {
 protected:
  std::unique_ptr<WebhookSink> sink(std::string secret_file = {}) const {
    return std::make_unique<WebhookSink>(
        WebhookSinkSettings{.url = server_.url(), .tls = {}, .secret_file = std::move(secret_file)});
  }
  Error refusal(WebhookSink& sink) {
    const auto done = sink.deliver(Context().with_timeout(std::chrono::minutes(1)), maker_.some(1));
    EXPECT_FALSE(done);
    return done ? Error{} : done.error();
  }
  std::string secret(const std::string& text, mode_t mode = 0600) {
    const std::string path = folder_ / "secret";
    write_file(path, text);
    EXPECT_EQ(::chmod(path.c_str(), mode), 0);
    return path;
  }

  WebServer server_;
  const TestFolder folder_;
  EventMaker maker_;
};

TEST_F(WebhookTest, TheRequestSaysWhatIsInIt) {
  const auto events = maker_.some(3);
  ASSERT_TRUE(sink()->deliver(Context(), {events[1], events[2]}));
  const auto seen = server_.seen();
  ASSERT_EQ(seen.size(), 1U);
  EXPECT_THAT(seen[0].head,
              AllOf(HasSubstr("POST /in?key=hidden HTTP/1.1"),
                    HasSubstr("Content-Type: application/cloudevents-batch+json; charset=utf-8"),
                    HasSubstr("Dvdi-Node: " + test_node()), HasSubstr("Dvdi-First: 2"),
                    HasSubstr("Dvdi-Last: 3"), Not(HasSubstr("Dvdi-Signature"))));
  EXPECT_EQ(seen[0].body, "[" + events[1].json() + "," + events[2].json() + "]");
}

TEST_F(WebhookTest, WhereItGoesIsSaidWithoutTheQuery) {
  EXPECT_THAT(sink()->where(),
              AllOf(HasSubstr("http://127.0.0.1:"), HasSubstr("/in?..."), Not(HasSubstr("hidden"))));
  server_.answer(status_line("400 Bad"));
  EXPECT_THAT(refusal(*sink()).text(), Not(HasSubstr("hidden")));
}

TEST_F(WebhookTest, RetryAfterIsUnderstoodAndForgotten) {
  const auto one = sink();
  server_.answer(status_line("429 Slow down", "Retry-After: 17\r\n"));
  EXPECT_EQ(refusal(*one).code, Code::unavailable);
  EXPECT_EQ(one->retry_after(), std::optional<Duration>(std::chrono::seconds(17)));
  server_.answer(status_line("503 Later"));
  EXPECT_EQ(refusal(*one).code, Code::unavailable);
  EXPECT_EQ(one->retry_after(), std::nullopt);
}

TEST_F(WebhookTest, RetryAfterMayBeADate) {
  const WallTime now{std::chrono::seconds(1'445'412'480)};  // 21 Oct 2015 07:28:00
  const auto read = [&](std::string_view text) { return read_retry_after(text, now); };
  EXPECT_EQ(read("Wed, 21 Oct 2015 07:29:30 GMT"), std::optional<Duration>(std::chrono::seconds(90)));
  EXPECT_EQ(read("Wed, 21 Oct 2015 07:00:00 GMT"), std::optional<Duration>(Duration::zero()));
  EXPECT_EQ(read(" 5 "), std::optional<Duration>(std::chrono::seconds(5)));
  for (const char* bad : {"", "soon", "-5", "5s", "99999999999999", "Wed, 21 Oct 2015"})
    EXPECT_EQ(read(bad), std::nullopt) << bad;
}

TEST_F(WebhookTest, ARedirectIsAnErrorThatSaysWhere) {
  server_.answer(status_line("308 Moved", "Location: https://elsewhere.example/x?token=hidden\r\n"));
  const Error error = refusal(*sink());
  EXPECT_THAT(error.text(),
              AllOf(HasSubstr("308"), HasSubstr("https://elsewhere.example/x"), Not(HasSubstr("hidden"))));
  EXPECT_EQ(server_.seen().size(), 1U);
}

TEST_F(WebhookTest, ARefusalIsSaidInTheReceiversWords) {
  server_.answer("HTTP/1.1 422 No\r\nContent-Length: 12\r\n\r\nno such\nkey!");
  EXPECT_THAT(refusal(*sink()).text(),
              AllOf(HasSubstr("422"), HasSubstr("no such\\x0akey!"), HasSubstr("kept")));
}

TEST_F(WebhookTest, AConnectionThatBreaksIsAFailure) {
  server_.answer("");
  EXPECT_EQ(refusal(*sink()).outcome, Outcome::unknown);
  server_.answer("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
  EXPECT_EQ(refusal(*sink()).outcome, Outcome::unknown);
}

// Computed by hand: printf '1700000000.[]' | openssl dgst -sha256 -hmac 0123456789abcdef
TEST_F(WebhookTest, TheSignatureIsHmacSha256) {
  EXPECT_EQ(webhook_signature("0123456789abcdef", 1'700'000'000, "[]"),
            "t=1700000000,v1=c91545d09b999c13267144ab89f40da36c784c2397a9684263e82122a502a910");
}

TEST_F(WebhookTest, TheKeyIsReadForEachBatch) {
  const auto one = sink(secret("0123456789abcdef\n"));
  ASSERT_TRUE(one->deliver(Context(), maker_.some(1)));
  std::filesystem::remove(folder_ / "secret");
  secret("another-key-0123456789");
  ASSERT_TRUE(one->deliver(Context(), maker_.some(1)));
  const auto seen = server_.seen();
  ASSERT_EQ(seen.size(), 2U);
  const auto check = [](const WebServer::Seen& request, std::string_view key) {
    const auto at = request.head.find("Dvdi-Signature: ");
    if (at == std::string::npos) return false;
    const std::string given = request.head.substr(at + 16, request.head.find("\r\n", at) - at - 16);
    return given == webhook_signature(key, std::stoll(given.substr(2)), request.body);
  };
  EXPECT_TRUE(check(seen[0], "0123456789abcdef"));
  EXPECT_TRUE(check(seen[1], "another-key-0123456789"));
  EXPECT_FALSE(check(seen[1], "0123456789abcdef"));
}

TEST_F(WebhookTest, WithoutAGoodKeyNothingIsSent) {
  EXPECT_THAT(refusal(*sink(secret("0123456789abcdef", 0644))).text(), HasSubstr("open to every user"));
  EXPECT_THAT(refusal(*sink(secret("short\n"))).text(),
              AllOf(HasSubstr("16 to 4096 bytes"), Not(HasSubstr("short"))));
  EXPECT_THAT(refusal(*sink(secret(std::string(5000, 'k')))).text(), HasSubstr("16 to 4096 bytes"));
  EXPECT_THAT(refusal(*sink(folder_ / "none")).text(), HasSubstr("secret_file"));
  EXPECT_THAT(server_.seen(), IsEmpty());
}

}  // namespace
}  // namespace dvdi
