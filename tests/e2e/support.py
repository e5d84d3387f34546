"""What the end-to-end tests share: a node of its own for each test, real and faulty plugins, and what must hold afterwards.

A test takes the fixture `dvdi` (a Node) and with it starts plugins, runs commands and looks. When it is over, the
node checks that nothing is left: no mount, no process, no loop device, an intact event log, and books that say what the
kernel says.
"""

import contextlib
import ctypes
import functools
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import jsonschema

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
EXAMPLES = ROOT / "examples"
EVENT_SCHEMA = json.loads((ROOT / "docs" / "events.schema.json").read_text())

# Passed on from the caller: lanes of ./check set them.
PASSED_ON = ("PATH", "DVDI_KERNEL", "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS", "LSAN_OPTIONS")
REPORTS = ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "WARNING: ThreadSanitizer", ": runtime error: ")

CONFIG = {
    "settle_budget": "5s",
    "deadlines": {"mount": "20s", "unmount": "20s", "other": "10s"},
    "debts": {"backoff": "10ms", "backoff_cap": "50ms", "late_answer": "0s"},
    "docker": {"connect_patience": "2s"},
}

libc = ctypes.CDLL(None, use_errno=True)


def eventually(condition, timeout=30, what=None):
    """The first true value of condition(); the last exception, or the last value, is in the failure."""
    end = time.monotonic() + timeout
    while True:
        last = None
        try:
            value = condition()
            if value:
                return value
        except AssertionError as error:
            value, last = None, error
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout} s: {what or condition}: last {last or value!r}") from last
        time.sleep(0.02)  # between two looks, not instead of one


@functools.cache
def event_validator(name):
    """Of the events of one type: the schema without its choice among all types, which takes long."""
    whole = {key: value for key, value in EVENT_SCHEMA.items() if key != "allOf"}
    data = {"$ref": f"#/$defs/types/{name}"} if name in EVENT_SCHEMA["$defs"]["types"] else {}
    return jsonschema.Draft202012Validator({**whole, "properties": {**whole["properties"], "data": data}})


def program():
    folder = os.environ.get("DVDI_BIN") or ROOT / "build" / "dev" / "bin"
    return str(pathlib.Path(folder).resolve() / "dvdi")


def daemon_program():
    return str(pathlib.Path(program()).with_name("dvdid"))


def unescape(text):
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text


def mounts(pid="self"):
    """(mount point, file system type, source, root, mount options) of each mount, in the kernel's order."""
    table = []
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            left, right = line.rstrip("\n").split(" - ", 1)
            fields, kind = left.split(" "), right.split(" ")
            table.append((unescape(fields[4]), kind[0], unescape(kind[1]), unescape(fields[3]), fields[5]))
    return table


def is_mounted(path):
    """Also where what is mounted is of the same file system as what is around it."""
    return any(entry[0] == str(path) for entry in mounts())


def mount_points_below(*folders):
    return sorted(entry[0] for entry in mounts() if any(entry[0].startswith(f"{folder}/") for folder in folders))


def loop_devices_below(folder):
    """Device -> backing file. Other programs on the machine use loop devices, too: only those that are ours."""
    found = {}
    for file in pathlib.Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            backing = file.read_text().strip()
            if backing.startswith(f"{folder}/"):
                found[f"/dev/{file.parent.parent.name}"] = backing
    return found


def process_state(pid):
    """(state letter, parent) or None if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[1])


def is_alive(pid):
    state = process_state(pid)
    return state is not None and state[0] not in "ZX"


def command_line(pid):
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def children_of(pid):
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            state = process_state(entry)
            if state is not None and state[1] == pid:
                found.append(int(entry))
    return found


def descendants_of(pid):
    found = []
    for child in children_of(pid):
        found += [child, *descendants_of(child)]
    return found


def adopt_orphans():
    """What the programs under test leave behind becomes a child of this process, where it can be found."""
    pr_set_child_subreaper = 36
    if libc.prctl(pr_set_child_subreaper, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def reap_orphans(known):
    for pid in children_of(os.getpid()):
        state = process_state(pid)
        if pid not in known and state and state[0] == "Z":
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def umount(path, lazy=False):
    mnt_detach = 2
    return libc.umount2(os.fsencode(path), mnt_detach if lazy else 0) == 0


def mount(source, target, fs_type, options=""):
    if libc.mount(source.encode(), os.fsencode(target), fs_type.encode(), 0, options.encode()) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"mount {fs_type} at {target}: {os.strerror(error)}")


def stop(process, patience=20):
    """Ends a process that we started."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(patience)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream:
            with contextlib.suppress(OSError):
                stream.close()


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def call(path, method, url, body=None, timeout=60):
    """One HTTP request to a Unix socket; (status, JSON or bytes)."""
    connection = UnixConnection(path, timeout)
    try:
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, url, data, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        raw = answer.read()
        try:
            return answer.status, json.loads(raw) if raw else None
        except ValueError:
            return answer.status, raw
    finally:
        connection.close()


