"""dvdid and many callers: the calls of its API, `dvdi` with a daemon, and what is left when either of them is killed.

`dvdi` checks after each test that nothing is mounted, held or owed any more, that the event log is intact, that the
daemon drains, and that no process is left.
"""

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest
from support import EXAMPLES, eventually, is_alive, is_mounted, program

CONTAINER = {"value": "c1"}
VOLUMES = [{"container_path": "data", "mode": "RW",
            "source": {"type": "DOCKER_VOLUME", "docker_volume": {"driver": "local", "name": "v"}}}]


def started(process):
    assert process.stdout.readline() == "started\n", process.poll() is not None and process.stderr.read()


def kill_hard(process):
    process.send_signal(signal.SIGKILL)
    process.wait(30)


def task(dvdi, *more, volume="local/v:data"):
    """A task that runs until its standard input ends."""
    process = dvdi.start("run", *more, "--volume", volume, "--", "sh", "-c",
                         "echo started; read line; echo x >>data/x; wc -l <data/x")
    started(process)
    return process


def end(process):
    out, err = process.communicate("\n", timeout=60)
    return process.returncode, out, err


# ---- dvdi with a daemon ----

def test_the_main_job_through_the_daemon(dvdi):
    dvdi.start_daemon()
    for lines in (1, 2):
        done = dvdi.run("run", EXAMPLES / "marathon-hello.json", code=0)
        assert len(done.stdout.splitlines()) == lines, done
    assert dvdi.run("run", "--volume", "local/v:data", "--", "sh", "-c", "exit 42").returncode == 42
    # Of the start, which nobody but `dvdi run` asks for: at the end the daemon, which watches, may be first.
    started = [event for event in dvdi.events() if event["type"] == "dvdi.container.running"]
    assert len(started) == 3 and all("peer" in event["data"] for event in started)
    assert dvdi.json("usage", "--by", "owner")["rows"]
    assert dvdi.json("events", "verify")["intact"]
    assert dvdi.run("volume", "rm", "local/v", code=0)


def test_a_daemon_of_another_state_directory_is_not_asked(dvdi):
    daemon = dvdi.start_daemon()
    other = dvdi.run("ps", env={"DVDI_STATE_DIR": str(dvdi.root / "other")}, code=1)
    assert "keeps its state in" in other.stderr
    assert dvdi.run("--socket", "none", "ps", env={"DVDI_STATE_DIR": str(dvdi.root / "other")}, code=0)
    assert dvdi.run("--socket", "none", "ps", code=1).stderr.count("a daemon owns the state directory") == 1
    daemon.stop()
    assert dvdi.run("ps", code=0), "without a daemon it works by itself"


def test_a_task_survives_daemons_that_come_and_go(dvdi):
    daemon = dvdi.start_daemon()
    process = task(dvdi)
    daemon.restart()
    [container] = dvdi.containers()
    assert container["state"] == "running" and is_alive(container["pid"])
    daemon.kill()
    code, out, err = end(process)  # cleans up by itself
    assert (code, out.strip(), err) == (0, "1", "")
    daemon.start()
    assert not dvdi.containers()


def test_31_a_task_whose_dvdi_run_was_killed_is_released_when_it_ends(dvdi):
    daemon = dvdi.start_daemon()
    process = dvdi.start("run", "--volume", "local/v:data", "--", "sh", "-c", "echo started; exec cat >data/x")
    started(process)
    [container] = dvdi.containers()
    kill_hard(process)
    daemon.restart()  # the next daemon watches it, too
    assert dvdi.volumes()["local/v"]["state"] == "mounted"
    process.stdin.close()  # ends the task

    def released():
        return not dvdi.kernel_mounts() and not dvdi.containers()
    eventually(released, what="the daemon releases the volume by itself")
    assert not is_alive(container["pid"])


def test_a_dvdi_run_killed_while_it_prepares_leaves_nothing(dvdi):
    dvdi.start_daemon()
    plugin = dvdi.faulty()
    plugin.rule("Mount", "hold", times=1)
    process = dvdi.start("run", "--volume", "faulty/v:data", "--", "true")
    plugin.calls("Mount", wait=1)
    kill_hard(process)
    plugin.release()
    eventually(lambda: not dvdi.containers() and not dvdi.kernel_mounts(), what="the daemon cleans up")


