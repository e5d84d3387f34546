"""What bench/run measures. Each function has a name and gives tables; docs/performance.md has one section for each."""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import sqlite3
import statistics
import subprocess
import time

from node import ROOT, BenchNode, support
from docker_engine import Docker  # pylint: disable=wrong-import-order  # node has put its folder on the path

import usage_intervals

ALL = {}


@dataclasses.dataclass
class Table:
    name: str
    columns: list
    rows: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Target:
    """A figure that is held against what was promised."""
    what: str
    value: float
    limit: float
    at_least: bool = False
    unit: str = "x"

    def met(self):
        return self.value >= self.limit if self.at_least else self.value <= self.limit


@dataclasses.dataclass
class Outcome:
    tables: list
    targets: list


@dataclasses.dataclass
class Settings:
    build: pathlib.Path
    folder: str
    quick: bool

    def pick(self, usual, quick):
        return quick if self.quick else usual


def measurement(function):
    ALL[function.__name__] = function
    return function


@contextlib.contextmanager
def node_of(settings, config=None, daemon=True):
    node = BenchNode(settings)
    try:
        if config:
            node.configure(config)
        if daemon:
            node.start_daemon()
        yield node
    finally:
        node.end()


def side_by_side(repeats, *what):
    """Runs each in turn, `repeats` times, so that what the machine does meanwhile meets all of them. Per one: the list of results."""
    results = [[] for _ in what]
    for _ in range(repeats):
        for one, result in zip(what, results, strict=True):
            result.append(one())
    return results


def middle(results, key):
    return statistics.median(result[key] for result in results)


def ratio(a, b):
    return a / b if b else float("inf")


def us(value):
    return f"{value:,.0f}"


def times(value):
    return f"{value:.2f}"


@measurement
def latency(settings):
    """Prepare and cleanup of one volume, one client."""
    table = Table("latency", ["driver", "", "dvdi median us", "p99 us", "floor median us", "p99 us", "ratio median", "p99"])
    targets = []
    seconds, repeats = settings.pick(("2", 5), ("0.1", 1))
    with node_of(settings) as node:
        bench = node.noop_plugin()
        cases = [("no-op", bench, ["--driver", "bench"], [])]
        if shutil.which("rclone") and os.access("/dev/fuse", os.W_OK):
            cases.append(("rclone", node.rclone("rc"), ["--driver", "rc", "--options", '{"parameter":[{"key":"remote","value":"loc:"}]}'],
                          ["--options", '{"remote":"loc:"}']))
        def measure(name, plugin, load, floor):
            size = node.commit_bytes(*load)
            for warm in (False, True):
                if warm:
                    node.load(*load, "--keep", 1, "--prefix", f"keeps-{name}")
                    floor = [*floor, "--warm"]
                ours, theirs = side_by_side(
                    repeats, lambda: node.load(*load, "--seconds", seconds),
                    lambda floor=floor: node.floor(plugin, "--bytes", size, "--seconds", seconds, *floor))
                median, p99 = (ratio(middle(ours, key), middle(theirs, key)) for key in ("median_us", "p99_us"))
                table.rows.append([name, "warm" if warm else "cold", *(us(middle(side, key)) for side in (ours, theirs)
                                                                      for key in ("median_us", "p99_us")),
                                   times(median), times(p99)])
                if name == "no-op":
                    targets.append(Target(f"{'warm' if warm else 'cold'} prepare+cleanup, median against the floor", median,
                                          1.5 if warm else 1.25))

        for case in cases:
            try:
                measure(*case)
            except subprocess.TimeoutExpired:
                if case[0] == "no-op":
                    raise
                # rclone 1.60 waits for itself now and then, for ever: its Mount holds the lock that its other calls need.
                table.rows.append([case[0], "", *["does not answer"] * 6])
    return Outcome([table], targets)


