#include "event/nats_sink.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <stop_token>
#include <thread>

#include "event/event_line.h"
#include "event/nats_connection.h"
#include "event/nats_server_test_support.h"
#include "event/nats_stream.h"
#include "event/sink_conformance_test.h"

namespace dvdi {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

const std::string node_b = "2b1c0000-7527-42cf-8693-895bacf33a48";

class NatsSinkTest : public testing::Test {
 protected:
  static Context in(Duration timeout = seconds(60)) { return Context().with_timeout(timeout); }
  NatsSinkSettings settings() const {
    NatsSinkSettings settings;
    settings.url = server_.url();
    settings.create_stream = true;
    return settings;
  }
  static std::unique_ptr<Sink> sink(const NatsSinkSettings& settings) {
    auto made = make_nats_sink(settings);
    EXPECT_TRUE(made) << made.error().text();
    return *std::move(made);
  }
  // An API call of the test's own, and its answer.
  std::string call(const std::string& subject, const std::string& request,
                   const NatsHeaders& headers = {}) const {
    NatsSinkSettings plain;
    plain.url = server_.url();
    auto connection = NatsConnection::open(in(), plain);
    if (!connection) return connection.error().text();
    auto reply = (*connection)->request(in(), subject, headers, request, "call");
    return reply ? reply->payload : reply.error().text();
  }
  // The sequence numbers of a node's events in the stream, in its order.
  std::vector<std::uint64_t> stored(const std::string& node = node_a) const {
    std::vector<std::uint64_t> sequences;
    const NatsSinkSettings plain = settings();
    auto connection = NatsConnection::open(in(), plain);
    EXPECT_TRUE(connection) << connection.error().text();
    NatsStream stream(**connection, plain);
    for (std::uint64_t from = 1;;) {
      auto message = stream.next(in(), "dvdi." + node + ".>", from);
      EXPECT_TRUE(message) << message.error().text();
      if (!message || !*message) return sequences;
      from = (*message)->sequence + 1;
      const auto line = read_event_line((*message)->payload);
      EXPECT_TRUE(line && line->whole) << (*message)->payload;
      sequences.push_back(line ? line->sequence : 0);
    }
  }
  static std::vector<std::uint64_t> numbers(std::uint64_t first, std::uint64_t last) {
    std::vector<std::uint64_t> all;
    for (; first <= last; ++first) all.push_back(first);
    return all;
  }
  // Until the stream's duplicate window, which the test has made short, is over for all that is there now.
  void pass_duplicate_window() const {
    const NatsHeaders id{{"Nats-Msg-Id", "probe"}};
    call("dvdi.probe.x", "", id);
    while (call("dvdi.probe.x", "", id).find("duplicate") != std::string::npos) {
    }
  }
  void make_short_window() const {
    EXPECT_THAT(call("$JS.API.STREAM.CREATE.dvdi",
                     R"({"name":"dvdi","subjects":["dvdi.>"],"storage":"file","retention":"limits",)"
                     R"("max_msgs":-1,"max_bytes":-1,"max_consumers":-1,"num_replicas":1,)"
                     R"("duplicate_window":300000000})"),
                HasSubstr("did_create"));
  }

