"""dvdcli as the stock docker/volume isolator of Mesos starts it, with a daemon and without one."""

import json
import os
import signal

import pytest
import support
from support import Dvdcli

CALLS = json.loads((support.ROOT / "tests" / "data" / "mesos" / "dvdcli-calls.json").read_text())
VOLUME = ("--volumedriver=rc", "--volumename=v")
REMOTE = "--volumeopts=remote=loc:"
# Until then the debts that nobody can pay yet are tried, far more often than usual: they must not be parked meanwhile.
LATE = {"late_answer": "5s", "attempts": 1000}


@pytest.fixture(params=["daemonless", "dvdid"])
def hosted(request, dvdi):
    """The node, with a daemon and without one; plugins are started after it, which either finds."""
    # A Mount whose caller was killed is still answered, some time later.
    dvdi.configure({"debts": LATE})
    if request.param == "dvdid":
        dvdi.start_daemon()
    return dvdi


@pytest.fixture
def dvdcli(hosted):
    return Dvdcli(hosted)


@pytest.fixture
def nfs(hosted):
    return hosted.faulty("nfs")


NFS = ("--volumedriver=nfs", "--volumename=v")


def references(node, volume):
    return node.volumes().get(volume, {"containers": []})["containers"]


def test_a_mount_says_its_mount_point_alone_and_one_unmount_releases_it(hosted, dvdcli, rclone):
    point = dvdcli.mount(*VOLUME, REMOTE)
    assert rclone.fuse_mounts() == [point]
    assert dvdcli.mount(*VOLUME, REMOTE) == point
    [container] = hosted.containers()
    assert (container["owner"], container["state"]) == ("dvdcli", "prepared")
    assert [(one["driver"], one["name"]) for one in container["volumes"]] == [("rc", "v")]
    assert len(references(hosted, "rc/v")) == 1
    assert not (hosted.state_dir / "sandboxes").exists() or not os.listdir(hosted.state_dir / "sandboxes")
    done = dvdcli.run("unmount", *VOLUME)
    assert (done.stdout, done.stderr) == ("", "")
    assert not rclone.fuse_mounts()


@pytest.mark.parametrize("plugin", ["rclone", "other"])
@pytest.mark.parametrize("scenario", CALLS, ids=lambda one: one["scenario"])
def test_replayed(hosted, dvdcli, scenario, plugin, request):
    """The recorded calls. rclone knows other options than nfs, and must have one: they are replaced."""
    if plugin == "rclone":
        request.getfixturevalue("rclone")
        hosted.rclone("nfs")
        for name in ("vol-a", "vol-c", "vol-nested"):
            hosted.run("volume", "create", f"nfs/{name}", "-o", "remote=loc:", code=0)
    else:
        driver = hosted.faulty("nfs")
    points = {}
    for call in scenario["calls"]:
        given = call
        if plugin == "rclone":
            given = [one for one in call if not one.startswith("--volumeopts")]
            given += [REMOTE] if len(given) < len(call) else []
        key = tuple(call[1:3])
        if call[0] == "mount":
            point = dvdcli.mount(*given[1:])
            assert points.setdefault(key, point) == point
        else:
            dvdcli.run(*given)
            points.pop(key, None)
        assert hosted.kernel_mounts() == sorted(points.values()), call
        assert len(hosted.containers()) == len(points), call
    assert not points
    if plugin == "other" and scenario["scenario"] == "two-containers":
        [create] = driver.calls("Create")
        assert create["opts"] == {"mountopts": "nolock,vers=4.1", "size": "5"}
        assert len(driver.calls("Mount")) == len(driver.calls("Unmount")) == 1


