"""Who may ask the daemon, and for what: callers by their credentials, the policy file, `dvdi policy check`."""
import contextlib
import json
import os
import signal
import subprocess

import pytest
import support

MEMBER, OTHER, GROUP = 54321, 54322, 54320
VOLUME = {"container_path": "data", "mode": "RW",
          "source": {"type": "DOCKER_VOLUME", "docker_volume": {"driver": "local", "name": "v"}}}


def call_as(daemon, uid, method, target, body=None, groups=()):
    """As another user: from a process of its own, whose credentials the socket has. (status, answer)"""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            os.setgroups(list(groups))
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            status, answer = support.call(daemon.socket, method, target, body)
            text = json.dumps([status, answer.decode() if isinstance(answer, bytes) else answer])
            os.write(writing, text.encode())
            status = 0
        os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    assert os.waitpid(child, 0)[1] == 0, text
    return tuple(json.loads(text))


def start(dvdi):
    """A daemon that everybody can connect to: that is not what is tested."""
    daemon = dvdi.start_daemon()
    dvdi.root.chmod(0o711)
    os.chmod(daemon.socket, 0o666)
    return daemon


def policy_file(dvdi, text):
    path = dvdi.root / "policy.toml"
    path.write_text(text)
    path.chmod(0o600)
    dvdi.configure({"access": {"policy_file": str(path)}})
    return path


def test_a_member_has_containers_of_its_own_and_sees_no_others(dvdi):
    dvdi.configure({"access": {"group": str(GROUP)}})
    daemon = start(dvdi)

    def member(*args):
        return call_as(daemon, MEMBER, *args, groups=[GROUP])

    key = {"owner": f"uid:{MEMBER}", "container_id": "mine"}

    daemon.call("POST", "/v1/prepare", {"owner": "batch", "container_id": "roots", "request": [VOLUME]})
    status, prepared = member("POST", "/v1/prepare", {**key, "request": [VOLUME]})
    assert status == 200, prepared
    assert "foreign_mount_points" not in prepared
    for body in ({**key, "owner": "batch"}, {**key, "owner": f"uid:{OTHER}"}):
        status, problem = member("POST", "/v1/cleanup", body)
        assert (status, problem["code"]) == (403, "permission_denied")
    claims = {"id": "/x", "role": "web", "cmd": "true", "container": {"type": "MESOS", "volumes": []}}
    assert member("POST", "/v1/prepare", {**key, "container_id": "claims", "request": claims})[0] == 403
    app = {**claims, "role": None, "user": "root"}
    assert member("POST", "/v1/prepare", {**key, "container_id": "root", "request": app})[0] == 403
    host = [{"container_path": "there", "mode": "RO", "host_path": "/etc"}]
    assert member("POST", "/v1/prepare", {**key, "container_id": "host", "request": host})[0] == 403

    with open("/proc/self/stat", encoding="ascii") as own:
        roots = int(own.read().split()[0])
    assert member("POST", "/v1/isolate", {**key, "pid": roots})[0] == 403
    task = subprocess.Popen(["sleep", "600"], user=MEMBER, group=MEMBER, extra_groups=[])
    dvdi.undo.append(lambda: support.stop(task))
    status, answer = member("POST", "/v1/isolate", {**key, "pid": task.pid})
    assert status == 200, answer

    assert [one["id"] for one in member("GET", "/v1/containers")[1]["containers"]] == ["mine"]
    assert member("GET", "/v1/containers/batch/roots")[0] == 404
    (volume,) = member("GET", "/v1/volumes")[1]["volumes"]
    assert volume["containers"] == [f"uid:{MEMBER}/mine"]
    _, lines = member("GET", "/v1/events")
    events = [json.loads(line) for line in lines.splitlines()] if isinstance(lines, str) else []
    assert events and all(one["data"]["owner"] == f"uid:{MEMBER}" for one in events)
    for method, target in (("GET", "/v1/usage"), ("GET", "/v1/drivers"), ("GET", "/metrics"), ("GET", "/v1/events/verify"),
                           ("DELETE", "/v1/volumes/local/v")):
        assert member(method, target)[0] == 403, target
    assert member("POST", "/v1/recover", {"owner": f"uid:{MEMBER}", "complete": True})[0] == 403

    # A stranger: not in the group.
    assert call_as(daemon, OTHER, "GET", "/healthz")[0] == 200
    assert "state_dir" not in call_as(daemon, OTHER, "GET", "/healthz")[1]
    assert call_as(daemon, OTHER, "GET", "/v1/containers")[0] == 403

    assert member("POST", "/v1/cleanup", key)[0] == 200
    daemon.call("POST", "/v1/cleanup", {"owner": "batch", "container_id": "roots"})