def listens(path):
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as one:
        try:
            one.connect(path)
        except OSError:
            return False
        return True


class Plugin:
    """A Docker volume plugin that is a process."""

    def __init__(self, node, name, command, env=None, socket_path=None):
        self.node, self.name, self.command, self.env = node, name, command, env
        self.socket = socket_path or str(node.plugin_dir / f"{name}.sock")
        self.log = node.root / f"{name}.plugin.log"
        self.process = None
        self.start()

    def start(self):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=self.env, cwd="/")

        def ready():
            assert self.process.poll() is None, f"plugin {self.name} ended: {self.log.read_text()}"
            return listens(self.socket)
        eventually(ready, what=f"plugin {self.name} listens")

    def stop(self):
        stop(self.process)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def request(self, operation, body=None):
        """One call of the volume plugin protocol, past dvdi: what another client of the plugin sees."""
        status, answer = call(self.socket, "POST", f"/VolumeDriver.{operation}", body or {})
        assert status == 200 and not answer.get("Err"), (operation, status, answer)
        return answer


class FaultyPlugin(Plugin):
    """tests/plugins/faulty_plugin.py; its first lines say which faults there are."""

    def __init__(self, node, name, *options):
        self.base = node.root / f"{name}.base"
        self.base.mkdir()
        super().__init__(node, name, [sys.executable, str(ROOT / "tests" / "plugins" / "faulty_plugin.py"), "--base",
                                      str(self.base), "--socket", str(node.plugin_dir / f"{name}.sock"), *options])

    @property
    def mount_folder(self):
        return str(self.base / "mounts")

    def control(self, method, url, body=None):
        status, answer = call(self.socket, method, url, body)
        assert status == 200, answer
        return answer

    def rule(self, op, fault, **more):
        """One more rule, for example rule("Mount", "error", times=1, text="no")."""
        self.control("POST", "/control", {"op": op, "fault": fault, **more})

    def clear(self):
        """Drops all rules, and lets all held calls go on."""
        self.control("POST", "/control/clear")

    def release(self):
        self.control("POST", "/control/release")

    def calls(self, op=None, wait=0):
        """The calls so far (of one operation); with wait=N waits, 30 s at most, until there are N."""
        query = f"?wait={wait}" + (f"&op={op}" if op else "")
        found = self.control("GET", "/control/calls" + query)
        assert len(found) >= wait, f"{len(found)} calls of {op}, not {wait}: {found}"
        return found

    def volumes(self):
        return self.control("GET", "/control/volumes")

    def stop(self):
        if self.process.poll() is None:
            with contextlib.suppress(OSError, AssertionError):
                self.clear()
        super().stop()


class RclonePlugin(Plugin):
    """rclone serve docker. Its remote `loc:` is a folder of the node."""

    def __init__(self, node, name, socket_path=None):
        self.base, self.data = node.root / f"{name}.base", node.root / f"{name}.data"
        self.cache, config = node.root / f"{name}.cache", node.root / f"{name}.conf"
        for folder in (self.base, self.data, self.cache):
            folder.mkdir()
        config.write_text(f"[loc]\ntype = alias\nremote = {self.data}\n")
        path = socket_path or str(node.plugin_dir / f"{name}.sock")
        # HOME: rclone looks for more there, and finds nothing of the machine's.
        super().__init__(node, name, ["rclone", "serve", "docker", "--config", str(config), "--socket-addr", path,
                                      "--base-dir", str(self.base), "--cache-dir", str(self.cache)],
                         env={"PATH": os.environ["PATH"], "HOME": str(node.root)}, socket_path=path)

    @property
    def mount_folder(self):
        return str(self.base)

    def fuse_mounts(self):
        return [one[0] for one in mounts() if one[1] == "fuse.rclone" and one[0].startswith(f"{self.mount_folder}/")]


