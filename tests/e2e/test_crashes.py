"""SIGKILL of `dvdi run`, at every point of it: the next command settles what is left, and what lives keeps its volumes.

`dvdi` checks after each test that nothing is mounted, held or owed any more, that the event log is intact, and that no
process of the program is left.
"""

import collections
import concurrent.futures
import contextlib
import os
import pathlib
import random
import signal
import subprocess
import time

import pytest
from support import command_line, descendants_of, eventually, is_alive, mounts, reap_orphans

# A plugin that was asked to mount when dvdi was killed may still do it: so long it is expected.
LATE = {"debts": {"late_answer": "2s", "attempts": 1_000_000}}


def kill_hard(process):
    """Ends it as the kernel would in want of memory: at once, and only the one process."""
    process.send_signal(signal.SIGKILL)
    process.wait(30)


def name_of(pid):
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    return ""


def started(process):
    assert process.stdout.readline() == "started\n", process.poll() is not None and process.stderr.read()


def settle(dvdi):
    """The next command, and after it: no container, reference, debt or mount; books and record intact."""
    dvdi.run("ps", code=0)
    dvdi.check_released()
    dvdi.check_books()
    reap_orphans({process.pid for process in dvdi.processes} | {plugin.process.pid for plugin in dvdi.plugins})


# ---- 31: while the task runs ----

@pytest.mark.parametrize("driver", ["local", "faulty"])
def test_31_killed_while_the_task_runs_the_task_goes_on_and_keeps_its_volume(dvdi, driver):
    if driver == "faulty":
        dvdi.faulty()
    script = "echo started; read line; echo $line > data/x; cat data/x; read line"
    process = dvdi.start("run", "--id", "it", "--volume", f"{driver}/v:data,kind=bind" if driver == "faulty" else
                         "local/v:data", "--", "sh", "-c", script)
    started(process)
    [before] = dvdi.containers()
    assert before["state"] == "running" and is_alive(before["pid"])
    kill_hard(process)

    for _ in range(3):  # commands come and go, and leave it alone
        [now] = dvdi.containers()
        assert now == before
        one = dvdi.volumes()[f"{driver}/v"]
        assert one["state"] == "mounted" and one["containers"] == ["run/it"], one
    assert "it" in dvdi.run("volume", "rm", f"{driver}/v", code=1).stderr
    process.stdin.write("still there\n")
    process.stdin.flush()
    assert process.stdout.readline() == "still there\n"
    # Another task shares it meanwhile and goes: the mount stays.
    assert dvdi.run("run", "--volume", f"{driver}/v:data:ro", "--", "cat", "data/x", code=0).stdout == "still there\n"
    assert len(dvdi.kernel_mounts()) == 1 and is_alive(before["pid"])

    process.stdin.close()
    eventually(lambda: not is_alive(before["pid"]), what="the task ends")
    notice = dvdi.run("ps", code=0).stderr
    assert "it" in notice and "was cleaned up" in notice, notice
    assert not dvdi.containers() and not dvdi.kernel_mounts()
    [row] = [one for one in dvdi.containers("--all") if one["id"] == "it"]
    assert row["state"] == "ended"


def test_31_task_that_lost_its_dvdi_run_can_be_asked_to_end(dvdi):
    """SIGTERM to the pid that `dvdi ps` shows reaches the task's program."""
    process = dvdi.start("run", "--volume", "local/v:data", "--", "sh", "-c",
                         "trap 'echo asked > data/x; exit 0' TERM; echo started; while :; do read line || wait; done")
    started(process)
    [container] = dvdi.containers()
    kill_hard(process)
    os.kill(container["pid"], signal.SIGTERM)
    eventually(lambda: not is_alive(container["pid"]), what="the task ends")
    settle(dvdi)
    assert dvdi.run("run", "--volume", "local/v:data", "--", "cat", "data/x", code=0).stdout == "asked\n"


