// Clients of a dvdid that prepare containers and clean them up, through libdvdi, as a Mesos agent or a
// scheduler of one's own does.
#include <dvdi/dvdi.h>
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <memory>
#include <string>

#include "measure.h"

namespace {

class Client {
 public:
  explicit Client(const std::string& socket) : client_(dvdi_client_new(socket.c_str())) {}
  ~Client() { dvdi_client_free(client_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  void call(const char* path, const std::string& body) const {
    dvdi_answer* const answer = dvdi_call(client_, "POST", path, body.data(), body.size(), 300'000, nullptr);
    if (dvdi_answer_code(answer) != DVDI_OK) {
      fmt::print(stderr, "{} {}: {}\n", path, body, dvdi_answer_text(answer));
      std::_Exit(1);
    }
    dvdi_answer_free(answer);
  }

 private:
  dvdi_client* client_;
};

std::string container_member(const std::string& id) {
  return R"({"owner":"bench","container_id":{"value":")" + id + R"("}})";
}

// As an agent asks: the sandbox is there, and it is the agent's.
std::string prepare_body(const std::string& id, const std::string& directory, const std::string& driver,
                         const std::string& options, const std::vector<unsigned>& volumes) {
  std::string body = container_member(id);
  body.back() = ',';
  body += fmt::format(
      R"("staged":false,"container_config":{{"directory":"{}","container_info":{{"type":"MESOS","volumes":[)",
      directory);
  for (std::size_t i = 0; i < volumes.size(); ++i) {
    if (i != 0) body += ',';
    body += fmt::format(
        R"({{"container_path":"data{}","mode":"RW","source":{{"type":"DOCKER_VOLUME","docker_volume":)"
        R"({{"driver":"{}","name":"v{}"{}}}}}}})",
        i, driver, volumes[i], options);
  }
  return body + "]}}}";
}

}  // namespace

int main(int argc, char** argv) {
  bench::Rounds how;
  std::string socket, directory, driver = "bench", prefix = "c", options;
  unsigned volumes = 1, each = 1;
  std::uint64_t keep = 0;
  CLI::App app("Prepare and cleanup over and over; prints one line of JSON");
  app.add_option("--socket", socket, "of dvdid")->required();
  app.add_option("--directory", directory, "the sandbox of all containers")->required();
  app.add_option("--driver", driver);
  app.add_option("--options", options, "JSON of the volumes' driver_options");
  app.add_option("--prefix", prefix, "containers are called PREFIX-PID-THREAD-NUMBER");
  app.add_option("--threads", how.threads);
  app.add_option("--volumes", volumes, "how many there are: v0, v1, ...");
  app.add_option("--each", each, "how many a container has");
  app.add_option("--seconds", how.seconds);
  app.add_option("--rounds", how.rounds, "of each thread, instead of --seconds");
  app.add_option(
      "--keep", keep,
      "prepare that many containers and no more; each has the next --each volumes, from the first again "
      "after the last");
  CLI11_PARSE(app, argc, argv);

  // An id that was cleaned up is not taken again: another one each time this program runs.
  prefix += "-" + std::to_string(::getpid());
  if (!options.empty()) options = ",\"driver_options\":" + options;

  const Client client(socket);
  if (keep != 0) {
    how.warm_up = 0;
    std::atomic<std::uint64_t> next{0};
    how.rounds = (keep + how.threads - 1) / how.threads;
    bench::run_rounds(how, [&](unsigned, std::mt19937&) {
      const std::uint64_t number = next++;
      if (number >= keep) return;
      std::vector<unsigned> chosen;
      for (unsigned i = 0; i < each; ++i)
        chosen.push_back(static_cast<unsigned>((number * each + i) % volumes));
      client.call("/v1/prepare",
                  prepare_body(prefix + "-" + std::to_string(number), directory, driver, options, chosen));
    });
    return 0;
  }
  std::vector<std::uint64_t> numbers(how.threads);
  bench::run_rounds(how, [&](unsigned thread, std::mt19937& generator) {
    const std::string id = prefix + "-" + std::to_string(thread) + "-" + std::to_string(numbers[thread]++);
    client.call("/v1/prepare",
                prepare_body(id, directory, driver, options, bench::choose(generator, each, volumes)));
    client.call("/v1/cleanup", container_member(id));
  });
}
