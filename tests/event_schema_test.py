#!/usr/bin/env python3
"""docs/events.schema.json knows exactly the types of the catalogue in docs/events.md, each type names the members that
the catalogue does, and the examples of the page are events as it says.

    event_schema_test.py ROOT

The end-to-end tests hold each event that they see against the schema.
"""
import json
import pathlib
import re
import sys

import jsonschema

ROW = re.compile(r"^\| `(dvdi\.[a-z]+\.[a-z_]+)` \|(.*)\|(.*)\|$")


def main():
    docs = pathlib.Path(sys.argv[1]) / "docs"
    schema = json.loads((docs / "events.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    page = (docs / "events.md").read_text(encoding="utf-8")
    types = schema["$defs"]["types"]
    problems = []
    rows = {match[1]: match[3] for match in map(ROW.match, page.splitlines()) if match}
    if set(rows) != set(types) or set(types) != set(schema["properties"]["type"]["enum"]):
        problems.append(f"in one of catalogue and schema only: {sorted(set(rows) ^ set(types))}")
    if [one["if"]["properties"]["type"]["const"] for one in schema["allOf"]] != list(types):
        problems.append("allOf does not choose among all types")
    for name, row in rows.items():
        for member in re.findall(r"`([a-z_]+)`", row):
            known = types.get(name, {}).get("properties", {})
            if member in schema["$defs"]["members"] and member not in known:
                problems.append(f"{name}: the catalogue has {member}, the schema has not")
    for one in schema["$defs"]["members"]:
        if not re.search(rf"`{one}[`:]", page):
            problems.append(f"the page does not say what {one} is")
    whole = [json.loads(line) for line in page.splitlines() if line.startswith('{"specversion"')]
    for event in whole:
        for wrong in jsonschema.Draft202012Validator(schema).iter_errors(event):
            problems.append(f"the example of the page: {wrong.message}")
    if not whole:
        problems.append("the page has no whole event")
    # It must be able to refuse: one change each.
    for change in ({"type": "dvdi.mount.eaten"}, {"colour": "red"}, {"sequence": "5"}, {"time": "now"},
                   {"data": {**whole[0]["data"], "password": "x"}}, {"data": {"driver": "local"}}):
        if jsonschema.Draft202012Validator(schema).is_valid({**whole[0], **change}):
            problems.append(f"the schema takes an event with {change}")
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
