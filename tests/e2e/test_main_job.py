"""The main job: `dvdi run` gives a task the volumes it asks for, and afterwards they are released and it is on record."""

import hashlib
import json
import os
import pathlib
import re
import shutil
import signal

import pytest
from support import EXAMPLES, descendants_of, eventually, is_alive, mount, mounts, umount

GENESIS = "0" * 64
MOUNT_LIFE = ["dvdi.mount.mounting", "dvdi.mount.mounted", "dvdi.mount.unmounting", "dvdi.mount.unmounted"]


def shell(script):
    return ["--", "sh", "-c", script]


def data_of(dvdi, name):
    """Where the local driver keeps what is on a volume of type=dir."""
    return dvdi.state_dir / "local" / "volumes" / name / "data"


def marathon(volumes, **more):
    return {"id": "/e2e", "container": {"type": "MESOS", "volumes": volumes}, **more}


def external(name, path, mode="RW", driver="local", **options):
    return {"containerPath": path, "mode": mode,
            "external": {"name": name, "provider": "dvdi",
                         "options": {"dvdi/driver": driver, **{f"dvdi/{key}": value for key, value in options.items()}}}}


def mesos(name, path, mode="RW", driver="local", **options):
    volume = {"driver": driver, "name": name}
    if options:
        volume["driver_options"] = {"parameter": [{"key": key, "value": value} for key, value in options.items()]}
    return {"container_path": path, "mode": mode, "source": {"type": "DOCKER_VOLUME", "docker_volume": volume}}


@pytest.fixture
def busybox(dvdi):
    """A root file system with nothing but a static busybox and an account of its own."""
    source = shutil.which("busybox")
    if source is None:
        pytest.skip("there is no busybox: package busybox-static")
    root = dvdi.root / "rootfs"
    for folder in ("bin", "etc", "tmp"):
        (root / folder).mkdir(parents=True)
    shutil.copy(source, root / "bin" / "busybox")
    for name in ("sh", "ls", "cat", "id", "touch", "stat", "test", "pwd", "grep"):
        os.symlink("busybox", root / "bin" / name)
    (root / "etc" / "passwd").write_text("root:x:0:0::/:/bin/sh\napp:x:4321:4322::/home/app:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\nappgroup:x:4322:\nextra:x:4323:app\n")
    (root / "etc" / "marker").write_text("rootfs\n")
    return root


class TestExamples:
    def test_marathon_app_run_twice_shows_two_lines(self, dvdi):
        app = EXAMPLES / "marathon-hello.json"
        first = dvdi.run("run", app, code=0).stdout.splitlines()
        second = dvdi.run("run", app, code=0).stdout.splitlines()
        assert len(first) == 1
        assert len(second) == 2 and second[0] == first[0]
        assert not dvdi.kernel_mounts()

    def test_container_info(self, dvdi):
        done = dvdi.run("run", EXAMPLES / "container-info.json",
                        *shell("echo kept > data/file; stat -f -c %T scratch; ls zoneinfo/UTC; touch zoneinfo/x 2>&1"))
        lines = done.stdout.splitlines()
        assert done.returncode != 0  # touch
        assert lines[0] == "tmpfs" and lines[1] == "zoneinfo/UTC"
        assert "Read-only file system" in lines[2]
        assert (data_of(dvdi, "example-data") / "file").read_text() == "kept\n"

    def test_mesos_volumes_with_rclone(self, dvdi):
        plugin = dvdi.rclone("rc")
        dvdi.run("run", EXAMPLES / "volumes.json", *shell("echo hi > data/f"), code=0)
        assert (plugin.data / "f").read_text() == "hi\n"
        assert dvdi.run("run", EXAMPLES / "volumes.json", *shell("cat data/f"), code=0).stdout == "hi\n"


class TestCommandsOfTheReadme:
    def test_two_local_volumes_one_of_them_read_only(self, dvdi):
        # /mnt/b is made: in a file system of our own, so that nothing of the machine is changed.
        mount("e2e", "/mnt", "tmpfs", "size=1m")
        dvdi.undo.append(lambda: umount("/mnt"))
        script = shell("echo x > data/x; ! touch /mnt/b/y")
        dvdi.run("run", "--volume", "local/a:data", "--volume", "local/b:/mnt/b:ro", *script, code=0)
        assert (data_of(dvdi, "a") / "x").read_text() == "x\n"
        assert os.listdir(data_of(dvdi, "b")) == [] and os.listdir("/mnt/b") == []

    def test_environment_form_with_rclone(self, dvdi):
        plugin = dvdi.rclone("rc")
        target = dvdi.root / "v"  # below /tmp: made when it is missing
        dvdi.run("run", *shell(f"echo hi > {target}/f"), code=0, env={
            "DVDI_VOLUME_NAME": "v", "DVDI_VOLUME_DRIVER": "rc", "DVDI_VOLUME_OPTS": "remote=loc:",
            "DVDI_VOLUME_CONTAINERPATH": str(target)})
        assert (plugin.data / "f").read_text() == "hi\n"
        assert os.listdir(target) == []  # the host's folder, with nothing mounted there

    def test_events_show_each_transition_of_each_mount_in_order(self, dvdi):
        dvdi.run("run", "--volume", "local/a:data", "--volume", "local/b:more", *shell("exit 0"), code=0)
        dvdi.run("run", "--volume", "local/a:data", *shell("exit 0"), code=0)
        assert dvdi.event_types("volume/local/a", "dvdi.mount.") == MOUNT_LIFE * 2
        assert dvdi.event_types("volume/local/b", "dvdi.mount.") == MOUNT_LIFE


