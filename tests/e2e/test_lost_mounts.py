"""Mounts that go without us: a FUSE server (rclone) that dies or hangs, somebody who unmounts by hand. Scenarios 20 and 21."""

import signal

from support import eventually, umount

VOLUME = ["--volume", "rc/v:data,remote=loc:"]


def shell(script):
    return ["--", "sh", "-c", script]


def start_task(dvdi, script="echo ready; read x"):
    task = dvdi.start("run", *VOLUME, *shell(script))
    assert task.stdout.readline() == "ready\n", task.stderr.read()
    return task


def end_task(task):
    out, err = task.communicate("\n", timeout=60)
    return task.returncode, out, err


def test_next_task_gets_a_fresh_mount_after_the_server_died(dvdi, rclone):
    (rclone.data / "f").write_text("there\n")
    first = start_task(dvdi, "echo ready; read x; cat data/f 2>&1; exit 3")
    identity = dvdi.volumes()["rc/v"]["mount_id"]
    rclone.kill()
    assert len(rclone.fuse_mounts()) == 1  # dead, and in the table
    rclone.start()
    second = dvdi.run("run", *VOLUME, *shell("cat data/f; echo new > data/g"), code=0)
    assert second.stdout == "there\n"
    assert (rclone.data / "g").read_text() == "new\n"  # not in the bare directory
    assert len(rclone.fuse_mounts()) == 1  # the first task refers to the volume still
    assert dvdi.volumes()["rc/v"]["mount_id"] != identity
    code, out, _ = end_task(first)
    assert code == 3 and "not connected" in out  # it keeps what it has
    assert not rclone.fuse_mounts()
    lost = [event for event in dvdi.events() if event["type"] == "dvdi.mount.lost"]
    assert len(lost) == 1 and lost[0]["data"]["mount_id"] == identity and "its server is gone" in lost[0]["data"]["reason"]


def test_cleanup_works_though_the_server_is_dead_and_the_driver_away(dvdi, rclone):
    task = start_task(dvdi, "echo ready; read x; exit 3")
    rclone.kill()
    code, _, err = end_task(task)
    assert code == 3 and "owed" in err  # the driver may count us still
    assert not rclone.fuse_mounts()  # but the dead mount is gone
    assert dvdi.volumes()["rc/v"]["owed"]
    # rclone 1.60 hangs where it finds a mount in its books and can make it again.
    (rclone.cache / "docker-plugin.state").unlink()
    rclone.start()
    eventually(lambda: not dvdi.volumes()["rc/v"]["owed"], what="the Unmount that was owed is paid")
    assert not rclone.fuse_mounts()


def test_cleanup_leaves_nothing_owed_where_the_driver_answers(dvdi, rclone):
    task = start_task(dvdi, "echo ready; read x; exit 3")
    rclone.kill()
    rclone.start()
    code, _, err = end_task(task)
    assert (code, err) == (3, "")
    assert not rclone.fuse_mounts()
    volume = dvdi.volumes()["rc/v"]
    assert (volume["state"], volume["owed"], volume["lost"]) == ("absent", None, None)


def test_a_server_that_hangs_holds_its_own_volume_only(dvdi, rclone):
    dvdi.configure({"deadlines": {"mount": "2s", "unmount": "2s", "other": "2s"}})
    task = start_task(dvdi)
    rclone.process.send_signal(signal.SIGSTOP)
    try:
        dvdi.run("run", "--volume", "local/a:data", *shell("echo x > data/f"), code=0)
        failed = dvdi.run("run", *VOLUME, *shell("exit 0"), code=125)
        assert "'v'" in failed.stderr and "'rc'" in failed.stderr
        assert dvdi.volumes()["rc/v"]["containers"], "the first task has it still"
        assert "rc" in dvdi.run("doctor").stdout
    finally:
        rclone.process.send_signal(signal.SIGCONT)
    eventually(lambda: dvdi.run("run", *VOLUME, *shell("exit 0")).returncode == 0, what="the volume is usable again")
    assert end_task(task)[0] == 0
    eventually(lambda: not dvdi.volumes()["rc/v"]["owed"], what="nothing is owed")
    assert not rclone.fuse_mounts()


def test_a_mount_that_somebody_unmounted_is_mounted_afresh(dvdi, rclone):
    task = start_task(dvdi, "echo ready; read x; echo late > data/f")
    (point,) = rclone.fuse_mounts()
    assert umount(point, lazy=True)
    dvdi.run("run", *VOLUME, *shell("echo x > data/g"), code=0)
    assert rclone.fuse_mounts() == [point]
    assert (rclone.data / "g").read_text() == "x\n"  # not in the bare directory
    assert end_task(task) == (0, "", "")
    assert (rclone.data / "f").read_text() == "late\n"  # the task's own copy worked on
    assert not rclone.fuse_mounts()
    (lost,) = [event["data"] for event in dvdi.events() if event["type"] == "dvdi.mount.lost"]
    assert "does not show it any more" in lost["reason"] and lost["to"] == "unknown"