  NatsServer server_;
};

TEST_F(NatsSinkTest, PublishesEachEventUnderItsNodeAndTypeAsItIs) {
  server_.start();
  const auto events = test_events(node_a, 1, 3);
  const auto to = sink(settings());
  const Status done = to->deliver(in(), events);
  ASSERT_TRUE(done) << done.error().text();
  EXPECT_EQ(stored(), numbers(1, 3));
  const std::string second = call("$JS.API.STREAM.MSG.GET.dvdi", R"({"seq":2})");
  EXPECT_THAT(second, HasSubstr(fmt::format(R"("subject":"dvdi.{}.dvdi.mount.mounted")", node_a)));
  NatsSinkSettings plain = settings();
  auto connection = NatsConnection::open(in(), plain);
  ASSERT_TRUE(connection);
  const auto message = NatsStream(**connection, plain).at(in(), 2);
  ASSERT_TRUE(message && *message);
  EXPECT_EQ((*message)->payload, events[1].json());
}

TEST_F(NatsSinkTest, WhatComesAgainIsThereOnce) {
  server_.start();
  const auto to = sink(settings());
  ASSERT_TRUE(to->deliver(in(), test_events(node_a, 1, 5)));
  // A sink that has just begun looks at the end of the stream, an old one relies on the ids.
  ASSERT_TRUE(to->deliver(in(), test_events(node_a, 3, 8)));
  ASSERT_TRUE(sink(settings())->deliver(in(), test_events(node_a, 6, 10)));
  ASSERT_TRUE(sink(settings())->deliver(in(), test_events(node_a, 1, 4)));
  EXPECT_EQ(stored(), numbers(1, 10));
}

TEST_F(NatsSinkTest, AfterTheDuplicateWindowToo) {
  server_.start();
  make_short_window();
  ASSERT_TRUE(sink(settings())->deliver(in(), test_events(node_a, 1, 6)));
  pass_duplicate_window();
  ASSERT_TRUE(sink(settings())->deliver(in(), test_events(node_a, 3, 9)));
  EXPECT_EQ(stored(), numbers(1, 9));
}

TEST_F(NatsSinkTest, WhatAPersonAskedForIsSentAgainAndCountsOnce) {
  server_.start();
  make_short_window();
  ASSERT_TRUE(sink(settings())->deliver(in(), test_events(node_a, 1, 6)));
  pass_duplicate_window();
  const auto again = sink(settings());
  again->sent_again_until(4);
  ASSERT_TRUE(again->deliver(in(), test_events(node_a, 1, 6)));
  auto all = numbers(1, 6);
  for (const auto one : numbers(1, 4)) all.push_back(one);
  EXPECT_EQ(stored(), all);
  const auto head = again->head(in(), node_a);
  ASSERT_TRUE(head) << head.error().text();
  EXPECT_EQ(head->sequence, 6U);
  EXPECT_EQ(head->count, 6U);
  EXPECT_EQ(head->hash, test_events(node_a, 6, 6).front().hash);
}

// The stream has lost events that the batch begins with: its last one proves nothing about them.
TEST_F(NatsSinkTest, AStreamWithAHoleGetsWhatItLacks) {
  server_.start();
  make_short_window();
  ASSERT_TRUE(sink(settings())->deliver(in(), test_events(node_a, 1, 6)));
  EXPECT_THAT(call("$JS.API.STREAM.MSG.DELETE.dvdi", R"({"seq":4})"), HasSubstr(R"("success":true)"));
  const auto head = sink(settings())->head(in(), node_a);
  ASSERT_TRUE(head);
  EXPECT_EQ(head->sequence, 6U);
  EXPECT_EQ(head->count, 5U);
  pass_duplicate_window();
  ASSERT_TRUE(sink(settings())->deliver(in(), test_events(node_a, 1, 6)));
  auto all = stored();
  std::ranges::sort(all);
  all.erase(std::ranges::unique(all).begin(), all.end());
  EXPECT_EQ(all, numbers(1, 6));
}

TEST_F(NatsSinkTest, HeadIsOfOneNode) {
  server_.start();
  const auto to = sink(settings());
  auto head = to->head(in(), node_a);
  ASSERT_TRUE(head) << head.error().text();
  EXPECT_EQ(head->sequence, 0U);
  EXPECT_EQ(head->count, 0U);
  ASSERT_TRUE(to->deliver(in(), test_events(node_a, 3, 7)));  // from_now: not from the first
  ASSERT_TRUE(to->deliver(in(), test_events(node_b, 1, 2)));
  head = to->head(in(), node_a);
  ASSERT_TRUE(head) << head.error().text();
  EXPECT_EQ(head->sequence, 7U);
  EXPECT_EQ(head->hash, test_events(node_a, 7, 7).front().hash);
  EXPECT_EQ(head->count, 5U);
  EXPECT_EQ(to->head(in(), node_b)->sequence, 2U);
}

TEST_F(NatsSinkTest, AServerThatIsKilledAgainAndAgainHasEachEventOnceInOrder) {
  server_.start();
  constexpr std::uint64_t last = 1500;
  constexpr std::uint64_t batch = 100;
  std::atomic<std::uint64_t> confirmed = 0;
  std::atomic<int> failures = 0;
  std::jthread delivering([&] {
    const auto to = sink(settings());
    const auto events = test_events(node_a, 1, last);
    for (std::uint64_t next = 0; next < last;) {
      const std::vector<StoredEvent> part(events.begin() + static_cast<std::ptrdiff_t>(next),
                                          events.begin() + static_cast<std::ptrdiff_t>(next + batch));
      if (to->deliver(in(), part)) {
        next += batch;
        confirmed = next;
        confirmed.notify_all();
      } else {
        ++failures;
      }
    }
  });
  // In the middle of the batches after these.
  for (const std::uint64_t after : {batch, 4 * batch, 7 * batch, 10 * batch}) {
    for (auto now = confirmed.load(); now < after; now = confirmed.load()) confirmed.wait(now);
    server_.kill();
    server_.start();
  }
  delivering.join();
  EXPECT_GE(failures.load(), 1);
  EXPECT_EQ(stored(), numbers(1, last));
}

TEST_F(NatsSinkTest, AnIdThatTheStreamHasHadIsNoConfirmation) {
  server_.start();
  const auto to = sink(settings());
  ASSERT_TRUE(to->test(in()));  // makes the stream
  const NatsHeaders id{{"Nats-Msg-Id", node_a + "-1"}};
  EXPECT_THAT(call("dvdi." + node_a + ".x", "another", id), HasSubstr(R"("seq":1)"));
  Status done = to->deliver(in(), test_events(node_a, 1, 2));
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Code::failed_precondition);
  EXPECT_THAT(done.error().message, AllOf(HasSubstr(node_a + "-1"), HasSubstr("is another event")));
  // nats-server 2.9 forgets no id in a purge.
  EXPECT_THAT(call("$JS.API.STREAM.PURGE.dvdi", ""), HasSubstr("success"));
  done = to->deliver(in(), test_events(node_a, 1, 2));
  ASSERT_FALSE(done);
  EXPECT_THAT(done.error().message, HasSubstr("not there any more"));
}

