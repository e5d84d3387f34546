"""The answers of a running dvdid are what docs/openapi.yaml says: each of them, errors included, to the last member."""
import contextlib
import json
import subprocess
import sys

import pytest
import support

pytest.importorskip("jsonschema", reason="tools/packages install test")
pytest.importorskip("yaml", reason="tools/packages install test")
sys.path.insert(0, str(support.ROOT / "tests" / "openapi"))
import description  # noqa: E402

VOLUME = {"container_path": "data", "mode": "RW",
          "source": {"type": "DOCKER_VOLUME", "docker_volume": {"driver": "local", "name": "v"}}}


class Client:
    """Calls the daemon, and holds each answer against the file."""

    def __init__(self, path):
        self.path = path
        self.file = description.Description()
        self.answered = {}  # (METHOD, path of the file) -> {status}

    def call(self, method, target, body=None, code=None, raw=None):
        connection = support.UnixConnection(self.path, 60)
        with contextlib.closing(connection):
            data = raw if raw is not None else None if body is None else json.dumps(body).encode()
            connection.request(method, target, data)
            answer = connection.getresponse()
            text = answer.read().decode()
            kind = answer.getheader("Content-Type")
        where = f"{method} {target}: {answer.status} {kind}: {text[:1000]}"
        assert code is None or answer.status == code, where
        path = self.file.match(method, target.split("?")[0])
        if path is None:
            # No operation of the file: still a problem as everywhere.
            assert answer.status >= 400, where
            self.file.check("#/components/schemas/Problem", json.loads(text))
            return json.loads(text)
        self.answered.setdefault((method, path), set()).add(answer.status)
        schema = self.file.answer_schema(method, path, answer.status, kind)
        try:
            value = json.loads(text) if kind.split(";")[0].endswith(("/json", "+json")) else text
            self.file.check(schema, value)
        except Exception as error:
            raise AssertionError(f"{where}\n{error}") from error
        if kind == "application/x-ndjson":
            value = [json.loads(line) for line in text.splitlines()]
            for event in value:
                self.file.check("#/components/schemas/Event", event)
        return value


@pytest.fixture
def api(dvdi):
    dvdi.configure({"sink.audit": {"type": "file", "path": str(dvdi.root / "events.jsonl")}})
    return Client(dvdi.start_daemon().socket)