def test_31_task_whose_first_process_is_gone_is_over(dvdi):
    """The task's init is killed, and with it, by the kernel, all of the task."""
    process = dvdi.start("run", "--volume", "local/v:data", "--", "sh", "-c", "sleep 1000 & echo started; wait")
    started(process)
    [container] = dvdi.containers()
    inside = [pid for pid in descendants_of(process.pid) if command_line(pid) == "sleep 1000"]
    assert len(inside) == 1
    kill_hard(process)
    os.kill(container["pid"], signal.SIGKILL)
    eventually(lambda: not is_alive(container["pid"]) and not is_alive(inside[0]), what="all of the task is gone")
    settle(dvdi)


# ---- while it prepares, while it releases ----

@pytest.mark.parametrize("semantics", ["ids", "strict"])
@pytest.mark.parametrize("after", [False, True], ids=["before_the_effect", "after_the_effect"])
def test_killed_while_the_driver_mounts(dvdi, after, semantics):
    dvdi.configure({"debts": {"late_answer": "60s", "attempts": 1_000_000}})
    plugin = dvdi.faulty("faulty", "--semantics", semantics)
    plugin.rule("Mount", "hold", after=after, times=1, name="v")
    process = dvdi.start("run", "--volume", "local/l:l", "--volume", "faulty/v:data", "--", "true")
    plugin.calls("Mount", wait=1)
    eventually(lambda: dvdi.volumes()["local/l"]["state"] == "mounted", what="the other volume is mounted")
    if after:
        eventually(lambda: plugin.volumes()["v"]["mounted"], what="the Mount takes effect")
    kill_hard(process)
    notice = dvdi.run("ps", code=0).stderr
    assert "whose command was killed, was cleaned up" in notice, notice
    assert not dvdi.containers()
    if not after:  # the driver is still at it
        assert dvdi.volumes()["faulty/v"]["owed"], dvdi.volumes()["faulty/v"]
        assert not plugin.volumes()["v"]["mounted"]
        plugin.release()
        eventually(lambda: plugin.volumes()["v"]["mounted"], what="the late Mount takes effect")
    plugin.release()
    settle(dvdi)
    assert not plugin.volumes()["v"]["ids"]
    assert len({one["id"] for one in plugin.calls("Mount") + plugin.calls("Unmount")}) == 1
    dvdi.run("run", "--volume", "local/l:l", "--volume", "faulty/v:data", "--", "true", code=0)


def test_killed_while_the_driver_mounts_and_the_next_container_uses_the_mount(dvdi):
    dvdi.configure({"debts": {"late_answer": "60s", "backoff": "1h", "backoff_cap": "1h"}})
    plugin = dvdi.faulty()
    plugin.rule("Mount", "hold", after=True, times=1)
    process = dvdi.start("run", "--volume", "faulty/v:data", "--", "true")
    plugin.calls("Mount", wait=1)
    eventually(lambda: plugin.volumes()["v"]["mounted"], what="the Mount takes effect")
    kill_hard(process)
    plugin.release()
    dvdi.run("run", "--volume", "faulty/v:data", "--", "true", code=0)
    ids = {one["id"] for one in plugin.calls("Mount")}
    assert len({one["id"] for one in plugin.calls("Unmount")} | ids) == len(ids)
    settle(dvdi)


@pytest.mark.parametrize("semantics", ["ids", "strict"])
@pytest.mark.parametrize("after", [False, True], ids=["before_the_effect", "after_the_effect"])
def test_killed_while_the_driver_unmounts(dvdi, after, semantics):
    plugin = dvdi.faulty("faulty", "--semantics", semantics)
    plugin.rule("Unmount", "hold", after=after, times=1)
    process = dvdi.start("run", "--volume", "faulty/v:data", "--volume", "local/l:l", "--", "true")
    plugin.calls("Unmount", wait=1)
    if after:
        eventually(lambda: not plugin.volumes()["v"]["mounted"], what="the Unmount takes effect")
    kill_hard(process)
    dvdi.run("ps", code=0)
    plugin.release()
    settle(dvdi)
    ids = collections.Counter(one["id"] for one in plugin.calls("Unmount"))
    assert len(ids) == 1, "an unmount is repeated with the id that it had"
    dvdi.run("run", "--volume", "faulty/v:data", "--volume", "local/l:l", "--", "true", code=0)


