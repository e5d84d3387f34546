"""The daemon dies at every step: before and after each durable write and each driver call.

Nobody lists the steps here: the daemon counts them itself (DVDI_FAILPOINT, src/base/failpoint.h), and the test lets it
die at the first, the second, and so on, until it does not die any more. So a step that is added is tested, too. After
each death: another daemon, the caller repeats what it had no answer to, goes on to the end, and then the invariants.
"""

import http.client
import os
import random
import subprocess

from support import eventually, is_mounted

OWNER = "/agent"
ALL = os.environ.get("DVDI_CHECK_FULL") == "1"


def volume(name, path):
    return {"container_path": path, "mode": "RW", "source": {"type": "DOCKER_VOLUME", "docker_volume": {
        "driver": "faulty", "name": name, "driver_options": {"parameter": [{"key": "kind", "value": "bind"}]}}}}


class Story:
    """What an agent does with two containers that share a volume, whatever becomes of the daemon meanwhile."""

    def __init__(self, dvdi, plugin, fail_at, then_at=0):
        self.dvdi, self.plugin = dvdi, plugin
        self.deaths = 0
        # An id is not used again for an hour after its cleanup.
        self.first, self.second = f"first-{fail_at}-{then_at}", f"second-{fail_at}-{then_at}"
        for name in (self.first, self.second):
            (dvdi.root / f"sandbox-{name}").mkdir()
        self.next_failpoints = [then_at] if then_at else []
        self.daemon = dvdi.daemon
        self.daemon.start(env={"DVDI_FAILPOINT": str(fail_at)}, wait=False)

    def again(self):
        """Another daemon, if the last one died."""
        if self.daemon.process.poll() is None:
            return
        assert self.daemon.process.returncode == -9, self.daemon.log.read_text()
        self.deaths += 1
        more = {"DVDI_FAILPOINT": str(self.next_failpoints.pop())} if self.next_failpoints else {}
        self.daemon.start(env=more, wait=False)

    def call(self, url, body):
        """Repeated until there is an answer: each call may be."""
        def answered():
            self.again()
            try:
                return [self.daemon.call("POST", url, body)]
            except (ConnectionError, FileNotFoundError, http.client.HTTPException):
                return None
        return eventually(answered, timeout=60, what=f"an answer to {url}")[0]

    def prepare(self, name, volumes):
        return self.call("/v1/prepare", {"owner": OWNER, "container_id": {"value": name}, "container_config": {
            "directory": str(self.dvdi.root / f"sandbox-{name}"),
            "container_info": {"type": "MESOS", "volumes": volumes}}})

    def cleanup(self, name):
        return self.call("/v1/cleanup", {"owner": OWNER, "container_id": {"value": name}})

    def recover(self, live, orphans=()):
        containers = [{"container_id": {"value": name}, "container_info": {"type": "MESOS", "volumes": volumes}}
                      for name, volumes in live]
        return self.call("/v1/recover", {"owner": OWNER, "work_dir": OWNER, "complete": True, "containers": containers,
                                         "orphans": [{"value": name} for name in orphans]})

    def tell(self):
        first, second = [volume("a", "one")], [volume("a", "one"), volume("b", "two")]
        task = subprocess.Popen(["sleep", "1000"])
        try:
            assert self.prepare(self.first, first)["launch_info"]["mounts"]
            self.call("/v1/isolate", {"owner": OWNER, "container_id": {"value": self.first}, "pid": task.pid})
            mounts = self.prepare(self.second, second)["launch_info"]["mounts"]
            assert len(mounts) == 2
            # A container that lives has its volumes, whatever happened.
            for mount in mounts:
                assert is_mounted(mount["source"]), mount
            self.recover([(self.first, first), (self.second, second)])
            self.cleanup(self.first)
            assert is_mounted(mounts[0]["source"]), "the other one's cleanup took it away"
        finally:
            task.kill()
            task.wait()
        self.plugin.rule("Unmount", "error", times=1, text="busy")
        self.cleanup(self.second)
        self.plugin.clear()
        self.again()

    def check(self, what):
        dvdi = self.dvdi

        def settled():
            self.again()
            try:
                dvdi.check_released()
                held = {name: one for name, one in self.plugin.volumes().items() if one["mounted"] or one["ids"]}
                assert not held, held
            except ConnectionError as error:
                raise AssertionError(error) from error
            return True
        eventually(settled, timeout=60, what=f"after {what}: no reference, no debt, no mount, no user of the driver's")
        dvdi.check_books()
        # One event a transition, and each leads on from where the one before it led.
        state = {}
        for event in dvdi.events():
            if event["type"].startswith("dvdi.mount."):
                key = event["data"]["driver"], event["data"]["volume"]
                assert event["data"]["from"] == state.get(key, "absent"), (what, event)
                name = event["type"].removeprefix("dvdi.mount.")
                state[key] = "absent" if name in ("unmounted", "failed") else name
        self.daemon.stop()


def node(dvdi):
    dvdi.configure({"debts": {"backoff": "10ms", "backoff_cap": "50ms", "late_answer": "0s", "attempts": 1000}})
    plugin = dvdi.faulty()
    dvdi.start_daemon().stop()
    return plugin


def test_killed_at_every_step(dvdi):
    plugin = node(dvdi)
    step = 0
    while True:
        step += 1
        story = Story(dvdi, plugin, step)
        story.tell()
        story.check(f"step {step}")
        if story.deaths == 0:
            break
    print(f"{step - 1} steps")
    assert step > 50, "the story has become short"


def test_killed_again_while_it_recovers(dvdi):
    plugin = node(dvdi)
    dice = random.Random(1)
    pairs = [(first, second) for first in range(1, 90) for second in range(1, 12)]
    for first, second in pairs if ALL else dice.sample(pairs, 25):
        story = Story(dvdi, plugin, first, second)
        story.tell()
        story.check(f"steps {first} and then {second}")
