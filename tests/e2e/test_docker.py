"""Scenario 30: Docker uses the same volume of the same driver. What we release is ours; Docker's mount stays Docker's."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import tarfile

import pytest
from support import call, eventually, mount, mounts, stop, umount

PLUGINS = pathlib.Path("/run/docker/plugins")


def shell(script):
    return ["--", "sh", "-c", script]


class Docker:
    """A Docker engine of the test's own, in the mount namespace of the tests."""

    def __init__(self, dvdi):
        self.root = dvdi.root / "docker"
        self.root.mkdir()
        self.socket = str(self.root / "d.sock")
        self.log = self.root / "dockerd.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                ["dockerd", "--iptables=false", "--ip6tables=false", "--bridge=none", "--data-root", str(self.root / "data"),
                 "--exec-root", str(self.root / "exec"), "-H", f"unix://{self.socket}", "--pidfile", str(self.root / "pid")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")
        dvdi.undo.append(self.end)

    def answers(self):
        if self.process.poll() is not None:
            return "ended"
        with contextlib.suppress(OSError):
            return call(self.socket, "GET", "/_ping")[0] == 200
        return False

    def run(self, *args, check=True):
        done = subprocess.run(["docker", "-H", f"unix://{self.socket}", *args], capture_output=True, text=True, timeout=60,
                              check=False, env={"PATH": os.environ["PATH"], "HOME": str(self.root)})
        assert not check or done.returncode == 0, done
        return done.stdout.strip()

    def import_busybox(self):
        tar = self.root / "image.tar"
        with tarfile.open(tar, "w") as archive:
            archive.add(shutil.which("busybox"), "bin/busybox")
            for name in ("sh", "sleep", "cat"):
                link = tarfile.TarInfo(f"bin/{name}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                archive.addfile(link)
        self.run("import", str(tar), "bb")

    def start(self, volume):
        return self.run("run", "--detach", "--network", "none", "--volume-driver", "rc", "--volume", f"{volume}:/data", "bb",
                        "/bin/sleep", "1000000")

    def remove(self, container):
        self.run("rm", "--force", container)

    def shell(self, container, script):
        return self.run("exec", container, "/bin/sh", "-c", script)

    def end(self):
        if self.process.poll() is None:
            for container in self.run("ps", "--all", "--quiet", check=False).split():
                self.remove(container)
        stop(self.process)
        for point in sorted((one[0] for one in mounts() if one[0].startswith(f"{self.root}/")), reverse=True):
            umount(point, lazy=True)


@pytest.fixture
def docker(dvdi):
    for name, package in (("dockerd", "docker.io"), ("rclone", "rclone"), ("busybox", "busybox-static")):
        if shutil.which(name) is None:
            pytest.skip(f"there is no {name}: package {package}")
    # Docker knows no other folder for plugins. Only in the mount namespace of the tests, not on the machine.
    mount("e2e", "/run", "tmpfs", "mode=755")
    dvdi.undo.append(lambda: umount("/run", lazy=True))
    PLUGINS.mkdir(parents=True)
    dvdi.configure({"docker": {"plugin_dir": str(PLUGINS)}})
    engine = Docker(dvdi)
    if eventually(engine.answers, timeout=60, what="dockerd answers") == "ended":
        pytest.skip("dockerd does not start here: " + " | ".join(engine.log.read_text().splitlines()[-2:]))
    engine.import_busybox()
    return engine


@pytest.fixture
def rclone(dvdi, docker):
    plugin = dvdi.rclone("rc", str(PLUGINS / "rc.sock"))
    docker.run("volume", "create", "--driver", "rc", "--opt", "remote=loc:", "shared")
    return plugin


def test_docker_had_it_before(dvdi, docker, rclone):
    container = docker.start("shared")
    docker.shell(container, "echo docker > /data/f")
    (point,) = rclone.fuse_mounts()
    for _ in range(2):  # and the second run finds it as the first one did
        done = dvdi.run("run", "--volume", "rc/shared:data", *shell("cat data/f; echo dvdi > data/g"), code=0)
        assert done.stdout == "docker\n" and "owed" not in done.stderr
        assert rclone.fuse_mounts() == [point]
        assert docker.shell(container, "cat /data/g; echo still > /data/h; cat /data/h") == "dvdi\nstill"
        shared = dvdi.volumes()["rc/shared"]
        assert shared["foreign"]["evidence"] and shared["owed"] is None and shared["containers"] == []
        assert dvdi.event_types("volume/rc/shared", "dvdi.mount.")[-1] == "dvdi.mount.unmounted"
        assert dvdi.json("events", "verify")["intact"]
    # Docker's own end takes it away, and then nobody else holds it.
    docker.remove(container)
    eventually(lambda: not rclone.fuse_mounts())
    dvdi.run("run", "--volume", "rc/shared:data", *shell("cat data/h"), code=0)
    assert dvdi.volumes().get("rc/shared", {}).get("foreign") is None


def test_docker_comes_while_a_task_has_it(dvdi, docker, rclone):
    task = dvdi.start("run", "--volume", "rc/shared:data", *shell("echo dvdi > data/f; echo ready; read x"))
    assert task.stdout.readline() == "ready\n"
    (point,) = rclone.fuse_mounts()
    container = docker.start("shared")
    assert docker.shell(container, "cat /data/f") == "dvdi"
    _, err = task.communicate("\n", timeout=60)
    assert task.returncode == 0 and "owed" not in err
    assert rclone.fuse_mounts() == [point]
    assert docker.shell(container, "cat /data/f; echo on > /data/g; cat /data/g") == "dvdi\non"
    assert dvdi.volumes()["rc/shared"]["foreign"]
    docker.remove(container)
    eventually(lambda: not rclone.fuse_mounts())


def test_docker_goes_while_a_task_has_it(dvdi, docker, rclone):
    container = docker.start("shared")
    task = dvdi.start("run", "--volume", "rc/shared:data", *shell("echo ready; read x; echo late > data/f; cat data/f"))
    assert task.stdout.readline() == "ready\n"
    docker.remove(container)
    assert len(rclone.fuse_mounts()) == 1
    out, err = task.communicate("\n", timeout=60)
    assert (task.returncode, out) == (0, "late\n") and "owed" not in err
    eventually(lambda: not rclone.fuse_mounts())
    assert (rclone.data / "f").read_text() == "late\n"
