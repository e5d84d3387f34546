// The C API where there is no memory: every allocation of a call fails once, on the calling thread alone.
#include <cstdlib>
#include <new>

#include "dvdi/dvdi.h"
#include "http/server_test_support.h"

namespace {

thread_local long allocations_left = -1;  // -1: all succeed

}  // namespace

// Not inlined: GCC 12 would take free() beside a call of new for a mismatch.
[[gnu::noinline]] void* operator new(std::size_t size) {
  if (allocations_left == 0) throw std::bad_alloc();
  if (allocations_left > 0) --allocations_left;
  // NOLINTNEXTLINE(cppcoreguidelines-no-malloc,cppcoreguidelines-owning-memory): this is what new is made of
  void* memory = std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
// NOLINTNEXTLINE(cppcoreguidelines-no-malloc,cppcoreguidelines-owning-memory): see above
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
// NOLINTNEXTLINE(cppcoreguidelines-no-malloc,cppcoreguidelines-owning-memory): see above
[[gnu::noinline]] void operator delete(void* memory, std::size_t /*size*/) noexcept { std::free(memory); }

namespace dvdi {
namespace {

class MemoryTest : public http::HttpServer {};

// How often it failed before it did not any more.
template <class Try>
long each_allocation_fails(Try attempt) {
  for (long allowed = 0;; ++allowed) {
    allocations_left = allowed;
    const bool done = attempt();
    const bool exhausted = allocations_left == 0;
    allocations_left = -1;
    if (!exhausted) {
      EXPECT_TRUE(done) << "after " << allowed << " allocations";
      return allowed;
    }
    // The last one may have been the one that was needed last.
    if (done) return allowed;
  }
}

TEST_F(MemoryTest, ACallSaysThatThereIsNone) {
  const std::string problem =
      R"({"code":"driver_error","message":")" + std::string(200, 'm') +
      R"(","driver":"a driver with a long name","volume":"a volume with a long name",)"
      R"("hint":"do this, and then that","attached":[{"code":"io","message":"x"}]})";
  const std::string long_answer(100000, 'x');
  serve([&](const Context&, http::IncomingRequest& request, http::Answer& answer) {
    if (request.path() == "/ok") std::ignore = answer.send(200, "application/json", long_answer);
    if (request.path() == "/problem") std::ignore = answer.send(502, "application/problem+json", problem);
  });
  dvdi_client* client = dvdi_client_new(socket_path().c_str());
  ASSERT_EQ(dvdi_client_set_trace_id(client, "a-trace-id-that-needs-memory"), DVDI_OK);
  dvdi_cancellation* cancellation = dvdi_cancellation_new();
  const long descriptors = http::entries_of_proc_self("fd");
  for (const auto& [path, expected] : {std::pair("/ok", DVDI_OK), std::pair("/problem", DVDI_DRIVER_ERROR)}) {
    const long failures = each_allocation_fails([&] {
      dvdi_answer* answer = dvdi_call(client, "POST", path, "{}", 2, 60000, cancellation);
      const dvdi_code code = dvdi_answer_code(answer);
      const bool says_something = *dvdi_answer_text(answer) != '\0';
      dvdi_answer_free(answer);
      const long left = allocations_left;
      allocations_left = -1;
      if (code != expected) {
        EXPECT_EQ(code, DVDI_RESOURCE_EXHAUSTED);
        EXPECT_TRUE(says_something);
      }
      allocations_left = left;
      return code == expected;
    });
    EXPECT_GT(failures, 10) << path;
  }
  dvdi_cancellation_free(cancellation);
  dvdi_client_free(client);
  // No call has left its connection open. The server closes its side a moment later.
  http::wait_until([&] { return http::entries_of_proc_self("fd") <= descriptors; });
  server_.reset();  // before what its handler uses
}

TEST_F(MemoryTest, WithoutItThereIsNoHandle) {
  each_allocation_fails([&] {
    dvdi_client* client = dvdi_client_new("/a/path/that/is/too/long/to/be/inside/the/string");
    if (client == nullptr) return false;
    const bool traced = dvdi_client_set_trace_id(client, "a-trace-id-that-needs-memory") == DVDI_OK;
    dvdi_client_free(client);
    return traced;
  });
  each_allocation_fails([] {
    dvdi_cancellation* cancellation = dvdi_cancellation_new();
    const bool made = cancellation != nullptr;
    dvdi_cancellation_free(cancellation);
    return made;
  });
}

}  // namespace
}  // namespace dvdi