def test_refusals_are_recorded_with_their_caller_but_not_each(dvdi):
    daemon = start(dvdi)
    for _ in range(5):
        assert call_as(daemon, OTHER, "GET", "/v1/usage")[0] == 403
    (denied,) = [one for one in dvdi.events() if one["type"] == "dvdi.access.denied"]
    assert denied["data"]["peer"]["uid"] == OTHER
    assert denied["data"]["action"] == "read usage"
    assert denied["data"]["rule"] == "members only" and denied["data"]["count"] == 1


def test_the_policy_holds_and_is_read_again(dvdi):
    policy = policy_file(dvdi, '[[rule]]\nname = "others"\neffect = "allow"\nvolumes = ["w"]\n')
    daemon = start(dvdi)
    request = {"owner": "batch", "container_id": "c", "request": [VOLUME]}
    problem = daemon.call("POST", "/v1/prepare", request, 403)
    assert "no rule is about it" in problem["message"], problem

    policy.write_text('[[rule]]\nname = "all"\neffect = "allow"\n')
    daemon.process.send_signal(signal.SIGHUP)
    support.eventually(lambda: support.call(daemon.socket, "POST", "/v1/prepare", request)[0] == 200,
                       what="the new policy holds")
    policy.write_text("this is no policy")
    said = len(daemon.log.read_text())
    daemon.process.send_signal(signal.SIGHUP)
    support.eventually(lambda: "policy.toml" in daemon.log.read_text()[said:], what="the log says that it is wrong")
    daemon.call("POST", "/v1/prepare", request)  # the one before it still holds
    daemon.call("POST", "/v1/cleanup", {"owner": "batch", "container_id": "c"})
    policy.write_text("")  # for the commands that look when the test is over


def test_without_a_daemon_the_policy_holds_too(dvdi):
    policy_file(dvdi, 'default = "allow"\n[[rule]]\nname = "no"\neffect = "deny"\nvolumes = ["secret"]\n'
                      'reason = "ask security"\n')
    refused = dvdi.run("run", "--volume", "local/secret:data", "--", "true", code=125)
    assert "permission_denied" in refused.stderr and "ask security" in refused.stderr
    assert dvdi.volumes() == {}
    dvdi.run("run", "--volume", "local/open:data", "--", "true", code=0)
    refused = dvdi.run("run", "--volume", "local/open:data,dvdi.suid=true", "--", "true", code=125)
    assert "dvdi.suid" in refused.stderr


@pytest.mark.parametrize("permit, flag", [("", "nosuid"), ("suid", "")])
def test_setuid_programs_only_where_the_policy_permits_them(dvdi, permit, flag):
    policy_file(dvdi, f'[[rule]]\nname = "all"\neffect = "allow"\npermit = {json.dumps([permit] if permit else [])}\n')
    option = ",dvdi.suid=true" if permit else ""
    options = dvdi.run("run", "--volume", f"local/v:data{option}", "--", "sh", "-c",
                       "grep ' '$PWD/data' ' /proc/self/mountinfo", code=0).stdout.split()[5]
    assert ("nosuid" in options.split(",")) == bool(flag), options
    assert "nodev" in options.split(",")


def test_policy_check_explains(dvdi):
    example = support.EXAMPLES / "policy.toml"
    request = dvdi.root / "request.json"
    request.write_text(json.dumps([{**VOLUME, "source": {"type": "DOCKER_VOLUME", "docker_volume": {
        "driver": "local", "name": "web-1"}}}]))
    allowed = dvdi.run("policy", "check", example, request, "--role", "web", code=0).stdout
    assert allowed.startswith("allowed  for root, user root, role web, principal team-web\n"), allowed
    assert "allowed  local/web-1: rule 'web'" in allowed
    denied = dvdi.run("policy", "check", example, request, "--format", "json", code=1).stdout
    answer = json.loads(denied)
    assert not answer["allowed"] and answer["volumes"][0]["rule"] is None
    assert len(answer["volumes"][0]["passed_over"]) == 6
    assert dvdi.run("policy", "check", example, request, "--as", str(MEMBER), "--role", "web", code=1).stdout.count(
        "no role") == 1
    wrong = dvdi.root / "wrong.toml"
    wrong.write_text("colour = 1\n")
    assert f"{wrong}:1: unknown key colour" in dvdi.run("policy", "check", wrong, request, code=2).stderr
    dvdi.run("policy", "check", example, dvdi.root / "nothing", code=2)
    dvdi.run("policy", "check", example, code=2)
    assert not dvdi.state_dir.exists(), "it looks at no state"