@measurement
def task(settings):
    """dvdi run /bin/true with one volume, against the kernel's part of it and against docker run."""
    table = Table("task", ["", "median us", "p99 us", "of the floor"])
    rounds, repeats = settings.pick((60, 3), (2, 1))
    with node_of(settings, daemon=False) as node:
        # Docker knows no other folder for plugins. In this mount namespace only.
        support.mount("bench", "/run", "tmpfs", "mode=755")
        node.undo.append(lambda: support.umount("/run", lazy=True))
        pathlib.Path("/run/docker/plugins").mkdir(parents=True)
        node.plugin_dir = pathlib.Path("/run/docker/plugins")
        node.configure()
        bench = node.noop_plugin()
        docker = start_docker(node)
        place = node.root / "place"
        place.mkdir()

        def repeat(*command, env=None, count=rounds):
            done = subprocess.run([str(node.tools / "bench_repeat"), "--rounds", str(count), "--", *command], text=True,
                                  capture_output=True, check=False, env=env, stdin=subprocess.DEVNULL)
            if done.returncode != 0:
                raise RuntimeError(done.stderr)
            return json.loads(done.stdout)

        command = [support.program(), "run", "--volume", "bench/v0:data", "--", "/bin/true"]
        alone = {**os.environ, **node.environment()}
        daemon = node.start_daemon()
        served = {**os.environ, **node.environment()}
        size = node.commit_bytes("--driver", "bench")
        daemon.stop()
        node.daemon = None

        def with_daemon():
            daemon.start()
            try:
                return repeat(*command, env=served)
            finally:
                daemon.stop()

        kernel = ["unshare", "--mount", "--pid", "--fork", "sh", "-c", f"mount --bind {place} {place} && exec /bin/true"]
        sides = [lambda: repeat(*kernel), lambda: node.floor(bench, "--bytes", size, "--rounds", rounds),
                 lambda: repeat(*command, env=alone), with_daemon]
        if docker:
            sides.append(lambda: repeat("docker", "-H", f"unix://{docker.socket}", "run", "--rm", "--network", "none",
                                        "--volume-driver", "bench", "--volume", "v0:/data", "bb", "/bin/true",
                                        count=max(2, rounds // 6)))
        results = side_by_side(repeats, *sides)
        floor = middle(results[0], "median_us") + middle(results[1], "median_us")
        named = ["unshare, mount, true", "the floor of prepare+cleanup", "dvdi run, no daemon", "dvdi run, daemon", "docker run"]
        for name, result in zip(named, results, strict=False):
            table.rows.append([name, us(middle(result, "median_us")), us(middle(result, "p99_us")),
                               times(middle(result, "median_us") / floor)])
    targets = [Target("dvdi run without a daemon, against the floor", middle(results[2], "median_us") / floor, 1.5),
               Target("dvdi run with the daemon, against the floor", middle(results[3], "median_us") / floor, 1.5)]
    if docker:
        slower = max(middle(results[2], "median_us"), middle(results[3], "median_us"))
        targets.append(Target("docker run against the slower of the two", middle(results[4], "median_us") / slower, 15, True))
    return Outcome([table], targets)


def start_docker(node):
    if shutil.which("dockerd") is None or shutil.which("busybox") is None:
        return None
    engine = Docker(node)
    if support.eventually(engine.answers, timeout=60, what="dockerd answers") == "ended":
        return None
    engine.import_busybox()
    engine.run("volume", "create", "--driver", "bench", "v0")
    return engine


@measurement
def throughput(settings):
    """Many clients, 64 volumes."""
    table = Table("throughput", ["clients", "volumes each", "prepares/s", "p99 us", "commits per prepare", "floor/s", "ratio"])
    delayed = Table("throughput_delay", ["clients", "prepares/s", "of one client"])
    targets = []
    seconds, repeats = settings.pick(("2", 3), ("0.1", 1))
    with node_of(settings) as node:
        bench = node.noop_plugin()
        node.noop_plugin("slow", "--delay-ms", "20")
        size = node.commit_bytes("--driver", "bench")
        for each in (1, 8):
            for clients in settings.pick((1, 4, 16, 64, 256), (1, 64)):
                shape = ["--threads", clients, "--volumes", 64, "--each", each, "--seconds", seconds]
                commits = []

                def ours(shape=shape, commits=commits):
                    before = node.commits()
                    result = node.load(*shape)
                    # The rounds of the warm-up are commits, too.
                    commits.append((node.commits() - before) / (result["rounds"] + 10 * shape[1]))
                    return result
                ours, theirs = side_by_side(repeats, ours, lambda shape=shape: node.floor(bench, "--bytes", size, *shape))
                speed, bare = middle(ours, "per_second"), middle(theirs, "per_second")
                table.rows.append([clients, each, us(speed), us(middle(ours, "p99_us")), times(statistics.median(commits)),
                                   us(bare), times(speed / bare)])
                if (clients, each) == (64, 1):
                    targets.append(Target("64 clients, against the floor loop", speed / bare, 0.7, True))
                    targets.append(Target("durable commits of a prepare and cleanup, which are 4 transitions, at 64 clients",
                                          statistics.median(commits), 2, unit=""))
        speeds = {}
        for clients in (1, 64):
            shape = ["--driver", "slow", "--threads", clients, "--volumes", 64, "--seconds", seconds]
            speeds[clients] = middle(side_by_side(repeats, lambda shape=shape: node.load(*shape))[0], "per_second")
            delayed.rows.append([clients, us(speeds[clients]), times(speeds[clients] / speeds[1])])
        targets.append(Target("64 clients of a plugin that takes 20 ms, against one", speeds[64] / speeds[1], 40, True))
    return Outcome([table, delayed], targets)


@measurement
def dvdcli(settings):
    """dvdcli mount and unmount, two processes, against two that send one request each."""
    table = Table("dvdcli", ["", "median us", "p99 us"])
    rounds, repeats = settings.pick((100, 5), (3, 1))
    with node_of(settings) as node:
        node.noop_plugin()
        env = {**os.environ, **node.environment()}
        body = {"owner": "bench", "container_id": {"value": "two-calls-{}"}}
        volume = {"source": {"type": "DOCKER_VOLUME", "docker_volume": {"driver": "bench", "name": "floor"}}, "mode": "RW",
                  "container_path": "data"}
        prepare, cleanup = json.dumps({**body, "staged": False, "request": [volume]}), json.dumps(body)

        def repeat(*command):
            done = subprocess.run([str(node.tools / "bench_repeat"), "--rounds", str(rounds), "--", *map(str, command)],
                                  text=True, capture_output=True, check=False, env=env, stdin=subprocess.DEVNULL)
            if done.returncode != 0:
                raise RuntimeError(done.stderr)
            return json.loads(done.stdout)

        tool, two = support.Dvdcli.program(), node.tools / "bench_two_calls"
        flags = ["--volumedriver=bench", "--volumename=v0"]
        ours, theirs = side_by_side(
            repeats, lambda: repeat(tool, "mount", *flags, "--then", tool, "unmount", *flags),
            lambda: repeat(two, node.daemon.socket, "/v1/prepare", prepare, "--then", two, node.daemon.socket, "/v1/cleanup",
                           cleanup))
    for name, side in (("dvdcli mount, dvdcli unmount", ours), ("a C program, twice", theirs)):
        table.rows.append([name, us(middle(side, "median_us")), us(middle(side, "p99_us"))])
    return Outcome([table], [Target("dvdcli mount+unmount against a C program's two calls",
                                    middle(ours, "median_us") / middle(theirs, "median_us"), 2)])


@measurement
def recovery(settings):
    """A daemon's restart and an agent's recover, with many containers of three volumes; what the look at one mount costs."""
    table = Table("recovery", ["containers", "mounts", "start s", "recover s", "RssAnon MB after", "start us each",
                               "recover us each"])
    looks = Table("recovery_look", ["mounts on the node", "warm prepare+cleanup median us"])
    taken = {}
    with node_of(settings) as node:
        node.noop_plugin()
        sizes = settings.pick((100, 1000, 10_000, 30_000), (50,))
        made = 0
        for count in sizes:
            volumes = min(3 * count, 3000)
            node.load("--threads", 16, "--keep", count - made, "--prefix", f"c{count}", "--each", 3, "--volumes", volumes)
            made = count
            daemon = node.daemon
            daemon.kill()
            begun = time.monotonic()
            daemon.start(wait=False)
            while not answers(daemon):
                time.sleep(0.0005)
            start = time.monotonic() - begun
            live = [{"container_id": {"value": one["id"]}}
                    for one in daemon.call("GET", "/v1/containers", timeout=300)["containers"]]
            begun = time.monotonic()
            answer = daemon.call("POST", "/v1/recover", {"owner": "bench", "complete": True, "containers": live},
                                 timeout=600)
            recover = time.monotonic() - begun
            assert len(daemon.call("GET", "/v1/containers", timeout=300)["containers"]) == count, answer
            taken[count] = (start, recover)
            table.rows.append([f"{count:,}", f"{volumes:,}", f"{start:.3f}", f"{recover:.3f}", f"{node.memory() / 1e6:.1f}",
                               f"{start / count * 1e6:.1f}", f"{recover / count * 1e6:.1f}"])
    per_mount = {}
    for others in settings.pick((10, 30_000), (10, 20)):
        with node_of(settings) as node:
            node.noop_plugin()
            node.load("--keep", 1, "--prefix", "keeps")
            crowd = node.root / "crowd"
            crowd.mkdir()
            for i in range(others):
                folder = crowd / str(i)
                folder.mkdir()
                support.mount("crowd", str(folder), "tmpfs", "size=4k")
            per_mount[others] = middle(side_by_side(settings.pick(5, 1), lambda: node.load(
                "--seconds", settings.pick("2", "0.1")))[0], "median_us")
            looks.rows.append([f"{others:,}", us(per_mount[others])])
    few, many = (per_mount[key] for key in sorted(per_mount))
    targets = [Target("cost of a warm prepare with 30,000 mounts against 10", many / few, 1.1)]
    if 10_000 in taken:
        targets += [Target("10,000 containers: start of the daemon", taken[10_000][0], 0.3, unit="s"),
                    Target("10,000 containers: recover", taken[10_000][1], 1.0, unit="s"),
                    Target("recover of a container, 30,000 against 1,000", ratio(taken[30_000][1] / 30, taken[1000][1]), 1.3)]
    return Outcome([table, looks], targets)


def answers(daemon):
    try:
        return support.call(daemon.socket, "GET", "/healthz")[0] == 200
    except OSError:
        if daemon.process.poll() is not None:
            raise RuntimeError(daemon.log.read_text()) from None
        return False


# Configuration of a daemon with a driver `hung` whose calls may wait side by side, for long.
HUNG = '[driver.hung]\ncalls_at_once = 1000\ndeadlines.mount = "1h"\n{docker}'


@contextlib.contextmanager
def hung_calls(node, count):
    """So many prepares that wait for a Mount of the plugin `hung`."""
    with subprocess.Popen([str(node.tools / "bench_load"), *node.load_options(), "--driver", "hung", "--threads", str(count), "--keep",
                           str(count), "--volumes", str(count), "--prefix", "hung"],
                          stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as client:
        try:
            support.eventually(lambda: node.metrics().get('dvdi_driver_calls_running{driver="hung"}', 0) >= count, timeout=120,
                               what=f"{count} calls hang")
            yield
        finally:
            client.kill()


@measurement
def hung_driver(settings):
    """A healthy driver beside one that answers no Mount."""
    table = Table("hung_driver", ["hung calls", "median us", "p99 us", "prepares/s"])
    hung = settings.pick(1000, 20)
    seconds, repeats = settings.pick(("3", 5), ("0.1", 1))
    # Two daemons, measured in turn: what else changes with time changes for both.
    with node_of(settings, HUNG) as free, node_of(settings, HUNG) as node:
        for one in (free, node):
            one.noop_plugin()
        node.noop_plugin("hung", "--hang")
        with hung_calls(node, hung):
            shape = ["--threads", 4, "--volumes", 64, "--seconds", seconds]
            found = dict(zip((0, hung), side_by_side(repeats, lambda: free.load(*shape), lambda: node.load(*shape)), strict=True))
        for calls, results in found.items():
            table.rows.append([calls, *(us(middle(results, key)) for key in ("median_us", "p99_us", "per_second"))])
    return Outcome([table], [Target(f"p99 of a healthy driver beside {hung} hung calls, against none",
                                    middle(found[hung], "p99_us") / middle(found[0], "p99_us"), 1.1)])


def make_events(state_db, count):
    """Puts events into a ledger that has few, each as dvdi writes them; the chain goes on."""
    with contextlib.closing(sqlite3.connect(state_db)) as ledger:
        sequence, body, head, total = ledger.execute(
            "SELECT sequence, body, hash, total_bytes FROM events ORDER BY sequence DESC LIMIT 1").fetchone()
        pattern = json.loads(body)
        node = pattern["source"].rpartition("/")[2]

        def rows():
            nonlocal head, total
            for number in range(sequence + 1, sequence + count + 1):
                pattern.update(id=f"{node}-{number}", sequence=f"{number:020}", previoushash=head)
                text = json.dumps(pattern, separators=(",", ":"), ensure_ascii=False)
                head = hashlib.sha256(text.encode()).hexdigest()
                total += len(text.encode()) + len(head)
                yield number, text, head, 1790000000000000000 + number, total
        ledger.execute("PRAGMA synchronous=OFF")
        with ledger:
            ledger.executemany("INSERT INTO events (sequence, body, hash, wall, total_bytes) VALUES (?, ?, ?, ?, ?)", rows())
        ledger.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@measurement
def events(settings):
    """Checking the chain, adding up usage, and what a sink that is down costs."""
    table = Table("events", ["", "how many", "s", "a second"])
    sink = Table("events_sink", ["sink", "median us", "p99 us", "prepares/s"])
    targets = []
    count = settings.pick(10_000_000, 1000)
    with node_of(settings, daemon=False) as node:
        node.run("volume", "create", "local/v", code=0)
        make_events(node.state_dir / "state.db", count)
        begun = time.monotonic()
        assert node.json("events", "verify", timeout=3600)["intact"]
        taken = time.monotonic() - begun
        table.rows.append(["dvdi events verify", us(count), f"{taken:.2f}", us(count / taken)])
        targets.append(Target("events that verify checks in a second", count / taken, 300_000, True, unit=""))
    with node_of(settings, daemon=False) as node:
        node.json("usage")
        usage_intervals.fill(node.state_dir / "state.db", count)
        for report in usage_intervals.REPORTS:
            begun = time.monotonic()
            node.run("usage", *report, timeout=3600, code=0)
            taken = time.monotonic() - begun
            shown = " ".join(str(part) for part in report).replace(f"{ROOT}/", "")
            table.rows.append([f"dvdi usage {shown}", us(count), f"{taken:.2f}", us(count / taken)])
            if report == usage_intervals.REPORTS[0]:
                targets.append(Target("usage report by role over 10 million intervals", taken, 2, unit="s"))
    seconds, repeats = settings.pick(("2", 5), ("0.1", 1))
    down = '[sink.gone]\ntype = "webhook"\nurl = "http://127.0.0.1:9/"\n{docker}'
    found = {}
    with node_of(settings) as one, node_of(settings, down) as other:
        for node in (one, other):
            node.noop_plugin()
        shape = ["--threads", 4, "--volumes", 64, "--seconds", seconds]
        results = side_by_side(repeats, lambda: one.load(*shape), lambda: other.load(*shape))
    for name, result in zip(("none", "a webhook that nobody answers"), results, strict=True):
        found[name] = middle(result, "per_second")
        sink.rows.append([name, us(middle(result, "median_us")), us(middle(result, "p99_us")), us(found[name])])
    return Outcome([table, sink], targets)


@measurement
def footprint(settings):
    """Memory, sizes, the start of a program, and whether an idle daemon sleeps."""
    table = Table("footprint", ["", "value"])
    targets = []
    volumes, hung = settings.pick((5000, 1000), (20, 10))
    with node_of(settings, HUNG) as node:
        node.noop_plugin()
        node.noop_plugin("hung", "--hang")
        idle = node.memory()
        table.rows.append(["RssAnon of an idle daemon", f"{idle / 1e6:.2f} MB"])
        targets.append(Target("RssAnon of an idle daemon", idle / 1e6, 8, unit="MB"))
        # What the first ones need once, for caches of the database's connections, threads, and two mount tables at a time, is not the
        # volumes'. As many more as there is time for: what is free in the heap just then is a part of the figure.
        node.load("--threads", 4, "--keep", volumes, "--volumes", 10 * volumes, "--prefix", "first")
        before = node.memory()
        node.load("--threads", 4, "--keep", 2 * volumes, "--volumes", 10 * volumes, "--prefix", "more")
        each = (node.memory() - before) / volumes
        table.rows.append([f"RssAnon of one more mounted volume, of {volumes}", f"{each:.0f} bytes"])
        targets.append(Target("RssAnon of one more mounted volume", each / 1000, 1, unit="KB"))
        sleeps = settings.pick(60, 1)
        woken = wakeups(node.daemon.process.pid, sleeps)
        table.rows.append([f"wake-ups of an idle daemon in {sleeps} s", str(woken)])
        targets.append(Target("wake-ups of an idle daemon", woken, 0, unit=""))
        before = node.memory()
        with hung_calls(node, hung):
            table.rows.append([f"RssAnon of one hung call, of {hung}", f"{(node.memory() - before) / hung / 1e3:.1f} KB"])
    for name in ("dvdi", "dvdid", "dvdcli"):
        path = settings.build / "bin" / name
        table.rows.append([f"size of {name}, stripped", f"{stripped_size(path) / 1e6:.2f} MB"])
    starts = side_by_side(settings.pick(5, 1), *(
        lambda command=command: json.loads(subprocess.run(
            [str(settings.build / "bench" / "bench_repeat"), "--rounds", str(settings.pick(200, 3)), "--", *command], text=True,
            capture_output=True, check=True, stdin=subprocess.DEVNULL).stdout)
        for command in ([support.program(), "--version"], [str(settings.build / "bench" / "bench_hello")])))
    version, hello = (middle(one, "median_us") for one in starts)
    table.rows.append(["dvdi --version", f"{us(version)} us"])
    table.rows.append(["a program that says hello", f"{us(hello)} us"])
    targets.append(Target("dvdi --version against hello", version / hello, 2))
    return Outcome([table], targets)


def wakeups(pid, seconds):
    def switches():
        total = 0
        for one in [pid, *support.descendants_of(pid)]:
            for thread in pathlib.Path(f"/proc/{one}/task").iterdir():
                for line in (thread / "status").read_text().splitlines():
                    if line.startswith(("voluntary_ctxt", "nonvoluntary_ctxt")):
                        total += int(line.split()[1])
        return total
    time.sleep(2)  # what the last call began is over; nothing tells when
    before = switches()
    time.sleep(seconds)
    return switches() - before


def stripped_size(path):
    target = pathlib.Path(f"{path}.stripped")
    subprocess.run(["strip", "-o", str(target), str(path)], check=True)
    size = target.stat().st_size
    target.unlink()
    return size
