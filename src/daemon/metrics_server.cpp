#include "daemon/metrics_server.h"

#include "base/json.h"

namespace dvdi {

namespace {

// For a Prometheus or two, and somebody with curl.
constexpr http::ServerLimits limits{.connections = 32,
                                    .connections_of_user = 32,
                                    .header_bytes = std::size_t{8} << 10U,
                                    .header_timeout = std::chrono::seconds(5),
                                    .body_timeout = std::chrono::seconds(5),
                                    .write_timeout = std::chrono::seconds(10),
                                    .idle_timeout = std::chrono::minutes(2)};
// Prometheus gives up after ten seconds by default.
constexpr Duration longest_scrape = std::chrono::seconds(9);

}  // namespace

Result<std::unique_ptr<http::Server>> serve_metrics(
    const std::string& address, const std::string& version,
    std::function<Result<std::string>(const Context&)> metrics) {
  DVDI_TRY(UniqueFd socket, http::listen_tcp(address));
  const std::string health = json::serialize(json::object{{"status", "ok"}, {"version", version}}) + "\n";
  return http::Server::start(
      std::move(socket),
      [metrics = std::move(metrics), health](const Context& context, http::IncomingRequest& request,
                                             http::Answer& answer) {
        // Who has gone does not read what is answered.
        if (request.method() != "GET" && request.method() != "HEAD") {
          std::ignore = answer.send(405, "text/plain", "only GET is known here\n");
        } else if (request.path() == "/healthz") {
          std::ignore = answer.send(200, "application/json", health);
        } else if (request.path() != "/metrics") {
          std::ignore = answer.send(404, "text/plain", "there are /metrics and /healthz\n");
        } else if (const auto text = metrics(context.with_timeout(longest_scrape)); text) {
          std::ignore = answer.send(200, metrics_type, *text);
        } else {
          std::ignore = answer.send(503, "text/plain", text.error().text() + "\n");
        }
      },
      limits);
}

}  // namespace dvdi