TEST_F(NatsSinkTest, APurgedStreamGetsAllAgainAfterTheDuplicateWindow) {
  server_.start();
  make_short_window();
  const auto to = sink(settings());
  ASSERT_TRUE(to->deliver(in(), test_events(node_a, 1, 2)));
  EXPECT_THAT(call("$JS.API.STREAM.PURGE.dvdi", ""), HasSubstr("success"));
  while (!to->deliver(in(), test_events(node_a, 1, 2))) {
  }
  EXPECT_EQ(stored(), numbers(1, 2));
}

TEST_F(NatsSinkTest, AStreamThatIsNotFitIsRefused) {
  server_.start();
  NatsSinkSettings wanted = settings();
  wanted.create_stream = false;
  Status done = sink(wanted)->test(in());
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Code::not_found);
  EXPECT_THAT(done.error().hint, AllOf(HasSubstr("nats stream add dvdi"), HasSubstr("create_stream")));
  const std::string common =
      R"("max_msgs":-1,"max_bytes":-1,"max_consumers":-1,"num_replicas":1,"storage":"file")";
  const std::vector<std::pair<std::string, std::string>> unfit{
      {R"("subjects":["other.>"],"retention":"limits")", "does not take the subjects dvdi.NODE.TYPE"},
      {R"("subjects":["dvdi.>"],"retention":"interest")", "retention"},
      {R"("subjects":["dvdi.>"],"retention":"limits","max_msgs_per_subject":1)", "max_msgs_per_subject"},
      {R"("subjects":["dvdi.>"],"retention":"limits","no_ack":true)", "no_ack"},
  };
  for (const auto& [config, why] : unfit) {
    EXPECT_THAT(call("$JS.API.STREAM.CREATE.dvdi", fmt::format(R"({{"name":"dvdi",{},{}}})", config, common)),
                HasSubstr("did_create"));
    done = sink(settings())->test(in());
    ASSERT_FALSE(done) << config;
    EXPECT_EQ(done.error().code, Code::failed_precondition);
    EXPECT_THAT(done.error().message, HasSubstr(why));
    EXPECT_FALSE(sink(settings())->deliver(in(), test_events(node_a, 1, 1)));
    call("$JS.API.STREAM.DELETE.dvdi", "");
  }
  done = sink(settings())->test(in());
  EXPECT_TRUE(done) << done.error().text();
  EXPECT_THAT(call("$JS.API.STREAM.INFO.dvdi", ""),
              AllOf(HasSubstr(R"("storage":"file")"), HasSubstr(R"("duplicate_window":600000000000)")));
  EXPECT_EQ(stored(), numbers(1, 0));  // a test delivers nothing
}