@pytest.mark.parametrize("operation", ["Create", "Mount"])
def test_a_daemon_killed_while_it_prepares_is_replaced(dvdi, operation):
    daemon = dvdi.start_daemon()
    plugin = dvdi.faulty()
    plugin.rule(operation, "hold", times=1)
    process = dvdi.start("run", "--volume", "faulty/v:data,kind=bind", "--", "sh", "-c", "echo x >data/x; cat data/x")
    plugin.calls(operation, wait=1)
    daemon.kill()
    plugin.clear()
    daemon.start()
    code, out, err = end(process)
    assert (code, out) == (0, "x\n"), err


def test_a_daemon_killed_while_it_cleans_up_is_replaced(dvdi):
    daemon = dvdi.start_daemon()
    plugin = dvdi.faulty()
    process = task(dvdi, volume="faulty/v:data,kind=bind")
    plugin.rule("Unmount", "hold", times=1)
    process.stdin.close()
    plugin.calls("Unmount", wait=1)
    daemon.kill()
    plugin.clear()
    daemon.start()
    assert process.wait(60) == 0
    eventually(lambda: not dvdi.kernel_mounts(), what="the unmount is settled")


def test_sigterm_lets_what_is_in_flight_end(dvdi):
    daemon = dvdi.start_daemon()
    plugin = dvdi.faulty()
    plugin.rule("Mount", "hold", times=1)
    answers = []
    body = {"owner": "shell", "container_id": CONTAINER,
            "request": [{**VOLUMES[0], "source": {"type": "DOCKER_VOLUME", "docker_volume": {
                "driver": "faulty", "name": "v", "driver_options": {"parameter": [{"key": "kind", "value": "bind"}]}}}}]}
    caller = threading.Thread(target=lambda: answers.append(daemon.call("POST", "/v1/prepare", body)))
    caller.start()
    plugin.calls("Mount", wait=1)
    daemon.process.terminate()
    eventually(lambda: "ending" in daemon.log.read_text(), what="it was told")
    plugin.release()
    caller.join(60)
    assert answers and answers[0]["launch_info"]["mounts"]
    assert daemon.process.wait(60) == 0
    daemon.start()
    assert daemon.call("POST", "/v1/cleanup", {"owner": "shell", "container_id": CONTAINER}) == {"owed": []}