class TestRequestForms:
    def test_marathon_app(self, dvdi):
        app = dvdi.root / "app.json"
        app.write_text(json.dumps(marathon(
            [external("m1", "one"), external("m2", "two", "RO", type="tmpfs", size="8M"),
             {"containerPath": "etc", "hostPath": "/etc", "mode": "RO"}],
            args=["sh", "-c", 'echo "$GREETING" "$1" > one/f; cat one/f; stat -f -c %T two; test -e etc/passwd',
                  "sh", "with space"],
            env={"GREETING": "hello"}, labels={"team": "e2e"}, instances=3)))
        done = dvdi.run("run", app, code=0)
        assert done.stdout == "hello with space\ntmpfs\n"
        assert "instances" in done.stderr
        (container,) = dvdi.containers("--all")
        assert container["task_id"] == "/e2e" and container["labels"] == {"team": "e2e"}

    def test_container_info_from_standard_input(self, dvdi):
        info = {"type": "MESOS", "volumes": [mesos("c", "data"),
                                             {"container_path": "host", "mode": "RO", "host_path": "/etc"}]}
        done = dvdi.run("run", "-", *shell("echo c > data/f; cat data/f; test -e host/passwd"), input=json.dumps(info),
                        code=0)
        assert done.stdout == "c\n"

    def test_mesos_volumes(self, dvdi):
        plugin = dvdi.faulty("mesosd")
        file = dvdi.root / "volumes.anything"
        file.write_text(json.dumps([mesos("d", "data", driver="mesosd", iops="150", kind="bind"),
                                    mesos("e", "ro", "RO", driver="mesosd")]))
        assert dvdi.run("run", file, *shell("echo d > data/f; cat data/f; ! touch ro/f"), code=0).stdout == "d\n"
        assert [call["opts"] for call in plugin.calls("Create") if call["name"] == "d"] == [
            {"iops": "150", "kind": "bind"}]

    def test_environment(self, dvdi):
        plugin = dvdi.faulty("envd")
        target = dvdi.root / "made" / "for-me"
        env = {"DVDI_VOLUME_NAME": "zero", "DVDI_VOLUME_DRIVER": "envd", "DVDI_VOLUME_CONTAINERPATH": str(target),
               "DVDI_VOLUME_OPTS": "kind=bind,remote=loc:",
               "DVDI_VOLUME_NAME7": "seven", "DVDI_VOLUME_DRIVER7": "envd", "DVDI_VOLUME_CONTAINERPATH7": "/mnt"}
        dvdi.run("run", *shell(f"echo 0 > {target}/f; echo 7 > /mnt/f; cat {target}/f /mnt/f"), env=env, code=0)
        assert sorted(call["name"] for call in plugin.calls("Mount")) == ["seven", "zero"]
        assert not os.path.exists("/mnt/f")

    def test_environment_host_only(self, dvdi):
        plugin = dvdi.faulty("envd")
        task = dvdi.start("run", *shell("cat /proc/self/mountinfo; echo ready; read line"),
                          env={"DVDI_VOLUME_NAME": "host", "DVDI_VOLUME_DRIVER": "envd"})
        seen = list(iter(task.stdout.readline, "ready\n"))
        assert plugin.volumes()["host"]["mounted"]
        assert dvdi.kernel_mounts() == [plugin.volumes()["host"]["mountpoint"]]
        assert not [line for line in seen if plugin.mount_folder in line]
        (container,) = dvdi.containers()
        assert container["volumes"] == [{"driver": "envd", "name": "host", "container_path": None, "mode": "rw"}]
        task.communicate("\n", timeout=30)
        assert task.returncode == 0 and not plugin.volumes()["host"]["mounted"]

    def test_environment_takes_owner_and_mode_of_the_container_path(self, dvdi):
        target = dvdi.root / "target"
        target.mkdir()
        os.chown(target, 1234, 2345)
        target.chmod(0o2750)
        done = dvdi.run("run", *shell(f"stat -c '%u %g %a' {target}"), code=0, env={
            "DVDI_VOLUME_NAME": "owned", "DVDI_VOLUME_DRIVER": "local", "DVDI_VOLUME_CONTAINERPATH": str(target)})
        assert done.stdout == "1234 2345 2750\n"
        kept = data_of(dvdi, "owned").stat()
        assert (kept.st_uid, kept.st_gid) == (1234, 2345)

    def test_flags(self, dvdi):
        done = dvdi.run("run", "-V", "local/f:data,type=tmpfs,size=4M,mode=1777", "--volume", "local/g:more:rw",
                        "--env", "A=b c", *shell('stat -c %a data; stat -f -c %T data; echo "$A" > more/f; cat more/f'),
                        code=0)
        assert done.stdout == "1777\ntmpfs\nb c\n"

    def test_file_flags_and_environment_come_together(self, dvdi):
        file = dvdi.root / "v.json"
        file.write_text(json.dumps([mesos("from-file", "one")]))
        dvdi.run("run", file, "--volume", "local/from-flag:two", *shell("ls -d one two /mnt; touch /mnt/here"), code=0,
                 env={"DVDI_VOLUME_NAME": "from-env", "DVDI_VOLUME_DRIVER": "local", "DVDI_VOLUME_CONTAINERPATH": "/mnt"})
        assert sorted(volume["name"] for volume in dvdi.json("volume", "ls")["volumes"]) == [
            "from-env", "from-file", "from-flag"]
        assert os.listdir(data_of(dvdi, "from-env")) == ["here"]

    def test_each_problem_of_a_request_is_named_with_its_place(self, dvdi):
        app = dvdi.root / "app.json"
        bad = external("ok", "data")
        bad["external"]["size"] = 0
        app.write_text(json.dumps(marathon([bad, {"containerPath": "../x", "hostPath": "/etc", "mode": "RO"}], cmd="true")))
        done = dvdi.run("run", app, code=125)
        assert "container.volumes[0].external.size" in done.stderr
        assert "container.volumes[1].containerPath" in done.stderr
        assert not (dvdi.state_dir / "state.db").exists() or dvdi.events() == []

    def test_explicit_create_demands_that_the_volume_is_there(self, dvdi):
        plugin = dvdi.faulty("d")
        volume = ("--volume", "d/v:data,dvdi.explicit-create=true")
        done = dvdi.run("run", *volume, *shell("exit 0"), code=125)
        assert "'v'" in done.stderr and "'d'" in done.stderr
        assert plugin.calls("Create") == [] and plugin.calls("Mount") == []
        dvdi.run("volume", "create", "d/v", code=0)
        dvdi.run("run", *volume, *shell("exit 0"), code=0)
        assert len(plugin.calls("Create")) == 1


