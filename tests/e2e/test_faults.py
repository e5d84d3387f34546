"""Drivers that misbehave, seen from outside: what the caller is told, and that it all ends in one checked state.

The numbers are those of docs/faults.md. `dvdi` checks after each test that nothing is mounted, held or owed any more,
and that the event log is intact.
"""

import collections
import concurrent.futures
import json
import os
import signal
import socket
import sqlite3
import subprocess
import time

import pytest
from support import REPORTS, eventually, mounts

MANY = 1_000_000  # attempts, where a test looks as often as it needs
SHORT_MOUNT = {"deadlines": {"mount": "400ms"}, "debts": {"late_answer": "60s", "attempts": MANY}}


def started(process, word="started"):
    """Waits until the task has written a line that is this word."""
    line = process.stdout.readline()
    assert line.strip() == word, (line, process.poll(), process.poll() is not None and process.stderr.read())


def ended(process, code, text=None, timeout=60):
    out, err = process.communicate(text, timeout=timeout)
    assert process.returncode == code, (process.returncode, out, err)
    for report in REPORTS:
        assert report not in err, err
    return out, err


def task_that_waits(dvdi, *options):
    """A task that runs until its input ends."""
    process = dvdi.start("run", *options, "--", "sh", "-c", "echo started; exec cat")
    started(process)
    return process


def row_counts(dvdi):
    """Rows of each table of the database, but for those that are a record of what was."""
    tables = ("containers", "mounts", "refs", "debts", "foreign_holders", "volumes")
    connection = sqlite3.connect(f"file:{dvdi.state_dir}/state.db?mode=ro", uri=True, timeout=30)
    try:
        return {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}
    finally:
        connection.close()


def settled(dvdi, name):
    """A later command has settled the volume: no row, no debt, no mount."""
    def done():
        one = dvdi.volumes().get(name)
        assert one is None or (one["state"] == "absent" and not one["owed"]), one
        assert not dvdi.kernel_mounts(), dvdi.kernel_mounts()
        return True
    eventually(done, what=f"{name} is settled")


# ---- 1 and 2: the answer comes too late ----

@pytest.mark.parametrize("semantics", ["ids", "strict"])
def test_01_mount_answered_after_the_deadline_is_unmounted_by_a_later_command(dvdi, semantics):
    dvdi.configure(SHORT_MOUNT)
    plugin = dvdi.faulty("faulty", "--semantics", semantics)
    plugin.rule("Mount", "hold", times=1)
    error = dvdi.run("run", "--volume", "faulty/v:data", "--", "true", code=125).stderr
    assert "deadline_exceeded" in error and "'faulty'" in error and "'v'" in error, error
    assert not dvdi.containers()

    # The driver is still at it. Nothing is mounted yet, and that must not be taken for the end.
    unmounts = len(plugin.calls("Unmount"))
    eventually(lambda: dvdi.run("ps", code=0) and len(plugin.calls("Unmount")) > unmounts, what="settling was tried")
    one = dvdi.volumes()["faulty/v"]
    assert one["owed"] and one["state"] == "unknown", one

    plugin.release()
    eventually(lambda: plugin.volumes()["v"]["mounted"], what="the late Mount took effect")
    settled(dvdi, "faulty/v")
    assert plugin.volumes()["v"]["ids"] == []
    assert len({call["id"] for call in plugin.calls("Mount") + plugin.calls("Unmount")}) == 1
    types = dvdi.event_types("volume/faulty/v", "dvdi.debt.")
    assert types[0] == "dvdi.debt.recorded" and types[-1] == "dvdi.debt.paid", types
    dvdi.run("run", "--volume", "faulty/v:data", "--", "true", code=0)


def test_02_mount_answered_late_is_adopted_by_the_next_container(dvdi):
    # Nothing of it is retried before the second container comes.
    dvdi.configure({**SHORT_MOUNT, "debts": {"backoff": "1h", "backoff_cap": "1h", "late_answer": "60s"}})
    plugin = dvdi.faulty()
    plugin.rule("Mount", "hold", times=1)
    dvdi.run("run", "--volume", "faulty/v:data", "--", "true", code=125)
    plugin.release()
    eventually(lambda: plugin.volumes()["v"]["mounted"], what="the late Mount took effect")

    second = task_that_waits(dvdi, "--volume", "faulty/v:data")
    mount = plugin.calls("Mount")
    assert len(mount) == 1 and not plugin.calls("Unmount")
    assert len(dvdi.kernel_mounts()) == 1
    assert plugin.volumes()["v"]["ids"] == [mount[0]["id"]]
    assert dvdi.volumes()["faulty/v"]["mount_id"] == mount[0]["id"]
    ended(second, 0)
    assert [call["id"] for call in plugin.calls("Unmount")] == [mount[0]["id"]]
    settled(dvdi, "faulty/v")


