"""Paths that mean harm, and mounts that something holds: no escape, nothing lost, and errors that say who and where."""

import json
import os
import subprocess
import sys

import pytest
from support import children_of, eventually, is_alive, umount


def shell(script):
    return ["--", "sh", "-c", script]


def volumes_file(dvdi, *paths):
    """The form whose container paths may have any character."""
    file = dvdi.root / "volumes.json"
    file.write_text(json.dumps([{"container_path": path, "mode": "RW", "source": {
        "type": "DOCKER_VOLUME", "docker_volume": {"driver": "local", "name": f"v{number}"}}}
        for number, path in enumerate(paths)]))
    return file


@pytest.fixture
def outside(dvdi):
    """A folder that no container path may reach."""
    folder = dvdi.root / "outside"
    folder.mkdir()
    yield folder
    assert os.listdir(folder) == []


@pytest.fixture
def sandbox(dvdi):
    folder = dvdi.root / "sandbox"
    folder.mkdir()
    return folder


@pytest.fixture
def rootfs(dvdi):
    """A root file system that is the host's /usr and little else."""
    root = dvdi.root / "rootfs"
    for folder in ("usr", "etc", "tmp"):
        (root / folder).mkdir(parents=True)
    for link in ("bin", "sbin", "lib", "lib64"):
        (root / link).symlink_to(f"usr/{link}")
    return root


def host_usr(dvdi):
    file = dvdi.root / "usr.json"
    file.write_text(json.dumps([{"container_path": "/usr", "mode": "RO", "host_path": "/usr"}]))
    return file


class Swapper:
    """Exchanges two names as fast as it can, in a process of its own."""

    SCRIPT = """
import ctypes, sys
libc, left, right = ctypes.CDLL(None), sys.argv[1].encode(), sys.argv[2].encode()
assert libc.renameat2(-100, left, -100, right, 2) == 0
print("ready", flush=True)
while True:
    libc.renameat2(-100, left, -100, right, 2)
"""

    def __init__(self, dvdi, left, right):
        self.process = subprocess.Popen([sys.executable, "-c", self.SCRIPT, left, right], stdout=subprocess.PIPE, text=True)
        dvdi.processes.append(self.process)
        assert self.process.stdout.readline() == "ready\n"

    def end(self):
        self.process.kill()
        self.process.wait()


