// Random identifiers and jitter, from the kernel's generator.
#pragma once

#include <cstdint>
#include <string>

namespace dvdi {

std::string random_uuid();  // RFC 4122 version 4, lower case, with hyphens
std::uint64_t random_u64();

// For a simulator: where randomness comes from instead, as 64 bits at a time. Null: from the kernel again.
void install_random(std::uint64_t (*source)());

}  // namespace dvdi
