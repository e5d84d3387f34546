// For tests: protobuf's bytes of single fields, which are a message when they follow each other.
#pragma once

#include <google/protobuf/unknown_field_set.h>

#include <string>

namespace dvdi_mesos {

inline std::string bytes_of(const google::protobuf::UnknownFieldSet& fields) {
  std::string bytes;
  return fields.SerializeToString(&bytes) ? bytes : std::string();
}

inline std::string field(int number, const std::string& value) {
  google::protobuf::UnknownFieldSet fields;
  fields.AddLengthDelimited(number, value);
  return bytes_of(fields);
}

inline std::string number_field(int number, std::uint64_t value) {
  google::protobuf::UnknownFieldSet fields;
  fields.AddVarint(number, value);
  return bytes_of(fields);
}

}  // namespace dvdi_mesos