def test_killed_while_it_unmounts_and_a_new_container_comes_first(dvdi):
    plugin = dvdi.faulty()
    plugin.rule("Unmount", "hold", after=True, times=1)
    process = dvdi.start("run", "--volume", "faulty/v:data", "--", "true")
    plugin.calls("Unmount", wait=1)
    eventually(lambda: not plugin.volumes()["v"]["mounted"], what="the Unmount takes effect")
    kill_hard(process)
    plugin.release()
    dvdi.run("run", "--volume", "faulty/v:data", "--", "sh", "-c", "echo x > data/x", code=0)
    assert [one["op"] for one in plugin.calls() if one["op"] in ("Mount", "Unmount")][-2:] == ["Mount", "Unmount"]
    settle(dvdi)


# ---- helpers ----

def test_helpers_end_with_the_program(dvdi):
    """They are killed with it while it prepares, while the task runs, and while it releases; the task is not."""
    plugin = dvdi.faulty()
    for stage in ("prepare", "task", "release"):
        if stage == "prepare":
            plugin.rule("Mount", "hold", times=1)
        if stage == "release":
            plugin.rule("Unmount", "hold", times=1)
        # local's work is done by helpers, so there is at least one.
        process = dvdi.start("run", "--volume", "local/l:l", "--volume", "faulty/v:data", "--",
                             "sh", "-c", "echo started; cat")
        if stage == "prepare":
            plugin.calls("Mount", wait=1)
            eventually(lambda: dvdi.volumes()["local/l"]["state"] == "mounted", what="local/l is mounted")
        else:
            started(process)
        if stage == "release":
            before = len(plugin.calls("Unmount"))
            process.stdin.close()
            plugin.calls("Unmount", wait=before + 1)
        inits = [one["pid"] for one in dvdi.containers() if one["pid"]]
        tasks = {pid for init in inits for pid in [init, *descendants_of(init)]}
        helpers = set(descendants_of(process.pid)) - tasks
        assert helpers, f"{stage}: no helper to look at"
        kill_hard(process)
        eventually(lambda these=helpers: not any(is_alive(pid) for pid in these),
                   what=f"{stage}: the helpers end: {[(pid, name_of(pid)) for pid in helpers]}")
        if stage == "task":
            assert all(is_alive(pid) for pid in inits)
            process.stdin.close()
            eventually(lambda these=inits: not any(is_alive(pid) for pid in these), what="the task ends")
        plugin.clear()
        settle(dvdi)


# ---- at any moment ----

def killed_within(process, seconds):
    """SIGKILL after so long, if it has not ended by itself."""
    try:
        process.communicate(timeout=seconds)
        return False
    except subprocess.TimeoutExpired:
        kill_hard(process)
        return True


def test_killed_at_thirty_random_moments(dvdi):
    seed = int(os.environ.get("DVDI_SEED", "20261122"))
    print(f"DVDI_SEED={seed}")
    dice = random.Random(seed)
    dvdi.configure(LATE)
    dvdi.faulty()
    before = sorted(mounts())
    words = ("run", "--volume", "local/l:l", "--volume", "faulty/v:v,kind=bind", "--", "sh", "-c",
             "echo x >> l/lines; echo x >> v/lines")
    begin = time.monotonic()
    for _ in range(3):
        dvdi.run(*words, code=0)
    usual = (time.monotonic() - begin) / 3
    lines, killed = 3, 0
    at = collections.Counter()
    for number in range(30):
        begin = time.monotonic()
        process = dvdi.start(*words, stdin=subprocess.DEVNULL)
        was_killed = killed_within(process, dice.uniform(0, usual * 1.1))
        killed += was_killed
        if not was_killed:  # the machine may have been busy with other things before
            usual = min(usual, time.monotonic() - begin)
        assert was_killed or process.returncode == 0, (number, process.returncode)
        dvdi.run("ps", code=0)
        dvdi.check_released()
        assert sorted(mounts()) == before, number
        assert dvdi.json("events", "verify")["intact"]
        at[dvdi.event_types()[-1]] += 1
        have = [int(dvdi.run("run", "--volume", f"{volume}:data", "--", "sh", "-c", "wc -l < data/lines", code=0).stdout)
                for volume in ("local/l", "faulty/v")]
        # What a task wrote stays, whenever the command dies.
        assert all(lines <= one <= lines + 1 for one in have) and have[0] >= have[1], (number, lines, have)
        assert was_killed or have == [lines + 1] * 2
        lines = max(have)
        if have[0] != have[1]:  # killed between the two: make it even again
            dvdi.run("run", "--volume", "faulty/v:v", "--", "sh", "-c", "echo x >> v/lines", code=0)
    print(f"{killed} of 30 killed; a run takes {usual:.2f} s; last events {dict(at)}")
    assert killed >= 10, f"only {killed} of 30 were killed"
    dvdi.check_books()