class TestExitCodes:
    VOLUME = ("--volume", "local/a:data")

    @pytest.mark.parametrize("code", [0, 3, 125, 255])
    def test_of_the_task(self, dvdi, code):
        done = dvdi.run("run", *self.VOLUME, *shell(f"exit {code}"), code=code)
        assert done.stderr == ""

    def test_program_that_is_not_there(self, dvdi):
        done = dvdi.run("run", *self.VOLUME, "--", "/no/such/program", code=127)
        assert done.stderr.startswith("dvdi: ") and "/no/such/program" in done.stderr
        dvdi.run("run", *self.VOLUME, "--", "no-such-program-in-the-path", code=127)

    def test_program_that_cannot_be_executed(self, dvdi):
        done = dvdi.run("run", *self.VOLUME, "--", "/etc/passwd", code=126)
        assert done.stderr.startswith("dvdi: ") and "/etc/passwd" in done.stderr

    @pytest.mark.parametrize("name", ["KILL", "TERM", "SEGV"])
    def test_program_that_a_signal_ends(self, dvdi, name):
        dvdi.run("run", *self.VOLUME, *shell(f"kill -{name} $$"), code=128 + signal.Signals[f"SIG{name}"])

    def test_failure_before_the_task(self, dvdi):
        marker = dvdi.root / "ran"
        for wrong in (["--volume", "nobody/a:data"], ["--volume", "local/a"], ["--no-such-option"],
                      ["--volume", "local/a:data,type=nonsense"], ["/no/such/file.json"]):
            done = dvdi.run("run", *wrong, *shell(f"touch {marker}"), code=125)
            assert done.stderr.startswith("dvdi: ") and done.stdout == ""
        assert not marker.exists()

    def test_driver_that_is_not_there_is_named_with_the_places(self, dvdi):
        done = dvdi.run("run", "--volume", "nobody/a:data", "--", "true", code=125)
        assert "'nobody'" in done.stderr and str(dvdi.plugin_dir / "nobody.sock") in done.stderr

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_signal_while_it_prepares_cancels(self, dvdi, number):
        plugin = dvdi.faulty("d")
        plugin.rule("Mount", "hold", name="slow")
        run = dvdi.start("run", "--volume", "d/fast:f", "--volume", "d/slow:s", *shell("echo ran"))
        eventually(lambda: [call for call in plugin.calls("Mount") if call["name"] == "slow"])
        run.send_signal(number)
        plugin.clear()  # the answer may come, too late
        out, err = run.communicate(timeout=30)
        assert run.returncode == 128 + number, err
        assert out == ""
        dvdi.check_released()
        assert not [name for name, one in plugin.volumes().items() if one["mounted"]]

    def test_signals_reach_the_task(self, dvdi):
        # Not `read`: a signal that comes before it blocks would not wake it.
        run = dvdi.start("run", *self.VOLUME, *shell("trap 'echo got >> data/f; exit 7' USR1; echo ready; sleep 1000 & wait"))
        assert run.stdout.readline() == "ready\n"
        run.send_signal(signal.SIGUSR1)
        assert run.wait(30) == 7
        assert (data_of(dvdi, "a") / "f").read_text() == "got\n"
        again = dvdi.start("run", *self.VOLUME, *shell("echo ready; exec cat"))
        assert again.stdout.readline() == "ready\n"
        again.terminate()
        assert again.wait(30) == 128 + signal.SIGTERM