@pytest.mark.parametrize("semantics", ["ids", "strict"])
def test_02_second_container_comes_while_the_driver_is_still_at_the_first_mount(dvdi, semantics):
    dvdi.configure({**SHORT_MOUNT, "debts": {"backoff": "1h", "backoff_cap": "1h", "late_answer": "60s"}})
    plugin = dvdi.faulty("faulty", "--semantics", semantics)
    plugin.rule("Mount", "hold", times=1)
    dvdi.run("run", "--volume", "faulty/v:data", "--", "true", code=125)
    second = task_that_waits(dvdi, "--volume", "faulty/v:data")
    first_id, second_id = (call["id"] for call in plugin.calls("Mount"))
    assert first_id == second_id, "another id would make one mount count twice"
    plugin.release()
    assert plugin.volumes()["v"]["ids"] == [first_id]
    assert len(dvdi.kernel_mounts()) == 1
    ended(second, 0)
    settled(dvdi, "faulty/v")


# ---- 8, 9 ----

def test_08_prepare_waits_for_the_unmount_that_runs_and_then_mounts(dvdi):
    plugin = dvdi.faulty()
    plugin.rule("Unmount", "hold", times=1)
    first = dvdi.start("run", "--volume", "faulty/v:data", "--", "true")
    plugin.calls("Unmount", wait=1)
    second = dvdi.start("run", "--id", "second", "--volume", "faulty/v:data", "--", "true")

    def second_waits():
        return [one["state"] for one in dvdi.containers() if one["id"] == "second"] == ["preparing"]
    eventually(second_waits, what="the second container is known")
    assert second.poll() is None and first.poll() is None
    assert [call["op"] for call in plugin.calls() if call["op"] in ("Mount", "Unmount")] == ["Mount", "Unmount"]
    plugin.release()
    ended(first, 0)
    ended(second, 0)
    assert [call["op"] for call in plugin.calls() if call["op"] in ("Mount", "Unmount")] == ["Mount", "Unmount"] * 2


def test_09_third_volume_fails_and_so_does_the_roll_back_of_the_second(dvdi):
    dvdi.configure({"debts": {"attempts": MANY}})
    plugin = dvdi.faulty()
    plugin.rule("Mount", "error", name="third", text="no third today")
    plugin.rule("Unmount", "error", name="second", text="second is stuck")
    error = dvdi.run("run", *(word for name in ("first", "second", "third")
                              for word in ("--volume", f"faulty/{name}:{name}")),
                     "--", "touch", str(dvdi.root / "ran"), code=125).stderr
    assert "no third today" in error and "second is stuck" in error and "owed" in error, error
    assert not (dvdi.root / "ran").exists()
    state = plugin.volumes()
    assert [state[name]["mounted"] for name in ("first", "second", "third")] == [False, True, False]
    listed = dvdi.volumes()
    assert "second is stuck" in listed["faulty/second"]["owed"]["last_error"]
    assert [name for name, one in listed.items() if one["owed"]] == ["faulty/second"]
    assert not dvdi.containers() and not any(one["containers"] for one in listed.values())
    assert "third" not in {call["name"] for call in plugin.calls("Unmount")}, "it was never mounted"
    plugin.clear()
    settled(dvdi, "faulty/second")


# ---- 10, 11: nobody answers ----

def test_10_socket_is_there_and_nobody_listens(dvdi):
    dvdi.configure({"docker": {"connect_patience": "700ms"}})
    path = dvdi.plugin_dir / "gone.sock"
    one = socket.socket(socket.AF_UNIX)
    one.bind(str(path))
    one.close()
    begin = time.monotonic()
    error = dvdi.run("run", "--volume", "gone/v:data", "--", "true", code=125).stderr
    took = time.monotonic() - begin
    assert "unavailable" in error and "'gone'" in error and str(path) in error, error
    assert "times in 0." in error and "Connection refused" in error, error
    assert took < 15, took
    assert not dvdi.containers()
    settled(dvdi, "gone/v")
    assert row_counts(dvdi) == dict.fromkeys(row_counts(dvdi), 0)