def test_ten_runs_at_once_on_three_volumes_some_killed(dvdi):
    seed = int(os.environ.get("DVDI_SEED", "2"))
    print(f"DVDI_SEED={seed}")
    dice = random.Random(seed)
    dvdi.configure(LATE)
    dvdi.faulty()
    before = sorted(mounts())
    volumes = {"local/a": "", "faulty/b": ",kind=bind", "faulty/c": ",kind=bind"}
    begin = time.monotonic()
    for volume, options in volumes.items():
        dvdi.run("run", "--volume", f"{volume}:d{options}", "--", "touch", "d/lines", code=0)
    usual = (time.monotonic() - begin) / len(volumes)
    killed, sure, most = 0, collections.Counter(), collections.Counter()
    for _ in range(3):
        runs = []
        for number in range(10):
            chosen = dice.sample(sorted(volumes), dice.randint(1, 3))
            script = "; ".join(f"echo x >> {one.replace('/', '-')}/lines" for one in chosen)
            words = [word for one in chosen for word in ("--volume", f"{one}:{one.replace('/', '-')}{volumes[one]}")]
            process = dvdi.start("run", *words, "--", "sh", "-c", script, stdin=subprocess.DEVNULL)
            runs.append((process, chosen))
        with concurrent.futures.ThreadPoolExecutor(10) as pool:
            patience = [dice.uniform(0, usual * 8) if number % 5 < 2 else 60 for number in range(10)]
            ended = list(pool.map(killed_within, (process for process, _ in runs), patience))
        for number, ((process, chosen), was_killed) in enumerate(zip(runs, ended, strict=True)):
            assert process.returncode == 0 or (was_killed and number % 5 < 2), (number, process.returncode)
            most.update(chosen)
            sure.update(() if was_killed else chosen)
        killed += sum(ended)
        settle(dvdi)
        assert sorted(mounts()) == before
    print(f"{killed} of 30 killed")
    assert killed >= 2
    for volume in volumes:
        have = int(dvdi.run("run", "--volume", f"{volume}:d", "--", "sh", "-c", "wc -l < d/lines", code=0).stdout)
        assert sure[volume] <= have <= most[volume], (volume, sure, have, most)


def test_the_settling_command_is_killed_too(dvdi):
    """Recovery converges, however often it is killed."""
    dice = random.Random(int(os.environ.get("DVDI_SEED", "3")))
    dvdi.configure(LATE)
    plugin = dvdi.faulty()
    begin = time.monotonic()
    dvdi.run("ps", code=0)
    usual = time.monotonic() - begin
    plugin.rule("Mount", "hold", after=True, times=1, name="v")
    process = dvdi.start("run", "--volume", "local/l:l", "--volume", "faulty/v:v", "--volume", "faulty/w:w", "--", "true")
    plugin.calls("Mount", wait=2)
    kill_hard(process)
    killed = 0
    for _ in range(12):
        killed += killed_within(dvdi.start("ps", stdin=subprocess.DEVNULL), dice.uniform(0, usual * 1.5))
    print(f"{killed} of 12 killed")
    plugin.release()
    settle(dvdi)
    for one in plugin.volumes().values():
        assert not one["mounted"] and not one["ids"], one