class TestWhatTheTaskSees:
    def test_standard_streams_pass_through(self, dvdi):
        text = "".join(f"line {number}\n" for number in range(20_000))
        done = dvdi.run("run", "--volume", "local/a:data", *shell("tee data/copy; echo problem >&2"), input=text, code=0)
        assert done.stdout == text and done.stderr == "problem\n"
        assert (data_of(dvdi, "a") / "copy").read_text() == text

    def test_standard_input_is_the_very_same(self, dvdi):
        # A regular file, seekable: no pipe was put in between.
        with open(EXAMPLES / "volumes.json", "rb") as file:
            run = dvdi.start("run", *shell("readlink /proc/self/fd/0; head -c 1; exec ls /proc/self/fd"), stdin=file)
            out = run.communicate(timeout=30)[0].splitlines()
        assert out[0] == str(EXAMPLES / "volumes.json")
        assert out[1].startswith("[")
        assert "".join(out[1:])[1:] == "0123"  # 3: ls looks at the folder

    def test_user_by_number_and_name(self, dvdi):
        flags = ["--volume", "local/a:data,mode=1777"]
        assert dvdi.run("run", *flags, "--user", "1234:2345", *shell("id -u; id -g; id -G; touch data/f"),
                        code=0).stdout.split() == ["1234", "2345", "2345"]
        kept = (data_of(dvdi, "a") / "f").stat()
        assert (kept.st_uid, kept.st_gid) == (1234, 2345)
        assert dvdi.run("run", *flags, "--user", "nobody", *shell("id -un; ls data"), code=0).stdout == "nobody\nf\n"
        done = dvdi.run("run", *flags, "--user", "no-such-user", "--", "true", code=125)
        assert "no-such-user" in done.stderr

    def test_user_without_rights_cannot_write(self, dvdi):
        done = dvdi.run("run", "--volume", "local/a:data", "--user", "nobody", *shell("touch data/f; grep Cap /proc/self/status"))
        assert "Permission denied" in done.stderr
        assert set(re.findall(r"Cap(?:Inh|Prm|Eff|Amb):\s*(\w+)", done.stdout)) == {"0" * 16}

    def test_volume_that_is_given_to_the_user(self, dvdi):
        dvdi.run("run", "--volume", "local/a:data,dvdi.ownership=user", "--user", "1234:2345", *shell("touch data/f"), code=0)
        assert data_of(dvdi, "a").stat().st_uid == 1234

    def test_volume_that_is_mapped_to_the_user(self, dvdi):
        """dvdi.ownership=idmap: root's files appear as the user's, and on the volume nothing changes."""
        dvdi.run("run", "--volume", "local/a:data", *shell("echo old > data/f; chmod 600 data/f"), code=0)
        done = dvdi.run("run", "--volume", "local/a:data,dvdi.ownership=idmap", "--user", "1234:2345",
                        *shell("stat -c %u:%g data/f; cat data/f; touch data/g"), code=0)
        assert done.stdout == "1234:2345\nold\n"
        for name in ("f", "g"):
            kept = (data_of(dvdi, "a") / name).stat()
            assert (kept.st_uid, kept.st_gid) == (0, 0)

    def test_sandbox_is_removed_unless_it_was_named(self, dvdi):
        done = dvdi.run("run", "--volume", "local/a:data", *shell("touch left; pwd"), code=0)
        assert not os.path.exists(done.stdout.strip())
        sandbox = dvdi.root / "sandbox"
        sandbox.mkdir()
        done = dvdi.run("run", "--directory", sandbox, "--volume", "local/a:data", *shell("touch left data/f; pwd"), code=0)
        assert done.stdout.strip() == str(sandbox)
        assert (sandbox / "left").exists() and not (sandbox / "data" / "f").exists()

    def test_root_file_system(self, dvdi, busybox):
        done = dvdi.run("run", "--rootfs", busybox, "--volume", "local/a:data", "--volume", "local/b:/srv/b:ro",
                        *shell("cat /etc/marker; pwd; echo x > data/f; ls /srv; touch /srv/b/y 2>/dev/null && echo wrote; "
                               "test -e /proc/self/status && test -c /dev/null && echo pseudo; ls -d /usr"))
        assert done.stdout.splitlines() == ["rootfs", "/mnt/mesos/sandbox", "b", "pseudo"]
        assert done.returncode != 0  # there is no /usr
        assert (data_of(dvdi, "a") / "f").exists()
        assert os.listdir(data_of(dvdi, "b")) == []

    def test_root_file_system_shows_no_mount_of_the_host(self, dvdi, busybox):
        done = dvdi.run("run", "--rootfs", busybox, "--volume", "local/a:data", *shell("cat /proc/self/mountinfo"), code=0)
        points = {line.split()[4] for line in done.stdout.splitlines()}
        assert "/mnt/mesos/sandbox/data" in points
        assert not [point for point in points if point.startswith(("/tmp", "/var", "/home"))]

    def test_user_of_the_root_file_system(self, dvdi, busybox):
        done = dvdi.run("run", "--rootfs", busybox, "--user", "app", "--volume", "local/a:data,mode=1777",
                        *shell("id -u; id -G; touch data/f"), code=0)
        assert done.stdout.split() == ["4321", "4322", "4323"]
        assert (data_of(dvdi, "a") / "f").stat().st_uid == 4321

    def test_pid_namespace(self, dvdi):
        script = shell("readlink /proc/self/ns/pid; ls -d /proc/[0-9]* | wc -l")
        own = dvdi.run("run", *script, code=0).stdout.split()
        host = dvdi.run("run", "--pid", "host", *script, code=0).stdout.split()
        here = os.readlink("/proc/self/ns/pid")
        assert own[0] != here and int(own[1]) < 8
        assert host[0] == here
        assert dvdi.run("run", "--pid", "nonsense", *script).returncode == 125

    def test_mounts_of_other_tasks_are_not_there(self, dvdi):
        plugin = dvdi.faulty("d")
        other = dvdi.start("run", "--volume", "local/other:data", "--volume", "d/other:more", *shell("echo ready; read x"))
        assert other.stdout.readline() == "ready\n"
        done = dvdi.run("run", "--volume", "local/mine:data", *shell("cat /proc/self/mountinfo"), code=0)
        assert "mine" in done.stdout
        assert "other" not in done.stdout and plugin.mount_folder not in done.stdout
        other.communicate("\n", timeout=30)
        assert other.returncode == 0

    def test_what_the_task_mounts_stays_in_the_task(self, dvdi):
        before = mounts()
        done = dvdi.run("run", "--volume", "local/a:data", *shell("mount -t tmpfs inner data && stat -f -c %T data"), code=0)
        assert done.stdout == "tmpfs\n"
        assert mounts() == before

    def test_environment_is_minimal(self, dvdi):
        noise = {"NOISE": "1", "DVDI_VOLUME_NAME": "", "TERM": "dumb"}
        names = {line.split("=")[0] for line in dvdi.run("run", "--env", "MINE=1", "--", "env", env=noise, code=0).stdout.splitlines()}
        assert names == {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "PWD", "TERM", "MINE"}
        inherited = dvdi.run("run", "--inherit-env", "--", "env", env=noise, code=0).stdout
        assert "NOISE=1" in inherited and "DVDI_" not in inherited


