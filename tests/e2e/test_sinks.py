"""Events are carried away: none is lost, whatever becomes of the daemon and of the receiver, and nothing waits for it.

The fixture `dvdi` checks after each test that every event is as the schema says and that the chain is whole.
"""

import hmac
import http.client
import http.server
import json
import signal
import subprocess
import threading
import time

import pytest
from support import eventually, listens, program

KEY = b"an-end-to-end-key-0123456789"


class Collector:
    """A web server that takes batches of events, or does not, as it is told to."""

    def __init__(self, port=0):
        self.lock = threading.Condition()
        self.mode, self.more = "ok", {}
        self.events, self.requests, self.held = [], [], 0
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):  # pylint: disable=invalid-name
                collector.take(self)

            def log_message(self, *args):  # pylint: disable=arguments-differ
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, *args):
                pass  # the daemon may be killed while it is answered
        self.server = Server(("127.0.0.1", port), Handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/in"

    def take(self, handler):
        length = int(handler.headers["Content-Length"])
        if self.mode == "hang up":
            handler.rfile.read(length // 2)
            handler.connection.close()
            return
        body = handler.rfile.read(length)
        with self.lock:
            self.requests.append((dict(handler.headers), body, time.monotonic()))
            self.lock.notify_all()
            if self.mode == "hang":
                self.held += 1
                self.lock.wait_for(lambda: self.mode != "hang")
                self.held -= 1
            mode = self.mode
            if mode == "ok":
                self.events += json.loads(body)
        handler.send_response({"ok": 204}.get(mode, mode if isinstance(mode, int) else 500))
        for name, value in self.more.items():
            handler.send_header(name, value)
        if mode != "ok":
            handler.send_header("Content-Length", "0")
        handler.end_headers()

    def set(self, mode, **more):
        with self.lock:
            self.mode, self.more = mode, {name.replace("_", "-"): value for name, value in more.items()}
            self.lock.notify_all()

    def numbers(self):
        """Each event once, in the order in which it came first."""
        with self.lock:
            return list(dict.fromkeys(int(event["sequence"]) for event in self.events))

    def close(self):
        self.set("ok")
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def collector():
    one = Collector()
    yield one
    one.close()


def configure(dvdi, **sinks):
    """Of each sink its settings; with waits that a test can live with."""
    quick = {"backoff": "20ms", "backoff_cap": "100ms", "timeout": "20s"}
    dvdi.configure({f"sink.{name}": {**quick, **settings} for name, settings in sinks.items()})


def file_sink(dvdi, **more):
    return {"type": "file", "path": str(dvdi.root / "events.jsonl"), **more}


def webhook(collector, **more):
    return {"type": "webhook", "url": collector.url, **more}


def make_events(dvdi, count):
    """That many, one for each call: a volume is made, or removed."""
    for number in range(count // 2):
        dvdi.daemon.call("POST", "/v1/volumes", {"driver": "local", "name": f"v{number}"})
        dvdi.daemon.call("DELETE", f"/v1/volumes/local/v{number}")


def sink(dvdi, name):
    [one] = [one for one in dvdi.daemon.call("GET", "/v1/sinks")["sinks"] if one["name"] == name]
    return one


def has_all(dvdi, name):
    """Waits until the sink has everything; how much that is."""
    def done():
        one = sink(dvdi, name)
        assert one["state"] == "idle" and one["behind"] == 0, one
        return one
    return eventually(done, timeout=60)["cursor"]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_sink_that_is_down_for_a_thousand_events_and_two_kills_gets_each(dvdi, collector):
    configure(dvdi, file=file_sink(dvdi), web=webhook(collector, batch_events=100))
    collector.set(503)
    dvdi.start_daemon()
    make_events(dvdi, 400)
    dvdi.daemon.restart()  # SIGKILL
    make_events(dvdi, 400)
    dvdi.daemon.restart()
    make_events(dvdi, 200)
    eventually(lambda: sink(dvdi, "web")["behind"] >= 1000)
    assert sink(dvdi, "web")["state"] in ("waiting", "delivering")
    assert "503" in sink(dvdi, "web")["last_error"]
    collector.set("ok")
    last = has_all(dvdi, "web")
    assert last >= 1000
    assert collector.numbers() == list(range(1, last + 1))
    ids = [event["id"] for event in collector.events]
    by_id = {event["id"]: event for event in collector.events}
    assert len(by_id) == last and len(ids) >= last
    mine = {event["id"]: event for event in dvdi.events()}
    assert by_id == {name: mine[name] for name in by_id}
    has_all(dvdi, "file")
    written = lines(dvdi.root / "events.jsonl")
    assert [int(event["sequence"]) for event in written] == list(range(1, len(written) + 1))  # none twice
    log = dvdi.daemon.log.read_text()
    assert log.count("sink web (") == 4, log  # three daemons: it takes none; the last: it takes them again


def test_the_daemon_may_be_killed_before_and_after_each_write(dvdi, collector):
    configure(dvdi, file=file_sink(dvdi, batch_events=3), web=webhook(collector, batch_events=2))
    dvdi.start_daemon()
    deaths = 0
    for number in range(30):
        dvdi.daemon.kill()
        where = f"store.commit.{'before' if number % 2 else 'after'}:{number // 2 + 1}"
        dvdi.daemon.start(env={"DVDI_FAILPOINT": where}, wait=False)
        eventually(lambda: dvdi.daemon.process.poll() is not None or listens(dvdi.daemon.socket))
        try:
            make_events(dvdi, 20)
        except (OSError, http.client.HTTPException):
            assert dvdi.daemon.process.wait(30) == -signal.SIGKILL
            deaths += 1
    assert deaths >= 25
    dvdi.daemon.kill()
    dvdi.daemon.start()
    last = max(has_all(dvdi, "web"), has_all(dvdi, "file"))
    assert collector.numbers() == list(range(1, last + 1))
    assert [int(event["sequence"]) for event in lines(dvdi.root / "events.jsonl")] == list(range(1, last + 1))
    assert last > 50


def test_rotation_loses_nothing_and_repeats_nothing(dvdi):
    path = dvdi.root / "events.jsonl"
    configure(dvdi, file=file_sink(dvdi))
    dvdi.start_daemon()
    for rotation in range(3):
        make_events(dvdi, 20)
        if rotation == 2:
            has_all(dvdi, "file")  # so that the cursor is written
        path.rename(dvdi.root / f"events.jsonl-{rotation}")
        if rotation == 1:
            path.touch(0o600)
        if rotation == 2:
            dvdi.daemon.restart()
    make_events(dvdi, 20)
    last = has_all(dvdi, "file")
    every = [lines(dvdi.root / f"events.jsonl-{rotation}") for rotation in range(3)] + [lines(path)]
    assert all(every)
    assert [int(event["sequence"]) for part in every for event in part] == list(range(1, last + 1))


def test_pause_resume_and_replay(dvdi):
    path = dvdi.root / "events.jsonl"
    configure(dvdi, file=file_sink(dvdi))
    dvdi.start_daemon()
    make_events(dvdi, 4)
    before = has_all(dvdi, "file")
    assert dvdi.run("sink", "pause", "file", code=0).stdout == "sink file is paused\n"
    eventually(lambda: sink(dvdi, "file")["state"] == "paused")
    had = len(lines(path))
    make_events(dvdi, 4)
    assert dvdi.json("sink", "ls")["sinks"][0]["behind"] >= 4
    assert len(lines(path)) == had
    dvdi.run("sink", "resume", "file", code=0)
    has_all(dvdi, "file")
    dvdi.run("sink", "replay", "file", "--from", "2", code=0)
    last = has_all(dvdi, "file")
    numbers = [int(event["sequence"]) for event in lines(path)]
    assert numbers == [*range(1, last), *range(2, last + 1)], numbers  # the replay is an event, too
    assert before < last
    assert "is at" in dvdi.run("sink", "replay", "file", "--from", "1000", code=1).stderr
    assert "file" in dvdi.run("sink", "pause", "nobody", code=1).stderr  # says which there are
    made = [event for event in dvdi.events() if event["type"].startswith("dvdi.sink.")]
    assert [event["type"] for event in made] == ["dvdi.sink.paused", "dvdi.sink.resumed", "dvdi.sink.replayed"]
    assert all(event["data"]["sink"] == "file" and event["data"]["peer"]["uid"] == 0 for event in made)
    assert (made[-1]["data"]["from"], made[-1]["data"]["until"]) == (2, last - 1)


def test_without_a_daemon(dvdi, collector):
    configure(dvdi, file=file_sink(dvdi), web=webhook(collector))
    dvdi.start_daemon()
    make_events(dvdi, 10)
    had = has_all(dvdi, "file")
    has_all(dvdi, "web")
    daemon = dvdi.daemon
    daemon.stop()
    dvdi.daemon = None
    dvdi.run("volume", "create", "local/w", code=0)
    dvdi.run("volume", "rm", "local/w", code=0)
    shown = {one["name"]: one for one in dvdi.json("sink", "ls")["sinks"]}
    assert [(one["state"], one["cursor"], one["behind"]) for one in shown.values()] == [("off", had, 2)] * 2
    assert shown["file"]["where"] == str(dvdi.root / "events.jsonl")
    assert "start dvdid" in dvdi.run("sink", "test", "file", code=1).stderr
    dvdi.run("sink", "pause", "web", code=0)
    dvdi.run("sink", "replay", "file", "--from", "1", code=0)
    assert "off, paused" in dvdi.run("sink", "ls", code=0).stdout
    seen = len(collector.requests)
    daemon.start()
    dvdi.daemon = daemon
    last = has_all(dvdi, "file")
    numbers = [int(event["sequence"]) for event in lines(dvdi.root / "events.jsonl")]
    assert numbers == [*range(1, had + 1), *range(1, last + 1)]
    assert sink(dvdi, "web")["state"] == "paused" and len(collector.requests) == seen
    dvdi.run("sink", "test", "web", code=0)
    assert collector.requests[-1][1] == b"[]"
    dvdi.run("sink", "resume", "web", code=0)
    assert has_all(dvdi, "web") >= last


def test_the_signature_is_what_the_page_says(dvdi, collector):
    secret = dvdi.root / "webhook.key"
    secret.write_bytes(KEY + b"\n")
    secret.chmod(0o600)
    configure(dvdi, web=webhook(collector, secret_file=str(secret)))
    dvdi.start_daemon()
    make_events(dvdi, 10)
    has_all(dvdi, "web")
    assert collector.requests
    for headers, body, _ in collector.requests:
        fields = dict(one.split("=", 1) for one in headers["Dvdi-Signature"].split(","))
        good = hmac.new(KEY, fields["t"].encode() + b"." + body, "sha256").hexdigest()
        assert hmac.compare_digest(good, fields["v1"])
        assert abs(time.time() - int(fields["t"])) < 300
        events = json.loads(body)
        assert headers["Content-Type"] == "application/cloudevents-batch+json; charset=utf-8"
        assert (int(headers["Dvdi-First"]), int(headers["Dvdi-Last"])) == (int(events[0]["sequence"]), int(events[-1]["sequence"]))
        assert events[0]["source"].endswith(headers["Dvdi-Node"])
    # Byte for byte, so that whoever has the body can verify the chain.
    [line] = [line for line in dvdi.run("events", "--format", "json", code=0).stdout.splitlines()[:1]]
    assert line.encode() in collector.requests[0][1]


def test_whatever_a_web_server_does_nothing_is_missing(dvdi, collector):
    configure(dvdi, web=webhook(collector, batch_events=5))
    dvdi.start_daemon()
    make_events(dvdi, 4)
    for mode, more in ((500, {}), ("hang up", {}), (404, {}), (302, {"Location": "http://elsewhere.example/x"}),
                       (429, {"Retry_After": "1"})):
        has_all(dvdi, "web")
        failures = sink(dvdi, "web")["failures_total"]
        collector.set(mode, **more)
        make_events(dvdi, 6)
        eventually(lambda before=failures: sink(dvdi, "web")["failures_total"] > before)
        if mode == 302:
            assert "elsewhere.example" in sink(dvdi, "web")["last_error"]
        collector.set("ok")
    last = has_all(dvdi, "web")
    assert collector.numbers() == list(range(1, last + 1))
    # No sooner than it was asked to.
    times = [when for _, _, when in collector.requests]
    assert max(after - before for before, after in zip(times, times[1:])) > 0.9


def test_nothing_waits_for_a_web_server_that_hangs(dvdi, collector):
    configure(dvdi, file=file_sink(dvdi), web=webhook(collector, timeout="10m"))
    collector.set("hang")
    dvdi.start_daemon()
    make_events(dvdi, 2)
    eventually(lambda: collector.held == 1)
    done = dvdi.run("run", "--volume", "local/v:data", "--", "sh", "-c", "echo x >data/x", code=0)
    assert done.stderr == ""
    has_all(dvdi, "file")
    assert collector.held == 1 and len(collector.requests) == 1  # all the time
    process = dvdi.daemon.process
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0  # its timeout is ten minutes
    assert collector.held == 1
    collector.set("ok")
    dvdi.daemon.start()
    last = has_all(dvdi, "web")
    assert collector.numbers() == list(range(1, last + 1))


def test_a_sink_that_is_new_may_begin_with_what_comes(dvdi):
    dvdi.start_daemon()
    make_events(dvdi, 10)
    configure(dvdi, file=file_sink(dvdi, from_now=True))
    dvdi.daemon.stop()
    dvdi.daemon.start()
    highest = len(dvdi.events())
    make_events(dvdi, 2)
    has_all(dvdi, "file")
    assert int(lines(dvdi.root / "events.jsonl")[0]["sequence"]) > 10
    assert int(lines(dvdi.root / "events.jsonl")[0]["sequence"]) <= highest + 1


def test_what_is_wrong_is_said_with_its_line(dvdi):
    for settings, said in (({"type": "pigeon"}, 'must be "file", "webhook" or "nats"'), ({"type": "file"}, "path is needed"),
                           ({"type": "webhook", "url": "http://u:p@h/"}, "user or a password"),
                           ({"type": "webhook", "url": "ftp://h/"}, "must begin with"),
                           ({"type": "file", "path": "/x", "url": "http://h"}, "unknown key")):
        dvdi.configure({"sink.one": settings})
        number = dvdi.config_file.read_text().splitlines().index("[sink.one]") + 1
        done = dvdi.run("config", "check", code=1)
        assert said in done.stderr and "u:p@h" not in done.stderr, done.stderr
        assert any(f"dvdi.toml:{line}:" in done.stderr for line in range(number, number + 4)), done.stderr
    dvdi.configure({})


def test_no_command_is_linked_with_what_sinks_need():
    # Each start of it would pay for that.
    needed = subprocess.run(["ldd", program()], capture_output=True, text=True, check=True).stdout
    assert "libc.so" in needed and "nats" not in needed