class TestContainerPaths:
    """Scenario 26."""

    @pytest.mark.parametrize("path", ["../x", "a/../../x", "..", "a/..", "/mnt/../etc/x", "./../x", "/.."])
    def test_dot_dot(self, dvdi, sandbox, outside, path):
        done = dvdi.run("run", volumes_file(dvdi, path), "--directory", sandbox, *shell("exit 0"), code=125)
        assert "[0].container_path" in done.stderr and "'..'" in done.stderr
        assert os.listdir(sandbox) == []
        done = dvdi.run("run", *shell("exit 0"), code=125, env={
            "DVDI_VOLUME_NAME": "v", "DVDI_VOLUME_DRIVER": "local", "DVDI_VOLUME_CONTAINERPATH": f"{outside}/{path}"})
        assert "DVDI_VOLUME_CONTAINERPATH" in done.stderr

    @pytest.mark.parametrize("path", ["", "/", ".", "./", "//", "a\nb", "a\0b", "\x1b[31m"])
    def test_paths_that_are_none(self, dvdi, sandbox, path):
        done = dvdi.run("run", volumes_file(dvdi, path), "--directory", sandbox, *shell("exit 0"), code=125)
        assert "[0].container_path" in done.stderr
        assert "\x1b" not in done.stderr and "\0" not in done.stderr
        assert os.listdir(sandbox) == []

    @pytest.mark.parametrize("path", ["link", "link/x", "dir/link/x/y"])
    def test_link_in_the_sandbox(self, dvdi, sandbox, outside, path):
        (sandbox / "link").symlink_to(outside)
        (sandbox / "dir").mkdir()
        (sandbox / "dir" / "link").symlink_to("../../outside")
        done = dvdi.run("run", "--volume", f"local/v:{path}", "--directory", sandbox, *shell("exit 0"), code=125)
        assert path in done.stderr and "symbolic link" in done.stderr

    def test_link_that_a_task_left_in_a_volume(self, dvdi, sandbox, outside):
        dvdi.run("run", "--volume", "local/outer:data", *shell(f"ln -s {outside} data/link"), code=0)
        done = dvdi.run("run", "--volume", "local/outer:data", "--volume", "local/inner:data/link/x", "--directory", sandbox,
                        *shell("exit 0"), code=125)
        assert "symbolic link" in done.stderr or "data/link/x" in done.stderr

    def test_links_in_a_root_file_system_mean_what_they_mean_to_the_task(self, dvdi, rootfs, outside):
        (rootfs / "absolute").symlink_to(outside)
        (rootfs / "relative").symlink_to("../../../../../../../.." + str(outside))
        (rootfs / str(outside)[1:]).mkdir(parents=True)
        for link in ("absolute", "relative"):
            done = dvdi.run("run", host_usr(dvdi), "--rootfs", rootfs, "--volume", f"local/v:/{link}/x",
                            *shell(f"echo {link} > {outside}/x/f; cat /{link}/x/f; cat /proc/self/mountinfo"), code=0)
            assert done.stdout.splitlines()[0] == link
            assert f" {outside}/x " in done.stdout  # the task's own
        assert (dvdi.state_dir / "local" / "volumes" / "v" / "data" / "f").read_text() == "relative\n"

    def test_name_that_is_swapped_meanwhile_in_the_sandbox(self, dvdi, sandbox, outside):
        (sandbox / "swap").mkdir()
        (sandbox / "other").symlink_to(outside)
        swapper = Swapper(dvdi, sandbox / "swap", sandbox / "other")
        codes = set()
        for _ in range(25):
            done = dvdi.run("run", "--volume", "local/v:swap/x", "--directory", sandbox,
                            *shell(f"touch /proc/self/cwd/ran; ls -A {outside}; cat /proc/self/mountinfo"))
            codes.add(done.returncode)
            assert done.returncode in (0, 125), done
            assert str(outside) not in done.stdout
            if done.returncode == 125:
                # The folder that was opened as `swap` may be called `other` by now.
                assert "swap/x" in done.stderr or "other/x" in done.stderr, done.stderr
            assert os.listdir(outside) == []
        swapper.end()
        assert codes

    def test_name_that_is_swapped_meanwhile_in_a_root_file_system(self, dvdi, rootfs, outside):
        (rootfs / "swap").mkdir()
        (rootfs / "other").symlink_to("../../../../../../../.." + str(outside))
        swapper = Swapper(dvdi, rootfs / "swap", rootfs / "other")
        for _ in range(25):
            done = dvdi.run("run", host_usr(dvdi), "--rootfs", rootfs, "--volume", "local/v:/swap/x", *shell("echo ran"))
            assert done.returncode in (0, 125), done
            assert os.listdir(outside) == []
        swapper.end()

    SHELL = ["$(touch pwned)", "`touch pwned`", "; touch pwned", "a b", "-rf", "a' \"b", "*", "&& touch pwned", "|touch pwned",
             "%s%n", "~", "\\040", "ünï·ć"]

    def test_shell_text_is_just_a_name(self, dvdi, sandbox):
        done = dvdi.run("run", volumes_file(dvdi, *self.SHELL), "--directory", sandbox,
                        *shell('for one in *; do echo here > "./$one/f" || exit 9; done; ls'), code=0)
        assert sorted(done.stdout.splitlines()) == sorted(self.SHELL)
        for number in range(len(self.SHELL)):
            assert (dvdi.state_dir / "local" / "volumes" / f"v{number}" / "data" / "f").read_text() == "here\n"
        assert not list(dvdi.root.rglob("pwned"))
        assert sorted(os.listdir(sandbox)) in ([], sorted(self.SHELL))

    def test_shell_text_elsewhere_is_refused(self, dvdi):
        for text in ("$(touch pwned)", "`touch pwned`", "x;touch pwned"):
            for flags in (["--volume", f"local/{text}:data"], ["--volume", f"{text}/v:data"], ["--user", text],
                          ["--id", text], ["--volume", f"local/v:data,type=image,size={text}"],
                          ["--volume", f"local/v:data,type=image,size=16M,fstype={text}"],
                          ["--volume", f"local/v:data,{text}=1"]):
                dvdi.run("run", *flags, *shell("exit 0"), code=125)
        assert not list(dvdi.root.rglob("pwned"))
        assert dvdi.json("volume", "ls")["volumes"] == []

    @pytest.mark.parametrize("path", ["x" * 10_000, "x/" * 5_000, "/" + "y" * 10_000, "/mnt" + "/z" * 4_998],
                             ids=["name", "folders", "absolute-name", "absolute-folders"])
    def test_ten_thousand_characters(self, dvdi, sandbox, path):
        done = dvdi.run("run", volumes_file(dvdi, path), "--directory", sandbox, *shell("exit 0"), code=125)
        assert "[0].container_path" in done.stderr
        assert "4,095" in done.stderr or "4095" in done.stderr or "255" in done.stderr, done.stderr
        assert len(done.stderr) < 2_000  # it does not repeat all of it
        assert os.listdir(sandbox) == []

    def test_a_long_path_that_is_allowed(self, dvdi, sandbox):
        path = "/".join(["n" * 99] * 30)
        dvdi.run("run", volumes_file(dvdi, path), "--directory", sandbox, *shell(f"echo x > {path}/f"), code=0)
        assert (dvdi.state_dir / "local" / "volumes" / "v0" / "data" / "f").read_text() == "x\n"