class TestVolumesOfAContainer:
    def test_read_only_cannot_be_written(self, dvdi):
        plugin = dvdi.faulty("d")
        for driver in ("local", "d"):
            dvdi.run("run", "--volume", f"{driver}/v:data", *shell("echo old > data/f"), code=0)
        keep = dvdi.start("run", "--volume", "d/v:data", *shell("echo old > data/f; echo ready; read x"))
        assert keep.stdout.readline() == "ready\n"  # the plugin's volume is a tmpfs
        for driver in ("local", "d"):
            done = dvdi.run("run", "--volume", f"{driver}/v:data:ro", *shell(
                "for what in 'touch data/new' 'mkdir data/dir' 'rm data/f' 'chmod 777 data' 'mv data/f data/g'; do "
                "$what 2>/dev/null && echo $what; done; (echo new >> data/f) 2>/dev/null && echo append; cat data/f"))
            assert done.stdout == "old\n", done
        keep.communicate("\n", timeout=30)
        assert len(plugin.calls("Mount")) == 2

    @pytest.mark.parametrize("outer_first", [True, False])
    def test_nested_container_paths(self, dvdi, outer_first):
        flags = [["--volume", "local/outer:data"], ["--volume", "local/inner:data/a/b"]]
        if not outer_first:
            flags.reverse()
        dvdi.run("run", *flags[0], *flags[1], *shell("echo o > data/f; echo i > data/a/b/f"), code=0)
        assert (data_of(dvdi, "outer") / "f").read_text() == "o\n"
        assert (data_of(dvdi, "inner") / "f").read_text() == "i\n"
        assert os.listdir(data_of(dvdi, "outer") / "a" / "b") == []  # only the place, nothing of the inner one

    def test_equal_container_paths_are_refused(self, dvdi):
        done = dvdi.run("run", "--volume", "local/a:data", "--volume", "local/b:./data/", "--", "true", code=125)
        assert "'data'" in done.stderr or "./data/" in done.stderr
        assert "local/a" in done.stderr and "local/b" in done.stderr

    def test_one_volume_at_two_paths(self, dvdi):
        plugin = dvdi.faulty("d")
        done = dvdi.run("run", "--volume", "d/v:one", "--volume", "d/v:two:ro",
                        *shell("echo x > one/f; cat two/f; ! touch two/g && ls one"))
        assert done.returncode == 0 and done.stdout == "x\nf\n", done
        assert len(plugin.calls("Mount")) == 1 and len(plugin.calls("Unmount")) == 1
        assert dvdi.event_types("volume/d/v", "dvdi.mount.") == MOUNT_LIFE
        assert dvdi.event_types("volume/d/v", "dvdi.reference.") == ["dvdi.reference.added", "dvdi.reference.removed"]

    def test_two_containers_share_one_mount(self, dvdi):
        plugin = dvdi.faulty("d")
        first = dvdi.start("run", "--volume", "d/v:data", *shell("echo x > data/f; echo ready; read x"))
        assert first.stdout.readline() == "ready\n"
        assert dvdi.run("run", "--volume", "d/v:data:ro", *shell("cat data/f; ! touch data/g"), code=0).stdout == "x\n"
        assert plugin.volumes()["v"]["mounted"]  # the second's end did not take it from the first
        first.communicate("\n", timeout=30)
        assert first.returncode == 0
        assert len(plugin.calls("Mount")) == 1 and len(plugin.calls("Unmount")) == 1

    def test_exclusive_two_at_the_same_time(self, dvdi):
        """Scenario 24."""
        plugin = dvdi.faulty("d")
        for number in range(5):
            runs = {name: dvdi.start("run", "--id", name, "--volume", "d/v:data,dvdi.exclusive=true",
                                     *shell("echo got; read x"))
                    for name in (f"left-{number}", f"right-{number}")}
            eventually(lambda: [one for one in runs.values() if one.poll() is not None], what="one is refused")
            (loser,) = [name for name, one in runs.items() if one.poll() is not None]
            (winner,) = [name for name in runs if name != loser]
            out, err = runs[loser].communicate()
            assert runs[loser].returncode == 125 and out == ""
            assert "conflict" in err and winner in err, err
            assert runs[winner].stdout.readline() == "got\n"
            # Nor does one get in that does not ask for it alone.
            done = dvdi.run("run", "--volume", "d/v:data", "--", "true", code=125)
            assert winner in done.stderr
            runs[winner].communicate("\n", timeout=30)
            assert runs[winner].returncode == 0
        assert len(plugin.calls("Mount")) == 5

    def test_exclusive_is_refused_while_somebody_has_it(self, dvdi):
        first = dvdi.start("run", "--id", "reader", "--volume", "local/v:data", *shell("echo ready; read x"))
        assert first.stdout.readline() == "ready\n"
        done = dvdi.run("run", "--volume", "local/v:data,dvdi.exclusive=true", "--", "true", code=125)
        assert "reader" in done.stderr
        first.communicate("\n", timeout=30)
        dvdi.run("run", "--volume", "local/v:data,dvdi.exclusive=true", "--", "true", code=0)

    def test_all_or_nothing(self, dvdi):
        plugin = dvdi.faulty("d")
        plugin.rule("Mount", "error", name="bad", text="the disk is on fire")
        marker = dvdi.root / "ran"
        done = dvdi.run("run", "--volume", "local/good:a", "--volume", "d/good:b", "--volume", "d/bad:c",
                        *shell(f"touch {marker}"), code=125)
        assert "the disk is on fire" in done.stderr and "'bad'" in done.stderr
        assert not marker.exists() and not dvdi.kernel_mounts()
        assert dvdi.event_types("volume/d/bad", "dvdi.mount.") == ["dvdi.mount.mounting", "dvdi.mount.failed"]
        assert dvdi.event_types("volume/local/good", "dvdi.mount.") == MOUNT_LIFE
        dvdi.check_released()


    def test_a_folder_of_the_drivers_mount(self, dvdi):
        """As REX-Ray does it: VOLUMES/NAME is mounted, and Mount answers VOLUMES/NAME/data."""
        plugin = dvdi.faulty("rexray", "--folder", "data")
        at = f"{plugin.mount_folder}/v"
        task = dvdi.start("run", "--volume", "rexray/v:data",
                          *shell(f"echo ready; read go; echo kept > data/f && cat data/f && ls {at}"))
        assert task.stdout.readline() == "ready\n"
        assert dvdi.kernel_mounts() == [at]
        [listed] = dvdi.json("volume", "ls", "--known")["volumes"]
        assert (listed["state"], listed["mount_point"]) == ("mounted", f"{at}/data")
        out, _ = task.communicate("go\n", timeout=30)
        assert (task.returncode, out) == (0, "kept\n"), "a task sees a mount only where it asked for it"
        assert not dvdi.kernel_mounts()
        # Where nothing is mounted the same folder is the host's own.
        plugin.rule("Mount", "lie", times=1)
        done = dvdi.run("run", "--volume", "rexray/v:data", "--", "true", code=125)
        assert "nothing is mounted there" in done.stderr
        assert (pathlib.Path(at) / "data").is_dir()

    def test_container_id_that_is_taken(self, dvdi):
        first = dvdi.start("run", "--id", "box", "--volume", "local/a:data", *shell("echo ready; read x"))
        assert first.stdout.readline() == "ready\n"
        done = dvdi.run("run", "--id", "box", "--volume", "local/b:data", "--", "true", code=125)
        assert "conflict" in done.stderr and "box" in done.stderr
        assert dvdi.containers()[0]["state"] == "running"
        first.communicate("\n", timeout=30)
        assert first.returncode == 0

    def test_timeout_ends_a_prepare(self, dvdi):
        plugin = dvdi.faulty("d")
        plugin.rule("Mount", "hang", times=1)
        done = dvdi.run("run", "--timeout", "1s", "--volume", "d/v:data", "--", "true", code=125)
        assert "deadline_exceeded" in done.stderr and "'v'" in done.stderr and "'d'" in done.stderr
        dvdi.check_released()