TEST_F(NatsSinkTest, TheStreamGoesAway) {
  server_.start();
  const auto to = sink(settings());
  ASSERT_TRUE(to->deliver(in(), test_events(node_a, 1, 1)));
  call("$JS.API.STREAM.DELETE.dvdi", "");
  Status done = to->deliver(in(), test_events(node_a, 2, 2));
  ASSERT_FALSE(done);
  EXPECT_THAT(done.error().message, HasSubstr("no stream takes the subject"));
  // Another stream with our subjects is not ours.
  call("$JS.API.STREAM.CREATE.other", R"({"name":"other","subjects":["dvdi.>"]})");
  NatsSinkSettings wanted = settings();
  wanted.create_stream = false;
  EXPECT_FALSE(sink(wanted)->deliver(in(), test_events(node_a, 2, 2)));
}

TEST_F(NatsSinkTest, ALimitOfTheServerStopsWhatIsTooLargeAndWhatIsBehindIt) {
  server_.start();
  const auto to = sink(settings());
  auto batch = test_events(node_a, 1, 1);
  batch.push_back(test_events(node_a, 1, 2, std::string(1 << 20, 'x')).back());
  batch.push_back(test_events(node_a, 1, 3).back());
  const Status done = to->deliver(in(), batch);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Code::resource_exhausted);
  EXPECT_THAT(done.error().message, AllOf(HasSubstr(node_a + "-2"), HasSubstr("max_payload = 1048576")));
  EXPECT_EQ(stored(), numbers(1, 1));
  // As large as it may be: what size_of() says of the headers is what the server counts.
  NatsSinkSettings plain = settings();
  auto connection = NatsConnection::open(in(), plain);
  ASSERT_TRUE(connection);
  const NatsHeaders headers{{"a", "bc"}};
  const std::string exact((1 << 20) - NatsConnection::size_of(headers), 'x');
  EXPECT_TRUE((*connection)->request(in(), "dvdi.probe.x", headers, exact, "probe"));
  EXPECT_FALSE((*connection)->request(in(), "dvdi.probe.x", headers, exact + "x", "probe"));
}

TEST_F(NatsSinkTest, NobodyThere) {
  server_.start();
  const auto to = sink(settings());
  ASSERT_TRUE(to->deliver(in(), test_events(node_a, 1, 1)));
  server_.kill();
  Status done = to->deliver(in(), test_events(node_a, 2, 2));
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Code::unavailable);
  // One of several is enough.
  NatsServer second;
  second.start();
  NatsSinkSettings both = settings();
  both.url += "," + second.url();
  done = sink(both)->deliver(in(), test_events(node_a, 1, 2));
  EXPECT_TRUE(done) << done.error().text();
}

