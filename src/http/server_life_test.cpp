// Beginnings and ends: clients that go, a server that stops, and what is left of both.
#include <atomic>
#include <semaphore>
#include <vector>

#include "base/sync.h"
#include "http/client.h"
#include "http/server_test_support.h"

namespace dvdi::http {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

// A handler that works until its context ends or the test lets it go on.
class Work {
 public:
  Handler handler() {
    return [this](const Context& context, IncomingRequest& request, Answer& answer) {
      const bool returns_at_once = request.path() == "/at-once";
      if (!returns_at_once) {
        Lock lock(mutex_);
        ++started_;
        changed_.notify_all();
        const auto waited = changed_.wait(context, lock, [this] { return go_on_; }, "work");
        if (!waited && waited.error().code == Code::cancelled) ++cancelled_;
        changed_.notify_all();
      }
      std::ignore =
          answer.send(context.cancelled() ? 503 : 200, "", context.cancelled() ? "cancelled" : "done");
    };
  }
  void go_on() {
    const Lock lock(mutex_);
    go_on_ = true;
    changed_.notify_all();
  }
  void wait_for_started(int count) {
    Lock lock(mutex_);
    std::ignore = changed_.wait(Context(), lock, [&] { return started_ >= count; }, "wait");
  }
  void wait_for_cancelled(int count) {
    Lock lock(mutex_);
    std::ignore = changed_.wait(Context(), lock, [&] { return cancelled_ >= count; }, "wait");
  }
  int cancelled() {
    const Lock lock(mutex_);
    return cancelled_;
  }