class Daemon:
    """dvdid of a node, on a socket of its own."""

    def __init__(self, node, env=None):
        self.node, self.env = node, env or {}
        self.socket = str(node.root / "dvdid.sock")
        self.log = node.root / "dvdid.log"
        self.process = None
        self.start()

    def start(self, env=None, wait=True):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([daemon_program(), "--socket", self.socket], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, cwd="/",
                                            env=self.node.environment({**self.env, **(env or {})}))
        if wait:
            self.wait_until_it_listens()

    def wait_until_it_listens(self):
        def ready():
            assert self.process.poll() is None, f"dvdid ended: {self.log.read_text()}"
            return listens(self.socket)
        eventually(ready, what="dvdid listens")

    def call(self, method, url, body=None, status=200, timeout=60):
        """The answer's JSON; its status must be that."""
        got, answer = call(self.socket, method, url, body, timeout)
        assert status is None or got == status, f"{method} {url}: {got}, not {status}: {answer}"
        return answer

    def kill(self):
        self.process.kill()
        self.process.wait(30)

    def restart(self):
        self.kill()
        self.start()

    def stop(self):
        """SIGTERM: it must drain and end well."""
        if self.process.poll() is not None:
            return
        self.process.terminate()
        code = self.process.wait(60)
        said = self.log.read_text()
        for report in REPORTS:
            assert report not in said, said
        assert code == 0, f"dvdid ended with {code}: {said}"


