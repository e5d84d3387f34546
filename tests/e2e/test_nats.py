"""Events to a real nats-server: killed under load, and shared by two nodes. What is there is read by a consumer that
knows nothing of dvdi's code (nats_consumer.py)."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading

import support
from nats_accounts import make_account
from nats_consumer import Nats, read_chains
from support import eventually

OWNER = "/agent"


class NatsServer:
    """Debian's nats-server with JetStream; the same port and store after each kill."""

    def __init__(self, node, host="127.0.0.1", prefix=(), config=None):
        self.program = shutil.which("nats-server", path=f"{os.environ['PATH']}:/usr/sbin")
        assert self.program, "nats-server is not installed: tools/packages install test"
        self.host, self.prefix, self.folder = host, list(prefix), node.root / "nats"
        self.port = -1
        self.options = ["-c", str(config)] if config else ["-js", "-sd", str(self.folder)]
        self.process = None
        self.start()

    def start(self):
        ports = self.folder / "ports"
        shutil.rmtree(ports, ignore_errors=True)
        ports.mkdir(parents=True)
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, self.program, *self.options, "-a", self.host, "-p", str(self.port),
                 "--ports_file_dir", str(ports)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")

        def ready():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            return list(ports.glob("*.ports"))
        file = eventually(ready, what="nats-server listens")[0]
        url = eventually(lambda: [part for part in file.read_text().split('"') if part.startswith("nats://")],
                         what="its port")[0]
        self.port = int(url.rsplit(":", 1)[1])

    @property
    def url(self):
        return f"nats://{self.host}:{self.port}"

    def kill(self):
        self.process.kill()
        self.process.wait(30)


def configure(node, server, **more):
    node.configure({"sink.central": {"type": "nats", "url": server.url, "create_stream": True, "backoff": "20ms",
                                     "backoff_cap": "200ms", "timeout": "10s", **more}})


def volume(name, path):
    return {"container_path": path, "mode": "RW", "source": {"type": "DOCKER_VOLUME", "docker_volume": {
        "driver": "faulty", "name": name, "driver_options": {"parameter": [{"key": "kind", "value": "bind"}]}}}}


def use_volumes(node, name, count):
    """Containers one after another, through the daemon: each writes some ten events."""
    sandbox = node.root / f"sandbox-{name}"
    sandbox.mkdir()
    for number in range(count):
        identity = {"value": f"{name}-{number}"}
        node.daemon.call("POST", "/v1/prepare", {
            "owner": OWNER, "container_id": identity, "container_config": {
                "directory": str(sandbox),
                "container_info": {"type": "MESOS", "volumes": [volume(name, "data")]}}})
        node.daemon.call("POST", "/v1/cleanup", {"owner": OWNER, "container_id": identity})


