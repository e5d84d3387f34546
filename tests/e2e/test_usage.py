"""Chargeback: what dvdi usage says of real tasks, by every grouping, in every form, with and without a daemon."""

import csv
import io
import json
from decimal import Decimal

import pytest

from support import EXAMPLES, eventually

PRICES = EXAMPLES / "prices.toml"
KEYS = ("volume", "driver", "type", "owner", "framework", "role", "principal", "user", "container", "label:team", "label:none",
        "day", "hour")
FIGURES = tuple(f"{kind}_{unit}" for kind in ("referenced", "mounted", "provisioned")
                for unit in ("seconds", "gib_hours", "cost")) + ("mounts", "mounts_cost", "cost")


def app(dvdi, name, command, role, labels, *volumes):
    path = dvdi.root / f"{name}.json"
    path.write_text(json.dumps({
        "id": f"/{name}", "cmd": command, "role": role, "labels": labels,
        "container": {"type": "MESOS", "volumes": [
            {"containerPath": f"data{i}", "mode": "RW", "external": {"name": volume, "provider": "dvdi", "options": {
                "dvdi/driver": "local", **options}}} for i, (volume, options) in enumerate(volumes)]}}))
    return path


def history(dvdi):
    """Tasks of two roles and teams, volumes with and without size and type; one task and a volume stay. The time it ended."""
    fast = {"dvdi/type": "tmpfs", "dvdi/size": "8G"}
    dvdi.run("run", app(dvdi, "a", "true", "web", {"team": "=1+1", "tier": "x"}, ("v", fast), ("scratch-1", {})), code=0)
    dvdi.run("run", app(dvdi, "b", "true", "batch", {"team": "b,\"c\""}, ("v", fast)), code=0)
    dvdi.run("volume", "create", "local/w", "--option", "size=2G", "--option", "type=tmpfs", code=0)
    task = dvdi.start("run", app(dvdi, "c", "echo ready; read x", "web", {}, ("w", {"dvdi/type": "tmpfs", "dvdi/size": "2G"})))
    assert task.stdout.readline() == "ready\n"
    return task, dvdi.events()[-1]["time"]


def report(dvdi, *args):
    return dvdi.json("usage", "--prices", PRICES, *args)


def sums(rows):
    return {name: sum((Decimal(row[name]) for row in rows), Decimal(0)) for name in FIGURES}


@pytest.mark.parametrize("daemon", (False, True))
def test_a_task_of_the_command_line_is_charged_to_its_labels(dvdi, daemon):
    if daemon:
        dvdi.start_daemon()
    path = app(dvdi, "a", "true", "web", {"team": "b"}, ("v", {}))
    dvdi.run("run", path, "--label", "tier=x", code=0)
    dvdi.run("run", "--volume", "local/v:data", "--label", "team=a b", "-l", "tier=x", "--", "true", code=0)
    rows = {(row["group"]["label:team"], row["group"]["label:tier"]) for row in dvdi.json("usage", "--by", "label:team,label:tier")["rows"]}
    assert rows == {("b", "x"), ("a b", "x"), ("", "")}
    refused = dvdi.run("run", path, "--label", "team=c", code=125).stderr
    assert "--label team: is 'b' and 'c'" in refused


