// Short ways to ask for a request in the tests of this folder.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "spec/request.h"

namespace dvdi::spec {

inline Input of_file(std::string text, std::vector<std::string> command = {"true"}) {
  Input input;
  input.file_text = std::move(text);
  input.file_name = "request.json";
  input.command = std::move(command);
  return input;
}

inline Input of_flags(std::vector<std::string> flags) {
  Input input;
  input.volume_flags = std::move(flags);
  input.command = {"true"};
  return input;
}

inline Input of_environment(std::vector<std::pair<std::string, std::string>> variables) {
  Input input;
  input.environment = std::move(variables);
  input.command = {"true"};
  return input;
}

// The problems, one text each; empty for a request that is accepted.
inline std::vector<std::string> problems_of(const Input& input) {
  std::vector<std::string> texts;
  const auto request = parse_request(input);
  if (request) return texts;
  EXPECT_EQ(request.error().code, Code::invalid_argument);
  EXPECT_FALSE(request.error().attached.empty()) << request.error().text();
  for (const Error& one : request.error().attached) texts.push_back(one.text());
  return texts;
}

inline v1::ContainerRequest accepted(const Input& input) {
  const auto request = parse_request(input);
  if (request) return *request;
  ADD_FAILURE() << request.error().text();
  return {};
}

// The external volumes of an accepted request.
inline std::vector<ExternalVolume> volumes_of(const Input& input) {
  std::vector<ExternalVolume> volumes;
  const v1::ContainerRequest request = accepted(input);
  for (const v1::Volume& volume : request.container_info().volumes()) {
    auto external = external_volume(volume);
    if (!external) {
      ADD_FAILURE() << external.error().text();
    } else if (*external) {
      volumes.push_back(**std::move(external));
    }
  }
  return volumes;
}

inline ExternalVolume only_volume_of(const Input& input) {
  auto volumes = volumes_of(input);
  EXPECT_EQ(volumes.size(), 1U);
  return volumes.size() == 1 ? volumes.front() : ExternalVolume{};
}

}  // namespace dvdi::spec
