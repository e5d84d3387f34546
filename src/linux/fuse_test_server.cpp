#include "linux/fuse_test_server.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace dvdi {

std::unique_ptr<FuseTestServer> FuseTestServer::mount(const std::string& at, const std::string& source) {
  UniqueFd device(::open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK));
  if (!device) return nullptr;
  const std::string options = fmt::format("fd={},rootmode=40000,user_id=0,group_id=0", device.get());
  if (::mount(source.c_str(), at.c_str(), "fuse.test", MS_NOSUID | MS_NODEV, options.c_str()) != 0) {
    return nullptr;
  }
  return std::unique_ptr<FuseTestServer>(new FuseTestServer(std::move(device)));
}

FuseTestServer::FuseTestServer(UniqueFd device)
    : device_(std::move(device)),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      thread_([this] { serve(); }) {}

FuseTestServer::~FuseTestServer() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  ::eventfd_write(wake_.get(), 1);
  thread_.join();
}

void FuseTestServer::become(Manner manner) {
  std::vector<std::uint64_t> held;
  {
    const std::lock_guard lock(mutex_);
    manner_ = manner;
    if (manner == Manner::answers) held.swap(held_);
  }
  for (const std::uint64_t unique : held) answer_attributes(unique);
  ::eventfd_write(wake_.get(), 1);
}

void FuseTestServer::hold() { become(Manner::holds); }
void FuseTestServer::ignore() { become(Manner::ignores); }
void FuseTestServer::answer() { become(Manner::answers); }

void FuseTestServer::serve() {
  for (;;) {
    bool reads = true;
    {
      const std::lock_guard lock(mutex_);
      if (stop_) return;
      reads = manner_ != Manner::ignores;
    }
    std::array<pollfd, 2> events{pollfd{.fd = wake_.get(), .events = POLLIN, .revents = 0},
                                 pollfd{.fd = reads ? device_.get() : -1, .events = POLLIN, .revents = 0}};
    if (::poll(events.data(), events.size(), -1) < 0) continue;
    eventfd_t count = 0;
    if (events[0].revents != 0) {
      ::eventfd_read(wake_.get(), &count);
      continue;  // the manner may be another
    }
    if ((events[1].revents & POLLERR) != 0) return;  // unmounted
    serve_one();
  }
}

void FuseTestServer::serve_one() {
  alignas(fuse_in_header) std::array<char, 262'144> buffer;
  const ssize_t got = ::read(device_.get(), buffer.data(), buffer.size());
  if (got < static_cast<ssize_t>(sizeof(fuse_in_header))) return;
  fuse_in_header header{};
  std::memcpy(&header, buffer.data(), sizeof header);
  switch (header.opcode) {
    case FUSE_INIT: {
      fuse_init_out out{};
      out.major = FUSE_KERNEL_VERSION;
      out.minor = FUSE_KERNEL_MINOR_VERSION;
      out.max_write = 4096;
      out.time_gran = 1;
      reply(header.unique, 0, &out, sizeof out);
      return;
    }
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT:
      return;
    case FUSE_GETATTR: {
      {
        const std::lock_guard lock(mutex_);
        ++requests_;
        if (manner_ == Manner::holds) {
          held_.push_back(header.unique);
          return;
        }
      }
      answer_attributes(header.unique);
      return;
    }
    default:
      ++requests_;
      reply(header.unique, -ENOSYS, nullptr, 0);
  }
}

void FuseTestServer::answer_attributes(std::uint64_t unique) {
  if (const int error = error_; error != 0) {
    reply(unique, -error, nullptr, 0);
    return;
  }
  fuse_attr_out out{};
  out.attr_valid = 3600;  // the kernel may remember them
  out.attr.ino = 1;
  out.attr.mode = S_IFDIR | 0755;
  out.attr.nlink = 2;
  reply(unique, 0, &out, sizeof out);
}

void FuseTestServer::reply(std::uint64_t unique, int error, const void* body, std::size_t size) {
  fuse_out_header header{
      .len = static_cast<std::uint32_t>(sizeof(fuse_out_header) + size), .error = error, .unique = unique};
  std::array<iovec, 2> parts{iovec{.iov_base = &header, .iov_len = sizeof header},
                             iovec{.iov_base = const_cast<void*>(body), .iov_len = size}};
  // The one who asked may be gone: then the kernel refuses the answer.
  static_cast<void>(!::writev(device_.get(), parts.data(), size == 0 ? 1 : 2));
}

}  // namespace dvdi