class TestTheRecord:
    def test_events_are_complete_and_in_order(self, dvdi):
        dvdi.run("run", "--id", "box", "--volume", "local/a:data", "--volume", "local/b:more", "--", "true", code=0)
        events = dvdi.events()
        container = [event["type"] for event in events if event["subject"] == "container/run/box"]
        assert container == [f"dvdi.container.{state}" for state in ("preparing", "prepared", "running", "cleaning", "ended")]
        order = [(event["type"].removeprefix("dvdi."), event["subject"].rpartition("/")[2]) for event in events]
        for name in "ab":
            life = [what for what, subject in order if subject == name]
            assert life == ["reference.added", "mount.mounting", "volume.seen", "mount.mounted", "reference.removed",
                            "mount.unmounting", "mount.unmounted"]
            # Mounted before the task runs, unmounting after it.
            assert order.index(("mount.mounted", name)) < order.index(("container.running", "box"))
            assert order.index(("container.running", "box")) < order.index(("mount.unmounting", name))
        states = [event["data"]["from"] for event in events if event["subject"] == "volume/local/a" and "mount." in event["type"]]
        assert states == ["absent", "mounting", "mounted", "unmounting"]
        ids = {event["data"]["mount_id"] for event in events if event["subject"] == "volume/local/a" and "mount." in event["type"]}
        assert len(ids) == 1

    def test_event_log_is_a_chain_that_anybody_can_check(self, dvdi):
        for _ in range(2):
            dvdi.run("run", "--volume", "local/a:data", "--", "true", code=0)
        lines = dvdi.run("events", "--format", "json", code=0).stdout.splitlines()
        previous = GENESIS
        for number, line in enumerate(lines, 1):
            event = json.loads(line)
            body, _, last = line.rpartition(',"hash":"')
            assert last == event["hash"] + '"}'
            assert int(event["sequence"]) == number and event["id"].endswith(f"-{number}")
            assert event["specversion"] == "1.0" and event["datacontenttype"] == "application/json"
            assert event["previoushash"] == previous
            previous = hashlib.sha256((body + "}").encode()).hexdigest()
            assert event["hash"] == previous
        assert dvdi.json("events", "verify") == {"intact": True, "count": len(lines), "first": 1, "last": len(lines),
                                                 "head": previous}

    def test_events_since_a_number(self, dvdi):
        dvdi.run("run", "--volume", "local/a:data", "--", "true", code=0)
        everything = dvdi.events()
        assert dvdi.events("--since", len(everything) - 2) == everything[-2:]

    def test_events_follow(self, dvdi):
        dvdi.run("run", "--volume", "local/a:data", "--", "true", code=0)
        before = len(dvdi.events())
        follow = dvdi.start("events", "--follow", "--since", before, "--format", "json")
        dvdi.run("run", "--volume", "local/b:data", "--", "true", code=0)
        types = []
        while "dvdi.container.ended" not in types:
            types.append(json.loads(follow.stdout.readline())["type"])
        follow.send_signal(signal.SIGINT)
        follow.wait(30)
        assert types == dvdi.event_types()[before:]

    def test_usage_says_what_the_events_say(self, dvdi):
        first = dvdi.start("run", "--volume", "local/a:data", *shell("echo ready; read x"))
        assert first.stdout.readline() == "ready\n"
        second = dvdi.start("run", "--volume", "local/a:data", "--volume", "local/b:more", *shell("echo ready; read x"))
        assert second.stdout.readline() == "ready\n"
        first.communicate("\n", timeout=30)
        second.communicate("\n", timeout=30)
        until = dvdi.events()[-1]["time"]
        rows = {row["group"]["volume"]: row for row in dvdi.json("usage")["rows"]}
        referenced = {}
        for event in dvdi.events():
            if event["type"] == "dvdi.reference.removed":
                name = event["subject"].removeprefix("volume/")
                referenced[name] = referenced.get(name, 0) + event["data"]["duration_ms"] / 1000
        assert set(rows) == {"local/a", "local/b"}
        for name, row in rows.items():
            assert float(row["referenced_seconds"]) == pytest.approx(referenced[name], abs=1e-6)
            assert row["mounts"] == 1
            assert 0 < float(row["mounted_seconds"]) <= float(row["provisioned_seconds"])
        # Two containers at the same time count twice, their mount once.
        assert float(rows["local/a"]["referenced_seconds"]) > float(rows["local/b"]["referenced_seconds"])
        for by in ("driver", "owner", "day"):
            groups = dvdi.json("usage", "--by", by, "--until", until)["rows"]
            total = sum(float(row["referenced_seconds"]) for row in groups)
            assert total == pytest.approx(sum(referenced.values()), abs=1e-3), by
            if by != "day":  # "": what belongs to no container: the time mounted and provisioned
                named = [row["group"][by] for row in groups if row["group"][by]]
                assert named == ["local" if by == "driver" else "run"]

    def test_usage_of_sizes(self, dvdi):
        dvdi.run("run", "--volume", "local/t:data,type=tmpfs,size=1G", "--", "true", code=0)
        (row,) = dvdi.json("usage")["rows"]
        assert float(row["mounted_gib_hours"]) == pytest.approx(float(row["mounted_seconds"]) / 3600, rel=1e-3)

    def test_usage_by_framework_role_principal_and_user(self, dvdi):
        app = dvdi.root / "app.json"
        app.write_text(json.dumps(marathon([external("v", "data", mode="RW")], cmd="true", role="billing", user="nobody")))
        dvdi.run("run", app, code=0)
        dvdi.run("run", "--volume", "local/w:data", "--", "true", code=0)
        assert {row["group"]["role"] for row in dvdi.json("usage", "--by", "role")["rows"]} == {"billing", ""}
        assert "nobody" in {row["group"]["user"] for row in dvdi.json("usage", "--by", "user")["rows"]}


