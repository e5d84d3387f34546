"""Scenario 30: Docker uses the same volume of the same driver. What we release is ours; Docker's mount stays Docker's."""

import pathlib
import shutil

import pytest
from docker_engine import Docker
from support import eventually, mount, umount

PLUGINS = pathlib.Path("/run/docker/plugins")


def shell(script):
    return ["--", "sh", "-c", script]


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
