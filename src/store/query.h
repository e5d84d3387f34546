// What a statement finds, as rows. Only for this folder.
#pragma once

#include <SQLiteCpp/SQLiteCpp.h>

#include <optional>
#include <string_view>
#include <vector>

#include "store/database.h"

namespace dvdi {

template <class Row>
Result<std::vector<Row>> all(std::string_view what, SQLite::Statement& statement,
                             Row (*read)(SQLite::Statement&)) {
  return guarded(what, [&] {
    std::vector<Row> rows;
    while (statement.executeStep()) rows.push_back(read(statement));
    return rows;
  });
}

template <class Row>
Result<std::optional<Row>> one(std::string_view what, SQLite::Statement& statement,
                               Row (*read)(SQLite::Statement&)) {
  return guarded(what, [&] {
    std::optional<Row> row;
    if (statement.executeStep()) row = read(statement);
    statement.reset();
    return row;
  });
}

// Whether it finds a row.
inline Result<bool> any(std::string_view what, SQLite::Statement& statement) {
  return guarded(what, [&] {
    const bool found = statement.executeStep();
    statement.reset();
    return found;
  });
}

}  // namespace dvdi