class TestBusy:
    """Scenario 22."""

    def hold(self, dvdi, folder):
        """A process that has its working folder there."""
        holder = subprocess.Popen(["cat"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        dvdi.processes.append(holder)
        eventually(lambda: os.readlink(f"/proc/{holder.pid}/exe").endswith("cat"))
        return holder

    @pytest.mark.parametrize("kind", ["local", "image", "faulty", "rclone"])
    def test_owed_then_retried(self, dvdi, kind):
        flag, name = {"local": ("local/v:data", "local/v"), "image": ("local/v:data,type=image,size=16M", "local/v"),
                      "faulty": ("d/v:data", "d/v"), "rclone": ("d/v:data,remote=loc:", "d/v")}[kind]
        dvdi.configure({"debts": {"attempts": 100_000}})
        if kind == "faulty":
            dvdi.faulty("d")
        if kind == "rclone":
            dvdi.rclone("d")
        run = dvdi.start("run", "--volume", flag, *shell("echo kept > data/f; echo ready; read x; exit 5"))
        assert run.stdout.readline() == "ready\n"
        (point,) = dvdi.kernel_mounts()
        holder = self.hold(dvdi, point)
        _, err = run.communicate("\n", timeout=60)
        assert run.returncode == 5  # the task's: what comes after it does not change it
        assert "owed" in err and "'v'" in err
        assert f"pid {holder.pid}" in err and "cat" in err, err
        owed = dvdi.volumes()[name]["owed"]
        assert owed["attempts"] >= 1 and not owed["parked"] and f"pid {holder.pid}" in owed["last_error"]
        assert dvdi.volumes()[name]["containers"] == [] and dvdi.containers() == []
        dvdi.check_books()
        # Tried again by other commands, and it fails no later container.
        eventually(lambda: dvdi.volumes()[name]["owed"]["attempts"] > owed["attempts"])
        again = dvdi.run("run", "--volume", flag, *shell("cat data/f"), code=0)
        assert again.stdout == "kept\n" and "owed" in again.stderr
        assert dvdi.kernel_mounts() == [point]
        holder.stdin.close()
        holder.wait(30)
        if kind == "rclone":
            # It forgets a mount that it could not end, and says "volume is not mounted" ever after. The mount may be
            # another client's for all that we can know, so it stays until somebody ends it (docs/drivers.md).
            assert "volume is not mounted" in dvdi.volumes()[name]["owed"]["last_error"]
            assert umount(point)
        dvdi.check_released()
        types = dvdi.event_types(f"volume/{name}")
        assert types[-1] == "dvdi.mount.unmounted" or "dvdi.mount.unmounted" in types[-2:]

    def test_parked_after_many_attempts_until_it_is_used(self, dvdi):
        dvdi.configure({"debts": {"attempts": 3}})
        plugin = dvdi.faulty("d")
        plugin.rule("Unmount", "error", text="the array is rebuilding")
        done = dvdi.run("run", "--volume", "d/v:data", *shell("exit 0"), code=0)
        assert "owed" in done.stderr and "the array is rebuilding" in done.stderr
        eventually(lambda: dvdi.volumes()["d/v"]["owed"]["parked"])
        attempts = len(plugin.calls("Unmount"))
        assert attempts == dvdi.volumes()["d/v"]["owed"]["attempts"] == 3
        doctor = json.loads(dvdi.run("--format", "json", "doctor", code=1).stdout)
        (finding,) = [one for one in doctor["findings"] if one["subject"] == "volume d/v"]
        assert finding["level"] == "problem" and "the array is rebuilding" in finding["text"]
        assert len(plugin.calls("Unmount")) == attempts
        plugin.clear()
        dvdi.containers()
        assert plugin.volumes()["v"]["mounted"]  # left to the operator
        dvdi.run("run", "--volume", "d/v:data", *shell("exit 0"), code=0)
        assert not plugin.volumes()["v"]["mounted"] and dvdi.volumes().get("d/v", {}).get("owed") is None

    def test_removing_is_refused_meanwhile(self, dvdi):
        run = dvdi.start("run", "--volume", "local/v:data", *shell("echo kept > data/f; echo ready; read x"))
        assert run.stdout.readline() == "ready\n"
        holder = self.hold(dvdi, dvdi.kernel_mounts()[0])
        run.communicate("\n", timeout=60)
        answer = json.loads(dvdi.run("--format", "json", "volume", "rm", "local/v", code=1).stdout)
        assert answer["removed"] == [] and str(holder.pid) in json.dumps(answer["failed"])
        holder.stdin.close()
        holder.wait(30)
        dvdi.check_released()
        assert (dvdi.state_dir / "local" / "volumes" / "v" / "data" / "f").read_text() == "kept\n"


def processes_marked(mark):
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/environ", "rb") as file:
                    if f"MARK={mark}".encode() in file.read() and is_alive(int(entry)):
                        found.append(int(entry))
            except OSError:
                continue
    return found


class TestDaemons:
    """Scenario 28: a task forks a daemon and exits."""

    # It ignores what it can, leaves session and process group, and is nobody's child.
    DAEMON = ("trap '' TERM HUP INT; "
              "(setsid sh -c 'trap \"\" TERM HUP INT; exec 3>data/open; while :; do echo $$ > data/alive; done' &) ; "
              "while [ ! -s data/alive ]; do :; done; exit 4")

    @pytest.mark.parametrize("pid", [[], ["--pid", "host"]], ids=["namespace", "host"])
    def test_volume_goes_only_when_everything_has_ended(self, dvdi, pid):
        plugin = dvdi.faulty("d")
        plugin.rule("Unmount", "hold")
        mark = dvdi.root.name
        run = dvdi.start("run", *pid, "--env", f"MARK={mark}", "--volume", "d/v:data,kind=bind", "--volume", "local/w:more",
                         *shell(self.DAEMON))
        plugin.calls("Unmount", wait=1)
        assert processes_marked(mark) == []
        plugin.clear()
        out, err = run.communicate(timeout=60)
        assert (run.returncode, out, err) == (4, "", "")  # nothing is owed: nothing held it
        assert not children_of(os.getpid()) or plugin.process.pid in children_of(os.getpid())
        dvdi.check_released()

    def test_volume_stays_while_the_task_runs(self, dvdi):
        plugin = dvdi.faulty("d")
        mark = dvdi.root.name
        run = dvdi.start("run", "--env", f"MARK={mark}", "--volume", "d/v:data", *shell(
            "(setsid sh -c 'while :; do echo x > data/alive; done' &); while [ ! -s data/alive ]; do :; done; echo ready; read x"))
        assert run.stdout.readline() == "ready\n"
        assert len(processes_marked(mark)) >= 2
        dvdi.check_books()
        assert plugin.volumes()["v"]["mounted"] and plugin.calls("Unmount") == []
        run.communicate("\n", timeout=60)
        assert run.returncode == 0 and processes_marked(mark) == []
