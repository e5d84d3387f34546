#include "spec/recover_reader.h"

#include <fmt/format.h>

#include "spec/request_test_support.h"

namespace dvdi::spec {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

// What came out, in order, and how it ended.
std::vector<std::string> read_all(std::string_view text, std::size_t piece) {
  std::vector<std::string> out;
  RecoverReader reader({}, {.container = [&](ContainerState state) -> Status {
                              out.push_back(fmt::format("container {} {}", state.id, state.pid));
                              return {};
                            },
                            .orphan = [&](const std::string& id) -> Status {
                              out.push_back("orphan " + id);
                              return {};
                            }});
  for (std::size_t at = 0; at < text.size(); at += piece) {
    if (!reader.feed(text.substr(at, piece))) break;  // finish() tells
  }
  const auto head = reader.finish();
  out.push_back(
      head ? fmt::format("owner {} work_dir {} complete {}", head->owner, head->work_dir, head->complete)
           : head.error().text());
  return out;
}

// In one piece and byte by byte it must be the same.
std::vector<std::string> read_all(std::string_view text) {
  const auto whole = read_all(text, text.size() + 1);
  EXPECT_EQ(read_all(text, 1), whole) << text;
  EXPECT_EQ(read_all(text, 7), whole) << text;
  return whole;
}

std::string ending(std::string_view text) { return read_all(text).back(); }

constexpr std::string_view head = R"({"owner": "/w", "work_dir": "/w", "complete": true})";

TEST(RecoverReader, Lines) {
  EXPECT_THAT(read_all(std::string(head) + R"(
{"container": {"container_id": {"value": "a"}, "pid": 7}}

  {"orphan": {"value": "b", "parent": {"value": "c"}}}  )"),
              ElementsAre("container a 7", "orphan c.b", "owner /w work_dir /w complete true"));
  EXPECT_THAT(read_all(head), ElementsAre("owner /w work_dir /w complete true"));
  EXPECT_THAT(read_all(R"({"owner": "/w"})"), ElementsAre("owner /w work_dir  complete false"));
}

TEST(RecoverReader, OneDocumentInAnyOrder) {
  EXPECT_THAT(
      read_all(R"(
{
  "orphans": [ {"value": "o]"} , {"value": "p\\\""}],
  "x": {"containers": [1], "y": "}"},
  "containers": [
    {"container_id": {"value": "a"}, "pid": 7, "resources": [[{}]]},
    {"container_id": {"value": "b"}}
  ],
  "owner": "containers",
  "complete": true
}
)"),
      ElementsAre("orphan o]", StartsWith("the recover call, line 3: the container id cannot be used")));
  EXPECT_THAT(
      read_all(R"({"orphans": [ {"value": "o]"} , {"value": "p}\""}], "x": {"containers": [1], "y": "}"},
  "containers": [
    {"container_id": {"value": "a"}, "pid": 7, "resources": [[{}]]},
    {"container_id": {"value": "b"}}
  ], "owner": "containers", "complete": true})"),
      ElementsAre("orphan o]", "orphan p}\"", "container a 7", "container b 0",
                  "owner containers work_dir  complete true"));
  EXPECT_THAT(read_all(R"({"owner": "/w", "containers": [], "orphans": []})"),
              ElementsAre("owner /w work_dir  complete false"));
}

TEST(RecoverReader, ErrorsNameTheLine) {
  const std::string start = std::string(head) + "\n";
  const std::string good = R"({"orphan": {"value": "a"}})"
                           "\n";
  EXPECT_THAT(ending(start + good + "{nonsense\n"), StartsWith("the recover call, line 3: it is not JSON"));
  EXPECT_THAT(ending(start + good + "{\"orphan\": {}}\n"),
              AllOf(StartsWith("the recover call, line 3: "), HasSubstr("container_id.value")));
  EXPECT_THAT(ending(start + good + "{\"container\": {}}\n"),
              AllOf(StartsWith("the recover call, line 3: "), HasSubstr("container_id: is missing")));
  EXPECT_THAT(ending(start + "{\"containers\": []}\n"), StartsWith("the recover call, line 2: a line after"));
  EXPECT_THAT(ending(start + R"({"orphan": {"value": "a"}, "container": {}})"),
              HasSubstr("line 2: a line after"));
  EXPECT_THAT(ending(start + "7"), HasSubstr("line 2: a line after"));
  EXPECT_THAT(ending("{\"owner\": \"/w\",\n\"orphans\": [\n{\"value\": 1}\n]}"),
              StartsWith("the recover call, line 3: "));
}

