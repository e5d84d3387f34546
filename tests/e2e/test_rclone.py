"""rclone, a Docker volume plugin that others wrote: FUSE mounts, shared by tasks, and secrets that must not be seen."""

import json
import os
import subprocess

from support import eventually


def shell(script):
    return ["--", "sh", "-c", script]


def volume(name, path="data", mode="", **options):
    return ["--volume", ",".join([f"rc/{name}:{path}{mode}", *(f"{key}={value}" for key, value in options.items())])]


def test_from_create_to_remove(dvdi, rclone):
    dvdi.run("volume", "create", "rc/v", "--option", "remote=loc:", code=0)
    assert [one["Name"] for one in rclone.request("List")["Volumes"]] == ["v"]
    # Used in a task, and read back in a second one.
    done = dvdi.run("run", *volume("v"), *shell("stat -f -c %T data; echo hello > data/f"), code=0)
    assert done.stdout == "fuseblk\n"
    assert not rclone.fuse_mounts()
    assert dvdi.run("run", *volume("v"), *shell("cat data/f"), code=0).stdout == "hello\n"
    assert (rclone.data / "f").read_text() == "hello\n"
    dvdi.run("volume", "rm", "rc/v", code=0)
    assert not rclone.request("List")["Volumes"]
    assert (rclone.data / "f").read_text() == "hello\n"  # rclone removes the volume, not what it is a view of


def test_created_on_demand_with_its_options(dvdi, rclone):
    assert "'v'" in dvdi.run("run", *volume("v"), *shell("exit 0"), code=125).stderr  # rclone wants a remote
    dvdi.run("run", *volume("v", remote="loc:"), *shell("exit 0"), code=0)


def test_two_tasks_at_once_on_one_volume(dvdi, rclone):
    flags = volume("v", remote="loc:")
    first = dvdi.start("run", *flags, *shell("echo one > data/f; echo ready; read x; cat data/g"))
    assert first.stdout.readline() == "ready\n"
    assert len(rclone.fuse_mounts()) == 1
    assert dvdi.run("run", *flags, *shell("cat data/f; echo two > data/g"), code=0).stdout == "one\n"
    assert len(rclone.fuse_mounts()) == 1  # the end of the second one did not take it from the first
    out, err = first.communicate("\n", timeout=30)
    assert (first.returncode, out, err) == (0, "two\n", "")
    assert not rclone.fuse_mounts()
    assert dvdi.event_types("volume/rc/v", "dvdi.mount.") == [
        f"dvdi.mount.{state}" for state in ("mounting", "mounted", "unmounting", "unmounted")]


def test_a_reader_and_a_writer_share_a_volume(dvdi, rclone):
    """Scenario 25."""
    writer = dvdi.start("run", *volume("v", remote="loc:"), *shell("echo old > data/f; echo ready; read x; echo new > data/g"))
    assert writer.stdout.readline() == "ready\n"
    reader = dvdi.run("run", *volume("v", mode=":ro", remote="loc:"), *shell(
        "cat data/f; for what in 'touch data/x' 'rm data/f' 'mkdir data/d'; do $what 2>&1 | grep -c Read-only; done; "
        "(echo bad > data/f) 2>/dev/null || echo refused"), code=0)
    assert reader.stdout.split() == ["old", "1", "1", "1", "refused"]
    writer.communicate("\n", timeout=30)
    assert writer.returncode == 0
    assert sorted(os.listdir(rclone.data)) == ["f", "g"] and (rclone.data / "f").read_text() == "old\n"


def test_one_volume_twice_in_a_task(dvdi, rclone):
    done = dvdi.run("run", *volume("v", "rw", remote="loc:"), *volume("v", "ro", ":ro", remote="loc:"),
                    *shell("echo x > rw/f; cat ro/f; ! touch ro/g 2>/dev/null"), code=0)
    assert done.stdout == "x\n"