VOLUME_MEMBERS = {"driver", "name", "state", "mount_id", "mount_point", "fs_type", "source", "since", "size_bytes",
                  "exclusive", "containers", "owed", "foreign"}
CONTAINER_MEMBERS = {"owner", "id", "state", "pid", "since", "ended", "framework", "role", "principal", "task_id",
                     "task_name", "user", "labels", "volumes"}
USAGE_MEMBERS = {"group", "mounts", *(f"{kind}_{unit}" for kind in ("referenced", "mounted", "provisioned")
                                      for unit in ("seconds", "gib_hours"))}
TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")


class TestJson:
    def test_while_a_task_runs(self, dvdi):
        run = dvdi.start("run", "--id", "box", "--volume", "local/v:data,dvdi.exclusive=true,type=tmpfs,size=8M",
                         "--volume", "local/w:/mnt:ro", *shell("echo ready; read x"))
        assert run.stdout.readline() == "ready\n"
        (shown,) = dvdi.json("volume", "inspect", "local/v")["volumes"]
        assert set(shown) >= VOLUME_MEMBERS
        assert (shown["driver"], shown["name"], shown["state"]) == ("local", "v", "mounted")
        assert shown["mount_point"] == str(dvdi.state_dir / "local" / "mnt" / "v")
        assert shown["fs_type"] == "tmpfs" and shown["size_bytes"] == 8 << 20
        assert shown["exclusive"] is True and shown["containers"] == ["run/box"]
        assert shown["owed"] is None and shown["foreign"] is None and TIME.match(shown["since"])
        (container,) = dvdi.containers()
        assert set(container) >= CONTAINER_MEMBERS
        assert (container["owner"], container["id"], container["state"]) == ("run", "box", "running")
        assert is_alive(container["pid"]) and container["pid"] in descendants_of(run.pid)
        assert container["volumes"] == [{"driver": "local", "name": "v", "container_path": "data", "mode": "rw"},
                                        {"driver": "local", "name": "w", "container_path": "/mnt", "mode": "ro"}]
        assert dvdi.json("inspect", "bo") == container
        run.communicate("\n", timeout=30)
        (ended,) = dvdi.containers("--all")
        assert ended["state"] == "ended" and TIME.match(ended["ended"]) and dvdi.containers() == []

    def test_volume_commands(self, dvdi):
        assert dvdi.json("volume", "create", "local/x", "--option", "type=image", "-o", "size=16M") == {
            "driver": "local", "name": "x"}
        listed = dvdi.json("volume", "ls")
        assert set(listed) >= {"volumes", "warnings"} and listed["warnings"] == []
        (volume,) = listed["volumes"]
        assert volume["state"] == "absent" and volume["mount_point"] is None and volume["containers"] == []
        done = dvdi.run("--format", "json", "volume", "rm", "local/x", "local/not-there")
        answer = json.loads(done.stdout)
        assert done.returncode == 1 and answer["removed"] == [{"driver": "local", "name": "x"}]
        (failed,) = answer["failed"]
        assert (failed["name"], failed["error"]["code"]) == ("not-there", "not_found")
        assert dvdi.json("volume", "ls")["volumes"] == []

    def test_a_volume_in_use_is_not_removed(self, dvdi):
        run = dvdi.start("run", "--volume", "local/v:data", *shell("echo x > data/f; echo ready; read x"))
        assert run.stdout.readline() == "ready\n"
        answer = json.loads(dvdi.run("--format", "json", "volume", "rm", "local/v", code=1).stdout)
        assert answer["failed"][0]["error"]["code"] == "failed_precondition"
        run.communicate("\n", timeout=30)
        assert (data_of(dvdi, "v") / "f").exists()

    def test_errors(self, dvdi):
        plugin = dvdi.faulty("d")
        plugin.rule("Mount", "error", text="no room left")
        done = dvdi.run("--format", "json", "run", "--volume", "d/v:data", "--", "true", code=125)
        error = json.loads(done.stderr.splitlines()[-1])["error"]
        assert error["code"] == "driver_error" and error["outcome"] == "refused"
        assert (error["driver"], error["volume"], error["operation"]) == ("d", "v", "mount")
        assert "no room left" in error["message"]
        done = dvdi.run("--format", "json", "volume", "inspect", "local/none", code=1)
        assert json.loads(done.stderr)["error"]["code"] == "not_found" and done.stdout == ""

    def test_usage_version_and_doctor(self, dvdi):
        dvdi.run("run", "--volume", "local/v:data", "--", "true", code=0)
        usage = dvdi.json("usage", "--by", "driver", "--since", "1d")
        assert set(usage) >= {"by", "since", "until", "currency", "rows", "total"} and usage["by"] == ["driver"]
        assert all(set(row) >= USAGE_MEMBERS for row in usage["rows"]) and usage["rows"]
        assert re.match(r"^\d+\.\d+\.\d+", dvdi.json("version")["version"])

    def test_wrong_command_lines(self, dvdi):
        for wrong in (["nonsense"], ["volume", "ls", "--nonsense"], ["usage", "--by", "nonsense"], ["inspect"]):
            assert dvdi.run(*wrong, code=2).stdout == ""