@pytest.mark.parametrize("kind", ["silent", "hangs_at_mount"])
def test_11_another_drivers_run_goes_on_while_one_hangs(dvdi, kind):
    """Nothing of the second run may wait for the first, which has more volumes than calls may run at once."""
    dvdi.configure({"limits": {"calls_per_driver": 4}, "deadlines": {"mount": "10m", "other": "10m"}})
    if kind == "silent":  # the kernel accepts, and that is all
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(dvdi.plugin_dir / "hung.sock"))
        listener.listen(200)
        dvdi.undo.append(listener.close)
    else:
        hung = dvdi.faulty("hung")
        hung.rule("Mount", "hang")
    good = dvdi.faulty("good")
    names = [f"v{number}" for number in range(12)]
    first = dvdi.start("run", "--id", "first", *(word for name in names for word in ("--volume", f"hung/{name}:{name}")),
                       "--volume", "good/a:a", "--", "true")
    if kind == "silent":
        listener.settimeout(30)
        connection, _ = listener.accept()
        dvdi.undo.append(connection.close)
    else:
        hung.calls("Mount", wait=4)

    for volume in ("good/b", "local/c", "good/a"):  # the last one is the first run's, too
        dvdi.run("run", "--volume", f"{volume}:data", "--", "sh", "-c", "echo x > data/x", code=0)
    assert first.poll() is None
    listed = dvdi.run("--format", "json", "volume", "ls", code=0)
    assert "good" in listed.stdout and first.poll() is None
    if kind != "silent":
        assert len(hung.calls("Mount")) == 4, "no more than calls_per_driver at once"

    first.send_signal(signal.SIGINT)
    if kind != "silent":
        hung.clear()  # whoever hangs goes on hanging; what comes now is answered
    else:
        listener.close()
        connection.close()
    _, error = ended(first, 128 + signal.SIGINT)
    assert "SIGINT" in error
    assert not dvdi.containers()
    assert not good.volumes()["a"]["mounted"]


# ---- 14: bad answers ----

BAD_ANSWERS = {
    "empty_mount_point": ("mountpoint", {"value": ""}),
    "relative": ("mountpoint", {"value": "some/where"}),
    "root": ("mountpoint", {"value": "/"}),
    "root_in_disguise": ("mountpoint", {"value": "//"}),
    "climbing": ("mountpoint", {"value": "/tmp/../etc"}),
    "too_long": ("mountpoint", {"value": "/" + "x" * 5000}),
    "not_there": ("mountpoint", {"value": "/nowhere/at/all"}),
    "not_a_mount": ("lie", {}),
    "with_zero_byte": ("raw", {"body": '{"Mountpoint": "/tmp/\\u0000x", "Err": ""}'}),
    "number": ("raw", {"body": '{"Mountpoint": 7, "Err": ""}'}),
    "null": ("raw", {"body": "null"}),
    "list": ("raw", {"body": "[]"}),
    "no_mount_point": ("raw", {"body": "{}"}),
    "deep": ("raw", {"body": "[" * 100_000}),
    "half": ("half", {}),
    "empty_body": ("empty", {}),
    "error_without_a_text": ("raw", {"body": '{"Err": ""}', "status": 500}),
    "error_is_no_text": ("raw", {"body": '{"Err": {"a": 1}}'}),
    "plain_error_without_a_text": ("plain", {"text": ""}),
    "garbage": ("garbage", {}),
    "closed": ("close", {}),
    "redirect": ("redirect", {}),
    "missing": ("missing", {}),
    "drip": ("drip", {}),
}


def bad_answers():
    for answer, (fault, more) in BAD_ANSWERS.items():
        yield pytest.param(fault, more, False, id=answer)
        if fault != "lie":  # it would be none
            yield pytest.param(fault, more, True, id=f"{answer}-but_mounted")


