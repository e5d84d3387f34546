// The tables of the ledger and the numbered migrations that lead to them.
#pragma once

#include "store/database.h"

namespace dvdi {

// The version of the last migration: what `PRAGMA user_version` says of a database that is up to date.
int schema_version();
int ledger_application_id();  // in the header of the database file

// Brings the database up to date, in one transaction. failed_precondition if a younger dvdi has written it.
Status migrate(Connection& connection);
// To what an older dvdi would have made: for tests of the way from there.
Status migrate(Connection& connection, int version);

}  // namespace dvdi
