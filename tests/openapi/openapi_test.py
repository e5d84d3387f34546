#!/usr/bin/env python3
"""docs/openapi.yaml is valid OpenAPI 3.1, its examples fit its schemas, and it has the routes that the daemon serves.

    openapi_test.py             77: a Python module is missing
    openapi_test.py --self-test each check finds what it is for
"""
import copy
import json
import pathlib
import re
import sys

try:
    import jsonschema
    from description import ROOT, Description, read
except ImportError as missing:
    print(f"[  SKIPPED ] openapi_test ({missing.name} is missing: tools/packages install test)")
    sys.exit(77)

HERE = pathlib.Path(__file__).resolve().parent
ROUTE = re.compile(r'\{"([A-Z]+)", "(/[^"]*)", &Routes::')


def served():
    """(METHOD, path) of the daemon's table, each variable segment as *."""
    return set(ROUTE.findall((ROOT / "src" / "daemon" / "routes.cpp").read_text(encoding="utf-8")))


def starred(path):
    return re.sub(r"\{[^}]+\}", "*", path)


def references(node):
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def check_document(document):
    with open(HERE / "oas-3.1.json", encoding="utf-8") as file:
        validator = jsonschema.Draft202012Validator(json.load(file))
    for error in validator.iter_errors(document):
        yield f"not OpenAPI 3.1: /{'/'.join(map(str, error.absolute_path))}: {error.message[:300]}"
    for name, schema in document.get("components", {}).get("schemas", {}).items():
        try:
            jsonschema.Draft202012Validator.check_schema(schema)
        except jsonschema.SchemaError as error:
            yield f"schema {name}: {error.message[:300]}"


def check_references(document):
    used = set(references(document))
    for one in sorted(used):
        found = document
        for part in one.removeprefix("#/").split("/"):
            found = found.get(part) if isinstance(found, dict) else None
        if found is None:
            yield f"{one} leads nowhere"
    for kind in ("schemas", "parameters", "responses"):
        for name in document["components"].get(kind, {}):
            # Lines of the streams are texts for OpenAPI; these two describe one.
            if f"#/components/{kind}/{name}" not in used and name not in ("Event", "RecoverHead"):
                yield f"components/{kind}/{name} is not used"


def check_operations(document):
    seen = set()
    for (method, path), operation in Description(document).operations.items():
        where = f"{method} {path}"
        if not operation.get("operationId") or operation["operationId"] in seen:
            yield f"{where}: operationId is missing or taken"
        seen.add(operation.get("operationId"))
        given = [*document["paths"][path].get("parameters", []), *operation.get("parameters", [])]
        named = {one["name"] for one in map(Description(document).resolve, given) if one["in"] == "path"}
        if named != set(re.findall(r"\{([^}]+)\}", path)):
            yield f"{where}: parameters {sorted(named)} are not those of the path"
        if "default" not in operation["responses"]:
            yield f"{where}: says nothing of errors"


def media(document):
    """(where, media type object) of every body, also of components."""
    def walk(node, where):
        if isinstance(node, dict):
            for name, value in node.get("content", {}).items() if isinstance(node.get("content"), dict) else ():
                yield f"{where} {name}", name, value
            for key, value in node.items():
                yield from walk(value, f"{where}/{key}")
        elif isinstance(node, list):
            for value in node:
                yield from walk(value, where)
    yield from walk(document, "")


def check_examples(document):
    description = Description(document)
    for where, name, body in media(document):
        examples = [body["example"]] if "example" in body else []
        examples += [one["value"] for one in body.get("examples", {}).values()]
        for example in examples:
            try:
                description.check(body["schema"], example)
                if name == "application/x-ndjson":
                    head, *entries = map(json.loads, example.splitlines())
                    description.check("#/components/schemas/RecoverHead", head)
                    assert all(set(one) in ({"container"}, {"orphan"}) for one in entries), entries
            except (jsonschema.ValidationError, ValueError, AssertionError) as error:
                yield f"{where}: the example does not fit: {str(error)[:300]}"


def check_routes(document, routes):
    described = {(method, starred(path)) for method, path in Description(document).operations}
    if not routes:
        yield "no route was found in src/daemon/routes.cpp"
    for method, path in sorted(routes - described):
        yield f"{method} {path} is served and not described"
    for method, path in sorted(described - routes):
        yield f"{method} {path} is described and not served"


def problems(document, routes):
    found = list(check_document(document)) or list(check_references(document))
    if found:
        return found  # what is below takes this for granted
    return [*check_operations(document), *check_examples(document), *check_routes(document, routes)]


def self_test():
    routes = served()
    good = read()
    assert not problems(good, routes), problems(good, routes)

    def broken(change, expected):
        document, some = copy.deepcopy(good), set(routes)
        change(document, some)
        found = problems(document, some)
        assert any(expected in one for one in found), (expected, found)

    broken(lambda d, r: d["paths"]["/healthz"]["get"].pop("responses") and d["paths"]["/healthz"].update(get=1), "not OpenAPI")
    broken(lambda d, r: d["components"]["schemas"]["Health"].update(type="thing"), "schema Health")
    broken(lambda d, r: d["components"]["schemas"].pop("Code"), "leads nowhere")
    broken(lambda d, r: d["components"]["schemas"].update(Unused={"type": "object"}), "is not used")
    broken(lambda d, r: d["paths"]["/v1/volumes/{driver}/{name}"].pop("parameters"), "not those of the path")
    broken(lambda d, r: d["paths"]["/healthz"]["get"]["responses"].pop("default"), "says nothing of errors")
    broken(lambda d, r: d["paths"]["/healthz"]["get"].update(operationId="usage"), "operationId")
    example = ("paths", "/healthz", "get", "responses", "200", "content", "application/json", "example")

    def member(document, name, value):
        for part in example:
            document = document[part]
        document[name] = value
    broken(lambda d, r: member(d, "status", "ill"), "does not fit")
    broken(lambda d, r: member(d, "colour", "red"), "does not fit")
    broken(lambda d, r: r.add(("GET", "/v1/colours")), "served and not described")
    broken(lambda d, r: r.discard(("GET", "/healthz")), "described and not served")
    broken(lambda d, r: r.clear(), "no route was found")
    print("each check finds what it is for")


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    routes = served()
    found = problems(read(), routes)
    for one in found:
        print(f"docs/openapi.yaml: {one}")
    print(f"{len(routes)} routes, {len(found)} problems")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