class Node:
    """A machine as far as dvdi can tell: state, plugins and configuration are this test's alone."""

    def __init__(self):
        # Short: the path of a Unix socket has 107 bytes at most.
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="dvdi-e2e-", dir="/tmp"))
        self.state_dir = self.root / "state"
        self.plugin_dir = self.root / "plugins"
        self.config_file = self.root / "dvdi.toml"
        self.plugin_dir.mkdir()
        self.plugins, self.processes = [], []
        self.daemon = None
        self.undo = []  # called in reverse order at the end
        self.before = sorted(mounts())
        self.configure()

    # ---- configuration and plugins ----

    def configure(self, changes=None):
        """Writes the configuration: short deadlines, and {"table": {"key": value}} on top of them."""
        config = {**CONFIG, "docker": {**CONFIG["docker"], "plugin_dir": str(self.plugin_dir),
                                       "spec_dirs": [str(self.root / "specs")]}}
        for key, value in (changes or {}).items():
            config[key] = {**config.get(key, {}), **value} if isinstance(value, dict) else value
        plain = [f"{key} = {json.dumps(value)}" for key, value in config.items() if not isinstance(value, dict)]
        for name, table in config.items():
            if isinstance(table, dict):
                plain += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
        self.config_file.write_text("\n".join(plain) + "\n")

    def faulty(self, name="faulty", *options):
        plugin = FaultyPlugin(self, name, *options)
        self.plugins.append(plugin)
        return plugin

    def rclone(self, name="rc", socket_path=None):
        plugin = RclonePlugin(self, name, socket_path)
        self.plugins.append(plugin)
        return plugin

    def start_daemon(self, env=None):
        """From now on commands ask this daemon."""
        self.daemon = Daemon(self, env)
        return self.daemon

    # ---- commands ----

    def environment(self, env=None):
        kept = {key: os.environ[key] for key in PASSED_ON if key in os.environ}
        return {**kept, "DVDI_STATE_DIR": str(self.state_dir), "DVDI_CONFIG": str(self.config_file),
                "DVDI_SOCKET": self.daemon.socket if self.daemon else "none", **(env or {})}

    def run(self, *args, env=None, input=None, timeout=60, code=None, cwd=None):
        """Runs `dvdi ARGS` to its end. With `code` its exit code must be that."""
        done = subprocess.run([program(), *map(str, args)], env=self.environment(env), input=input, text=True,
                              stdin=subprocess.DEVNULL if input is None else None, errors="surrogateescape",
                              capture_output=True, timeout=timeout, cwd=cwd or self.root)
        for report in REPORTS:
            assert report not in done.stderr, done.stderr
        assert code is None or done.returncode == code, f"exit code {done.returncode}, not {code}:\n{done.args}\n{done}"
        return done

    def json(self, *args, **more):
        """The one document that a command writes with --format json; the command must succeed."""
        return json.loads(self.run("--format", "json", *args, **{"code": 0, **more}).stdout)

    def start(self, *args, env=None, **more):
        """Starts `dvdi ARGS`; text pipes for all three streams unless told otherwise. Ended with the test."""
        streams = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
        process = subprocess.Popen([program(), *map(str, args)], env=self.environment(env), cwd=self.root,
                                   **{**streams, "text": True, **more})
        self.processes.append(process)
        return process

    # ---- looking ----

    def events(self, *args):
        done = self.run("events", "--format", "json", *args, code=0)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def event_types(self, subject=None, prefix="dvdi."):
        """The types, in order; of one subject ("volume/local/a") if there is one."""
        return [event["type"] for event in self.events()
                if (subject is None or event["subject"] == subject) and event["type"].startswith(prefix)]

    def volumes(self):
        """"DRIVER/NAME" -> what `dvdi volume ls --known` says."""
        return {f'{one["driver"]}/{one["name"]}': one for one in self.json("volume", "ls", "--known")["volumes"]}

    def containers(self, *args):
        return self.json("ps", *args)["containers"]

    def kernel_mounts(self):
        """Mount points of volumes in the kernel's table, plugins' and the local driver's."""
        folders = [self.state_dir / "local" / "mnt", *(plugin.mount_folder for plugin in self.plugins)]
        return mount_points_below(*folders)

    def check_events(self):
        """Each event is as docs/events.schema.json says."""
        for line in self.run("--format", "json", "events", code=0).stdout.splitlines():
            event = json.loads(line)
            wrong = jsonschema.exceptions.best_match(event_validator(event["type"]).iter_errors(event))
            assert wrong is None, f"{wrong.message} at {list(wrong.absolute_path)}: {line}"

    def check_books(self):
        """The event log is intact, and the books say what the kernel's table says."""
        assert self.json("events", "verify")["intact"]
        listed = self.json("volume", "ls", "--known")["volumes"]
        kernel = self.kernel_mounts()
        assert len(kernel) == len(set(kernel)), f"mounted twice: {kernel}"
        mounted = {one["mount_point"] for one in listed if one["state"] == "mounted"}
        explained = mounted | {one["mount_point"] for one in listed if one["owed"] or one["state"] != "absent"}
        assert mounted <= set(kernel), f"not mounted, though the books say so: {mounted - set(kernel)}"
        assert set(kernel) <= explained, f"mounted, and the books do not know: {set(kernel) - explained}"

    def check_released(self):
        """No container, no reference, no debt, no mount. The next command settles what a killed one left."""
        def released():
            live = self.containers()
            assert not live, live
            listed = self.json("volume", "ls", "--known")["volumes"]
            held = [one for one in listed if one["state"] != "absent" or one["containers"] or one["owed"]]
            assert not held, held
            assert not self.kernel_mounts(), self.kernel_mounts()
            return True
        eventually(released, what="everything is released")

    # ---- the end ----

    def finish(self, failed):
        """Ends what the test started. After a test that passed, nothing may be left; that is checked first."""
        problems = []

        def attempt(step):
            try:
                step()
            except Exception as error:  # pylint: disable=broad-except  # all of it has to be taken down
                problems.append(f"{getattr(step, '__name__', step)}: {error}")
        for process in self.processes:
            attempt(lambda one=process: stop(one))
        if not failed and self.state_dir.exists():
            attempt(self.check_released)
            attempt(self.check_books)
            attempt(self.check_events)
        if self.daemon:
            attempt(self.daemon.stop)
            if failed:
                print(self.daemon.log.read_text()[-20000:])
            self.daemon = None
        for plugin in reversed(self.plugins):
            attempt(plugin.stop)
        for undo in reversed(self.undo):
            attempt(undo)
        attempt(self.check_nothing_left)
        self.take_down()
        if problems and not failed:
            raise AssertionError("left behind:\n" + "\n".join(problems))

    def check_nothing_left(self):
        def no_process():
            reap_orphans(set())
            left = [f"{pid} {command_line(pid)}" for pid in descendants_of(os.getpid())]
            assert not left, f"processes: {left}"
            return True

        def nothing_else():
            left = [entry for entry in mounts() if entry not in self.before]
            assert not left and sorted(mounts()) == self.before, f"mounts: {left}"
            loops = loop_devices_below(self.root)
            assert not loops, f"loop devices: {loops}"
            return True
        eventually(no_process, timeout=15, what="no process is left")
        eventually(nothing_else, timeout=15, what="no mount and no loop device is left")

    def take_down(self):
        """By force, so that the next test finds a clean machine."""
        for pid in descendants_of(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for point in reversed(mount_points_below(self.root)):
            umount(point, lazy=True)
        for device in loop_devices_below(self.root):
            subprocess.run(["losetup", "--detach", device], check=False, capture_output=True)
        reap_orphans(set())
        if not mount_points_below(self.root):
            shutil.rmtree(self.root, ignore_errors=True)


class Dvdcli:
    """Starts dvdcli on a node."""

    def __init__(self, node):
        self.node = node

    @staticmethod
    def program():
        return str(pathlib.Path(program()).with_name("dvdcli"))

    def start(self, *args):
        process = subprocess.Popen([self.program(), *args], env=self.node.environment(), cwd="/", text=True,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.node.processes.append(process)
        return process

    def run(self, *args, code=0):
        process = self.start(*args)
        out, err = process.communicate(timeout=60)
        for report in REPORTS:
            assert report not in err, err
        assert process.returncode == code, (args, process.returncode, out, err)
        return subprocess.CompletedProcess(args, process.returncode, out, err)

    def mount(self, *args):
        """The mount point, which must be all that is said."""
        done = self.run("mount", *args)
        assert done.stderr == "" and done.stdout.endswith("\n") and done.stdout.count("\n") == 1, done
        assert is_mounted(done.stdout.rstrip("\n")), done
        return done.stdout.rstrip("\n")