@pytest.mark.parametrize("fault, more, effect", bad_answers())
def test_14_bad_answer_to_mount_is_refused_and_names_the_driver(dvdi, fault, more, effect):
    dvdi.configure({"deadlines": {"mount": "2s"}, "debts": {"attempts": MANY}})
    plugin = dvdi.faulty()
    plugin.rule("Mount", fault, effect=effect, times=1, **more)
    error = dvdi.run("run", "--volume", "faulty/v:data", "--", "touch", str(dvdi.root / "ran"), code=125).stderr
    assert error.startswith("dvdi: ") and "'faulty'" in error and "'v'" in error, error
    assert not (dvdi.root / "ran").exists()
    assert "/control/redirected" not in [call["op"] for call in plugin.calls()]
    # A driver that says that it failed, and keeps the volume mounted: that is a definite answer, and what it did the
    # driver's to clean up. All else is settled.
    refused = fault in ("plain", "missing") or "status" in more
    if not (effect and refused):
        settled(dvdi, "faulty/v")
    dvdi.run("run", "--volume", "faulty/v:data", "--", "sh", "-c", "echo x > data/x", code=0)
    left = plugin.volumes()["v"]["mounted"]
    assert not left or (effect and refused)
    if left:  # counted once for the call that failed
        assert dvdi.volumes()["faulty/v"]["foreign"], "not ours, and shown"
        plugin.request("Unmount", {"Name": "v", "ID": plugin.calls("Mount")[0]["id"]})


def test_14_answer_of_100_megabytes_does_not_cost_memory(dvdi):
    plugin = dvdi.faulty()

    def peak(code):
        process = dvdi.start("run", "--volume", "faulty/v:data", "--", "true", stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL)
        error = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == code, (process.returncode, error)
        return usage.ru_maxrss, error
    usual, _ = peak(0)
    plugin.rule("Mount", "big", bytes=100_000_000, times=1)
    big, error = peak(125)
    assert "'faulty'" in error and len(error) < 10_000, error[:10_000]
    assert big < usual + 16 * 1024, f"{big} KiB, usually {usual} KiB"
    settled(dvdi, "faulty/v")


# ---- 22: busy ----

def test_22_busy_unmount_is_owed_names_who_holds_it_and_is_paid(dvdi):
    dvdi.configure({"debts": {"attempts": MANY}})
    run = task_that_waits(dvdi, "--volume", "local/v:data")
    point = dvdi.volumes()["local/v"]["mount_point"]
    holder = subprocess.Popen(["/bin/cat"], cwd=point, stdin=subprocess.PIPE)
    try:
        _, error = ended(run, 0)
        assert "owed" in error and str(holder.pid) in error and "cat" in error, error
        before = dvdi.volumes()["local/v"]["owed"]
        assert str(holder.pid) in before["last_error"], before
        assert dvdi.kernel_mounts() == [point]
        eventually(lambda: dvdi.volumes()["local/v"]["owed"]["attempts"] > before["attempts"] + 1,
                   what="later commands try again")
        assert "owed" in dvdi.run("volume", "rm", "local/v", code=1).stderr
        # It makes no later container fail.
        dvdi.run("run", "--volume", "local/v:data", "--", "sh", "-c", "echo x > data/x", code=0)
        assert dvdi.volumes()["local/v"]["owed"], "it is busy still"
    finally:
        holder.communicate()
    settled(dvdi, "local/v")
    assert dvdi.event_types("volume/local/v", "dvdi.debt.")[-1] == "dvdi.debt.paid"


def test_22_busy_volume_of_a_plugin(dvdi):
    dvdi.configure({"debts": {"attempts": MANY}})
    plugin = dvdi.faulty()
    run = task_that_waits(dvdi, "--volume", "faulty/v:data")
    holder = subprocess.Popen(["/bin/cat"], cwd=plugin_mount_point(plugin, "v"), stdin=subprocess.PIPE)
    try:
        _, error = ended(run, 0)
        assert "busy" in error and "owed" in error and "'faulty'" in error, error
        assert str(holder.pid) in error, error
        assert dvdi.volumes()["faulty/v"]["owed"]
    finally:
        holder.communicate()
    settled(dvdi, "faulty/v")


def plugin_mount_point(plugin, name):
    return plugin.volumes()[name]["mountpoint"]


# ---- 23: again and again ----

