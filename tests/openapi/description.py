"""docs/openapi.yaml: its operations, and the schemas of their answers."""
import copy
import pathlib
import re

import jsonschema
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
METHODS = ("get", "post", "delete", "put", "patch", "head", "options", "trace")
ID = "http://dvdi/openapi.yaml"


def read(path=ROOT / "docs" / "openapi.yaml"):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def operations(document):
    """(METHOD, path) -> operation"""
    return {(method.upper(), path): item[method]
            for path, item in document["paths"].items() for method in METHODS if method in item}


def strict(node):
    """A copy in which an object has the members that are named and no others, where the file leaves that open."""
    if isinstance(node, list):
        return [strict(one) for one in node]
    if not isinstance(node, dict):
        return node
    made = {key: strict(value) for key, value in node.items()}
    if isinstance(node.get("properties"), dict) and "additionalProperties" not in node and "type" in node:
        made["additionalProperties"] = False
    return made


class Description:
    def __init__(self, document=None):
        self.document = document or read()
        self.operations = operations(self.document)
        self.strict = strict(copy.deepcopy(self.document))
        # With an id, so that "#/components/…" is looked up in the whole file.
        self.store = {ID: self.strict}

    def resolve(self, node):
        while "$ref" in node:
            found = self.document
            for part in node["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            node = found
        return node

    def check(self, schema_ref, value):
        """Raises jsonschema.ValidationError where the value does not fit."""
        resolver = jsonschema.RefResolver(ID, self.strict, store=self.store)
        schema = schema_ref if isinstance(schema_ref, dict) else {"$ref": schema_ref}
        jsonschema.Draft202012Validator(strict(schema), resolver=resolver).validate(value)

    def match(self, method, path):
        """The path of the file that a request's path is an instance of."""
        fixed = [one for one in self.document["paths"] if one == path]
        for one in fixed or self.document["paths"]:
            pattern = "/".join("[^/]+" if part.startswith("{") else re.escape(part) for part in one.split("/"))
            if re.fullmatch(pattern, path) and (method, one) in self.operations:
                return one
        return None

    def answer_schema(self, method, path, status, content_type):
        """The schema of one answer; KeyError where the file has no such answer."""
        responses = self.operations[(method, path)]["responses"]
        response = self.resolve(responses.get(str(status), responses["default"]))
        return response["content"][content_type.split(";")[0]]["schema"]
