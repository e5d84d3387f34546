#include "dvdi/dvdi.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <limits>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "capi/errors.h"
#include "http/server_test_support.h"

namespace dvdi {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

template <auto free>
struct Free {
  template <class T>
  void operator()(T* handle) const {
    free(handle);
  }
};
using ClientHandle = std::unique_ptr<dvdi_client, Free<dvdi_client_free>>;
using CancellationHandle = std::unique_ptr<dvdi_cancellation, Free<dvdi_cancellation_free>>;

// Takes over an answer and reads all of it.
struct Answer {
  explicit Answer(dvdi_answer* answer) {
    if (answer == nullptr) {
      ADD_FAILURE() << "there is always an answer";
      return;
    }
    std::size_t size = 0;
    const char* bytes = dvdi_answer_body(answer, &size);
    body.assign(bytes, size);
    EXPECT_EQ(bytes[size], '\0');
    EXPECT_EQ(dvdi_answer_body(answer, nullptr), bytes);
    code = dvdi_answer_code(answer);
    status = dvdi_answer_status(answer);
    text = dvdi_answer_text(answer);
    message = dvdi_answer_message(answer);
    driver = dvdi_answer_driver(answer);
    volume = dvdi_answer_volume(answer);
    operation = dvdi_answer_operation(answer);
    attempt = dvdi_answer_attempt(answer);
    hint = dvdi_answer_hint(answer);
    outcome = dvdi_answer_outcome(answer);
    dvdi_answer_free(answer);
  }
  dvdi_code code = DVDI_INTERNAL;
  int status = 0;
  std::string body, text, message, driver, volume, operation, hint;
  unsigned attempt = 0;
  dvdi_outcome outcome = DVDI_OUTCOME_NONE;
};

class CApi : public http::HttpServer {
 protected:
  ~CApi() override { server_.reset(); }  // before what its handler uses
  ClientHandle client() { return ClientHandle(dvdi_client_new(socket_path().c_str())); }
  static Answer get(const ClientHandle& client, const char* path, std::int64_t timeout_ms = 60000,
                    dvdi_cancellation* cancellation = nullptr) {
    return Answer(dvdi_call(client.get(), "GET", path, nullptr, 0, timeout_ms, cancellation));
  }
  static Answer post(const ClientHandle& client, const char* path, std::string_view body) {
    return Answer(dvdi_call(client.get(), "POST", path, body.data(), body.size(), 60000, nullptr));
  }
  // A server that answers `status` and `body` to everything.
  void serve_always(int status, std::string body) {
    serve([status, body = std::move(body)](const Context&, http::IncomingRequest&, http::Answer& answer) {
      std::ignore = answer.send(status, "application/problem+json", body);
    });
  }
  // A server that answers nothing until its client is gone, and counts who waits.
  void serve_never() {
    serve([this](const Context& context, http::IncomingRequest&, http::Answer&) {
      ++waiting_;
      http::wait_until([&] { return context.cancelled(); });
      --waiting_;
    });
  }
  std::atomic<int> waiting_ = 0;
};

TEST(CApiWithoutServer, VersionAndNames) {
  EXPECT_STREQ(dvdi_version(), "0.1.0");
  EXPECT_STREQ(dvdi_code_name(DVDI_OK), "ok");
  EXPECT_STREQ(dvdi_code_name(DVDI_NOT_FOUND), "not_found");
  std::set<std::string> names;
  for (int code = DVDI_OK; code <= DVDI_INTERNAL; ++code)
    names.insert(dvdi_code_name(static_cast<dvdi_code>(code)));
  EXPECT_EQ(names.size(), 17U);
  EXPECT_FALSE(names.contains("unknown"));
  EXPECT_STREQ(dvdi_code_name(static_cast<dvdi_code>(17)), "unknown");
  EXPECT_STREQ(dvdi_code_name(static_cast<dvdi_code>(31)), "unknown");
}

TEST(CApiWithoutServer, EveryCodeAndOutcomeHasItsNumber) {
  for (int code = DVDI_INVALID_ARGUMENT; code <= DVDI_INTERNAL; ++code)
    EXPECT_EQ(to_c(from_c(static_cast<dvdi_code>(code))), code);
  for (int outcome = DVDI_OUTCOME_NONE; outcome <= DVDI_OUTCOME_UNKNOWN; ++outcome)
    EXPECT_EQ(to_c(from_c(static_cast<dvdi_outcome>(outcome))), outcome);
  EXPECT_EQ(to_c(Code::cancelled), DVDI_CANCELLED);
  EXPECT_EQ(to_c(Outcome::refused), DVDI_OUTCOME_REFUSED);
}

TEST(CApiWithoutServer, NullIsTakenEverywhere) {
  dvdi_client_free(nullptr);
  dvdi_cancel(nullptr);
  dvdi_cancellation_free(nullptr);
  dvdi_answer_free(nullptr);
  dvdi_client_set_limits(nullptr, 1, 1);
  EXPECT_EQ(dvdi_client_set_trace_id(nullptr, "x"), DVDI_INVALID_ARGUMENT);
  EXPECT_EQ(dvdi_answer_code(nullptr), DVDI_INVALID_ARGUMENT);
  EXPECT_EQ(dvdi_answer_status(nullptr), 0);
  EXPECT_EQ(dvdi_answer_attempt(nullptr), 0U);
  EXPECT_EQ(dvdi_answer_outcome(nullptr), DVDI_OUTCOME_NONE);
  std::size_t size = 7;
  EXPECT_STREQ(dvdi_answer_body(nullptr, &size), "");
  EXPECT_EQ(size, 0U);
  EXPECT_STREQ(dvdi_answer_body(nullptr, nullptr), "");
  for (const auto& text : {dvdi_answer_text, dvdi_answer_message, dvdi_answer_driver, dvdi_answer_volume,
                           dvdi_answer_operation, dvdi_answer_hint})
    EXPECT_STREQ(text(nullptr), "");
}

TEST_F(CApi, WrongArgumentsAreNotSent) {
  std::atomic<int> calls = 0;
  serve([&](const Context&, http::IncomingRequest&, http::Answer& answer) {
    ++calls;
    std::ignore = answer.send(200, "text/plain", "");
  });
  const ClientHandle ours = client();
  const ClientHandle nowhere(dvdi_client_new(""));
  const std::vector<std::pair<Answer, std::string>> wrong = {
      {Answer(dvdi_call(nullptr, "GET", "/healthz", nullptr, 0, 0, nullptr)), "client is NULL"},
      {Answer(dvdi_call(ours.get(), nullptr, "/healthz", nullptr, 0, 0, nullptr)), "method and path"},
      {Answer(dvdi_call(ours.get(), "GET", nullptr, nullptr, 0, 0, nullptr)), "method and path"},
      {Answer(dvdi_call(ours.get(), "POST", "/v1/x", nullptr, 2, 0, nullptr)), "has no size"},
      {Answer(dvdi_call(ours.get(), "get", "/healthz", nullptr, 0, 0, nullptr)), "not 'get'"},
      {Answer(dvdi_call(ours.get(), "PUT\r\nX: y", "/healthz", nullptr, 0, 0, nullptr)),
       "GET, POST or DELETE"},
      {Answer(dvdi_call(ours.get(), "GET", "/v1/x", "{}", 2, 0, nullptr)), "only a POST"},
      {Answer(dvdi_call(ours.get(), "DELETE", "/v1/x", "{}", 2, 0, nullptr)), "only a POST"},
      {get(ours, "v1/volumes"), "no path"},
      {get(ours, ""), "no path"},
      {get(ours, "/v1/a b"), "no path"},
      {get(ours, "/v1/x HTTP/1.1\r\nX: y"), "no path"},
      {get(nowhere, "/healthz"), "path of the daemon's socket is empty"},
  };
  for (const auto& [answer, text] : wrong) {
    EXPECT_EQ(answer.code, DVDI_INVALID_ARGUMENT) << text;
    EXPECT_EQ(answer.outcome, DVDI_OUTCOME_NOT_SENT) << text;
    EXPECT_EQ(answer.status, 0) << text;
    EXPECT_EQ(answer.body, "") << text;
    EXPECT_THAT(answer.text, HasSubstr(text));
    EXPECT_THAT(answer.message, HasSubstr(text));
  }
  server_.reset();
  EXPECT_EQ(calls, 0);
}

TEST_F(CApi, TheThreeMethodsBringTheirDocument) {
  serve([](const Context& context, http::IncomingRequest& request, http::Answer& answer) {
    const auto body = request.read_all(context, std::size_t{1} << 20U);
    std::ignore =
        answer.send(request.method() == "POST" ? 201 : 200, "text/plain",
                    fmt::format("{}|{}|{}|{}|{}", request.method(), request.path(), request.query(),
                                body ? *body : body.error().text(), request.header("Content-Type")));
  });
  const ClientHandle ours = client();
  const Answer got = get(ours, "/v1/volumes?ask=true");
  EXPECT_EQ(got.code, DVDI_OK) << got.text;
  EXPECT_EQ(got.status, 200);
  EXPECT_EQ(got.body, "GET|/v1/volumes|ask=true||");
  EXPECT_EQ(got.text + got.message + got.driver + got.volume + got.operation + got.hint, "");
  EXPECT_EQ(got.attempt, 0U);
  EXPECT_EQ(got.outcome, DVDI_OUTCOME_NONE);
  const Answer posted = post(ours, "/v1/prepare", R"({"a": 1})");
  EXPECT_EQ(posted.status, 201);
  EXPECT_EQ(posted.body, R"(POST|/v1/prepare||{"a": 1}|application/json)");
  EXPECT_EQ(post(ours, "/v1/x", "").body, "POST|/v1/x|||application/json");
  const Answer removed(dvdi_call(ours.get(), "DELETE", "/v1/volumes/a/b", nullptr, 0, 0, nullptr));
  EXPECT_EQ(removed.body, "DELETE|/v1/volumes/a/b|||");
}

TEST_F(CApi, ABodyWithNulsIsWhole) {
  serve_always(200, std::string("a\0b", 3));
  EXPECT_EQ(get(client(), "/healthz").body, std::string("a\0b", 3));
}

TEST_F(CApi, TheSocketIsGivenOrFromTheEnvironment) {
  serve_echo();
  ASSERT_EQ(::setenv("DVDI_SOCKET", socket_path().c_str(), 1), 0);
  EXPECT_EQ(get(ClientHandle(dvdi_client_new(nullptr)), "/healthz").code, DVDI_OK);
  ASSERT_EQ(::setenv("DVDI_SOCKET", (folder() + "/other").c_str(), 1), 0);
  EXPECT_EQ(get(client(), "/healthz").code, DVDI_OK);
  EXPECT_THAT(get(ClientHandle(dvdi_client_new(nullptr)), "/healthz").message,
              HasSubstr(folder() + "/other"));
  for (const bool empty : {true, false}) {
    ASSERT_EQ(empty ? ::setenv("DVDI_SOCKET", "", 1) : ::unsetenv("DVDI_SOCKET"), 0);
    const Answer answer = get(ClientHandle(dvdi_client_new(nullptr)), "/v1/none-such");
    // Whether or not a daemon runs on this machine.
    if (answer.code == DVDI_UNAVAILABLE) {
      EXPECT_THAT(answer.message, HasSubstr("/run/dvdi/dvdid.sock"));
    }
    EXPECT_NE(answer.code, DVDI_INVALID_ARGUMENT);
  }
}

TEST_F(CApi, NobodyListens) {
  const ClientHandle nobody(dvdi_client_new((folder() + "/none").c_str()));
  const Answer answer = get(nobody, "/healthz");
  EXPECT_EQ(answer.code, DVDI_UNAVAILABLE);
  EXPECT_EQ(answer.outcome, DVDI_OUTCOME_NOT_SENT);
  EXPECT_EQ(answer.status, 0);
  EXPECT_EQ(answer.operation, "dvdid");
  EXPECT_THAT(answer.hint, HasSubstr("is dvdid running?"));
  EXPECT_THAT(answer.text, StartsWith("dvdid: the daemon at " + folder() + "/none is not there"));
}

TEST_F(CApi, ADaemonThatComesBackIsFoundAgain) {
  const ClientHandle ours = client();
  serve_echo();
  EXPECT_EQ(get(ours, "/healthz").code, DVDI_OK);
  server_.reset();
  EXPECT_EQ(get(ours, "/healthz").code, DVDI_UNAVAILABLE);
  serve_echo();
  EXPECT_EQ(get(ours, "/healthz").code, DVDI_OK);
}

TEST_F(CApi, AConnectionThatBreaksLeavesTheOutcomeUnknown) {
  serve([](const Context&, http::IncomingRequest&, http::Answer& answer) {
    std::ignore = answer.start(200, "application/json");
    answer.fail();
  });
  const Answer answer = post(client(), "/v1/prepare", "{}");
  EXPECT_EQ(answer.code, DVDI_UNAVAILABLE);
  EXPECT_EQ(answer.outcome, DVDI_OUTCOME_UNKNOWN);
  EXPECT_EQ(answer.operation, "dvdid");
}

TEST_F(CApi, ErrorsAreTakenApart) {
  const std::string problem =
      R"({"type":"about:blank","title":"driver_error","status":502,"code":"driver_error","message":"it said no",)"
      R"("driver":"rc","volume":"v","operation":"mount","attempt":3,"hint":"ask it","outcome":"refused",)"
      R"("attached":[{"code":"io","message":"and then this"}]})";
  serve_always(502, problem);
  const Answer answer = post(client(), "/v1/prepare", "{}");
  EXPECT_EQ(answer.code, DVDI_DRIVER_ERROR);
  EXPECT_EQ(answer.status, 502);
  EXPECT_EQ(answer.message, "it said no");
  EXPECT_EQ(answer.driver, "rc");
  EXPECT_EQ(answer.volume, "v");
  EXPECT_EQ(answer.operation, "mount");
  EXPECT_EQ(answer.attempt, 3U);
  EXPECT_EQ(answer.hint, "ask it");
  EXPECT_EQ(answer.outcome, DVDI_OUTCOME_REFUSED);
  EXPECT_EQ(answer.body, problem);
  EXPECT_EQ(answer.text,
            "mount of volume 'v' by driver 'rc', attempt 3: it said no (ask it)\n  and then this");
}

TEST_F(CApi, WhatAProblemDoesNotSayIsEmpty) {
  serve_always(404, R"({"code":"not_found","attempt":"many","attached":7})");
  const Answer answer = get(client(), "/v1/containers/x");
  EXPECT_EQ(answer.code, DVDI_NOT_FOUND);
  EXPECT_EQ(answer.message + answer.driver + answer.volume + answer.operation + answer.hint, "");
  EXPECT_EQ(answer.attempt, 0U);
  EXPECT_EQ(answer.outcome, DVDI_OUTCOME_NONE);
}

TEST_F(CApi, ACodeOfAYoungerDaemonIsInternal) {
  serve_always(418, R"({"code":"teapot","message":"m"})");
  const Answer answer = get(client(), "/healthz");
  EXPECT_EQ(answer.code, DVDI_INTERNAL);
  EXPECT_EQ(answer.message, "m");
}

TEST_F(CApi, AnAnswerOfAnotherProgramIsCorrupted) {
  for (const auto* body : {"<html>\x01", "[]", "{}", R"({"code":7})", ""}) {
    serve_always(404, body);
    const Answer answer = get(client(), "/healthz");
    EXPECT_EQ(answer.code, DVDI_CORRUPTED) << body;
    EXPECT_EQ(answer.status, 404);
    EXPECT_EQ(answer.body, "");
    EXPECT_THAT(answer.text, HasSubstr("HTTP status 404"));
    EXPECT_EQ(answer.outcome, DVDI_OUTCOME_UNKNOWN);
    server_.reset();
  }
}

TEST_F(CApi, AnAnswerIsNotLongerThanItsLimit) {
  serve_always(200, std::string(1001, 'x'));
  const ClientHandle ours = client();
  dvdi_client_set_limits(ours.get(), 0, 1000);
  const Answer answer = get(ours, "/v1/volumes");
  EXPECT_EQ(answer.code, DVDI_RESOURCE_EXHAUSTED);
  EXPECT_EQ(answer.outcome, DVDI_OUTCOME_UNKNOWN);
  dvdi_client_set_limits(ours.get(), 0, 1001);
  EXPECT_EQ(get(ours, "/v1/volumes").body.size(), 1001U);
}

TEST_F(CApi, TheLimitIs64MiBWhereNoneIsSet) {
  std::size_t extra = 0;
  serve([&](const Context& context, http::IncomingRequest&, http::Answer& answer) {
    const std::string piece(std::size_t{1} << 20U, 'x');
    if (!answer.start(200, "text/plain")) return;
    for (int i = 0; i < 64; ++i) {
      if (!answer.write(context, piece)) return;
    }
    if (extra > 0) std::ignore = answer.write(context, std::string(extra, 'x'));
  });
  const ClientHandle ours = client();
  dvdi_client_set_limits(ours.get(), 0, 1);
  dvdi_client_set_limits(ours.get(), 0, 0);
  EXPECT_EQ(get(ours, "/v1/volumes").body.size(), std::size_t{64} << 20U);
  extra = 1;
  EXPECT_EQ(get(client(), "/v1/volumes").code, DVDI_RESOURCE_EXHAUSTED);
  server_.reset();  // before what its handler uses
}

TEST_F(CApi, ATimeoutEndsACall) {
  serve_never();
  const Answer answer = get(client(), "/v1/events", 50);
  EXPECT_EQ(answer.code, DVDI_DEADLINE_EXCEEDED);
  EXPECT_EQ(answer.outcome, DVDI_OUTCOME_UNKNOWN);
  EXPECT_EQ(answer.status, 0);
  http::wait_until([&] { return waiting_ == 0; });  // the connection was closed
}

TEST_F(CApi, TheDaemonIsToldHowLongAndForWhom) {
  serve([](const Context&, http::IncomingRequest& request, http::Answer& answer) {
    std::ignore =
        answer.send(200, "text/plain",
                    fmt::format("{}|{}", request.header("Dvdi-Timeout-Ms"), request.header("Dvdi-Trace-Id")));
  });
  const ClientHandle ours = client();
  EXPECT_EQ(get(ours, "/healthz", 0).body, "|");
  EXPECT_EQ(get(ours, "/healthz", -1).body, "|");
  EXPECT_EQ(get(ours, "/healthz", std::numeric_limits<std::int64_t>::min()).body, "|");
  // Less than the client waits, so that its error is here in time.
  EXPECT_EQ(get(ours, "/healthz", 5000).body, "4500|");
  EXPECT_EQ(get(ours, "/healthz", 60000).body, "59000|");
  EXPECT_EQ(get(ours, "/healthz", std::numeric_limits<std::int64_t>::max()).code, DVDI_OK);
  dvdi_client_set_limits(ours.get(), 5000, 0);
  EXPECT_EQ(get(ours, "/healthz", 60000).body, "60000|");
  EXPECT_EQ(get(ours, "/healthz", 1).body, "1|");
  dvdi_client_set_limits(ours.get(), std::numeric_limits<std::int64_t>::max(), 0);
  EXPECT_EQ(get(ours, "/healthz", std::numeric_limits<std::int64_t>::max()).code, DVDI_OK);

  EXPECT_EQ(dvdi_client_set_trace_id(ours.get(), "Trace-1.a_b"), DVDI_OK);
  EXPECT_EQ(get(ours, "/healthz", 0).body, "|Trace-1.a_b");
  for (const std::string& wrong : {std::string("a b"), std::string("a\r\nX: y"), std::string(65, 'a')})
    EXPECT_EQ(dvdi_client_set_trace_id(ours.get(), wrong.c_str()), DVDI_INVALID_ARGUMENT);
  EXPECT_EQ(get(ours, "/healthz", 0).body, "|Trace-1.a_b");
  EXPECT_EQ(dvdi_client_set_trace_id(ours.get(), std::string(64, 'a').c_str()), DVDI_OK);
  EXPECT_EQ(dvdi_client_set_trace_id(ours.get(), nullptr), DVDI_OK);
  EXPECT_EQ(get(ours, "/healthz", 0).body, "|");
}

TEST_F(CApi, WithPatienceTheDaemonsOwnErrorIsWaitedFor) {
  serve([](const Context&, http::IncomingRequest& request, http::Answer& answer) {
    const Context deadline = Context().with_timeout(
        std::chrono::milliseconds(std::stol(std::string(request.header("Dvdi-Timeout-Ms")))));
    http::wait_until([&] { return deadline.remaining() == Duration::zero(); });
    std::ignore = answer.send(504, "application/problem+json",
                              R"({"code":"deadline_exceeded","message":"m","driver":"slow"})");
  });
  const ClientHandle ours = client();
  dvdi_client_set_limits(ours.get(), 60000, 0);
  const Answer answer = get(ours, "/healthz", 20);
  EXPECT_EQ(answer.code, DVDI_DEADLINE_EXCEEDED);
  EXPECT_EQ(answer.status, 504);
  EXPECT_EQ(answer.driver, "slow");
}

TEST_F(CApi, AnotherThreadCancelsAllCallsOfACancellationAndNoOthers) {
  serve_never();
  const ClientHandle ours = client();
  const CancellationHandle cancellation(dvdi_cancellation_new());
  const CancellationHandle other(dvdi_cancellation_new());
  std::vector<Answer> answers;
  std::mutex mutex;
  const auto waits = [&](dvdi_cancellation* by) {
    Answer answer = get(ours, "/v1/events", 0, by);
    const std::scoped_lock lock(mutex);
    answers.push_back(std::move(answer));
  };
  {
    std::jthread last([&] { waits(other.get()); });
    {
      const std::jthread first([&] { waits(cancellation.get()); });
      const std::jthread second([&] { waits(cancellation.get()); });
      http::wait_until([&] { return waiting_ == 3; });
      dvdi_cancel(cancellation.get());
      dvdi_cancel(cancellation.get());
    }
    ASSERT_EQ(answers.size(), 2U);
    for (const Answer& answer : answers) {
      EXPECT_EQ(answer.code, DVDI_CANCELLED);
      EXPECT_EQ(answer.outcome, DVDI_OUTCOME_UNKNOWN);
    }
    // The daemon hears that they are gone; the third still waits.
    http::wait_until([&] { return waiting_ == 1; });
    // One that begins later ends at once.
    const Answer late = get(ours, "/v1/events", 0, cancellation.get());
    EXPECT_EQ(late.code, DVDI_CANCELLED);
    EXPECT_EQ(late.outcome, DVDI_OUTCOME_NOT_SENT);
    dvdi_cancel(other.get());
  }
  EXPECT_EQ(answers.size(), 3U);
}

TEST_F(CApi, ManyThreadsShareAClient) {
  serve_echo();
  const ClientHandle ours = client();
  std::atomic<int> good = 0;
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 8; ++i) {
      threads.emplace_back([&, i] {
        const std::string body = fmt::format("body of thread {}", i);
        for (int n = 0; n < 20; ++n) good += post(ours, "/v1/x", body).body == "POST|/v1/x||" + body ? 1 : 0;
      });
    }
  }
  EXPECT_EQ(good, 160);
}

}  // namespace
}  // namespace dvdi