def test_23_a_prepare_that_fails_three_hundred_times_leaves_nothing_behind(dvdi):
    dvdi.configure({"deadlines": {"mount": "1s"}, "debts": {"attempts": MANY}})
    plugin = dvdi.faulty()
    faults = [("error", {"text": "not now"}), ("close", {}), ("lie", {}), ("empty", {}), ("mountpoint", {"value": "/"}),
              ("plain", {"status": 503, "text": "overloaded"})]

    def attempt(number):
        bad = f"faulty/bad{number % len(faults)}:bad"
        options = ["--volume", bad, "--volume", "faulty/good:good", "--volume", "local/l:l"]
        return dvdi.run("run", *options, "--", "true", code=125).stderr

    def round_of(count):
        for number, (fault, more) in enumerate(faults):
            plugin.rule("Mount", fault, name=f"bad{number}", **more)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            for error in pool.map(attempt, range(count)):
                assert "'faulty'" in error, error
        plugin.clear()
        dvdi.check_released()

    table = sorted(mounts())
    round_of(8)
    first, folders = row_counts(dvdi), sorted(os.listdir(dvdi.state_dir))
    assert sorted(mounts()) == table
    round_of(300)
    assert sorted(mounts()) == table
    assert row_counts(dvdi) == first
    assert sorted(os.listdir(dvdi.state_dir)) == folders
    assert not [name for name in os.listdir(dvdi.state_dir / "sandboxes")], "sandboxes of containers that failed"


# ---- 24: exclusive ----

def test_24_exclusive_access_goes_to_exactly_one_of_two_at_once(dvdi):
    dvdi.faulty()
    for number in range(5):
        volume = f"{'faulty' if number % 2 else 'local'}/x{number}:data,dvdi.exclusive=true"
        ids = [f"one-{number}", f"two-{number}"]
        runs = {name: dvdi.start("run", "--id", name, "--volume", volume, "--", "sh", "-c", "echo started; exec cat")
                for name in ids}
        loser = eventually(lambda these=runs: next((name for name, one in these.items() if one.poll() is not None), None),
                           what="one of them ends")
        winner = next(name for name in ids if name != loser)
        _, error = ended(runs[loser], 125)
        assert "conflict" in error and winner in error and "exclusive" in error, error
        started(runs[winner])
        assert [one["id"] for one in dvdi.containers()] == [winner]
        ended(runs[winner], 0)


def test_24_exclusive_and_shared_exclude_each_other(dvdi):
    shared = task_that_waits(dvdi, "--id", "shared-holder", "--volume", "local/v:data")
    error = dvdi.run("run", "--volume", "local/v:data,dvdi.exclusive=true", "--", "true", code=125).stderr
    assert "shared-holder" in error, error
    dvdi.run("run", "--volume", "local/v:data:ro", "--", "true", code=0)
    ended(shared, 0)
    alone = task_that_waits(dvdi, "--id", "alone", "--volume", "local/v:data,dvdi.exclusive=true")
    assert dvdi.volumes()["local/v"]["exclusive"]
    error = dvdi.run("run", "--volume", "local/v:data:ro", "--", "true", code=125).stderr
    assert "alone" in error and "exclusive" in error, error
    ended(alone, 0)
    dvdi.run("run", "--volume", "local/v:data:ro", "--", "true", code=0)


# ---- debts ----

def test_debt_is_not_tried_again_before_its_time(dvdi):
    dvdi.configure({"debts": {"backoff": "1h", "backoff_cap": "1h"}})
    plugin = dvdi.faulty()
    plugin.rule("Unmount", "error", text="stuck")
    assert "stuck" in dvdi.run("run", "--volume", "faulty/v:data", "--", "true", code=0).stderr
    for _ in range(5):
        one = dvdi.volumes()["faulty/v"]
    assert len(plugin.calls("Unmount")) == 1
    assert one["owed"]["attempts"] == 1 and not one["owed"]["parked"] and one["owed"]["next_try"] > one["owed"]["since"]
    plugin.clear()
    # A new request does not wait for it.
    dvdi.run("run", "--volume", "faulty/v:data", "--", "true", code=0)
    assert len(plugin.calls("Mount")) == 1 and len(plugin.calls("Unmount")) == 2
    assert dvdi.event_types("volume/faulty/v", "dvdi.debt.") == ["dvdi.debt.recorded", "dvdi.debt.taken_over"]


