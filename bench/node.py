"""A node to measure: plugins, a daemon, and the programs of bench/. What the end-to-end tests use, with the defaults of dvdi."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

LONGEST_RUN = 600  # seconds, of one program
ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
import support  # noqa: E402  # pylint: disable=wrong-import-position


class BenchNode(support.Node):
    def __init__(self, settings):
        super().__init__()
        self.tools = settings.build / "bench"
        # The tests' is in /tmp, which may be memory.
        shutil.rmtree(self.root)
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="dvdi-bench-", dir=settings.folder))
        self.state_dir = self.root / "state"
        self.plugin_dir = self.root / "plugins"
        self.config_file = self.root / "dvdi.toml"
        self.sandbox = self.root / "sandbox"
        self.sandbox.mkdir()
        self.plugin_dir.mkdir()
        self.configure()
        self.hop = self.noop_plugin("hop")

    def configure(self, changes=None):
        """The defaults, but for where plugins are looked for; `changes` is more TOML."""
        lines = f'[docker]\nplugin_dir = "{self.plugin_dir}"\nspec_dirs = ["{self.root}/specs"]\n'
        self.config_file.write_text(changes.format(docker=lines) if changes else lines)

    def noop_plugin(self, name="bench", *options, socket=None):
        base = self.root / f"{name}.base"
        base.mkdir()
        socket = socket or str(self.plugin_dir / f"{name}.sock")
        plugin = support.Plugin(self, name, [str(self.tools / "bench_plugin"), "--socket", socket, "--base", str(base),
                                             *options], socket_path=socket)
        plugin.mount_folder = str(base)
        self.plugins.append(plugin)
        return plugin

    def tool(self, name, *args):
        """One of the programs of bench/, which prints a line of JSON. subprocess.TimeoutExpired where it takes far too long."""
        done = subprocess.run([str(self.tools / f"bench_{name}"), *map(str, args)], stdin=subprocess.DEVNULL, text=True,
                              capture_output=True, check=False, env=self.environment(), timeout=LONGEST_RUN)
        if done.returncode != 0:
            raise RuntimeError(f"bench_{name} {args}: {done.stderr}")
        return json.loads(done.stdout)

    def load(self, *args):
        return self.tool("load", *self.load_options(), *args)

    def load_options(self):
        return ["--socket", self.daemon.socket, "--directory", str(self.sandbox)]

    def floor(self, plugin, *args):
        return self.tool("floor", "--plugin", plugin.socket, "--hop", self.hop.socket, "--database",
                         self.root / "floor.db", *args)

    def metrics(self):
        """Name with labels -> value, as /metrics says."""
        text = self.daemon.call("GET", "/metrics")
        lines = text.decode() if isinstance(text, bytes) else text
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1])
                for line in lines.splitlines() if line and not line.startswith("#")}

    def commits(self):
        return self.metrics()["dvdi_ledger_commit_seconds_count"]

    def commit_bytes(self, *load):
        """The bytes of events that one transaction of that load writes. The other rows of it are given to the floor for nothing."""
        before = self.metrics()
        self.load(*load, "--rounds", 50)
        after = self.metrics()
        grown = {name: after[name] - before[name] for name in ("dvdi_events_size_bytes", "dvdi_ledger_commit_seconds_count")}
        return int(grown["dvdi_events_size_bytes"] / grown["dvdi_ledger_commit_seconds_count"])

    def memory(self):
        """RssAnon of the daemon and its helpers, in bytes."""
        total = 0
        for pid in [self.daemon.process.pid, *support.descendants_of(self.daemon.process.pid)]:
            for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    total += int(line.split()[1]) * 1024
        return total

    def end(self):
        """By force: what was measured is thrown away."""
        if self.daemon:
            self.daemon.process.send_signal(signal.SIGKILL)
            self.daemon.process.wait()
            self.daemon = None
        for plugin in self.plugins:
            plugin.process.kill()
            plugin.process.wait()
        for undo in reversed(self.undo):
            undo()
        for point in reversed(support.mount_points_below(self.root)):
            support.umount(point, lazy=True)
        shutil.rmtree(self.root, ignore_errors=True)
