#include "daemon.h"

#include <cstdlib>

namespace dvdi_mesos {

namespace {

struct Free {
  void operator()(dvdi_client* client) const { dvdi_client_free(client); }
  void operator()(dvdi_cancellation* cancellation) const { dvdi_cancellation_free(cancellation); }
  void operator()(dvdi_answer* answer) const { dvdi_answer_free(answer); }
};

class LibraryDaemon : public Daemon {
 public:
  LibraryDaemon(std::unique_ptr<dvdi_client, Free> client, std::string where)
      : client_(std::move(client)), where_(std::move(where)) {}

  Reply call(const char* method, const std::string& path, const std::string& body, std::int64_t timeout_ms,
             Cancellation& cancellation) override {
    const std::unique_ptr<dvdi_cancellation, Free> handle(dvdi_cancellation_new());
    dvdi_cancellation* raw = handle.get();
    if (raw != nullptr) cancellation.ended_by([raw] { dvdi_cancel(raw); });
    const std::unique_ptr<dvdi_answer, Free> answer(dvdi_call(client_.get(), method, path.c_str(),
                                                              body.empty() ? nullptr : body.data(),
                                                              body.size(), timeout_ms, raw));
    cancellation.ended_by(nullptr);
    Reply reply;
    reply.code = dvdi_answer_code(answer.get());
    reply.outcome = dvdi_answer_outcome(answer.get());
    if (reply.code != DVDI_OK) reply.text = dvdi_answer_text(answer.get());
    std::size_t size = 0;
    const char* bytes = dvdi_answer_body(answer.get(), &size);
    reply.body.assign(bytes, size);
    return reply;
  }

  std::string where() const override { return where_; }

 private:
  const std::unique_ptr<dvdi_client, Free> client_;
  const std::string where_;
};

}  // namespace

std::unique_ptr<Daemon> connect_daemon(const std::string& socket) {
  std::unique_ptr<dvdi_client, Free> client(dvdi_client_new(socket.empty() ? nullptr : socket.c_str()));
  if (client == nullptr) return nullptr;
  std::string where = socket;
  if (where.empty()) {
    const char* variable = std::getenv("DVDI_SOCKET");  // NOLINT(concurrency-mt-unsafe): once, at the start
    where = variable != nullptr && *variable != '\0' ? variable : "/run/dvdi/dvdid.sock";
  }
  return std::unique_ptr<Daemon>(new LibraryDaemon(std::move(client), std::move(where)));
}

}  // namespace dvdi_mesos
