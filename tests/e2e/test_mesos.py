"""The isolator module's calls as a real agent made them (tests/data/mesos), through its translation and libdvdi
(integrations/mesos, the program mesos_replay), with a real dvdid; the answers held against what Mesos' launcher needs."""

import contextlib
import errno
import json
import os
import pathlib
import struct
import subprocess

import pytest
import support

DATA = support.ROOT / "tests" / "data" / "mesos"
REPLAY = pathlib.Path(support.program()).parent.parent / "programs" / "mesos_replay"
MS_BIND, MS_REC, CLONE_NEWNS = 4096, 16384, 0x20000
SANDBOX = "/mnt/mesos/sandbox"

if not REPLAY.exists():
    pytest.skip(f"{REPLAY} is not built", allow_module_level=True)


def recording(name):
    return [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text().splitlines()]


class Agent:
    """What the module does in one agent process: a call, an answer."""

    def __init__(self, node, *parameters):
        self.node, self.parameters = node, parameters
        self.former_state = node.root / "dvdimounts.pb"
        self.work_dir = node.root / "work"
        self.work_dir.mkdir(exist_ok=True)
        self.errors = open(node.root / "replay.log", "a+", encoding="utf-8")
        self.process = None
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [REPLAY, self.work_dir, f"socket={self.node.root}/dvdid.sock",
             f"first_isolator_state={self.former_state}", *self.parameters], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self.errors, text=True, env=self.node.environment())
        self.node.processes.append(self.process)

    def send(self, call):
        self.process.stdin.write(json.dumps(call) + "\n")
        self.process.stdin.flush()

    def receive(self):
        return json.loads(self.process.stdout.readline())

    def call(self, call, kind="done"):
        self.send(call)
        answer = self.receive()
        assert answer is None or answer["kind"] == kind, (call, answer)
        return answer

    def restart(self):
        """As after SIGKILL."""
        self.process.kill()
        self.process.wait(30)
        self.start()


def here(node, calls):
    """The recorded calls with the paths of this test; what a node has before prepare is there."""
    text = json.dumps(calls)
    for old, new in (("/var/lib/mesos", "work"), ("/mnt/reference", "reference"), ("/mnt/env", "env")):
        text = text.replace(f'"{old}"', f'"{node.root}/{new}"').replace(f"{old}/", f"{node.root}/{new}/")
    for name in ("reference", "env", "work"):
        (node.root / name).mkdir(exist_ok=True)
    # The driver `local` here has an option that the recorded one had not.
    text = text.replace('{"key": "type", "value": "tmpfs"}',
                        '{"key": "type", "value": "tmpfs"}, {"key": "size", "value": "1M"}')
    calls = json.loads(text)
    for call in calls:
        config = call.get("container_config", {})
        for folder in (config.get("directory"), config.get("rootfs")):
            if folder:
                pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
                assert str(folder).startswith(str(node.root))
    return calls


def external(config):
    """(container path, mode) of what dvdid has to mount into the container."""
    volumes = config.get("container_info", {}).get("volumes", [])
    found = [(one["container_path"], one["mode"]) for one in volumes
             if one.get("source", {}).get("type") == "DOCKER_VOLUME"]
    variables = config["command_info"].get("environment", {}).get("variables", [])
    return found + [(one["value"], "RW") for one in variables if one["name"].startswith("DVDI_VOLUME_CONTAINERPATH")]


def target(config, path):
    rootfs, directory = config.get("rootfs", ""), config["directory"]
    if path.startswith("/"):
        return rootfs + path
    return f"{rootfs}{SANDBOX}/{path}" if rootfs else f"{directory}/{path}"


def check_launch_info(config, info):
    """What the launcher of Mesos does with it: bind by path, in order."""
    expected = external(config)
    if not expected:
        assert info is None
        return
    assert info["clone_namespaces"] == [CLONE_NEWNS]
    assert [one["target"] for one in info["mounts"]] == [target(config, path) for path, _ in expected]
    for mount, (path, mode) in zip(info["mounts"], expected):
        assert os.path.isabs(mount["target"]) and os.path.isabs(mount["source"]), mount
        assert mount["flags"] == MS_BIND | MS_REC, mount
        made = pathlib.Path(config["directory"], path) if not path.startswith("/") else pathlib.Path(mount["target"])
        assert made.is_dir(), mount
        assert bind_is_read_only(mount, made) == (mode == "RO"), mount