 private:
  Mutex mutex_;
  Condition changed_;
  bool go_on_ = false;
  int started_ = 0;
  int cancelled_ = 0;
};

TEST_F(HttpServer, WorkIsCancelledWhenItsClientHasClosed) {
  Work work;
  auto& server = serve(work.handler());
  auto one = client();
  one.say(whole_request);
  work.wait_for_started(1);
  one.close();
  work.wait_for_cancelled(1);  // for ever, if nobody notices
  wait_until([&] { return server.connections() == 0; });
}

TEST_F(HttpServer, AClientThatHasOnlyFinishedSendingGetsItsAnswer) {
  Work work;
  serve(work.handler());
  auto patient = client();
  patient.say(whole_request);
  work.wait_for_started(1);
  patient.end_of_sending();
  // One that closes after it: once that has been noticed, so has the half-close before it.
  auto gone = client();
  gone.say(whole_request);
  work.wait_for_started(2);
  gone.close();
  work.wait_for_cancelled(1);
  EXPECT_EQ(work.cancelled(), 1);
  work.go_on();
  EXPECT_THAT(patient.rest(), AllOf(StartsWith("HTTP/1.1 200 "), EndsWith("done")));
}

TEST_F(HttpServer, TheSecondRequestOfAConnectionIsCancelledToo) {
  Work work;
  serve(work.handler());
  auto one = client();
  one.say("GET /at-once HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(one.answer().second, "done");
  one.say(whole_request);
  work.wait_for_started(1);
  one.close();
  work.wait_for_cancelled(1);
}

TEST_F(HttpServer, WhatWasSentBeforeTheClientClosedIsStillDone) {
  std::binary_semaphore done(0);
  std::string body;
  serve([&](const Context& context, IncomingRequest& request, Answer& answer) {
    body = request.read_all(context, 100).value_or("?");
    wait_until([&] { return context.cancelled(); });  // it is told, and decides
    EXPECT_FALSE(answer.send(200, "", "nobody hears this") && answer.write(context, "x"));
    done.release();
  });
  auto one = client();
  one.say("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
  one.close();
  done.acquire();
  EXPECT_EQ(body, "hello");
}

TEST_F(HttpServer, WorkForAClientThatWentBeforeItBeganIsCancelledFromTheBeginning) {
  std::atomic<int> cancelled = 0;
  serve([&](const Context& context, IncomingRequest&, Answer&) {
    wait_until([&] { return context.cancelled(); });
    ++cancelled;
  });
  // Often enough that some close before their handler is called, and some after.
  for (int i = 1; i <= 100; ++i) {
    auto one = client();
    one.say(whole_request);
    one.close();
    wait_until([&] { return cancelled == i; });
  }
}

TEST_F(HttpServer, TheEndOfTheServerCancelsWhatRunsAndSaysSo) {
  Work work;
  serve(work.handler());
  auto running = client();
  running.say(whole_request);
  auto idle = client();
  auto half = client();
  half.say("GET / HT");
  work.wait_for_started(1);
  server_.reset();
  EXPECT_EQ(work.cancelled(), 1);
  EXPECT_THAT(running.rest(),
              AllOf(StartsWith("HTTP/1.1 503 "), HasSubstr("Connection: close\r\n"), EndsWith("cancelled")));
  EXPECT_EQ(idle.rest(), "");
  EXPECT_EQ(half.rest(), "");
}

TEST_F(HttpServer, TheEndOfTheServerEndsWaitsOfContextsThatKnowNothingOfIt) {
  std::counting_semaphore<> started(0);
  std::vector<Code> codes;
  std::mutex mutex;
  serve([&](const Context&, IncomingRequest& request, Answer& answer) {
    started.release();
    Status status;
    if (request.method() == "POST") {
      const auto piece = request.read(Context(), 100);
      if (!piece) status = fail(piece.error());
    } else {
      status = answer.start(200, "");
      const std::string much(100000, 'x');
      while (status) status = answer.write(Context(), much);
    }
    const std::lock_guard lock(mutex);
    codes.push_back(status ? Code{} : status.error().code);
  });
  auto silent = client();
  silent.say("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n");
  auto deaf = client();
  deaf.say(whole_request);
  started.acquire();
  started.acquire();
  server_.reset();
  EXPECT_THAT(codes, testing::ElementsAre(Code::cancelled, Code::cancelled));
}

TEST_F(HttpServer, DrainingLetsWhatRunsEnd) {
  Work work;
  auto& server = serve(work.handler());
  auto idle = client();
  auto running = client();
  running.say(whole_request);
  work.wait_for_started(1);
  std::stop_source impatient;
  impatient.request_stop();
  EXPECT_FALSE(server.drain(Context().with_stop(impatient.get_token())));
  EXPECT_EQ(idle.rest(), "");
  EXPECT_TRUE(idle.at_end());
  wait_until([&] { return !client().connected(); });
  EXPECT_EQ(work.cancelled(), 0);
  std::jthread drains([&] { EXPECT_TRUE(server.drain(Context())); });
  work.go_on();
  EXPECT_THAT(running.rest(),
              AllOf(StartsWith("HTTP/1.1 200 "), HasSubstr("Connection: close\r\n"), EndsWith("done")));
  drains.join();
  EXPECT_EQ(server.connections(), 0U);
  EXPECT_TRUE(server.drain(Context()));  // once more is no matter
}

TEST_F(HttpServer, ARequestThatHadComeBeforeTheDrainIsAnswered) {
  Work work;
  auto& server = serve(work.handler(), {.connections = 1000});
  std::vector<RawClient> clients;
  for (int i = 0; i < 20; ++i) {
    clients.push_back(client());
    ASSERT_TRUE(clients.back().say("GET /at-once HTTP/1.1\r\nHost: x\r\n\r\n"));
  }
  EXPECT_TRUE(server.drain(Context()));
  for (RawClient& one : clients) EXPECT_THAT(one.rest(), EndsWith("done"));
}

TEST_F(HttpServer, ThreadsAndDescriptorsReturnToWhereTheyWere) {
  const long tasks_before = entries_of_proc_self("task");
  const long descriptors_before = entries_of_proc_self("fd");
  auto& server = serve_echo();
  wait_until([&] { return entries_of_proc_self("task") == tasks_before + 1; });
  const long descriptors_idle = entries_of_proc_self("fd");
  {
    std::vector<RawClient> clients;
    for (int i = 0; i < 50; ++i) {
      clients.push_back(client());
      clients.back().say(i % 2 == 0 ? whole_request : "GET / HT");
    }
    wait_until([&] { return server.connections() == 50; });
  }
  wait_until([&] { return entries_of_proc_self("task") == tasks_before + 1; });
  wait_until([&] { return entries_of_proc_self("fd") == descriptors_idle; });
  EXPECT_EQ(server.connections(), 0U);
  server_.reset();
  wait_until([&] { return entries_of_proc_self("task") == tasks_before; });
  EXPECT_EQ(entries_of_proc_self("fd"), descriptors_before);
}

// Each client makes `requests` requests on one connection.
void run_clients(const std::string& path, int clients, int requests, std::atomic<int>& answered) {
  std::vector<std::jthread> threads;
  for (int i = 0; i < clients; ++i) {
    threads.emplace_back([&path, &answered, i, requests] {
      RawClient one(path);
      for (int j = 0; j < requests; ++j) {
        const std::string body = fmt::format("{}-{}", i, j);
        if (!one.say(fmt::format("POST /{} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{}", i,
                                 body.size(), body))) {
          return;
        }
        if (one.answer().second == fmt::format("POST|/{}||{}", i, body)) ++answered;
      }
    });
  }
}

TEST_F(HttpServer, ManyClientsAtOnceEachGetTheirOwnAnswers) {
  serve_echo();
  for (const int clients : {64, 200}) {
    std::atomic<int> answered = 0;
    run_clients(socket_path(), clients, 20, answered);
    EXPECT_EQ(answered, clients * 20) << clients;
  }
}

TEST_F(HttpServer, ManyOfOurOwnClientsAtOnce) {
  serve_echo();
  std::atomic<int> answered = 0;
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 64; ++i) {
      threads.emplace_back([&, i] {
        for (int j = 0; j < 5; ++j) {
          const auto answer =
              send(Context().with_timeout(std::chrono::seconds(60)), {.unix_socket = socket_path()},
                   {.method = Method::post, .path = "/x", .body = std::to_string(i)});
          if (answer && answer->body == fmt::format("POST|/x||{}", i)) ++answered;
        }
      });
    }
  }
  EXPECT_EQ(answered, 64 * 5);
}

TEST_F(HttpServer, ClientsThatComeAndGoWhileTheServerStops) {
  for (int round = 0; round < 20; ++round) {
    serve_echo();
    std::atomic<int> answered = 0;
    std::jthread clients([&] { run_clients(socket_path(), 8, 50, answered); });
    wait_until([&] { return answered > 8; });
    server_.reset();
  }
}

TEST_F(HttpServer, AStreamIsReadByOurOwnClientUntilItHasEnough) {
  std::atomic<bool> ended = false;
  auto& server = serve([&](const Context& context, IncomingRequest&, Answer& answer) {
    Status status = answer.start(200, "application/x-ndjson");
    for (int i = 0; status; ++i) {
      status = answer.write(context, fmt::format("{}\n", i));
      if (i == 2) status = pause(context, hours(1), "wait for something to tell");
    }
    ended = true;
  });
  std::string seen;
  const auto answer = stream(Context().with_timeout(std::chrono::seconds(30)), {.unix_socket = socket_path()},
                             {}, {}, [&](std::string_view piece) {
                               seen += piece;
                               return !seen.ends_with("2\n");
                             });
  ASSERT_TRUE(answer) << answer.error().text();
  EXPECT_EQ(seen, "0\n1\n2\n");
  wait_until([&] { return server.connections() == 0; });
  EXPECT_TRUE(ended);
}

}  // namespace
}  // namespace dvdi::http
