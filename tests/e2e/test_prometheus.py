"""A real Prometheus scrapes a real daemon, with the rules that the package has, and an alert fires on a real debt."""

import contextlib
import json
import shutil
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request

import pytest
import yaml
from support import ROOT, eventually, stop

RULES = ROOT / "packaging" / "prometheus" / "dvdi.rules.yml"


def free_port():
    with contextlib.closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Prometheus:
    """Debian's, on a port and with a folder of its own. It asks each second, and `for:` of the rules is a second."""

    def __init__(self, node, target):
        self.folder = node.root / "prometheus"
        self.folder.mkdir()
        rules = yaml.safe_load(RULES.read_text())
        for group in rules["groups"]:
            for rule in group["rules"]:
                rule["for"] = "1s"
                # The limit of a quarter of an hour is what promtool's tests are about.
                rule["expr"] = rule["expr"].replace("> 900", "> 0")
        (self.folder / "rules.yml").write_text(yaml.safe_dump(rules))
        config = yaml.safe_load((RULES.parent / "scrape.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = ["rules.yml"]
        config["scrape_configs"][0]["static_configs"][0]["targets"] = [target]
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.port = free_port()
        self.log = self.folder / "log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                ["prometheus", f"--config.file={self.folder}/prometheus.yml", f"--storage.tsdb.path={self.folder}/data",
                 f"--web.listen-address=127.0.0.1:{self.port}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder)
        node.processes.append(self.process)
        eventually(self.ready, timeout=120, what="Prometheus is ready")

    def get(self, url):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{url}", timeout=30) as answer:
            return json.loads(answer.read())["data"]

    def ready(self):
        assert self.process.poll() is None, self.log.read_text()
        try:
            self.get("/api/v1/status/buildinfo")
        except (urllib.error.URLError, ConnectionError):
            return False
        return True

    def alerts(self):
        """Names of those that fire -> their labels."""
        return {one["labels"]["alertname"]: one["labels"] for one in self.get("/api/v1/alerts")["alerts"]
                if one["state"] == "firing"}

    def value(self, query):
        result = self.get(f"/api/v1/query?query={urllib.parse.quote(query)}")["result"]
        return float(result[0]["value"][1]) if result else None

    def target(self):
        return self.get("/api/v1/targets")["activeTargets"][0]


@pytest.fixture
def watched(dvdi):
    """(the node with its daemon, a Prometheus that scrapes it)."""
    if not shutil.which("prometheus"):
        pytest.skip("there is no prometheus: tools/packages install test")
    address = f"127.0.0.1:{free_port()}"
    # A debt is tried again soon, and parked after three attempts.
    dvdi.configure({"metrics_listen": address,
                    "debts": {"attempts": 3, "backoff": "10ms", "backoff_cap": "50ms"}})
    dvdi.start_daemon()
    prometheus = Prometheus(dvdi, address)
    yield dvdi, prometheus
    stop(prometheus.process)


def test_an_alert_fires_on_a_real_debt_and_goes_when_it_is_paid(watched):
    dvdi, prometheus = watched
    plugin = dvdi.faulty()
    eventually(lambda: prometheus.value("dvdi_build_info") == 1, timeout=60, what="the daemon is scraped")
    assert prometheus.target()["health"] == "up", prometheus.target()
    # "no debt" and "no mount is lost" are figures, not silence.
    dvdi.run("run", "--volume", "faulty/v:data", "--", "true", code=0)
    eventually(lambda: prometheus.value('dvdi_unmounts_owed{driver="faulty"}') == 0, timeout=60)
    assert not {"DvdiUnmountOwed", "DvdiUnmountParked", "DvdiDown"} & set(prometheus.alerts())

    plugin.rule("Unmount", "error", text="device is busy")
    dvdi.run("run", "--volume", "faulty/v:data", "--", "true", code=0)
    assert dvdi.volumes()["faulty/v"]["owed"]
    fired = eventually(lambda: {"DvdiUnmountOwed", "DvdiUnmountParked"} <= set(prometheus.alerts()) and prometheus.alerts(),
                       timeout=120, what="the alerts on the debt fire")
    assert fired["DvdiUnmountOwed"]["driver"] == "faulty" and fired["DvdiUnmountOwed"]["severity"] == "warning", fired
    assert fired["DvdiUnmountParked"]["severity"] == "critical", fired
    assert "v" not in {value for labels in fired.values() for value in labels.values()}, "no volume is a label"

    plugin.clear()
    dvdi.run("volume", "release", "--yes", "faulty/v", code=0)
    eventually(lambda: not {"DvdiUnmountOwed", "DvdiUnmountParked"} & set(prometheus.alerts()), timeout=120,
               what="the alerts go when the debt is paid")
    assert prometheus.value('dvdi_driver_call_duration_seconds_count{operation="unmount",outcome="refused"}') >= 3


def test_a_daemon_that_is_gone_is_noticed_and_one_whose_driver_hangs_is_scraped(watched):
    dvdi, prometheus = watched
    plugin = dvdi.faulty()
    plugin.rule("Mount", "hold")
    task = dvdi.start("run", "--volume", "faulty/v:data", "--", "true")
    plugin.calls("Mount", wait=1)
    eventually(lambda: prometheus.value('dvdi_driver_calls_running{driver="faulty"}') == 1, timeout=60,
               what="a call that hangs is seen to run")
    plugin.clear()
    assert task.wait(60) == 0
    dvdi.daemon.kill()
    eventually(lambda: "DvdiDown" in prometheus.alerts(), timeout=120, what="DvdiDown fires")
    dvdi.daemon.start()
    eventually(lambda: "DvdiDown" not in prometheus.alerts(), timeout=120, what="DvdiDown goes")


def test_on_tcp_there_is_nothing_but_figures(dvdi):
    port = free_port()
    dvdi.configure({"metrics_listen": f"127.0.0.1:{port}"})
    daemon = dvdi.start_daemon()
    dvdi.run("run", "--volume", "local/secret-name:data", "--", "true", code=0)

    def ask(path, method="GET"):
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
    status, text = ask("/metrics")
    assert status == 200 and 'dvdi_driver_calls_total{driver="local"}' in text
    assert "secret-name" not in text and str(dvdi.root) not in text
    status, health = ask("/healthz")
    assert status == 200 and json.loads(health)["status"] == "ok" and "state_dir" not in health
    for path in ("/v1/volumes", "/v1/containers", "/v1/events", "/v1/drivers", "/metrics/../v1/volumes"):
        assert ask(path)[0] in (400, 404), path
    assert ask("/v1/volumes/local/secret-name", "DELETE")[0] == 405
    # And on the Unix socket it is counted who asked for what.
    assert 'dvdi_http_requests_total{method="GET",route="/v1/volumes",code="200"}' not in text
    dvdi.volumes()
    text = daemon.call("GET", "/metrics").decode()
    assert 'dvdi_http_requests_total{method="GET",route="/v1/volumes",code="200"} 1\n' in text, text