def bind_is_read_only(mount, folder):
    """Binds it as the launcher does: a single mount(2) by path. Read-only must come with it."""
    assert support.libc.mount(os.fsencode(mount["source"]), os.fsencode(folder), None, mount["flags"], None) == 0
    try:
        (folder / "written").touch()
        (folder / "written").unlink()
        return False
    except OSError as error:
        assert error.errno == errno.EROFS, error
        return True
    finally:
        assert support.umount(folder)


@contextlib.contextmanager
def a_process():
    process = subprocess.Popen(["sleep", "1000"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def owned(node, agent):
    return [one["id"] for one in node.daemon.call("GET", "/v1/containers")["containers"]
            if one["owner"] == str(agent.work_dir.resolve())]


def key(container_id):
    parent = container_id.get("parent")
    return (key(parent) + "." if parent else "") + container_id["value"]


@pytest.mark.parametrize("name", sorted(path.stem for path in DATA.glob("*.jsonl")))
def test_every_recorded_call(dvdi, name):
    for driver in ("nfs", "rexray"):
        dvdi.faulty(driver)
    dvdi.start_daemon()
    agent = Agent(dvdi, "default_driver=nfs")
    calls = here(dvdi, recording(name))
    if calls[0]["call"] == "create":  # the agent is started by then
        calls = calls[1:]
    prepared = {}
    with contextlib.ExitStack() as stack:
        for call in calls:
            identity = key(call["container_id"]) if "container_id" in call else None
            if call["call"] == "create":
                agent.restart()
            elif call["call"] == "prepare":
                config = call["container_config"]
                csi = name == "10-csi-volume"
                answer = agent.call(call, "failed" if csi else "done")
                if csi:
                    assert "CSI_VOLUME" in answer["text"]
                    continue
                check_launch_info(config, answer["launch_info"])
                prepared[identity] = bool(external(config))
                assert (identity in owned(dvdi, agent)) == prepared[identity]
            elif call["call"] == "isolate":
                agent.call({**call, "pid": stack.enter_context(a_process()).pid})
            elif call["call"] == "recover":
                agent.call(call)
            elif call["call"] == "cleanup":
                agent.call(call)
                # At once, unless it is an orphan of an agent whose recover did not wait for dvdid.
                support.eventually(lambda one=identity: one not in owned(dvdi, agent), what="it is cleaned up")
        # In neither list, with its process gone (12): dropped.
    if name == "12-host-rebooted":
        agent.restart()
        agent.call({"call": "recover", "containers": [], "orphans": []})
        support.eventually(lambda: not owned(dvdi, agent), what="what the agent does not know is dropped")
    assert not owned(dvdi, agent)


def volume_call(node, name="c", path="data", driver="local", parent=None):
    directory = node.root / "work" / "containers" / name
    directory.mkdir(parents=True, exist_ok=True)
    return {"call": "prepare", "container_id": {"value": name}, "container_config": {
        "directory": str(directory), "command_info": {}, "user": "root", "container_info": {"type": "MESOS", "volumes": [
            {"container_path": path, "mode": "RW",
             "source": {"type": "DOCKER_VOLUME", "docker_volume": {"driver": driver, "name": "v"}}}]}}}


def cleanup_of(call):
    return {"call": "cleanup", "container_id": call["container_id"]}


def test_without_a_daemon_only_external_volumes_fail(dvdi):
    agent = Agent(dvdi)
    agent.call({"call": "recover", "containers": [], "orphans": [{"value": "o"}]})
    plain = volume_call(dvdi, "plain")
    plain["container_config"]["container_info"]["volumes"] = []
    assert agent.call(plain)["launch_info"] is None
    agent.call({"call": "isolate", "container_id": {"value": "plain"}, "pid": os.getpid()})
    agent.call(cleanup_of(plain))
    agent.call(cleanup_of({"container_id": {"value": "o"}}))
    call = volume_call(dvdi)
    said = agent.call(call, "failed")["text"]
    assert "dvdid is away" in said and f"{dvdi.root}/dvdid.sock" in said
    agent.call(cleanup_of(call))
    # And with it all is as it should be, without a new agent.
    dvdi.start_daemon()
    assert agent.call(call)["launch_info"]["mounts"]
    agent.call(cleanup_of(call))


def test_away_at_cleanup_is_kept_and_repeated(dvdi):
    dvdi.start_daemon()
    agent = Agent(dvdi)
    call = volume_call(dvdi)
    agent.call(call)
    dvdi.daemon.kill()
    agent.send(cleanup_of(call))
    support.eventually(lambda: "is tried again" in (dvdi.root / "replay.log").read_text(), what="the first try")
    dvdi.daemon.start()
    assert agent.receive()["kind"] == "done"
    assert not owned(dvdi, agent)


def test_a_daemon_that_is_restarted_at_any_time_loses_nothing(dvdi):
    dvdi.start_daemon()
    agent = Agent(dvdi)
    call = volume_call(dvdi)
    first = agent.call(call)["launch_info"]
    dvdi.daemon.restart()
    assert agent.call(call)["launch_info"] == first
    with a_process() as task:
        agent.call({"call": "isolate", "container_id": call["container_id"], "pid": task.pid})
        dvdi.daemon.restart()
    agent.call(cleanup_of(call))
    assert not owned(dvdi, agent)


def test_away_at_recover(dvdi):
    dvdi.start_daemon()
    agent = Agent(dvdi, "recover_wait=1secs")
    call = volume_call(dvdi)
    agent.call(call)
    config = call["container_config"]
    with a_process() as task:
        state = {"container_id": call["container_id"], "pid": task.pid, "directory": config["directory"],
                 "container_info": config["container_info"]}
        recover = {"call": "recover", "containers": [state], "orphans": []}
        dvdi.daemon.kill()
        agent.restart()
        said = agent.call(recover, "failed")["text"]
        assert "(c) with external volumes cannot be recovered" in said and "systemctl start dvdid.socket" in said
        # It waits for one that comes.
        agent.parameters = ("recover_wait=60secs",)
        agent.restart()
        agent.send(recover)
        dvdi.daemon.start()
        assert agent.receive()["kind"] == "done"
        assert owned(dvdi, agent) == ["c"]
    agent.call(cleanup_of(call))
    assert not owned(dvdi, agent)


def test_a_container_path_in_another_isolators_volume(dvdi):
    dvdi.start_daemon()
    agent = Agent(dvdi)
    call = volume_call(dvdi, path="a/b")
    call["container_config"]["container_info"]["volumes"].append(
        {"container_path": "a", "mode": "RW", "host_path": str(dvdi.root)})
    said = agent.call(call, "failed")["text"]
    assert "'a/b' of volume 'v' of driver 'local' lies in the container path 'a' of host path" in said
    agent.call(cleanup_of(call))


def test_a_csi_volume_that_another_isolator_mounts(dvdi):
    dvdi.start_daemon()
    agent = Agent(dvdi, "csi_volumes_elsewhere=true")
    call = volume_call(dvdi)
    csi = {"type": "CSI_VOLUME", "csi_volume": {"plugin_name": "p"}}
    call["container_config"]["container_info"]["volumes"].append({"container_path": "csi", "mode": "RW", "source": csi})
    assert [one["target"] for one in agent.call(call)["launch_info"]["mounts"]] == [
        f"{call['container_config']['directory']}/data"]
    agent.call(cleanup_of(call))


def test_the_sandbox_is_shown_where_the_agent_says(dvdi):
    """The place in a root file system is the agent's flag and dvdid's configuration; where they differ nothing runs."""
    dvdi.configure({"sandbox_in_container": "/elsewhere"})
    dvdi.start_daemon()
    agent = Agent(dvdi)
    call = volume_call(dvdi)
    (dvdi.root / "rootfs").mkdir()
    call["container_config"]["rootfs"] = str(dvdi.root / "rootfs")
    assert "sandbox_in_container" in agent.call(call, "failed")["text"]
    agent.call(cleanup_of(call))
    assert not owned(dvdi, agent)


@pytest.mark.parametrize("last", ["module", "dvdcli", "run"])
def test_beside_dvdcli_and_dvdi_run_one_mount(dvdi, last):
    """One volume, three ways: mounted once, and unmounted after the last."""
    nfs = dvdi.faulty("nfs")
    dvdi.start_daemon()
    agent, dvdcli = Agent(dvdi), support.Dvdcli(dvdi)
    volume = ("--volumedriver=nfs", "--volumename=v")
    call = volume_call(dvdi, driver="nfs")
    mount = agent.call(call)["launch_info"]["mounts"][0]
    point = dvdcli.mount(*volume)
    task = dvdi.start("run", "--volume", "nfs/v:data", "--", "sh", "-c", "echo ready; read go; cat data/*")
    assert task.stdout.readline() == "ready\n"
    assert dvdi.kernel_mounts() == [point]
    pathlib.Path(mount["source"], "f").write_text("from the module\n")
    pathlib.Path(point, "g").write_text("from dvdcli\n")

    def end_task():
        assert task.communicate("go\n", timeout=30)[0] == "from the module\nfrom dvdcli\n"
    ends = {"module": lambda: agent.call(cleanup_of(call)), "run": end_task,
            "dvdcli": lambda: dvdcli.run("unmount", *volume)}
    final = ends.pop(last)
    for end in ends.values():
        end()
        assert dvdi.kernel_mounts() == [point]
    final()
    assert not dvdi.kernel_mounts()
    assert [one["op"] for one in nfs.calls() if one["op"] in ("Mount", "Unmount")] == ["Mount", "Unmount"]


def field(number, value):
    """Of a protobuf message: a text, or a message."""
    data = value.encode() if isinstance(value, str) else value
    size, length = len(data), b""
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + data


def test_what_the_first_isolator_mounted_is_adopted(dvdi):
    """A live task of its keeps its volume, whose end is ours; the mount of a dead one is listed."""
    nfs = dvdi.faulty("nfs")
    points = {}
    for name in ("kept", "left"):  # as dvdcli did for it
        nfs.request("Create", {"Name": name, "Opts": {}})
        points[name] = nfs.request("Mount", {"Name": name})["Mountpoint"]
    points["gone"] = str(dvdi.root)
    agent = Agent(dvdi)
    message = b"".join(field(1, b"".join([
        field(1, container), field(2, "nfs"), field(3, name), field(4, points[name]), field(5, "size=5"),
        field(6, str(dvdi.root)), field(7, "/usr/bin/dvdcli"), field(8, "false")]))
        for container, name in (("c", "kept"), ("dead", "left"), ("dead", "gone")))
    agent.former_state.write_bytes(struct.pack("<I", len(message)) + message)  # as Mesos' checkpoint() writes it
    dvdi.start_daemon()
    with a_process() as task:
        state = {"container_id": {"value": "c"}, "pid": task.pid, "directory": str(agent.work_dir),
                 "executor_info": {"executor_id": {"value": "e"}}}
        agent.call({"call": "recover", "containers": [state], "orphans": []})
        assert not agent.former_state.exists()
        assert owned(dvdi, agent) == ["c"]
        listed = {one["name"]: one for one in dvdi.daemon.call("GET", "/v1/volumes")["volumes"]}
        assert (listed["kept"]["state"], listed["left"]["state"]) == ("mounted", "unknown")
        assert len(listed["kept"]["containers"]) == 1 and "gone" not in listed
        said = (dvdi.root / "replay.log").read_text()
        assert "dvdi volume release nfs/left" in said and "'gone'" in said and "'kept'" not in said
        # A new container has the same mount.
        call = volume_call(dvdi, "new", driver="nfs")
        call["container_config"]["container_info"]["volumes"][0]["source"]["docker_volume"]["name"] = "kept"
        agent.call(call)
        agent.call(cleanup_of(call))
        assert support.is_mounted(points["kept"])
        calls = len(nfs.calls("Mount"))
        agent.restart()
        agent.call({"call": "recover", "containers": [state], "orphans": []})
        assert owned(dvdi, agent) == ["c"]
    # The agent's list shows no volume of it any more, so that recover did not wait for dvdid.
    agent.call({"call": "cleanup", "container_id": {"value": "c"}})
    support.eventually(lambda: not support.is_mounted(points["kept"]), what="it is unmounted")
    assert support.is_mounted(points["left"])
    assert len(nfs.calls("Mount")) == calls
    dvdi.run("volume", "release", "nfs/left", "--yes", code=0)
    assert not support.is_mounted(points["left"])