@contextlib.contextmanager
def load(node, threads=2, count=20):
    failures = []

    def work(name):
        try:
            use_volumes(node, name, count)
        except Exception as error:  # pylint: disable=broad-except  # it is the test's to fail
            failures.append(error)
    workers = [threading.Thread(target=work, args=(f"load{one}",)) for one in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield lambda: any(worker.is_alive() for worker in workers)
    finally:
        for worker in workers:
            worker.join()
    assert not failures, failures


def chains_of(*address):
    nats = Nats(*address)
    try:
        return read_chains(nats)
    finally:
        nats.close()


def check_complete(node, chains):
    """The consumer has the whole chain of a node, each event once, as the node's own record has it."""
    def whole():
        events = node.events()
        name = events[-1]["source"].removeprefix("/dvdi/node/")
        chain = chains().get(name)
        assert chain, f"nothing of {name}"
        assert not chain.problems, chain.problems[:5]
        assert (chain.first, chain.last, chain.hash) == (1, len(events), events[-1]["hash"]), (chain.last, len(events))
        assert chain.repeated == 0
        return chain
    return eventually(whole, timeout=60, what="the consumer has all events")


def test_a_server_that_is_killed_under_load_has_every_event_once(dvdi):
    dvdi.faulty()
    server = NatsServer(dvdi)
    dvdi.undo.append(lambda: support.stop(server.process))
    configure(dvdi, server)
    dvdi.start_daemon()
    kills = 0
    with load(dvdi, count=40) as running:
        while running() or kills < 3:
            before = len(dvdi.events())
            # In the middle of what is being delivered, and then events are written that nobody takes.
            server.process.send_signal(signal.SIGKILL)
            server.process.wait(30)
            kills += 1
            if running():
                eventually(lambda: not running() or len(dvdi.events()) > before + 20, what="events without a server")
            server.start()
    chain = check_complete(dvdi, lambda: chains_of("127.0.0.1", server.port))
    assert chain.count > 500, chain.count
    print(f"{chain.count} events, {kills} kills")
    # And a daemon that is killed in between goes on where it was.
    dvdi.daemon.kill()
    server.kill()
    dvdi.daemon.start()
    use_volumes(dvdi, "later", 3)
    server.start()
    assert check_complete(dvdi, lambda: chains_of("127.0.0.1", server.port)).count > chain.count


def test_a_user_with_a_credentials_file(dvdi):
    credentials = make_account(dvdi.root, dvdi.root / "nats")
    server = NatsServer(dvdi, config=dvdi.root / "accounts.conf")
    dvdi.undo.append(lambda: support.stop(server.process))
    configure(dvdi, server, credentials_file=str(credentials))
    dvdi.start_daemon()
    dvdi.run("sink", "test", "central", code=0)
    # The file is read at each connect: one of a user of another operator is refused, and nothing of it is shown.
    mine = credentials.read_text()
    (dvdi.root / "other").mkdir()
    other = make_account(dvdi.root / "other", "unused").read_text()
    credentials.write_text(other)
    refused = dvdi.run("sink", "test", "central")
    assert refused.returncode != 0 and "permission_denied" in refused.stderr, refused
    secrets = [line for line in other.splitlines() if len(line) > 20 and "-----" not in line]
    assert len(secrets) == 2 and not any(secret in refused.stderr for secret in secrets), refused
    credentials.write_text(mine)
    dvdi.run("sink", "test", "central", code=0)


class Namespace:
    """A network namespace of its own, held by a process."""

    def __init__(self):
        self.holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"], stdin=subprocess.DEVNULL)
        own = os.readlink("/proc/self/ns/net")
        eventually(lambda: os.readlink(f"/proc/{self.holder.pid}/ns/net") != own, what="a network namespace")
        self.ip("link", "set", "lo", "up")

    @property
    def prefix(self):
        return ["nsenter", "--net", f"--target={self.holder.pid}"]

    def ip(self, *args):
        subprocess.run([*self.prefix, "ip", *args], check=True, capture_output=True, text=True, timeout=30)

    def cable(self, other, address, others_address):
        """A pair of interfaces between two namespaces; nothing of it is seen outside of them."""
        name = f"to{other.holder.pid}"
        self.ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(other.holder.pid))
        for side, interface, its in ((self, name, address), (other, "eth0", others_address)):
            side.ip("address", "add", its, "dev", interface)
            side.ip("link", "set", interface, "up")

    def inside(self, function):
        """Its result, where its sockets are made in this namespace: which one a thread is in is its own."""
        result = []

        def run():
            clone_newnet = 0x40000000
            with open(f"/proc/{self.holder.pid}/ns/net", "rb") as there:
                assert support.libc.setns(there.fileno(), clone_newnet) == 0
            result.append(function())
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        assert result, "it failed: see above"
        return result[0]

    def stop(self):
        support.stop(self.holder)


class DaemonInside(support.Daemon):
    """dvdid in a network namespace. Its socket is a file, so commands reach it from outside."""

    def __init__(self, node, namespace):
        self.namespace = namespace
        super().__init__(node)

    def start(self, env=None, wait=True):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*self.namespace.prefix, support.daemon_program(), "--socket", self.socket], stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, cwd="/", env=self.node.environment({**self.env, **(env or {})}))
        if wait:
            self.wait_until_it_listens()


def test_two_nodes_in_two_network_namespaces_share_a_server(dvdi):
    assert shutil.which("ip"), "ip is not installed: tools/packages install test"
    others = support.Node()
    dvdi.undo.append(lambda: shutil.rmtree(others.root, ignore_errors=True))
    nodes = [dvdi, others]
    middle, *places = [Namespace() for _ in range(3)]
    for number, place in enumerate(places, 1):
        middle.cable(place, f"10.211.{number}.1/30", f"10.211.{number}.2/30")
    server = NatsServer(dvdi, host="0.0.0.0", prefix=middle.prefix)
    for number, (node, place) in enumerate(zip(nodes, places), 1):
        node.faulty()
        # Each reaches the server by an address of its own, and the other node not at all.
        configure(node, server, url=f"nats://10.211.{number}.1:{server.port}")
        node.daemon = DaemonInside(node, place)
    with load(nodes[0]), load(nodes[1]):
        pass
    chains = lambda: middle.inside(lambda: chains_of("127.0.0.1", server.port))  # noqa: E731
    both = [check_complete(node, chains) for node in nodes]
    assert len(chains()) == 2
    assert all(chain.count > 300 for chain in both), [chain.count for chain in both]
    said = subprocess.run([*middle.prefix, sys.executable, str(support.HERE / "nats_consumer.py"),
                           f"127.0.0.1:{server.port}"], capture_output=True, text=True, timeout=60)
    assert said.returncode == 0 and said.stdout.count("the chain holds") == 2, said
    print(said.stdout)
    for node in nodes:
        node.daemon.stop()
        node.daemon = None
    server.kill()
    for one in (middle, *places):
        one.stop()
    dvdi.plugins[0].stop()
    others.finish(False)
