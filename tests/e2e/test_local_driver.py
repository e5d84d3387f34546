"""The local driver through the whole program: quotas that stop a task, images that are formatted once, nothing kept busy."""

import os
import re

import pytest
from support import eventually, loop_devices_below, mounts

MIB = 1 << 20


def shell(script):
    return ["--", "sh", "-c", script]


def volume(name, path="data", **options):
    return ["--volume", ",".join([f"local/{name}:{path}", *(f"{key}={value}" for key, value in options.items())])]


def image(name, path="data", size="16M", **options):
    return volume(name, path, type="image", size=size, **options)


def images_below(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size >= 4 * MIB)


class TestImage:
    def test_quota_stops_a_task(self, dvdi):
        fill = "dd if=/dev/zero of=data/big bs=1M count=64 2>&1; echo dd $?; stat -c %s data/big"
        done = dvdi.run("run", *image("q"), *shell(fill), code=0)
        assert "No space left on device" in done.stdout and "dd 1" in done.stdout
        written = int(done.stdout.split()[-1])
        assert 8 * MIB < written < 16 * MIB
        # The volume is full and whole: what is on it can be read, and room made.
        done = dvdi.run("run", *image("q"), *shell("stat -c %s data/big; rm data/big; echo x > data/small; cat data/small"),
                        code=0)
        assert done.stdout.split() == [str(written), "x"]

    def test_one_volume_s_quota_is_not_another_s(self, dvdi):
        done = dvdi.run("run", *image("full", "one"), *image("free", "two"), *shell(
            "cat /dev/zero > one/f 2>/dev/null; head -c 4M /dev/zero > two/f && stat -c %s two/f"), code=0)
        assert done.stdout == f"{4 * MIB}\n"

    @pytest.mark.parametrize(("fs_type", "size"), [("ext4", "16M"), ("xfs", "300M")])
    def test_is_formatted_once(self, dvdi, fs_type, size):
        if fs_type == "xfs" and not any(line.split()[-1] == "xfs" for line in open("/proc/filesystems", encoding="ascii")):
            pytest.skip("this kernel has no xfs")
        look = "stat -f -c '%T %i' data; cat data/f 2>/dev/null"
        first = dvdi.run("run", *image("v", size=size, fstype=fs_type), *shell(f"{look}; echo kept > data/f"), code=0).stdout
        for _ in range(3):
            again = dvdi.run("run", *volume("v"), *shell(look), code=0).stdout
            assert again == first + "kept\n"  # the id of the file system, too
        (file,) = images_below(dvdi.state_dir / "local")
        assert file.stat().st_blocks * 512 < file.stat().st_size  # sparse
        assert {one[1] for one in mounts() if str(dvdi.state_dir) in one[0]} == set()

    def test_image_that_somebody_put_there_is_not_formatted(self, dvdi):
        """Not even what is no file system that we know."""
        dvdi.run("volume", "create", "local/v", "-o", "type=image", "-o", "size=16M", code=0)
        (file,) = images_below(dvdi.state_dir / "local")
        with open(file, "r+b") as image_file:
            image_file.write(b"precious" * (MIB // 8))
        before = file.read_bytes()
        done = dvdi.run("run", *image("v"), *shell("touch data/f"), code=125)
        assert "'v'" in done.stderr and "'local'" in done.stderr
        assert file.read_bytes() == before

    def test_other_options_for_a_volume_that_is_there(self, dvdi):
        dvdi.run("run", *image("v"), *shell("echo x > data/f"), code=0)
        done = dvdi.run("run", *image("v", size="32M"), *shell("exit 0"), code=125)
        assert "size" in done.stderr
        assert dvdi.run("run", *volume("v"), *shell("cat data/f"), code=0).stdout == "x\n"

    def test_loop_device_is_free_at_once_though_a_long_task_runs(self, dvdi):
        """Scenario 29: a namespace of a long task would keep the device of another task's volume busy."""
        other = dvdi.start("run", *image("b"), *shell("echo ready; read x"))
        assert other.stdout.readline() == "ready\n"
        # Its namespace is made while b is mounted.
        long = dvdi.start("run", *image("a"), *shell("echo ready; read x; ls data"))
        assert long.stdout.readline() == "ready\n"
        devices = loop_devices_below(dvdi.root)
        assert len(devices) == 2
        other.communicate("\n", timeout=30)
        assert other.returncode == 0
        left = loop_devices_below(dvdi.root)
        assert len(left) == 1 and "/a/" in next(iter(left.values())), left
        # Free: it can be removed, made anew and used while the long task goes on.
        dvdi.run("volume", "rm", "local/b", code=0)
        dvdi.run("run", *image("b", size="8M"), *shell("echo new > data/f"), code=0)
        assert list(loop_devices_below(dvdi.root)) == list(left)
        assert long.communicate("\n", timeout=30)[0] == "lost+found\n"
        assert not loop_devices_below(dvdi.root)

    def test_loop_device_is_free_though_a_long_task_started_before(self, dvdi):
        """As scenario 29, with the volume mounted after the long task's namespace was made."""
        long = dvdi.start("run", *image("a"), *shell("echo ready; read x; cat /proc/self/mountinfo"))
        assert long.stdout.readline() == "ready\n"
        dvdi.run("run", *image("b"), *shell("echo x > data/f"), code=0)
        assert len(loop_devices_below(dvdi.root)) == 1
        seen = long.communicate("\n", timeout=30)[0]
        assert "/mnt/b" not in seen

    def test_two_tasks_on_one_image_have_one_loop_device(self, dvdi):
        first = dvdi.start("run", *image("v"), *shell("echo x > data/f; echo ready; read x; cat data/g"))
        assert first.stdout.readline() == "ready\n"
        dvdi.run("run", *image("v"), *shell("cat data/f; echo y > data/g"), code=0)
        assert len(loop_devices_below(dvdi.root)) == 1
        assert first.communicate("\n", timeout=30)[0] == "y\n"
        assert not loop_devices_below(dvdi.root)

    @pytest.mark.parametrize(("fs_type", "size", "least"), [("xfs", "16M", "300"), ("ext4", "1M", "4")])
    def test_too_small_is_a_clear_error(self, dvdi, fs_type, size, least):
        done = dvdi.run("run", *image("v", size=size, fstype=fs_type), *shell("exit 0"), code=125)
        assert "'v'" in done.stderr and "'local'" in done.stderr
        assert re.search(rf"{fs_type}.*\b{least} ?M", done.stderr), done.stderr
        assert dvdi.json("volume", "ls")["volumes"] == []
        assert not images_below(dvdi.state_dir / "local")

    def test_nosuid_and_nodev(self, dvdi):
        dvdi.run("run", *image("v"), *shell(
            "cp /usr/bin/id data/id; chmod 4755 data/id; chown 1234 data/id; mknod data/null c 1 3; chmod 777 data"), code=0)
        done = dvdi.run("run", *image("v"), "--user", "nobody", *shell("data/id -u; (: > data/null) 2>&1"))
        assert done.stdout.splitlines()[0] == "65534"
        assert "Permission denied" in done.stdout

    def test_programs_are_not_looked_for_in_the_caller_s_path(self, dvdi):
        dvdi.run("run", *image("v"), *shell("exit 0"), code=0, env={"PATH": "/nonexistent"})


class TestTmpfs:
    def test_size_is_a_quota(self, dvdi):
        done = dvdi.run("run", *volume("t", type="tmpfs", size="8M"), *shell(
            "stat -f -c %T data; cat /dev/zero 2>&1 > data/f; stat -c %s data/f"))
        lines = done.stdout.splitlines()
        assert lines[0] == "tmpfs" and lines[-1] == str(8 * MIB)

    def test_is_empty_again_and_shared_meanwhile(self, dvdi):
        flags = volume("t", type="tmpfs", size="8M")
        first = dvdi.start("run", *flags, *shell("echo x > data/f; echo ready; read x"))
        assert first.stdout.readline() == "ready\n"
        assert dvdi.run("run", *flags, *shell("cat data/f"), code=0).stdout == "x\n"
        first.communicate("\n", timeout=30)
        assert dvdi.run("run", *flags, *shell("ls data"), code=0).stdout == ""

    def test_size_is_required(self, dvdi):
        assert "size" in dvdi.run("run", *volume("t", type="tmpfs"), *shell("exit 0"), code=125).stderr


class TestDir:
    def test_is_kept(self, dvdi):
        dvdi.run("run", *volume("d", mode="0770", uid="12", gid="34"), *shell("echo x > data/f; chmod 700 data"), code=0)
        assert dvdi.run("run", *volume("d"), *shell("cat data/f; stat -c '%a %u %g' data"), code=0).stdout == "x\n700 12 34\n"

    def test_names_that_are_awkward_as_folders(self, dvdi):
        names = ["-rf", "...", "a b".replace(" ", "_"), "ünï", "x" * 255, "A", "a", "*", "~"]
        for name in names:
            dvdi.run("run", *volume(name), *shell("echo here > data/f"), code=0)
        listed = {one["name"] for one in dvdi.json("volume", "ls")["volumes"]}
        assert listed == set(names)
        for name in names:
            dvdi.run("volume", "rm", f"local/{name}", code=0)
        assert dvdi.json("volume", "ls")["volumes"] == []
        assert not os.listdir(dvdi.state_dir / "local" / "volumes")

    def test_a_hundred_tasks_leave_the_mount_table_as_it_was(self, dvdi):
        before = sorted(mounts())
        for number in range(20):
            runs = [dvdi.start("run", *volume(f"v{number % 3}"), *image("i", "image"), *shell("echo x >> data/f")) for _ in range(5)]
            for run in runs:
                assert run.communicate(timeout=120)[1] == "" and run.returncode == 0
        eventually(lambda: sorted(mounts()) == before and not loop_devices_below(dvdi.root))
        lines = sum(len((dvdi.state_dir / "local" / "volumes" / f"v{one}" / "data" / "f").read_text().splitlines()) for one in range(3))
        assert lines == 100
