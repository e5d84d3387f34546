#!/usr/bin/env python3
"""Metrics, alert rules and their page fit together: promtool finds nothing wrong with the rules, with what they are tested
with, and with what a daemon that runs shows; docs/metrics.md has the metrics and the alerts that there are, and no other.

    promtool_test.py ROOT PROGRAMS
"""
import contextlib
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import yaml

problems = []


def expect(condition, text):
    if not condition:
        problems.append(text)


def promtool(*args, **more):
    done = subprocess.run(["promtool", *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120,
                          check=False, **more)
    return done.returncode, done.stdout.strip()


def documented_metrics(page):
    """Name -> (type, the text that has its labels)."""
    found = {}
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == 4 and re.match("`(dvdi|process)_", cells[0]):
            for name in re.findall("`([a-z_]+)`", cells[0]):
                expect(name not in found, f"docs/metrics.md has {name} twice")
                found[name] = (cells[1], cells[2])
    return found


def documented_alerts(page):
    return dict(re.findall(r"^\| `(Dvdi\w+)` \| (\w+) \|", page, re.M))


def shown_metrics(text):
    """Name -> (type, the labels that its samples have)."""
    found = {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            found[name] = (kind, set())
        elif not line.startswith("#"):
            sample = re.match(r"[a-z_]+", line).group()
            name = sample if sample in found else re.sub("_(bucket|sum|count)$", "", sample)
            found[name][1].update(set(re.findall(r'([a-z_]+)="', line)) - {"le"})
    return found


def free_port():
    with contextlib.closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextlib.contextmanager
def daemon(programs, folder):
    """A dvdid of its own, in a mount namespace of its own."""
    own = ["unshare", "--mount", "--propagation", "private"]
    port = free_port()
    config = folder / "dvdi.toml"
    config.write_text(f'metrics_listen = "127.0.0.1:{port}"\n')
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([*own, programs / "dvdid", "--config", config, "--state-dir", folder / "state",
                                    "--socket", folder / "socket"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield process, port, folder / "log"
    finally:
        process.terminate()
        process.wait(60)


def scrape(port, process, log):
    """As Prometheus asks: over TCP."""
    end = time.monotonic() + 60
    while True:
        try:
            with contextlib.closing(socket.create_connection(("127.0.0.1", port), timeout=30)) as one:
                one.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                answer = b"".join(iter(lambda: one.recv(65536), b"")).decode()
            head, _, body = answer.partition("\r\n\r\n")
            assert head.startswith("HTTP/1.1 200 "), head
            assert "Content-Type: text/plain; version=0.0.4" in head, head
            return body
        except OSError as error:
            if process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"{error}; dvdid says: {log.read_text()}") from error
            time.sleep(0.05)  # between two looks


def check_rules(root, page):
    folder = root / "packaging/prometheus"
    code, said = promtool("check", "rules", "dvdi.rules.yml", cwd=folder)
    expect(code == 0, f"promtool check rules: {said}")
    code, said = promtool("test", "rules", "dvdi.rules.test.yml", cwd=folder)
    expect(code == 0, f"promtool test rules: {said}")
    with tempfile.TemporaryDirectory() as name:
        # The paths of a machine that has the package are not here.
        config = (folder / "scrape.yml").read_text().replace("/usr/share/dvdi/prometheus", str(folder))
        file = pathlib.Path(name) / "prometheus.yml"
        file.write_text(config)
        code, said = promtool("check", "config", str(file))
        expect(code == 0, f"promtool check config scrape.yml: {said}")
    example = "\n".join(line for line in (folder / "scrape.yml").read_text().splitlines() if not line.startswith("#"))
    expect(example.strip() in page, "docs/metrics.md does not show scrape.yml as it is")

    rules = [rule for group in yaml.safe_load((folder / "dvdi.rules.yml").read_text())["groups"] for rule in group["rules"]]
    alerts = {rule["alert"]: rule["labels"]["severity"] for rule in rules}
    expect(alerts == documented_alerts(page), f"docs/metrics.md and dvdi.rules.yml have different alerts or severities: "
           f"{set(alerts.items()) ^ set(documented_alerts(page).items())}")
    tested = (folder / "dvdi.rules.test.yml").read_text()
    known = documented_metrics(page)
    for rule in rules:
        name = rule["alert"]
        expect(f'alertname="{name}"' in tested, f"dvdi.rules.test.yml does not test {name}")
        expect(set(rule["annotations"]) == {"summary", "description"}, f"{name} has not a summary and a description")
        expect("`" in rule["annotations"]["description"] or name == "DvdiCommitSlow", f"{name} does not say what to run")
        for metric in re.findall(r"\b(?:dvdi|process)_[a-z_]+", rule["expr"]):
            base = re.sub("_bucket$", "", metric)
            expect(base in known, f"{name} uses {metric}, which docs/metrics.md does not have")
        expect(rule["expr"].count("{") == rule["expr"].count('job="dvdi"'), f"{name} looks at other jobs, too")


def check_output(page, programs):
    with tempfile.TemporaryDirectory(prefix="dvdi-promtool-") as name:
        with daemon(programs, pathlib.Path(name)) as (process, port, log):
            scrape(port, process, log)
            text = scrape(port, process, log)
    code, said = promtool("check", "metrics", input=text)
    expect(code == 0 and not said, f"promtool check metrics: {said}")
    shown, known = shown_metrics(text), documented_metrics(page)
    expect(set(shown) == set(known), f"shown, and not in docs/metrics.md: {sorted(set(shown) - set(known))}; "
           f"in docs/metrics.md, and not shown: {sorted(set(known) - set(shown))}")
    for metric in set(shown) & set(known):
        kind, labels = shown[metric]
        expect(kind == known[metric][0], f"{metric} is a {kind}, and a {known[metric][0]} in docs/metrics.md")
        for label in labels:
            expect(f"`{label}`" in known[metric][1], f"docs/metrics.md does not name the label {label} of {metric}")
    return len(shown)


def main():
    root, programs = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
    if not shutil.which("promtool"):
        print("[  SKIPPED ] promtool_test (promtool is not there: tools/packages install test)")
        return 77
    page = (root / "docs/metrics.md").read_text()
    check_rules(root, page)
    count = 0
    if os.geteuid() == 0:
        count = check_output(page, programs)
    else:
        print("[  SKIPPED ] promtool_test: what a daemon shows (only root can give it a mount namespace)")
    for problem in problems:
        print(problem)
    print(f"{count} metrics, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