def test_calls_of_different_volumes_come_at_the_same_time(hosted, dvdcli, nfs):
    [scenario] = [one for one in CALLS if one["scenario"] == "three-volumes"]
    nfs.rule("Mount", "hold")
    mounts = [dvdcli.start(*call) for call in scenario["calls"][:3]]
    nfs.calls("Mount", wait=2)  # neither waits for the other
    out, _ = mounts[1].communicate(timeout=60)  # nor the one of another driver for a driver that hangs
    assert mounts[1].returncode == 0 and support.is_mounted(out.rstrip("\n"))
    nfs.clear()
    for process in (mounts[0], mounts[2]):
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
        assert support.is_mounted(out.rstrip("\n"))
    unmounts = [dvdcli.start(*call) for call in scenario["calls"][3:]]
    assert [process.wait(60) for process in unmounts] == [0, 0, 0]
    assert not hosted.kernel_mounts() and not hosted.containers()


def test_two_mounts_at_the_same_moment_are_one_reference(hosted, dvdcli, nfs):
    nfs.rule("Mount", "hold", times=1)
    first, second = dvdcli.start("mount", *NFS), dvdcli.start("mount", *NFS, "--volumeopts=a=b")
    nfs.calls("Mount", wait=1)
    nfs.release()
    points = set()
    for process in (first, second):
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
        points.add(out)
    assert len(points) == 1
    assert len(references(hosted, "nfs/v")) == 1 and len(nfs.calls("Mount")) == 1
    dvdcli.run("unmount", *NFS)


@pytest.mark.parametrize("last", ["dvdcli", "run"])
def test_shared_with_a_task_it_is_unmounted_after_the_last(hosted, dvdcli, rclone, last):
    dvdcli.mount(*VOLUME, REMOTE)
    task = hosted.start("run", "--volume", "rc/v:data,remote=loc:", "--", "sh", "-c", "echo ready; read x; echo y > data/f")
    assert task.stdout.readline() == "ready\n"
    assert len(rclone.fuse_mounts()) == 1 and len(references(hosted, "rc/v")) == 2

    def end_task():
        task.communicate("\n", timeout=30)
        assert task.returncode == 0
    steps = [end_task, lambda: dvdcli.run("unmount", *VOLUME)]
    if last == "run":
        steps.reverse()
    steps[0]()
    assert len(rclone.fuse_mounts()) == 1
    if last == "run":  # once more takes nothing from the task, and says whose it is
        assert "dvdcli has no mount of volume 'v'" in dvdcli.run("unmount", *VOLUME).stderr
        assert len(rclone.fuse_mounts()) == 1
    steps[1]()
    assert not rclone.fuse_mounts()
    assert (rclone.data / "f").read_text() == "y\n"
    assert hosted.event_types("volume/rc/v", "dvdi.mount.") == [
        f"dvdi.mount.{state}" for state in ("mounting", "mounted", "unmounting", "unmounted")]


def test_a_mount_that_fails_leaves_nothing_and_its_unmount_is_success(hosted, dvdcli, nfs):
    nfs.rule("Mount", "error", times=1, text="no server of that name, hunter2")
    done = dvdcli.run("mount", *NFS, "--volumeopts=password=hunter2", code=1)
    assert done.stdout == ""
    assert done.stderr.startswith("dvdcli: driver_error: ") and "no server of that name" in done.stderr
    assert "'v'" in done.stderr and "hunter2" not in done.stderr
    assert not hosted.containers()
    assert dvdcli.run("unmount", *NFS).stderr == ""
    dvdcli.mount(*NFS)
    dvdcli.run("unmount", *NFS)


def test_a_mount_that_is_killed_keeps_intent_and_reference(hosted, dvdcli, nfs):
    """The agent kills after 120 s, and then calls unmount."""
    nfs.rule("Mount", "hold")
    killed = dvdcli.start("mount", *NFS)
    nfs.calls("Mount", wait=1)
    killed.kill()
    killed.wait(30)
    assert len(references(hosted, "nfs/v")) == 1
    [container] = hosted.containers()
    assert (container["owner"], container["state"]) == ("dvdcli", "preparing")
    dvdcli.run("unmount", *NFS)
    assert not hosted.containers() and not references(hosted, "nfs/v")
    nfs.clear()
    hosted.check_released()