def test_a_second_daemon_waits_for_the_first(dvdi):
    first = dvdi.start_daemon()
    environment = dvdi.environment()
    log = dvdi.root / "second.log"
    with open(log, "wb") as out:
        second = subprocess.Popen([str(pathlib.Path(program()).with_name("dvdid")), "--socket", first.socket],
                                  env=environment, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    dvdi.processes.append(second)
    assert dvdi.run("ps", code=0)
    eventually(lambda: f"waiting for {dvdi.state_dir}" in log.read_text(), what="it says what it waits for")
    assert second.poll() is None
    first.stop()
    eventually(lambda: "serving" in log.read_text(), what="the second one serves")
    assert dvdi.run("ps", code=0)


def test_many_at_once(dvdi):
    dvdi.start_daemon()
    running = [dvdi.start("run", "--volume", f"local/v{i % 3}:data", "--", "sh", "-c", f"echo {i} >>data/all")
               for i in range(24)]
    for process in running:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err


def test_sighup_reads_the_configuration_again(dvdi):
    daemon = dvdi.start_daemon()
    dvdi.configure({"agent": {"default_driver": "local"}})
    daemon.process.send_signal(signal.SIGHUP)
    eventually(lambda: "was read again" in daemon.log.read_text())
    body = {"owner": "shell", "container_id": CONTAINER, "container_config": {
        "directory": str(dvdi.root), "container_info": {"type": "MESOS", "volumes": [
            {"container_path": "data", "mode": "RW",
             "source": {"type": "DOCKER_VOLUME", "docker_volume": {"name": "v"}}}]}}}
    assert daemon.call("POST", "/v1/prepare", body)["launch_info"]["mounts"]
    daemon.call("POST", "/v1/cleanup", {"owner": "shell", "container_id": CONTAINER})
    dvdi.configure({"debts": {"attempts": 0}})
    daemon.process.send_signal(signal.SIGHUP)
    eventually(lambda: "was not read again" in daemon.log.read_text())
    dvdi.configure()


# ---- the API as other programs use it ----

def test_prepare_for_another_launcher_and_recover(dvdi):
    daemon = dvdi.start_daemon()
    body = {"owner": "/agent", "container_id": CONTAINER,
            "container_config": {"directory": str(dvdi.root), "container_info": {"type": "MESOS", "volumes": VOLUMES}}}
    first = daemon.call("POST", "/v1/prepare", body)
    [mount] = first["launch_info"]["mounts"]
    assert mount["source"].startswith(f"{dvdi.state_dir}/staged/") and mount["target"] == f"{dvdi.root}/data"
    assert daemon.call("POST", "/v1/prepare", body) == first
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    dvdi.processes.append(child)
    isolate = {"owner": "/agent", "container_id": CONTAINER, "pid": child.pid}
    assert daemon.call("POST", "/v1/isolate", isolate) == {}
    daemon.restart()
    state = {"container_id": CONTAINER, "pid": child.pid, "container_info": {"type": "MESOS", "volumes": VOLUMES}}
    recovered = daemon.call("POST", "/v1/recover", {"owner": "/agent", "work_dir": "/agent", "complete": True,
                                                    "containers": [state], "orphans": []})
    assert recovered["dropped"] == [] and recovered["kept"] == [], recovered
    assert is_mounted(mount["source"])
    # Not named, and alive: kept. Not named, and dead: dropped.
    lists = {"owner": "/agent", "work_dir": "/agent", "complete": True, "containers": [], "orphans": []}
    assert len(daemon.call("POST", "/v1/recover", lists)["kept"]) == 1
    child.stdin.close()
    child.wait(30)
    assert daemon.call("POST", "/v1/recover", lists)["dropped"] == ["c1"]
    eventually(lambda: not dvdi.kernel_mounts(), what="its volume is unmounted")
    assert not os.path.exists(mount["source"])


def test_errors_are_problems_and_change_nothing(dvdi):
    daemon = dvdi.start_daemon()
    before = len(dvdi.events())
    problem = daemon.call("POST", "/v1/prepare", {"owner": "x"}, status=400)
    assert problem["code"] == "invalid_argument" and problem["status"] == 400
    missing = daemon.call("POST", "/v1/prepare", {"owner": "x", "container_id": "c", "request": [{
        **VOLUMES[0], "source": {"type": "DOCKER_VOLUME", "docker_volume": {"driver": "nosuch", "name": "v"}}}]}, status=404)
    assert missing["driver"] == "nosuch" and missing["volume"] == "v" and missing["operation"], missing
    assert daemon.call("GET", "/v1/nothing", status=404)["code"] == "not_found"
    assert daemon.call("POST", "/v1/isolate", {"owner": "x", "container_id": "c", "pid": 1}, status=409)
    assert {event["type"] for event in dvdi.events()[before:]} <= {
        "dvdi.container.preparing", "dvdi.container.failed", "dvdi.reference.added", "dvdi.reference.removed",
        "dvdi.mount.mounting", "dvdi.mount.failed"}


def test_a_stranger_may_ask_for_nothing(dvdi):
    daemon = dvdi.start_daemon()
    os.chmod(dvdi.root, 0o755)
    os.chmod(daemon.socket, 0o666)  # the socket's mode is not what protects it
    script = ("import http.client,socket,sys\n"
              "c=http.client.HTTPConnection('d')\n"
              "c.sock=socket.socket(socket.AF_UNIX); c.sock.connect(sys.argv[1])\n"
              "c.request('GET', sys.argv[2]); r=c.getresponse(); print(r.status, r.read().decode())\n")

    def ask(path):
        return subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c", script,
                               daemon.socket, path], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert ask("/healthz").startswith("200")
    for path in ("/v1/containers", "/v1/volumes", "/v1/events", "/v1/usage", "/metrics", "/v1/drivers"):
        assert ask(path).startswith("403"), path
    assert "dvdi.access.denied" in [event["type"] for event in dvdi.events()]


