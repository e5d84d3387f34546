// The JSON of usage: what is asked, and the report. docs/openapi.yaml has it. Amounts are texts, so that
// nobody reads them as doubles.
#pragma once

#include <functional>
#include <string_view>

#include "base/json.h"
#include "event/usage.h"

namespace dvdi::wire {

// The body of POST /v1/usage, and back; invalid_argument names the member that is wrong.
json::object to_json(const UsageQuery& query);
Result<UsageQuery> usage_query_of(const json::value& body);

// The report as one document on one line, piece by piece: it may be large.
Status write_report(const UsageReport& report, const UsageQuery& query,
                    const std::function<Status(std::string_view)>& write);
Result<UsageReport> usage_report_of(const json::value& value);

// The figures of a report, in the order of JSON and CSV: seconds, GiB-hours, mounts, and with prices what
// each costs and all of it.
std::vector<std::pair<const char*, std::string>> figures(const UsageSum& sum, bool priced);

}  // namespace dvdi::wire
