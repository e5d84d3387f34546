// The parts of a request target that a program on this node sends or gets (RFC 3986).
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace dvdi::http {

// Every byte but letters, digits and -._~ as %XX: fit for one segment of a path and for a value of a query.
std::string percent_encode(std::string_view text);

// The segments of a path, decoded: /v1/containers/%2Fvar/x is {"v1", "containers", "/var", "x"}.
// invalid_argument for a path that does not begin with `/`, an escape that is none, or a NUL. A trailing `/`
// is one empty segment.
Result<std::vector<std::string>> split_path(std::string_view path);

// The names and values of a query, decoded. A name without `=` has the value "". invalid_argument for a name
// that comes twice, or more than 64 of them.
Result<std::map<std::string, std::string>> parse_query(std::string_view query);

}  // namespace dvdi::http