def test_every_call_and_its_errors(dvdi, api):
    task = subprocess.Popen(["sleep", "600"])
    dvdi.undo.append(lambda: support.stop(task))
    key = {"owner": "batch", "container_id": {"value": "job-1"}}

    assert api.call("GET", "/healthz", code=200)["state_dir"] == str(dvdi.state_dir)
    api.call("GET", "/metrics", code=200)

    api.call("POST", "/v1/volumes", {"driver": "local", "name": "v", "options": {}}, 200)
    api.call("POST", "/v1/volumes", {"driver": "local"}, 400)
    api.call("POST", "/v1/volumes", {"driver": "local", "name": "w", "options": {"colour": "red"}})
    api.call("POST", "/v1/volumes", raw=b"{", code=400)
    api.call("POST", "/v1/volumes", {"driver": "not-there", "name": "v"})

    prepared = api.call("POST", "/v1/prepare", {**key, "request": [VOLUME]}, 200)
    assert prepared["launch_info"]["mounts"][0]["source"].startswith(str(dvdi.state_dir / "staged"))
    assert api.call("POST", "/v1/prepare", {**key, "request": [VOLUME]}, 200) == prepared
    api.call("POST", "/v1/prepare", {**key, "request": [{**VOLUME, "mode": "RO"}]}, 409)
    api.call("POST", "/v1/prepare", {**key}, 400)
    api.call("POST", "/v1/prepare", {**key, "request": [VOLUME], "colour": 1}, 400)
    problem = api.call("POST", "/v1/prepare", {"owner": "batch", "container_id": "bad", "request": [
        {**VOLUME, "container_path": "../out"}, {**VOLUME, "mode": "RX"}]}, 400)
    assert problem["attached"], "every problem of a request is attached"

    api.call("POST", "/v1/isolate", {**key, "pid": task.pid, "watch": True}, 200)
    api.call("POST", "/v1/isolate", {**key, "pid": 0}, 400)
    api.call("POST", "/v1/isolate", {"owner": "batch", "container_id": "nobody", "pid": task.pid})

    nested = {"owner": "batch", "container_id": {"value": "child", "parent": {"value": "job-1"}}}
    inner = api.call("POST", "/v1/prepare", {**nested, "request": [VOLUME], "staged": False}, 200)
    assert inner["id"] == "job-1.child" and inner["container_id"] == nested["container_id"]
    api.call("POST", "/v1/cleanup", key, 409)  # while the nested one is there

    listed = api.call("GET", "/v1/containers?ended=true", code=200)["containers"]
    assert {one["id"] for one in listed} == {"job-1", "job-1.child"}
    api.call("GET", "/v1/containers?colour=red", code=400)
    assert api.call("GET", "/v1/containers/batch/job-1", code=200)["pid"] == task.pid
    api.call("GET", "/v1/containers/batch/nobody", code=404)

    assert [one["state"] for one in api.call("GET", "/v1/volumes?ask=true", code=200)["volumes"]] == ["mounted"]
    api.call("GET", "/v1/volumes?ask=perhaps", code=400)
    assert api.call("GET", "/v1/volumes/local/v", code=200)["containers"]
    api.call("GET", "/v1/volumes/local/nothing", code=404)
    api.call("DELETE", "/v1/volumes/local/v", code=409)
    api.call("POST", "/v1/volumes/local/v/release", {"dry_run": True}, 409)

    api.call("POST", "/v1/cleanup", nested, 200)
    api.call("POST", "/v1/cleanup", key, 200)
    api.call("POST", "/v1/cleanup", {"owner": "batch", "container_id": "nobody"}, 200)
    api.call("POST", "/v1/cleanup", {"owner": "batch"}, 400)
    api.call("POST", "/v1/prepare", {**key, "request": [VOLUME]}, 409)  # cleaned up: refused for an hour

    api.call("POST", "/v1/recover", {"owner": "batch", "complete": True, "containers": [], "orphans": []}, 200)
    lines = [{"owner": "batch", "work_dir": str(dvdi.root), "complete": True}, {"orphan": {"value": "gone"}}]
    recovered = api.call("POST", "/v1/recover", raw="\n".join(map(json.dumps, lines)).encode(), code=200)
    assert recovered["state_in_work_dir"]
    api.call("POST", "/v1/recover", raw=b'{"owner": ', code=400)

    left = {"driver": "local", "name": "old", "mount_point": str(dvdi.root / "nothing")}
    assert [one["result"] for one in api.call("POST", "/v1/adopt", {"from": "x", "mounts": [left]}, 200)["mounts"]] == ["absent"]
    for wrong in ({"mount_point": "relative"}, {"driver": "a\nb"}):
        [one, other] = api.call("POST", "/v1/adopt", {"from": "x", "mounts": [{**left, **wrong}, left]}, 200)["mounts"]
        assert (one["result"], other["result"]) == ("absent", "absent") and one["reason"] != other["reason"], one
    for wrong in ({"name": ""}, {"mount_id": 7}, {"colour": "red"}):
        api.call("POST", "/v1/adopt", {"from": "x", "mounts": [{**left, **wrong}]}, 400)
    api.call("POST", "/v1/adopt", {"mounts": []}, 400)

    api.call("POST", "/v1/volumes/local/v/release", {"dry_run": True})
    api.call("POST", "/v1/volumes/local/v/release", {})
    api.call("DELETE", "/v1/volumes/local/v", code=200)
    api.call("DELETE", "/v1/volumes/local/v")

    events = api.call("GET", "/v1/events?after=0&limit=10000", code=200)
    assert events[0]["sequence"] == f"{1:020}" and all(one["data"].get("peer", {"uid": 0})["uid"] == 0 for one in events)
    assert any("peer" in one["data"] for one in events)
    api.call("GET", "/v1/events?limit=10001", code=400)
    assert api.call("GET", "/v1/events/verify", code=200)["count"] >= len(events)
    assert api.call("GET", "/v1/usage?by=owner&since=2026-01-01T00:00:00Z", code=200)["rows"]
    api.call("GET", "/v1/usage?by=colour", code=400)
    priced = api.call("POST", "/v1/usage", {"by": ["owner", "label:team", "hour"], "prices": {
        "currency": "EUR", "rules": [{"driver": "loc*", "mounted_hour": "0.5", "per_mount": "1"}]}}, code=200)
    assert priced["currency"] == "EUR" and float(priced["total"]["cost"]) >= 1
    api.call("POST", "/v1/usage", {"by": ["role", "role"]}, code=400)
    api.call("POST", "/v1/usage", {"prices": {"currency": "EUR", "rules": [{"per_mount": 0.5}]}}, code=400)
    api.call("GET", "/v1/usage?since=yesterday", code=400)
    assert "local" in {one["name"] for one in api.call("GET", "/v1/drivers", code=200)["drivers"]}
    assert isinstance(api.call("GET", "/v1/drivers/local/volumes", code=200)["volumes"], list)
    api.call("GET", "/v1/drivers/nobody/volumes", code=404)

    support.eventually(lambda: api.call("GET", "/v1/sinks", code=200)["sinks"][0]["cursor"] > 5)
    api.call("POST", "/v1/sinks/audit/test", {}, 200)
    compared = api.call("GET", "/v1/sinks/audit/compare", code=200)
    assert compared["same"] and compared["first"] == 1 and compared["not_told"] is None
    api.call("POST", "/v1/sinks/audit/pause", {}, 200)
    assert api.call("GET", "/v1/sinks", code=200)["sinks"][0]["paused"]
    api.call("POST", "/v1/sinks/audit/resume", {}, 200)
    api.call("POST", "/v1/sinks/audit/replay", {"from": 2}, 200)
    api.call("POST", "/v1/sinks/audit/replay", {"from": 0}, 400)
    api.call("POST", "/v1/sinks/audit/replay", {"from": "2"}, 400)
    api.call("POST", "/v1/sinks/audit/replay", {"from": 100000}, 400)
    api.call("POST", "/v1/sinks/audit/replay", {"from": 2, "to": 3}, 400)
    api.call("POST", "/v1/sinks/nobody/pause", {}, 404)

    # Not in the file, so not served; and a method that is not.
    for target in ("/", "/v1", "/v1/colours", "/v1/volumes/local/v/colours", "/v1/containers/batch"):
        api.call("GET", target, code=404)
    for target in api.file.document["paths"]:
        api.call("PATCH", target.replace("{", "x").replace("}", "x"))

    silent = [operation for operation in api.file.operations if 200 not in api.answered.get(operation, ())]
    assert not silent, f"in the file, and never called with success here: {silent}"


def test_events_as_they_come(api):
    connection = support.UnixConnection(api.path, 60)
    with contextlib.closing(connection):
        connection.request("GET", "/v1/events?follow=true")
        answer = connection.getresponse()
        assert answer.status == 200 and answer.getheader("Content-Type") == "application/x-ndjson"
        api.call("POST", "/v1/volumes", {"driver": "local", "name": "v"}, 200)
        api.file.check("#/components/schemas/Event", json.loads(answer.readline()))
    api.call("DELETE", "/v1/volumes/local/v", code=200)


def test_what_the_file_does_not_say_is_found(api):
    with pytest.raises(description.jsonschema.ValidationError, match="colour"):
        api.file.check("#/components/schemas/Health", {"status": "ok", "version": "1", "colour": "red"})
    with pytest.raises(description.jsonschema.ValidationError, match="version"):
        api.file.check("#/components/schemas/Health", {"status": "ok"})
