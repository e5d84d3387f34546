#include <netinet/in.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <vector>

#include "http/client.h"
#include "http/server_test_support.h"

namespace dvdi::http {
namespace {

class Listen : public HttpServer {
 protected:
  static unsigned mode_of(const std::string& path) {
    struct stat status{};
    return ::lstat(path.c_str(), &status) == 0 ? status.st_mode & 07777U : 0;
  }
};

TEST_F(Listen, ThePermissionBitsAreThoseAskedForWhateverTheUmask) {
  const mode_t before = ::umask(0077);
  const auto group = listen_unix(folder_ + "/group", 0660);
  ::umask(0);
  const auto owner = listen_unix(folder_ + "/owner", 0600);
  ::umask(before);
  ASSERT_TRUE(group) << group.error().text();
  ASSERT_TRUE(owner) << owner.error().text();
  EXPECT_EQ(mode_of(folder_ + "/group"), 0660U);
  EXPECT_EQ(mode_of(folder_ + "/owner"), 0600U);
}

TEST_F(Listen, ASocketThatNobodyListensOnIsReplaced) {
  ASSERT_TRUE(listen_unix(socket_path(), 0600));
  EXPECT_FALSE(client().connected());  // the file is still there
  const auto again = listen_unix(socket_path(), 0600);
  ASSERT_TRUE(again) << again.error().text();
  EXPECT_TRUE(client().connected());
}

TEST_F(Listen, ASocketThatSomebodyListensOnIsLeftAlone) {
  const auto first = listen_unix(socket_path(), 0600);
  ASSERT_TRUE(first);
  // Also with a queue that is full.
  ASSERT_EQ(::listen(first->get(), 0), 0);
  for (int i = 0; i < 3; ++i) {
    const auto second = listen_unix(socket_path(), 0600);
    ASSERT_FALSE(second);
    EXPECT_EQ(code_name(second.error().code), code_name(Code::already_exists));
    EXPECT_THAT(second.error().message, testing::HasSubstr(socket_path()));
  }
  EXPECT_EQ(mode_of(socket_path()), 0600U);
}

TEST_F(Listen, WhatIsNoSocketIsLeftAlone) {
  std::ofstream(socket_path()) << "data";
  const auto file = listen_unix(socket_path(), 0600);
  ASSERT_FALSE(file);
  EXPECT_EQ(code_name(file.error().code), code_name(Code::already_exists));
  EXPECT_EQ(std::filesystem::file_size(socket_path()), 4U);
  // Nor is a link followed to what it leads to.
  std::filesystem::create_symlink(socket_path(), folder_ + "/link");
  EXPECT_FALSE(listen_unix(folder_ + "/link", 0600));
  EXPECT_TRUE(std::filesystem::is_symlink(folder_ + "/link"));
}

TEST_F(Listen, APathLongerThanASocketAddressWorks) {
  const std::string deep = folder_ + "/" + std::string(120, 'd');
  ASSERT_EQ(::mkdir(deep.c_str(), 0700), 0);
  auto listening = listen_unix(deep + "/s", 0600);
  ASSERT_TRUE(listening) << listening.error().text();
  EXPECT_EQ(mode_of(deep + "/s"), 0600U);
  auto server = Server::start(std::move(*listening), &echo);
  ASSERT_TRUE(server);
  const auto answer =
      send(Context().with_timeout(std::chrono::seconds(30)), {.unix_socket = deep + "/s"}, {.path = "/long"});
  ASSERT_TRUE(answer) << answer.error().text();
  EXPECT_EQ(answer->body, "GET|/long||");
  server->reset();
  EXPECT_TRUE(listen_unix(deep + "/s", 0600));  // replaces a stale one there too
}

TEST_F(Listen, APathThatCannotBeSaysWhy) {
  const auto nowhere = listen_unix(folder_ + "/no/such", 0600);
  ASSERT_FALSE(nowhere);
  EXPECT_THAT(nowhere.error().message, testing::HasSubstr("No such file or directory"));
  EXPECT_FALSE(listen_unix("", 0600));
}

TEST_F(Listen, AnAddressOfTcpIsANumberAndAPort) {
  for (const char* good : {"127.0.0.1:9799", "[::1]:9799", "0.0.0.0:1", "[::]:65535"})
    EXPECT_TRUE(check_tcp_address(good)) << good;
  for (const char* bad :
       {"", ":9799", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:x", "127.0.0.1:1x",
        "localhost:9799", "::1:9799", "[127.0.0.1]:9799", "[]:1", "127.0.0.1:-1"}) {
    const auto checked = check_tcp_address(bad);
    ASSERT_FALSE(checked) << bad;
    EXPECT_EQ(code_name(checked.error().code), code_name(Code::invalid_argument));
  }
}

TEST_F(Listen, WhoComesOverTcpIsNobody) {
  auto listening = listen_tcp("127.0.0.1:0");
  ASSERT_TRUE(listening) << listening.error().text();
  sockaddr_in address{};
  socklen_t size = sizeof(address);
  ASSERT_EQ(::getsockname(listening->get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  std::uint32_t uid = 0;
  auto server =
      Server::start(std::move(*listening), [&](const Context&, IncomingRequest& request, Answer& answer) {
        uid = request.peer().uid;
        std::ignore = answer.send(200, "text/plain", "hello");
      });
  ASSERT_TRUE(server) << server.error().text();
  const auto answer = send(Context().with_timeout(std::chrono::seconds(60)),
                           {.url = fmt::format("http://127.0.0.1:{}", ntohs(address.sin_port))}, {});
  server->reset();
  ASSERT_TRUE(answer) << answer.error().text();
  EXPECT_EQ(answer->body, "hello");
  EXPECT_EQ(uid, UINT32_MAX);
}

}  // namespace
}  // namespace dvdi::http