def test_events_are_followed(dvdi):
    daemon = dvdi.start_daemon()
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as one:
        one.settimeout(60)
        one.connect(daemon.socket)
        one.sendall(b"GET /v1/events?follow=true HTTP/1.1\r\nHost: d\r\n\r\n")
        dvdi.run("volume", "create", "local/first", code=0)
        seen = b""
        while b"local/first" not in seen:
            seen += one.recv(65536)
        dvdi.run("volume", "create", "local/second", code=0)
        while b"local/second" not in seen:
            seen += one.recv(65536)
    follow = dvdi.start("events", "--follow", "--format", "json")
    first = json.loads(follow.stdout.readline())
    assert first["type"].startswith("dvdi.")
    follow.send_signal(signal.SIGINT)
    follow.communicate(timeout=30)


def test_metrics_are_prometheus_text(dvdi):
    daemon = dvdi.start_daemon()
    dvdi.run("run", "--volume", "local/v:data", "--", "true", code=0)
    text = daemon.call("GET", "/metrics").decode()
    for line in text.splitlines():
        assert re.match(r'^(# (HELP|TYPE) (dvdi|process)_\w+ .+|(dvdi|process)_\w+(\{[^}]*\})? [0-9.e+-]+)$', line), line
    assert 'dvdi_driver_calls_total{driver="local"}' in text
    assert 'dvdi_mounts{state="mounted"} 0' in text


# ---- what must not wear it down ----

def test_11_hung_calls_on_one_driver_leave_the_others_alone(dvdi):
    dvdi.configure({"deadlines": {"mount": "60s"}})
    daemon = dvdi.start_daemon()
    plugin = dvdi.faulty()
    plugin.rule("Mount", "hold")

    def count(what):
        return len(os.listdir(f"/proc/{daemon.process.pid}/{what}"))
    dvdi.run("run", "--volume", "local/v:data", "--", "true", code=0)
    descriptors, threads = count("fd"), count("task")

    def prepare(number):
        one = socket.socket(socket.AF_UNIX)
        one.connect(daemon.socket)
        body = json.dumps({"owner": "hung", "container_id": f"c{number}", "request": [{
            "container_path": "data", "mode": "RW", "source": {"type": "DOCKER_VOLUME", "docker_volume": {
                "driver": "faulty", "name": f"v{number}"}}}]})
        one.sendall(f"POST /v1/prepare HTTP/1.1\r\nHost: d\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        return one
    hung = [prepare(number) for number in range(200)]
    plugin.calls("Mount", wait=60)
    for _ in range(5):
        dvdi.run("run", "--volume", "local/v:data", "--", "true", code=0)
    assert len(dvdi.containers()) == 200
    rss = re.search(r"RssAnon:\s+(\d+) kB", pathlib.Path(f"/proc/{daemon.process.pid}/status").read_text()).group(1)
    assert int(rss) < 200_000, "less than 1 MB a hung call"
    for one in hung:
        one.close()
    plugin.clear()
    eventually(lambda: not dvdi.containers(), timeout=120, what="those whose caller has gone are rolled back")
    kept = 16  # connections to the plugin, for its next calls
    eventually(lambda: count("fd") <= descriptors + kept + 4 and count("task") <= threads + 4, timeout=60,
               what="descriptors and threads are given back")


def test_malformed_and_slow_requests(dvdi):
    daemon = dvdi.start_daemon()
    slow = socket.socket(socket.AF_UNIX)
    slow.connect(daemon.socket)
    slow.sendall(b"GET /healthz HT")
    for bytes_ in (b"nonsense\r\n\r\n", b"GET /healthz HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                   b"POST /v1/prepare HTTP/1.1\r\nHost: d\r\nContent-Length: 99999999999\r\n\r\n{", b"\0" * 70000):
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as one:
            one.settimeout(60)
            one.connect(daemon.socket)
            with contextlib.suppress(OSError):
                one.sendall(bytes_)
                one.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                answer = one.recv(65536)
                assert answer == b"" or b" 400 " in answer or b" 431 " in answer or b" 413 " in answer or b" 429 " in answer, answer
    assert daemon.call("GET", "/healthz")["status"] == "ok"
    slow.close()

