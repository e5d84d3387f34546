"""libdvdi and a real dvdid: two threads of a program in C that call at once, a daemon that is killed meanwhile, and the
example."""

import json
import os
import pathlib
import subprocess

import pytest
from support import EXAMPLES, program

OWNER = "/agent"


def c_program(name):
    path = pathlib.Path(program()).parent.with_name("programs") / name
    if not path.exists():
        pytest.skip(f"{path} was not built")
    return str(path)


def container(name):
    return {"owner": OWNER, "container_id": {"value": name}}


def prepare_body(dvdi, name, volume):
    """For a container of its own, in the form that an agent sends."""
    sandbox = dvdi.root / f"sandbox-{name}"
    sandbox.mkdir()
    volumes = [{"container_path": "data", "mode": "RW", "source": {"type": "DOCKER_VOLUME", "docker_volume": {
        "driver": "faulty", "name": volume, "driver_options": {"parameter": [{"key": "kind", "value": "bind"}]}}}}]
    return json.dumps({**container(name), "container_config": {
        "directory": str(sandbox), "container_info": {"type": "MESOS", "volumes": volumes}}})


class TwoThreads:
    """tests/capi/two_threads.c"""

    def __init__(self, dvdi, path, first, second):
        self.process = subprocess.Popen([c_program("c_two_threads"), dvdi.daemon.socket, path, first, second],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        env=dvdi.environment())
        dvdi.processes.append(self.process)

    def said(self):
        """(code, outcome, HTTP status) of either call."""
        lines = [self.process.stdout.readline().split() for _ in range(2)]
        assert [line[0] for line in lines] == ["0", "1"], (lines, self.process.stderr.read())
        return [tuple(line[1:]) for line in lines]

    def again(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self):
        _, err = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, err
        return err


def test_two_threads_call_at_once(dvdi):
    daemon = dvdi.start_daemon()
    plugin = dvdi.faulty()
    plugin.rule("Mount", "hold", times=2)
    threads = TwoThreads(dvdi, "/v1/prepare", prepare_body(dvdi, "c1", "v1"), prepare_body(dvdi, "c2", "v2"))
    plugin.calls("Mount", wait=2)  # neither waits for the other
    plugin.release()
    assert threads.said() == [("ok", "none", "200")] * 2
    assert threads.end() == ""
    assert len(dvdi.containers()) == 2
    cleanups = TwoThreads(dvdi, "/v1/cleanup", json.dumps(container("c1")), json.dumps(container("c2")))
    assert cleanups.said() == [("ok", "none", "200")] * 2
    cleanups.end()
    assert not dvdi.containers()
    assert daemon.process.poll() is None


def test_a_daemon_killed_in_the_middle_of_both_calls(dvdi):
    daemon = dvdi.start_daemon()
    plugin = dvdi.faulty()
    plugin.rule("Mount", "hold", times=2)
    threads = TwoThreads(dvdi, "/v1/prepare", prepare_body(dvdi, "c1", "v1"), prepare_body(dvdi, "c2", "v2"))
    plugin.calls("Mount", wait=2)
    daemon.kill()
    # It was sent, and nobody can say what became of it.
    assert threads.said() == [("unavailable", "unknown", "0")] * 2
    threads.again()
    # Now there is none: it was not sent.
    assert threads.said() == [("unavailable", "not_sent", "0")] * 2
    plugin.clear()
    daemon.start()
    threads.again()
    assert threads.said() == [("ok", "none", "200")] * 2
    assert threads.end().count("is dvdid running?") == 4
    assert {one["id"]: one["state"] for one in dvdi.containers()} == {"c1": "prepared", "c2": "prepared"}
    for name in ("c1", "c2"):
        daemon.call("POST", "/v1/cleanup", container(name))


def test_a_daemon_killed_in_the_middle_of_two_cleanups(dvdi):
    daemon = dvdi.start_daemon()
    plugin = dvdi.faulty()
    for name, volume in (("c1", "v1"), ("c2", "v2")):
        daemon.call("POST", "/v1/prepare", json.loads(prepare_body(dvdi, name, volume)))
    plugin.rule("Unmount", "hold", times=2)
    threads = TwoThreads(dvdi, "/v1/cleanup", json.dumps(container("c1")), json.dumps(container("c2")))
    plugin.calls("Unmount", wait=2)
    daemon.kill()
    assert threads.said() == [("unavailable", "unknown", "0")] * 2
    plugin.clear()
    daemon.start()
    threads.again()
    assert threads.said() == [("ok", "none", "200")] * 2
    threads.end()
    dvdi.check_released()


def run_example(dvdi, *arguments):
    return subprocess.run([c_program("c_prepare"), *map(str, arguments)], env=dvdi.environment(), capture_output=True, text=True,
                          timeout=60, check=False)


def test_the_example(dvdi):
    volumes = json.loads((EXAMPLES / "volumes.json").read_text())
    volumes[0]["source"]["docker_volume"] = {"driver": "local", "name": "v"}
    file = dvdi.root / "volumes.json"
    file.write_text(json.dumps(volumes))
    daemon = dvdi.start_daemon()
    done = run_example(dvdi, "shell", "c1", file, daemon.socket)
    assert (done.returncode, done.stderr) == (0, "")
    answers = dict(line.split(": ", 1) for line in done.stdout.splitlines() if line)
    assert json.loads(answers["healthz"])["status"] == "ok"
    [mount] = json.loads(answers["prepare"])["launch_info"]["mounts"]
    assert mount["source"].startswith(f"{dvdi.state_dir}/staged/")
    assert json.loads(answers["cleanup"]) == {"owed": []}
    assert not dvdi.containers() and not dvdi.kernel_mounts()

    # What does not go well: no driver of that name, no file, no daemon.
    done = run_example(dvdi, "shell", "c2", EXAMPLES / "volumes.json", daemon.socket)
    assert done.returncode == 1 and done.stderr.startswith("prepare: not_found: "), done
    assert run_example(dvdi, "shell", "c3", os.devnull + "/none", daemon.socket).returncode == 1
    daemon.stop()
    done = run_example(dvdi, "shell", "c4", file, daemon.socket)
    assert done.returncode == 1 and "is dvdid running?" in done.stderr and "trying again can help" in done.stderr, done