def test_many_tasks_at_once_on_one_volume(dvdi, rclone):
    flags = volume("v", remote="loc:")
    keep = dvdi.start("run", *flags, *shell("echo ready; read x"))
    assert keep.stdout.readline() == "ready\n"
    runs = [dvdi.start("run", *flags, *shell(f"echo {number} > data/{number}")) for number in range(6)]
    for run in runs:
        out, err = run.communicate(timeout=60)
        assert (run.returncode, out, err) == (0, "", "")
    keep.communicate("\n", timeout=30)
    assert sorted(os.listdir(rclone.data)) == [str(number) for number in range(6)]
    assert not rclone.fuse_mounts()


def test_plugin_that_is_away_is_named(dvdi, rclone):
    dvdi.configure({"docker": {"connect_patience": "200ms"}})
    dvdi.run("run", *volume("v", remote="loc:"), *shell("exit 0"), code=0)
    rclone.stop()
    with open(rclone.socket, "wb"):
        pass  # a file that is no socket
    os.unlink(rclone.socket)
    done = dvdi.run("run", *volume("v", remote="loc:"), *shell("exit 0"), code=125)
    assert "'rc'" in done.stderr and rclone.socket in done.stderr
    rclone.start()
    dvdi.run("run", *volume("v", remote="loc:"), *shell("exit 0"), code=0)