TEST_F(NatsSinkTest, AServerThatHangsEndsWithTheContext) {
  server_.start();
  const auto to = sink(settings());
  ASSERT_TRUE(to->deliver(in(), test_events(node_a, 1, 1)));
  server_.signal(SIGSTOP);
  Status done = to->deliver(in(milliseconds(100)), test_events(node_a, 2, 2));
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Code::deadline_exceeded);
  EXPECT_EQ(done.error().outcome, Outcome::unknown);
  // Connects to the socket that the kernel still has, and hears nothing.
  done = to->deliver(in(milliseconds(100)), test_events(node_a, 2, 2));
  ASSERT_FALSE(done);
  server_.signal(SIGCONT);
  done = to->deliver(in(), test_events(node_a, 2, 3));
  ASSERT_TRUE(done) << done.error().text();
  EXPECT_EQ(stored(), numbers(1, 3));
}

TEST_F(NatsSinkTest, ACancelledDeliveryEndsWhileItWaits) {
  server_.start();
  const auto to = sink(settings());
  ASSERT_TRUE(to->test(in()));
  server_.signal(SIGSTOP);
  std::stop_source stop;
  std::jthread waiting([&] {
    const Status done = to->deliver(Context().with_stop(stop.get_token()), test_events(node_a, 1, 1));
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code, Code::cancelled);
  });
  stop.request_stop();
  waiting.join();
  server_.signal(SIGCONT);
}

// A server that begins the handshake of TLS and says no more: libnats itself would wait for ever.
TEST_F(NatsSinkTest, AHandshakeThatHangsEndsWithTheContext) {
  const UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): as the socket calls want it
  auto* const raw = reinterpret_cast<sockaddr*>(&address);
  ASSERT_EQ(::bind(listener.get(), raw, size), 0);
  ASSERT_EQ(::listen(listener.get(), 5), 0);
  ASSERT_EQ(::getsockname(listener.get(), raw, &size), 0);
  UniqueFd client;
  std::jthread accepting([&] {
    client.reset(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    constexpr std::string_view info =
        "INFO {\"server_id\":\"x\",\"version\":\"2.9.10\",\"max_payload\":1000,\"headers\":true,"
        "\"tls_required\":true}\r\n";
    EXPECT_EQ(::write(client.get(), info.data(), info.size()), static_cast<ssize_t>(info.size()));
  });
  NatsSinkSettings wanted = settings();
  wanted.url = fmt::format("tls://127.0.0.1:{}", ntohs(address.sin_port));
  const Status done = sink(wanted)->test(in(milliseconds(300)));
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Code::deadline_exceeded) << done.error().text();
}

class NatsReceiver final : public Receiver {
 public:
  NatsReceiver() {
    server_.start();
    settings_.url = server_.url();
    settings_.create_stream = true;
  }
  std::unique_ptr<Sink> sink() override { return *make_nats_sink(settings_); }
  std::vector<std::string> received() override {
    const Context context = Context().with_timeout(seconds(60));
    std::vector<std::string> events;
    auto connection = NatsConnection::open(context, settings_);
    EXPECT_TRUE(connection) << connection.error().text();
    NatsStream stream(**connection, settings_);
    for (std::uint64_t from = 1;;) {
      auto message = stream.next(context, "dvdi.>", from);
      EXPECT_TRUE(message) << message.error().text();
      if (!message || !*message) return events;
      from = (*message)->sequence + 1;
      events.push_back((*message)->payload);
    }
  }
  void break_it() override { server_.kill(); }
  void mend() override { server_.start(); }
  bool can_be_asked() const override { return true; }
  // Of the server's max_payload, which is 1 MiB, the headers take some.
  std::size_t largest() const override { return std::size_t{1000} << 10U; }

 private:
  NatsServer server_;
  NatsSinkSettings settings_;
};

Result<std::unique_ptr<Receiver>> make_nats_receiver() { return std::make_unique<NatsReceiver>(); }

INSTANTIATE_TEST_SUITE_P(Nats, SinkConformance, testing::Values(ReceiverFactory{&make_nats_receiver}));

}  // namespace
}  // namespace dvdi
