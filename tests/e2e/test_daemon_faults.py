"""dvdid and drivers that go away, forget, or lose what they served. The numbers are those of docs/faults.md.

`dvdi` checks after each test that nothing is mounted, held or owed any more, and that the event log is intact.
"""

import os
import signal
import socket
import subprocess

from support import eventually, is_mounted

OWNER = "/agent"


class Launcher:
    """Another launcher than dvdi: prepares and isolates through the daemon's API, and keeps its own list."""

    def __init__(self, dvdi, daemon):
        self.dvdi, self.daemon = dvdi, daemon
        self.tasks = {}

    @staticmethod
    def volumes(volume):
        driver, name = volume.split("/")
        options = [{"key": "remote", "value": "loc:"}] if driver == "rc" else []
        return [{"container_path": "data", "mode": "RW",
                 "source": {"type": "DOCKER_VOLUME", "docker_volume": {
                     "driver": driver, "name": name, "driver_options": {"parameter": options}}}}]

    def prepare(self, identity, volume, status=200):
        directory = self.dvdi.root / f"sandbox-{identity}"
        directory.mkdir(exist_ok=True)
        return self.daemon.call("POST", "/v1/prepare", {
            "owner": OWNER, "container_id": {"value": identity},
            "container_config": {"directory": str(directory),
                                 "container_info": {"type": "MESOS", "volumes": self.volumes(volume)}}}, status=status)

    def launch(self, identity, volume):
        answer = self.prepare(identity, volume)
        task = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
        self.dvdi.processes.append(task)
        self.daemon.call("POST", "/v1/isolate", {"owner": OWNER, "container_id": {"value": identity}, "pid": task.pid})
        self.tasks[identity] = (task, volume)
        return answer["launch_info"]["mounts"][0]["source"]

    def end(self, identity):
        task, _ = self.tasks.pop(identity)
        task.stdin.close()
        task.wait(30)

    def cleanup(self, identity):
        return self.daemon.call("POST", "/v1/cleanup", {"owner": OWNER, "container_id": {"value": identity}})["owed"]

    def recover(self):
        return self.daemon.call("POST", "/v1/recover", {
            "owner": OWNER, "work_dir": OWNER, "complete": True, "orphans": [],
            "containers": [{"container_id": {"value": identity}, "pid": task.pid,
                            "container_info": {"type": "MESOS", "volumes": self.volumes(volume)}}
                           for identity, (task, volume) in self.tasks.items()]})


def test_10_socket_is_there_and_nobody_listens(dvdi):
    dvdi.configure({"docker": {"connect_patience": "700ms"}})
    path = dvdi.plugin_dir / "gone.sock"
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))
    problem = Launcher(dvdi, dvdi.start_daemon()).prepare("c", "gone/v", status=503)
    assert problem["driver"] == "gone" and problem["volume"] == "v" and problem["code"] == "unavailable", problem
    assert str(path) in problem["detail"] and "Connection refused" in problem["detail"], problem


def test_12_a_driver_that_is_away_while_the_daemon_recovers(dvdi):
    plugin = dvdi.faulty()
    daemon = dvdi.start_daemon()
    launcher = Launcher(dvdi, daemon)
    stays = launcher.launch("stays", "faulty/stays")
    goes = launcher.launch("goes", "faulty/goes")
    daemon.kill()
    launcher.end("goes")
    away = plugin.socket + ".away"
    os.rename(plugin.socket, away)
    daemon.start()
    recovered = launcher.recover()
    assert recovered["dropped"] == ["goes"] and [one["volume"] for one in recovered["owed"]] == ["goes"], recovered
    assert is_mounted(stays) and not is_mounted(goes)
    assert dvdi.volumes()["faulty/goes"]["owed"]
    os.rename(away, plugin.socket)
    eventually(lambda: "faulty/goes" not in dvdi.volumes() or not dvdi.volumes()["faulty/goes"]["owed"],
               what="what is owed is paid once the driver is back")
    assert list(name for name, one in plugin.volumes().items() if one["mounted"]) == ["stays"]
    assert is_mounted(stays)
    launcher.end("stays")
    assert launcher.cleanup("stays") == []


def test_13_a_driver_that_was_restarted_and_has_forgotten(dvdi):
    plugin = dvdi.faulty()
    launcher = Launcher(dvdi, dvdi.start_daemon())
    first = launcher.launch("first", "faulty/v")
    plugin.kill()
    plugin.start()
    assert not plugin.volumes()["v"]["ids"]
    second = launcher.launch("second", "faulty/v")
    assert not plugin.calls("Mount"), "it is mounted: the second container uses what is there"
    launcher.end("second")
    assert launcher.cleanup("second") == []
    assert is_mounted(first) and not is_mounted(second) and plugin.volumes()["v"]["mounted"]
    launcher.end("first")
    assert launcher.cleanup("first") == []


def test_20_a_server_that_does_not_answer_holds_its_own_volume_only(dvdi, rclone):
    launcher = Launcher(dvdi, dvdi.start_daemon())
    launcher.launch("hangs", "rc/v")
    rclone.process.send_signal(signal.SIGSTOP)
    try:
        eventually(lambda: dvdi.volumes()["rc/v"]["lost"], what="the daemon notices by itself")
        for _ in range(3):
            assert dvdi.run("run", "--volume", "local/v:data", "--", "true", code=0)
    finally:
        rclone.process.send_signal(signal.SIGCONT)
    eventually(lambda: dvdi.volumes()["rc/v"]["state"] == "mounted", what="it answers again")
    launcher.end("hangs")
    assert launcher.cleanup("hangs") == []


def test_21_a_server_that_is_killed_is_noticed_without_being_asked_for(dvdi, rclone):
    launcher = Launcher(dvdi, dvdi.start_daemon())
    launcher.launch("one", "rc/v")
    rclone.kill()
    eventually(lambda: "dvdi.mount.lost" in dvdi.event_types("volume/rc/v"), what="the daemon notices by itself")
    assert dvdi.volumes()["rc/v"]["lost"]
    rclone.start()
    launcher.launch("two", "rc/v")
    assert len(rclone.fuse_mounts()) == 1
    for identity in ("one", "two"):
        launcher.end(identity)
        assert launcher.cleanup(identity) == []


def test_a_private_mount_that_is_busy_goes_when_it_is_free(dvdi):
    launcher = Launcher(dvdi, dvdi.start_daemon())
    mount = launcher.launch("busy", "local/v")
    other = launcher.launch("other", "local/v")  # the volume stays in use: nothing of it is owed
    busy = os.open(mount, os.O_RDONLY)
    try:
        launcher.end("busy")
        assert "busy" in launcher.cleanup("busy")[0]["reason"]
        assert is_mounted(mount)
    finally:
        os.close(busy)
    eventually(lambda: not is_mounted(mount), what="the daemon takes it away by itself")
    assert is_mounted(other)
    launcher.end("other")
    assert launcher.cleanup("other") == []