TEST(RecoverReader, BrokenDocuments) {
  EXPECT_THAT(ending(""), HasSubstr("it is empty"));
  EXPECT_THAT(ending(" \n "), HasSubstr("it is empty"));
  EXPECT_THAT(ending("[]"), HasSubstr("an object is expected"));
  EXPECT_THAT(ending(R"({"owner": "/w", "orphans": [{"value": "a"})"), HasSubstr("ends in the middle"));
  EXPECT_THAT(ending(R"({"owner": "/w)"), HasSubstr("ends in the middle"));
  EXPECT_THAT(ending(R"({"owner": "/w", "orphans": []} {"orphan": {"value": "a"}})"),
              HasSubstr("something follows"));
  EXPECT_THAT(ending(R"({"owner": "/w", "orphans": [], "orphans": []})"),
              HasSubstr("orphans is there twice"));
  EXPECT_THAT(ending(R"({"owner": "/w", "orphans": [,]})"), HasSubstr("a comma too many"));
  EXPECT_THAT(ending(R"({"owner": "/w", "orphans": [{"value": "a"},]})"), HasSubstr("a comma too many"));
  EXPECT_THAT(ending(R"({"owner": "/w", "orphans": [}]})"), HasSubstr("a bracket is closed"));
  EXPECT_THAT(ending(R"({"owner": "/w", "orphans": [{"value": "a"} {"value": "b"}]})"),
              HasSubstr("not JSON"));
  EXPECT_THAT(ending(R"({"owner": "/w", "orphan\u0073": [{"value": "a"}]})"),
              HasSubstr("orphans: is no array that can be read here"));
  EXPECT_THAT(ending(R"({"owner": "/w", "containers": {}})"), HasSubstr("containers: is no array"));
  EXPECT_THAT(ending(R"({"owner" "/w"})"), HasSubstr("is not JSON"));
}

TEST(RecoverReader, TheHeadIsChecked) {
  EXPECT_THAT(ending("{}"), HasSubstr("owner: is required"));
  EXPECT_THAT(
      ending(R"({"owner": 7, "work_dir": "rel", "complete": 1})"),
      AllOf(HasSubstr("3 problems"), HasSubstr("owner: is a number"),
            HasSubstr("work_dir: the work directory must be absolute"), HasSubstr("complete: is a number")));
  EXPECT_THAT(ending(R"({"owner": ")" + std::string(5000, 'x') + "\"}"), HasSubstr("owner: is longer"));
}

TEST(RecoverReader, MemoryIsBounded) {
  const std::string filler(max_recover_entry_bytes + 1, 'x');
  EXPECT_THAT(read_all(std::string(head) + "\n" + filler, 4096).back(),
              HasSubstr("line 2: is longer than 1048576 bytes"));
  EXPECT_THAT(read_all("{\"" + filler, 4096).back(), HasSubstr("line 1: is longer than 1048576 bytes"));
  EXPECT_THAT(read_all("{\"orphans\": [\n\"" + filler, 4096).back(),
              HasSubstr("line 2: is longer than 1048576 bytes"));
}

TEST(RecoverReader, AReceiverCanEndIt) {
  int calls = 0;
  const auto refuse = [&]() -> Status {
    ++calls;
    return Error{.code = Code::io, .message = "full"};
  };
  RecoverReader reader({}, {.container = [&](const ContainerState&) { return refuse(); },
                            .orphan = [&](const std::string&) { return refuse(); }});
  const auto fed = reader.feed(std::string(head) +
                               "\n{\"orphan\": {\"value\": \"a\"}}\n{\"orphan\": {\"value\": \"b\"}}\n");
  ASSERT_FALSE(fed);
  EXPECT_EQ(fed.error().message, "full");
  EXPECT_EQ(reader.feed("x").error().message, "full");
  EXPECT_EQ(reader.finish().error().message, "full");
  EXPECT_EQ(calls, 1);
}

TEST(RecoverReader, MoreEntriesThanAllowed) {
  std::size_t seen = 0;
  RecoverReader reader({}, {.container = [](const ContainerState&) { return Status(); },
                            .orphan =
                                [&](const std::string&) {
                                  ++seen;
                                  return Status();
                                }});
  ASSERT_TRUE(reader.feed("{\"orphans\":["));
  std::string many;
  for (int i = 0; i < 1000; ++i) many += "\"a\",";
  Status fed;
  for (std::size_t i = 0; i <= max_recover_entries / 1000 && fed; ++i) fed = reader.feed(many);
  ASSERT_FALSE(fed);
  EXPECT_THAT(fed.error().message, HasSubstr("more than 1000000"));
  EXPECT_EQ(seen, max_recover_entries);
}

}  // namespace
}  // namespace dvdi::spec
