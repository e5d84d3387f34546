// Result<T>: a value or an Error. Folders return it; exceptions do not cross folders.
#pragma once

#include <expected>
#include <utility>

#include "base/error.h"

namespace dvdi {

template <class T>
class [[nodiscard]] Result : public std::expected<T, Error> {
 public:
  using std::expected<T, Error>::expected;
  Result() = default;
  // NOLINTNEXTLINE(google-explicit-constructor): `return Error{…};` is the way to fail.
  Result(Error error) : std::expected<T, Error>(std::unexpect, std::move(error)) {}
};

using Status = Result<void>;

inline std::unexpected<Error> fail(Error error) { return std::unexpected<Error>(std::move(error)); }

}  // namespace dvdi

#define DVDI_CONCAT_(a, b) a##b
#define DVDI_CONCAT(a, b) DVDI_CONCAT_(a, b)

// DVDI_TRY(auto value, function()): value, or return the error from the enclosing function.
#define DVDI_TRY(declaration, expression)                                   \
  auto DVDI_CONCAT(result_, __LINE__) = (expression);                       \
  if (!DVDI_CONCAT(result_, __LINE__))                                      \
    return ::dvdi::fail(std::move(DVDI_CONCAT(result_, __LINE__)).error()); \
  declaration = *std::move(DVDI_CONCAT(result_, __LINE__))

// DVDI_CHECK(function()): for a Status, or a value that is not needed. The name is unique so that a check may
// stand in a lambda inside another check.
#define DVDI_CHECK_NAMED(name, expression)                   \
  do {                                                       \
    auto name = (expression);                                \
    if (!name) return ::dvdi::fail(std::move(name).error()); \
  } while (false)
#define DVDI_CHECK(expression) DVDI_CHECK_NAMED(DVDI_CONCAT(dvdi_status_, __COUNTER__), expression)