def test_debt_is_parked_for_the_operator_and_taken_over_by_a_request(dvdi):
    dvdi.configure({"debts": {"attempts": 3, "backoff": "1ms", "backoff_cap": "2ms"}})
    plugin = dvdi.faulty()
    plugin.rule("Unmount", "error", text="stuck")
    dvdi.run("run", "--volume", "faulty/v:data", "--", "sh", "-c", "echo kept > data/x", code=0)
    eventually(lambda: dvdi.volumes()["faulty/v"]["owed"]["parked"], what="it is parked")
    assert len(plugin.calls("Unmount")) == 3
    for _ in range(5):
        dvdi.run("ps", code=0)
    assert len(plugin.calls("Unmount")) == 3, "parked, and tried all the same"
    assert "parked" in dvdi.run("volume", "ls", "--known", code=0).stdout
    assert dvdi.run("volume", "rm", "faulty/v", code=1).stderr
    plugin.clear()
    seen = dvdi.run("run", "--volume", "faulty/v:data", "--", "cat", "data/x", code=0)
    assert seen.stdout == "kept\n" and len(plugin.calls("Mount")) == 1
    types = dvdi.event_types("volume/faulty/v", "dvdi.debt.")
    assert types == ["dvdi.debt.recorded", "dvdi.debt.retried", "dvdi.debt.parked", "dvdi.debt.taken_over"]


def test_parked_debt_is_paid_by_hand(dvdi):
    dvdi.configure({"debts": {"attempts": 1}})
    plugin = dvdi.faulty()
    plugin.rule("Unmount", "error", text="stuck")
    dvdi.run("run", "--volume", "faulty/v:data", "--", "true", code=0)
    assert dvdi.volumes()["faulty/v"]["owed"]["parked"]
    listed = dvdi.run("volume", "ls", "--known", code=0).stdout
    assert "NEXT TRY" in listed and "stuck" in listed, listed
    # Nothing is done before a person has said so, and there is none to ask.
    assert "--yes" in dvdi.run("volume", "release", "faulty/v", code=2).stderr
    would = dvdi.run("volume", "release", "faulty/v", "--dry-run", code=0).stdout
    assert dvdi.volumes()["faulty/v"]["mount_id"] in would and "stuck" in would and "Unmount" in would, would
    assert len(plugin.calls("Unmount")) == 1
    # It is stuck still.
    failed = json.loads(dvdi.run("volume", "release", "faulty/v", "--yes", "--format", "json", code=1).stdout)
    assert not failed["released"][0]["done"] and "stuck" in failed["released"][0]["left"], failed
    plugin.clear()
    assert "done" in dvdi.run("volume", "release", "faulty/v", "--yes", code=0).stdout
    settled(dvdi, "faulty/v")
    types = dvdi.event_types("volume/faulty/v", "dvdi.debt.")
    assert types.count("dvdi.debt.resumed") == 2 and types[-1] == "dvdi.debt.paid", types


def test_debts_of_a_driver_that_is_away_delay_nobody_and_are_paid_when_it_is_back(dvdi):
    dvdi.configure({"debts": {"attempts": MANY}, "docker": {"connect_patience": "100ms"}})
    plugin = dvdi.faulty()
    run = task_that_waits(dvdi, *(word for name in "abcdef" for word in ("--volume", f"faulty/{name}:{name}")))
    plugin.kill()
    _, error = ended(run, 0)
    assert error.count("owed") == 6, error
    dvdi.run("run", "--volume", "local/v:data", "--", "true", code=0)
    assert len(dvdi.kernel_mounts()) == 6
    plugin.start()  # it does not know who mounted what
    dvdi.check_released()


# ---- explicit create ----

def test_explicit_create_of_a_missing_volume_is_refused_and_creates_nothing(dvdi):
    plugin = dvdi.faulty()
    for volume in ("faulty/v", "local/v"):
        error = dvdi.run("run", "--volume", f"{volume}:data,dvdi.explicit-create=true", "--", "true", code=125).stderr
        assert "dvdi volume create" in error and "'v'" in error, error
        assert not dvdi.containers()
        dvdi.run("volume", "create", volume, code=0)
        dvdi.run("run", "--volume", f"{volume}:data,dvdi.explicit-create=true", "--", "true", code=0)
    counts = collections.Counter(call["op"] for call in plugin.calls())
    assert counts["Create"] == 1 and counts["Mount"] == 1 and counts["Unmount"] == 1, counts