def test_a_mount_after_a_killed_one_finds_what_it_began(hosted, dvdcli, nfs):
    nfs.rule("Mount", "hold")
    killed = dvdcli.start("mount", *NFS)
    nfs.calls("Mount", wait=1)
    killed.kill()
    killed.wait(30)
    nfs.clear()
    point = dvdcli.mount(*NFS)
    assert hosted.kernel_mounts() == [point] and len(references(hosted, "nfs/v")) == 1
    dvdcli.run("unmount", *NFS)


def test_an_unmount_that_is_killed_is_finished(hosted, dvdcli, nfs):
    dvdcli.mount(*NFS)
    nfs.rule("Unmount", "hold", times=1)
    killed = dvdcli.start("unmount", *NFS)
    nfs.calls("Unmount", wait=1)
    killed.kill()
    killed.wait(30)
    assert not references(hosted, "nfs/v")
    nfs.clear()
    dvdcli.run("unmount", *NFS)
    hosted.check_released()
    dvdcli.mount(*NFS)
    dvdcli.run("unmount", *NFS)


def test_a_mount_after_an_unmount_that_was_killed(hosted, dvdcli, nfs):
    dvdcli.mount(*NFS)
    nfs.rule("Unmount", "hold", times=1)
    killed = dvdcli.start("unmount", *NFS)
    nfs.calls("Unmount", wait=1)
    killed.kill()
    killed.wait(30)
    nfs.clear()
    point = dvdcli.run("mount", *NFS).stdout.rstrip("\n")  # without a daemon it says what it settled
    assert hosted.kernel_mounts() == [point]
    assert [one["state"] for one in hosted.containers()] == ["prepared"]
    dvdcli.run("unmount", *NFS)


def test_an_unmount_that_the_driver_refuses_is_owed_and_paid(hosted, dvdcli, nfs):
    dvdcli.mount(*NFS)
    nfs.rule("Unmount", "error", times=1, text="device is busy")
    done = dvdcli.run("unmount", *NFS)
    assert done.stdout == "" and "warning" in done.stderr and "device is busy" in done.stderr
    assert not hosted.containers()
    hosted.check_released()


def test_nothing_but_an_unmount_ends_it(hosted, dvdcli, nfs):
    """Not the process that mounted, not another command, not a daemon that starts."""
    point = dvdcli.mount(*NFS)
    hosted.run("run", "--volume", "nfs/v:data", "--", "true", code=0)
    hosted.run("volume", "ls", code=0)
    if hosted.daemon:
        hosted.daemon.restart()
    else:
        hosted.start_daemon()
    hosted.run("run", "--volume", "nfs/v:data", "--", "true", code=0)
    assert len(references(hosted, "nfs/v")) == 1 and hosted.kernel_mounts() == [point]
    assert hosted.run("volume", "rm", "nfs/v").returncode == 1
    assert "uses it" in dvdcli.run("remove", *NFS, code=1).stderr
    answer = hosted.daemon.call("POST", "/v1/recover", {"owner": "dvdcli", "containers": [], "orphans": []}, status=400)
    assert "dvdcli" in answer["detail"]
    assert len(references(hosted, "nfs/v")) == 1
    assert dvdcli.mount(*NFS) == point
    dvdcli.run("unmount", *NFS)


def test_a_mount_that_was_lost_is_mounted_afresh(hosted, dvdcli, rclone):
    point = dvdcli.mount(*VOLUME, REMOTE)
    assert support.umount(point, lazy=True)
    again = dvdcli.mount(*VOLUME)  # other options, of a volume that must be mounted again
    assert rclone.fuse_mounts() == [again]
    dvdcli.run("unmount", *VOLUME)


