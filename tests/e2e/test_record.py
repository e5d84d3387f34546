"""The record over time: retention beside sinks, and a chain that is held against what a sink has."""

import json
import sqlite3

from support import eventually


def one_run(dvdi, name="v"):
    dvdi.run("run", "--volume", f"local/{name}:data", "--", "true", code=0)


def make_older(dvdi, days):
    """As if the events that are there had been written so long ago: the columns by which retention goes."""
    with sqlite3.connect(dvdi.state_dir / "state.db", timeout=30) as database:
        database.execute("UPDATE events SET wall = wall - ?", (days * 86_400 * 1_000_000_000,))


def file_sink(dvdi, **more):
    path = dvdi.root / "audit.jsonl"
    dvdi.configure({"sink.audit": {"type": "file", "path": str(path), **more},
                    "retention": {"events": "30d", "events_mib": 0, "events_hard_mib": 0}})
    return path


def verified(dvdi, *args, code=0):
    return json.loads(dvdi.run("--format", "json", "events", "verify", *args, code=code).stdout)


def test_a_command_without_a_daemon_takes_old_events_away(dvdi):
    dvdi.configure({"retention": {"events": "30d"}})
    one_run(dvdi)
    before = dvdi.events()
    make_older(dvdi, 31)
    one_run(dvdi)
    after = dvdi.events()
    cuts = [event["data"] for event in after if event["type"] == "dvdi.events.cut"]
    last = len(before)
    # The newest event always stays: the first command leaves one, and the next takes it.
    assert [(cut["first"], cut["last"]) for cut in cuts] == [(1, last - 1), (last, last)]
    assert [cut["head"] for cut in cuts] == [before[-2]["hash"], before[-1]["hash"]]
    whole = verified(dvdi)
    assert whole["first"] == last + 1
    assert f"events 1 to {last} were taken away by retention" in dvdi.run("events", "verify", code=0).stdout
    # Who takes some away by hand leaves no such record.
    with sqlite3.connect(dvdi.state_dir / "state.db") as database:
        kept = database.execute("SELECT * FROM events WHERE sequence = ?", (whole["first"],)).fetchone()
        database.execute("DELETE FROM events WHERE sequence = ?", (whole["first"],))
    broken = verified(dvdi, code=1)
    assert not broken["intact"] and "missing at the beginning" in broken["error"]["message"]
    with sqlite3.connect(dvdi.state_dir / "state.db") as database:
        database.execute(f"INSERT INTO events VALUES ({','.join('?' * len(kept))})", kept)


def test_what_a_sink_has_not_got_is_kept(dvdi):
    path = file_sink(dvdi)
    one_run(dvdi)
    newest = dvdi.events()[-1]
    make_older(dvdi, 31)
    one_run(dvdi)  # without a daemon nothing is carried away
    assert dvdi.events()[0]["sequence"].lstrip("0") == "1"
    dvdi.start_daemon()
    eventually(lambda: dvdi.json("sink", "ls")["sinks"][0]["behind"] == 0)
    dvdi.daemon.restart()  # it looks once when it starts
    eventually(lambda: [event for event in dvdi.events() if event["type"] == "dvdi.events.cut"])
    assert int(dvdi.events()[0]["sequence"]) == int(newest["sequence"]) + 1
    # The file has all of them, and the chain here is still the one that it has.
    eventually(lambda: dvdi.json("sink", "ls")["sinks"][0]["behind"] == 0)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [int(line["sequence"]) for line in lines] == list(range(1, len(lines) + 1))
    against = verified(dvdi, "--against", "audit")["against"]
    assert against["same"] and against["not_told"] is None
    assert (against["first"], against["count"]) == (1, against["sequence"])


def test_a_chain_that_was_rewritten_is_not_what_the_sink_has(dvdi):
    path = file_sink(dvdi)
    dvdi.start_daemon()
    one_run(dvdi)
    eventually(lambda: dvdi.json("sink", "ls")["sinks"][0]["behind"] == 0)
    assert verified(dvdi, "--against", "audit")["against"]["same"]
    whole = path.read_text()
    path.write_text("".join(whole.splitlines(keepends=True)[:4]))
    assert "had confirmed" in verified(dvdi, "--against", "audit", code=1)["error"]["message"]
    lines = whole.splitlines(keepends=True)
    path.write_text("".join(lines[:2] + lines[3:]))
    assert f"has {len(lines) - 1} of the {len(lines)} events" in verified(dvdi, "--against", "audit", code=1)["error"]["message"]
    path.write_text(whole)
    assert verified(dvdi, "--against", "audit")["against"]["same"]
