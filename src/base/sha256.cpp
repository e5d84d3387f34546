// The functions of one algorithm, which OpenSSL calls deprecated, and not its EVP: that finds the algorithm
// among all others, which takes longer than to hash an event, and brings them all into a program that is
// linked statically.
#define OPENSSL_SUPPRESS_DEPRECATED
#include "base/sha256.h"

#include <openssl/sha.h>

#include <array>

namespace dvdi {

std::string sha256_hex(std::string_view bytes) {
  std::array<unsigned char, SHA256_DIGEST_LENGTH> digest{};
  SHA256_CTX work;
  // None of them can fail with what it is given here.
  SHA256_Init(&work);
  SHA256_Update(&work, bytes.data(), bytes.size());
  SHA256_Final(digest.data(), &work);
  constexpr std::string_view digits = "0123456789abcdef";
  std::string text;
  text.reserve(2 * digest.size());
  for (const unsigned char byte : digest) {
    text += digits[byte >> 4U];
    text += digits[byte & 0xfU];
  }
  return text;
}

}  // namespace dvdi