def test_the_other_commands(hosted, dvdcli, rclone):
    done = dvdcli.run("create", *VOLUME, REMOTE)
    assert (done.stdout, done.stderr) == ("", "v\n")
    assert dvdcli.run("get", *VOLUME).stdout == "v\n"
    assert dvdcli.run("list", "--volumedriver=rc").stdout == "v\n"
    assert dvdcli.run("path", *VOLUME).stdout == ""
    point = dvdcli.mount(*VOLUME, "--explicitCreate=true")
    assert dvdcli.run("path", *VOLUME).stdout == point + "\n"
    assert "'v'" in dvdcli.run("remove", *VOLUME, code=1).stderr  # it is in use
    dvdcli.run("unmount", *VOLUME)
    done = dvdcli.run("remove", *VOLUME)
    assert (done.stdout, done.stderr) == ("", "")
    assert not rclone.request("List")["Volumes"]
    assert dvdcli.run("list", "--volumedriver=rc").stdout == ""
    for args in (["get", *VOLUME], ["path", *VOLUME], ["remove", *VOLUME], ["list", "--volumedriver=nobody"],
                 ["mount", *VOLUME, REMOTE, "--explicitcreate"], ["get", "--volumename=v"]):
        done = dvdcli.run(*args, code=1)
        assert done.stdout == "" and done.stderr.startswith("dvdcli: "), done
    assert not rclone.request("List")["Volumes"]  # it must exist, so it was not created


def test_where_others_have_it_mounted_the_driver_says(dvdcli, rclone):
    rclone.request("Create", {"Name": "v", "Opts": {"remote": "loc:"}})
    point = rclone.request("Mount", {"Name": "v", "ID": "x"})["Mountpoint"]
    assert dvdcli.run("path", *VOLUME).stdout == point + "\n"
    rclone.request("Unmount", {"Name": "v", "ID": "x"})


def test_a_wrong_command_line_does_nothing(dvdi, dvdcli, nfs):
    for args in (["mount", *NFS, "--nosuch"], ["mount", *NFS, "--volumeopts=plain"], ["nosuch"], ["mount", *NFS, "more"]):
        done = dvdcli.run(*args, code=2)
        assert done.stdout == "" and done.stderr.startswith("dvdcli: ")
    assert dvdcli.run("mount", *NFS, "--volumeopts=dvdi.exclusive=true", code=1).stdout == ""
    assert not nfs.calls("Mount") and not nfs.calls("Create")
    assert dvdcli.run().stdout == dvdcli.run("--help").stdout
    assert dvdcli.run("version").stdout.startswith(f"Binary: {os.path.realpath(Dvdcli.program())}\nSemVer: ")


def test_a_term_signal_keeps_intent_and_reference_too(hosted, dvdcli, nfs):
    nfs.rule("Mount", "hold")
    ended = dvdcli.start("mount", *NFS)
    nfs.calls("Mount", wait=1)
    ended.send_signal(signal.SIGTERM)
    assert ended.wait(30) == -signal.SIGTERM
    assert len(references(hosted, "nfs/v")) == 1
    dvdcli.run("unmount", *NFS)
    nfs.clear()  # now the Mount is made after all; without a daemon it is the next command that settles it
    hosted.check_released()


def test_a_mount_that_hangs_ends_at_its_deadline_and_leaves_no_reference(dvdi):
    """The driver's own deadline here: that of dvdcli is 110 s."""
    dvdi.configure({"deadlines": {"mount": "1s"}, "debts": LATE})
    nfs, dvdcli = dvdi.faulty("nfs"), Dvdcli(dvdi)
    for prepare_next in (dvdi.start_daemon, lambda: None):
        nfs.rule("Mount", "hold")
        done = dvdcli.run("mount", *NFS, code=1)
        assert done.stdout == "" and "deadline_exceeded" in done.stderr and "'v'" in done.stderr
        assert not dvdi.containers()
        dvdcli.run("unmount", *NFS)
        nfs.clear()
        dvdi.check_released()
        prepare_next()