@pytest.mark.parametrize("daemon", (False, True))
def test_every_grouping_has_the_same_total_to_the_last_digit(dvdi, daemon):
    if daemon:
        dvdi.start_daemon()
    task, until = history(dvdi)
    whole = report(dvdi, "--until", until)
    expected = sums([whole["total"]])
    assert expected["cost"] > 0 and expected["mounts"] == 4
    assert expected["cost"] == sum(expected[name] for name in FIGURES if name.endswith("_cost"))
    for by in (*KEYS, "role,day", "volume,label:team,hour", ",".join(KEYS[:8])):
        found = report(dvdi, "--by", by, "--until", until)
        assert found["by"] == by.split(",") and found["currency"] == "EUR"
        assert all(set(row["group"]) == set(by.split(",")) for row in found["rows"]), by
        assert sums(found["rows"]) == expected == sums([found["total"]]), by
    roles = {row["group"]["role"]: row for row in report(dvdi, "--by", "role", "--until", until)["rows"]}
    assert set(roles) == {"", "web", "batch"}
    types = {row["group"]["type"] for row in report(dvdi, "--by", "type", "--until", until)["rows"]}
    assert types == {"", "tmpfs"}
    # Scratch space is free in the example, everything else is paid by the hour and by the GiB-hour.
    volumes = {row["group"]["volume"]: row for row in report(dvdi, "--by", "volume", "--until", until)["rows"]}
    assert volumes["local/scratch-1"]["cost"] == "0"
    for name, gib in (("local/v", 8), ("local/w", 2)):
        row = volumes[name]
        hours = Decimal(row["referenced_seconds"]) / 3600
        assert abs(Decimal(row["cost"]) - hours * (gib * Decimal("0.00012") + Decimal("0.0005"))) < Decimal("1e-11"), row
    # Half a day and the other half, cut where an event was.
    cut = dvdi.events()[len(dvdi.events()) // 2]["time"]
    halves = [report(dvdi, "--by", "role", *half)["total"] for half in (("--until", cut), ("--since", cut, "--until", until))]
    assert sums(halves) == expected
    task.communicate("\n", timeout=30)


def test_the_command_of_the_issue_writes_csv_for_a_spreadsheet(dvdi):
    task, _ = history(dvdi)
    text = dvdi.run("usage", "--by", "role", "--since", "24h", "--prices", PRICES, "--format", "csv", code=0).stdout
    lines = list(csv.DictReader(io.StringIO(text, newline="")))
    assert {line["role"] for line in lines} == {"", "web", "batch"}
    assert {line["currency"] for line in lines} == {"EUR"}
    assert set(lines[0]) == {"role", "currency", *FIGURES}
    web = next(line for line in lines if line["role"] == "web")
    assert Decimal(web["cost"]) == sum(Decimal(web[name]) for name in FIGURES if name.endswith("_cost")) > 0
    text = dvdi.run("usage", "--by", "label:team", "--format", "csv", code=0).stdout
    assert "\n'=1+1," in text and '\n"b,""c""",' in text  # no formula, and quoted
    assert {row["group"]["label:team"] for row in dvdi.json("usage", "--by", "label:team")["rows"]} == {"", "=1+1", 'b,"c"'}
    task.communicate("\n", timeout=30)


def test_wrong_prices_name_file_line_and_key(dvdi):
    path = dvdi.root / "prices.toml"
    for text, named in (("currency = 'EUR'\n[[price]]\nper_mount = 0.5\n", ":3: price.per_mount"),
                        ("currency = 'EUR'\n[[price]]\nper_mounts = 1\n", ":2: ")):
        path.write_text(text)
        done = dvdi.run("usage", "--prices", path, code=2)
        assert f"{path}{named}" in done.stderr and done.stdout == ""
    assert "prices" in dvdi.run("usage", "--prices", dvdi.root / "none", code=2).stderr
    assert "label:KEY" in dvdi.run("usage", "--by", "colour", code=2).stderr
    dvdi.run("ps", "--format", "csv", code=2)


def test_a_daemon_that_is_killed_changes_no_bill(dvdi):
    daemon = dvdi.start_daemon()
    task = dvdi.start("run", app(dvdi, "t", "echo ready; read x", "web", {"team": "a"}, ("v", {})))
    assert task.stdout.readline() == "ready\n"
    for _ in range(2):
        daemon.kill()
        daemon.restart()
    task.communicate("\n", timeout=30)
    eventually(lambda: not dvdi.containers())
    events = dvdi.events()
    (removed,) = (one for one in events if one["type"] == "dvdi.reference.removed")
    (row,) = (row for row in dvdi.json("usage", "--by", "label:team,role")["rows"] if row["group"]["role"])
    assert row["group"] == {"label:team": "a", "role": "web"}
    assert float(row["referenced_seconds"]) == pytest.approx(removed["data"]["duration_ms"] / 1000, abs=1e-6)
    (mount,) = (row for row in dvdi.json("usage", "--by", "role")["rows"] if not row["group"]["role"])
    assert mount["mounts"] == 1
    # What was closed stays as it is.
    first, second = (dvdi.json("usage", "--by", "role", "--until", events[-1]["time"])["rows"] for _ in range(2))
    assert [row for row in first if row["group"]["role"]] == [row for row in second if row["group"]["role"]]


def test_types_of_secret_options_are_not_kept(dvdi):
    dvdi.faulty("d")
    dvdi.configure({"secrets": {"options": ["TYPE"]}})
    dvdi.run("run", "--volume", "d/v:data,volumetype=hunter2-gold", "--", "true", code=0)
    assert {row["group"]["type"] for row in dvdi.json("usage", "--by", "type")["rows"]} == {""}
    kept = b"".join(path.read_bytes() for path in dvdi.state_dir.glob("state.db*"))
    assert b"d/v" in kept and b"hunter2" not in kept
    dvdi.configure()
    dvdi.run("run", "--volume", "d/w:data,volumetype=gold", "--", "true", code=0)
    assert {row["group"]["type"] for row in dvdi.json("usage", "--by", "type")["rows"]} == {"", "gold"}