class TestSecrets:
    PLAIN = "correct-horse-battery-staple"

    def assert_unseen(self, dvdi, secret, *outputs):
        for text in outputs:
            assert secret not in text
        needle, looked = secret.encode(), []
        for path in dvdi.state_dir.rglob("*"):
            if path.is_file() and not path.is_symlink():
                looked.append(path.name)
                assert needle not in path.read_bytes(), f"the secret is in {path}"
        assert "state.db" in looked

    def look_everywhere(self, dvdi):
        commands = (["events", "--format", "json"], ["events"], ["volume", "ls"], ["volume", "inspect", "rc/crypt"],
                    ["--format", "json", "volume", "inspect", "rc/crypt"], ["ps", "--all", "--format", "json"], ["usage"],
                    ["doctor"])
        found = [dvdi.run(*command) for command in commands]
        return [done.stdout + done.stderr for done in found]

    def test_appear_nowhere(self, dvdi, rclone):
        """A volume that really needs its secret: rclone encrypts with it."""
        secret = subprocess.run(["rclone", "obscure", self.PLAIN], check=True, capture_output=True, text=True).stdout.strip()
        options = {"type": "crypt", "crypt-remote": f"{rclone.data}/vault", "crypt-password": secret}
        app = dvdi.root / "app.json"
        app.write_text(json.dumps([{"container_path": "data", "mode": "RW", "source": {
            "type": "DOCKER_VOLUME", "docker_volume": {"driver": "rc", "name": "crypt", "driver_options": {
                "parameter": [{"key": key, "value": value} for key, value in options.items()]}}}}]))
        run = dvdi.start("run", "--verbose", app, *shell("echo plain text > data/f; env; echo ready; read x; cat data/f"))
        seen = ""
        while not seen.endswith("ready\n"):
            line = run.stdout.readline()
            assert line, run.stderr.read()
            seen += line
        self.assert_unseen(dvdi, secret, *self.look_everywhere(dvdi))  # also while it is mounted, state.db-wal included
        out, err = run.communicate("\n", timeout=30)
        assert run.returncode == 0 and out == "plain text\n"
        stored = [path for path in (rclone.data / "vault").rglob("*") if path.is_file()]
        assert len(stored) == 1 and b"plain text" not in stored[0].read_bytes()  # the secret was used
        self.assert_unseen(dvdi, secret, seen, out, err, *self.look_everywhere(dvdi))

    def test_appear_nowhere_though_the_driver_repeats_them(self, dvdi):
        plugin = dvdi.faulty("rc")
        secret = "s3cr3t-value-of-this-test"
        plugin.rule("Create", "error", times=1, text=f"cannot log in with {secret}: no")
        plugin.rule("Mount", "error", times=1, text=f"cannot log in with {secret}: no")
        outputs = []
        for code in (125, 125, 0):
            done = dvdi.run("run", *volume("crypt", **{"api-token": secret}), *shell("exit 0"), code=code)
            outputs.append(done.stdout + done.stderr)
            done = dvdi.run("--format", "json", "volume", "ls")
            outputs.append(done.stdout + done.stderr)
        assert "cannot log in with <secret>: no" in outputs[0]
        assert plugin.calls("Create")[0]["opts"] == {"api-token": secret}  # the driver got it
        self.assert_unseen(dvdi, secret, *outputs, *self.look_everywhere(dvdi))

    def test_appear_nowhere_though_the_driver_repeats_them_later(self, dvdi):
        """Unmount and Remove come without the options, and after a restart nobody knows the values."""
        plugin = dvdi.faulty("rc")
        secret = "s3cr3t-value-of-this-test"
        text = f"cannot log in with {secret}: no"
        daemon = dvdi.start_daemon()
        outputs = []

        def owed():
            (one,) = dvdi.json("volume", "inspect", "rc/crypt")["volumes"]
            return one["owed"]

        plugin.rule("Unmount", "error", times=1, text=text)
        done = dvdi.run("run", *volume("crypt", **{"api-token": secret}), *shell("exit 0"), code=0)
        outputs.append(done.stdout + done.stderr)
        errors = [event["data"].get("error", "") for event in dvdi.events()]
        errors = [error for error in errors if error]
        assert any("cannot log in with <secret>: no" in error for error in errors), errors
        outputs += self.look_everywhere(dvdi)
        eventually(lambda: not owed())
        plugin.rule("Remove", "error", times=1, text=text)
        done = dvdi.run("volume", "rm", "rc/crypt", code=1)
        assert "cannot log in with <secret>: no" in done.stderr
        outputs.append(done.stderr)

        plugin.rule("Unmount", "error", times=1, text=text)
        started = dvdi.start("run", *volume("crypt", **{"api-token": secret}), *shell("echo ready; read x"))
        assert started.stdout.readline() == "ready\n"
        daemon.restart()
        out, err = started.communicate("\n", timeout=30)
        assert started.returncode == 0
        errors = [event["data"].get("error", "") for event in dvdi.events()]
        assert any("text is withheld" in error for error in errors), errors
        outputs += [out, err, *self.look_everywhere(dvdi)]
        eventually(lambda: not owed())
        plugin.rule("Remove", "error", times=1, text=text)
        done = dvdi.run("volume", "rm", "rc/crypt", code=1)
        assert "text is withheld" in done.stderr
        dvdi.run("volume", "rm", "rc/crypt", code=0)
        outputs += [done.stderr, daemon.call("GET", "/metrics").decode(), daemon.log.read_text(), *self.look_everywhere(dvdi)]
        self.assert_unseen(dvdi, secret, *outputs)

    def test_appear_nowhere_though_the_request_is_wrong(self, dvdi):
        secret = "s3cr3t-value-of-this-test"
        outputs = []
        for flags in (["--volume", f"rc/v:data,password={secret},dvdi.nonsense=1"], ["--volume", f"rc/v:../x,password={secret}"],
                      ["--volume", f"rc/v,password={secret}"], ["--volume", f"rc/v:data,{secret}"],
                      ["--volume", f"local/v:data,password={secret}"]):
            done = dvdi.run("run", *flags, "--", "true", code=125)
            outputs.append(done.stdout + done.stderr)
        done = dvdi.run("run", "--", "true", code=125, env={
            "DVDI_VOLUME_NAME": "v", "DVDI_VOLUME_DRIVER": "rc", "DVDI_VOLUME_OPTS": f"password=a,{secret}"})
        outputs.append(done.stdout + done.stderr)
        self.assert_unseen(dvdi, secret, *outputs)
