"""A thousand runs leave the machine and the state as they were."""

import os
import sqlite3
import threading
import time

from support import mounts

RUNS = int(os.environ.get("DVDI_E2E_RUNS", "1000"))
AT_ONCE = 4


def row_counts(dvdi):
    connection = sqlite3.connect(f"file:{dvdi.state_dir}/state.db?mode=ro", uri=True, timeout=30)
    try:
        return {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                for table in ("mounts", "refs", "debts", "foreign_holders", "volumes")}
    finally:
        connection.close()


def files_below(folder):
    found = []
    for parent, folders, files in os.walk(folder):
        found += [os.path.join(parent, name) for name in folders + files]
    return sorted(name for name in found if not name.endswith(("-wal", "-shm")))


def test_a_thousand_runs_leave_everything_as_it_was(dvdi):
    """Each on two volumes: one that the others use at the same time, and one of its worker's own."""
    def one_run(worker, number):
        dvdi.run("run", "--volume", "local/shared:shared", "--volume", f"local/own{worker}:own", "--",
                 "sh", "-c", f"echo {number} >> shared/lines; echo {number} >> own/lines", code=0)

    for worker in range(AT_ONCE):  # the volumes exist from here on
        one_run(worker, 0)
    table, rows, files = sorted(mounts()), row_counts(dvdi), files_below(dvdi.state_dir)
    descriptors = sorted(os.listdir("/proc/self/fd"))

    failures = []

    def work(worker):
        try:
            for number in range(RUNS // AT_ONCE):
                one_run(worker, number + 1)
                if failures:
                    return
        except Exception as error:  # pylint: disable=broad-except  # told by the main thread
            failures.append(error)
    begin = time.monotonic()
    workers = [threading.Thread(target=work, args=(worker,)) for worker in range(AT_ONCE)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    took = time.monotonic() - begin
    assert not failures, failures[0]

    print(f"{RUNS} runs in {took:.1f} s, {AT_ONCE} at a time: {RUNS / took:.1f} a second")
    assert sorted(mounts()) == table
    assert row_counts(dvdi) == rows
    assert files_below(dvdi.state_dir) == files
    assert sorted(os.listdir("/proc/self/fd")) == descriptors
    assert not dvdi.containers()
    ended = dvdi.containers("--all")
    assert len(ended) == RUNS + AT_ONCE and {one["state"] for one in ended} == {"ended"}
    # Nothing of what they wrote is missing.
    for name, count in [("shared", RUNS + AT_ONCE)] + [(f"own{worker}", RUNS // AT_ONCE + 1) for worker in range(AT_ONCE)]:
        out = dvdi.run("run", "--volume", f"local/{name}:data", "--", "sh", "-c", "wc -l < data/lines", code=0).stdout
        assert int(out) == count, (name, out, count)
    verified = dvdi.json("events", "verify")
    assert verified["intact"] and verified["count"] == verified["last"]