class TestDoctor:
    def findings(self, dvdi, code):
        done = dvdi.run("--format", "json", "doctor", code=code)
        answer = json.loads(done.stdout)
        assert answer["healthy"] is (code == 0)
        for finding in answer["findings"]:
            assert set(finding) >= {"level", "subject", "text", "advice"}
            assert finding["level"] == "ok" or finding["advice"], finding
        return {finding["subject"]: finding for finding in answer["findings"]}

    def test_healthy(self, dvdi):
        dvdi.faulty("d")
        dvdi.run("run", "--volume", "d/v:data", "--", "true", code=0)
        found = self.findings(dvdi, 0)
        for subject in ("root", "namespaces", "mount API", "state", "driver local", "driver d"):
            assert found[subject]["level"] == "ok", found[subject]

    def test_driver_that_does_not_answer(self, dvdi):
        plugin = dvdi.faulty("d")
        plugin.rule("*", "hang")
        found = self.findings(dvdi, 1)
        assert found["driver d"]["level"] != "ok" and found["driver local"]["level"] == "ok"
        plugin.stop()
        found = self.findings(dvdi, 1)
        assert "d.sock" in found["driver d"]["text"]

    def test_changes_nothing(self, dvdi):
        self.findings(dvdi, 0)
        assert not pathlib.Path(dvdi.state_dir / "state.db").exists()

