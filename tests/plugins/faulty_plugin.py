#!/usr/bin/env python3
"""A Docker volume plugin that mounts for real and misbehaves when told to. For tests only.

    faulty_plugin.py --base DIR (--socket PATH | --port N [--tls-cert F --tls-key F [--tls-client-ca F]])

prints one line, "ready ADDRESS", once it listens. A volume is a tmpfs, or with Opts {"kind": "bind"} a folder
under DIR that keeps its data; both are real mounts under DIR. The volumes survive a restart of the plugin, who
mounted them does not. Options of Create other than "kind" are kept and ignored.

Faults are rules; the first one that fits a call and has `times` left is applied:

    POST /control         {"op": "Mount", "fault": "error", "times": 1, ...}   add a rule, or a list of rules
    POST /control/clear                     drop all rules and let all held calls go on
    POST /control/release                   let all held calls go on
    GET  /control/calls[?wait=N&op=OP]      every call so far; waits until there are N (of OP)
    GET  /control/volumes                   name -> {"mountpoint", "mounted", "ids"}

`op` is the name after the dot (Activate, Create, Mount, ...) or "*"; `name` limits a rule to one volume; `times`
is how often it applies (absent: always). "effect": true does what the call asks for first. The faults:

    hold        wait for a release (or, with "seconds", that long), then go on; "after": true waits after the effect
    hang        never answer, until the client is gone
    error       {"Err": "text"} with "status" (200)
    plain       "text" as plain text with "status" (500)
    empty       an empty body with "status" (200)
    raw         "body" as it is with "status" (200)
    half        half of a JSON document
    big         "bytes" (100 MB) of one JSON string
    drip        one byte a time for ever
    garbage     something that is not HTTP
    close       close the connection without an answer
    redirect    307 to "location" (/control/redirected)
    missing     404 as a server that does not know the path
    mountpoint  Mount, Get and Path say "value"
    lie         Mount makes a folder, mounts nothing and says that folder
"""

import argparse
import ctypes
import hashlib
import http.server
import json
import os
import select
import shutil
import socketserver
import ssl
import sys
import threading
import time
import urllib.parse

MS_NOSUID, MS_NODEV, MS_BIND = 2, 4, 4096
libc = ctypes.CDLL(None, use_errno=True)


FAULTS = {"hold", "hang", "error", "plain", "empty", "raw", "half", "big", "drip", "garbage", "close", "redirect",
          "missing", "mountpoint", "lie"}


class PluginError(Exception):
    """Goes to the client as Err."""


def check(result, what):
    if result != 0:
        error = ctypes.get_errno()
        raise PluginError(f"{what}: {os.strerror(error)}")


class Volumes:
    """What the plugin does when it behaves."""

    def __init__(self, base, semantics, handed_out):
        self.base = os.path.realpath(base)
        self.semantics = semantics
        self.handed_out = handed_out
        self.lock = threading.RLock()
        self.volumes = {}
        for folder in ("volumes", "mounts"):
            os.makedirs(os.path.join(self.base, folder), exist_ok=True)
        for entry in sorted(os.listdir(os.path.join(self.base, "volumes"))):
            meta = os.path.join(self.base, "volumes", entry, "meta.json")
            if os.path.exists(meta):
                with open(meta, encoding="utf-8") as file:
                    known = json.load(file)
                self.volumes[known["name"]] = {"opts": known["opts"], "created": known["created"], "ids": []}

    def folder(self, kind, name):
        return os.path.join(self.base, kind, hashlib.sha256(name.encode()).hexdigest()[:32])

    def mount_point(self, name):
        return os.path.join(self.base, "mounts", name) if self.handed_out else self.folder("mounts", name)

    def answered_point(self, name):
        return os.path.join(self.mount_point(name), self.handed_out) if self.handed_out else self.mount_point(name)

    def mounted(self, name):
        return os.path.ismount(self.mount_point(name)) or self.is_bind(name)

    def is_bind(self, name):
        # os.path.ismount does not see a bind mount from the same file system.
        with open("/proc/self/mountinfo", encoding="utf-8") as table:
            return any(line.split()[4] == self.mount_point(name) for line in table)

    def find(self, name):
        if name not in self.volumes:
            raise PluginError(f"no such volume: {name}")
        return self.volumes[name]

    def describe(self, name):
        volume = self.find(name)
        answer = {"Name": name, "CreatedAt": volume["created"], "Status": {"ids": len(volume["ids"])}}
        if self.mounted(name):
            answer["Mountpoint"] = self.mount_point(name)
        return answer

    def create(self, request):
        name = request["Name"]
        with self.lock:
            if name in self.volumes:
                return {}
            folder = self.folder("volumes", name)
            os.makedirs(os.path.join(folder, "data"), exist_ok=True)
            volume = {"opts": request.get("Opts") or {}, "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
            with open(os.path.join(folder, "meta.json"), "w", encoding="utf-8") as file:
                json.dump({"name": name, **volume}, file)
            self.volumes[name] = {**volume, "ids": []}
        return {}

    def remove(self, request):
        name = request["Name"]
        with self.lock:
            self.find(name)
            if self.mounted(name):
                raise PluginError("volume is in use")
            shutil.rmtree(self.folder("volumes", name))
            del self.volumes[name]
        return {}

    def mount(self, request):
        name, caller = request["Name"], request.get("ID", "")
        with self.lock:
            volume = self.find(name)
            target = self.mount_point(name)
            if self.semantics == "strict" and caller in volume["ids"]:
                raise PluginError("volume is already mounted by this id")
            if not self.mounted(name):
                os.makedirs(target, exist_ok=True)
                if volume["opts"].get("kind") == "bind":
                    source = os.path.join(self.folder("volumes", name), "data")
                    check(libc.mount(source.encode(), target.encode(), None, MS_BIND, None), f"mount {target}")
                else:
                    check(libc.mount(b"faulty", target.encode(), b"tmpfs", MS_NOSUID | MS_NODEV, b"size=16m"),
                          f"mount {target}")
            if self.semantics == "calls" or caller not in volume["ids"]:
                volume["ids"].append(caller)
            os.makedirs(self.answered_point(name), exist_ok=True)
            return {"Mountpoint": self.answered_point(name)}

    def unmount(self, request):
        name, caller = request["Name"], request.get("ID", "")
        with self.lock:
            volume = self.find(name)
            if not self.mounted(name):
                if self.semantics == "strict":
                    raise PluginError("volume is not mounted")
                return {}
            if caller in volume["ids"]:
                volume["ids"].remove(caller)
            elif self.semantics == "strict":
                raise PluginError("volume is not mounted by this id")
            if not volume["ids"]:
                target = self.mount_point(name)
                check(libc.umount2(target.encode(), 0), f"umount {target}")
                os.rmdir(target)
        return {}

    def path(self, request):
        with self.lock:
            self.find(request["Name"])
            return {"Mountpoint": self.answered_point(request["Name"]) if self.mounted(request["Name"]) else ""}

    def get(self, request):
        with self.lock:
            return {"Volume": self.describe(request["Name"])}

    def list(self, _request):
        with self.lock:
            return {"Volumes": [self.describe(name) for name in self.volumes]}

    def summary(self):
        with self.lock:
            return {name: {"mountpoint": self.mount_point(name), "mounted": self.mounted(name), "ids": one["ids"],
                           "opts": one["opts"]} for name, one in self.volumes.items()}


class Faults:
    def __init__(self):
        self.changed = threading.Condition()
        self.rules = []
        self.calls = []
        self.releases = 0

    def add(self, rules):
        rules = rules if isinstance(rules, list) else [rules]
        for rule in rules:
            if rule["fault"] not in FAULTS or not isinstance(rule["op"], str):
                raise ValueError(f"no such fault: {rule}")
        with self.changed:
            self.rules.extend(rules)

    def release(self, clear=False):
        with self.changed:
            if clear:
                self.rules.clear()
            self.releases += 1
            self.changed.notify_all()

    def record(self, call):
        with self.changed:
            self.calls.append(call)
            self.changed.notify_all()

    def wait_for_calls(self, count, op):
        def fitting():
            return [call for call in self.calls if op is None or call["op"] == op]
        with self.changed:
            self.changed.wait_for(lambda: len(fitting()) >= count, timeout=30)
            return fitting()

    def take(self, op, name):
        with self.changed:
            for rule in self.rules:
                if rule["op"] in (op, "*") and rule.get("name", name) == name and rule.get("times", 1) > 0:
                    if "times" in rule:
                        rule["times"] -= 1
                    return dict(rule)
        return None

    def hold(self, rule):
        with self.changed:
            before = self.releases
            self.changed.wait_for(lambda: self.releases != before, timeout=rule.get("seconds"))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    volumes = None
    faults = None

    def log_message(self, *_args):
        pass

    def address_string(self):
        return "client"

    def reply(self, status, body, content_type="application/vnd.docker.plugins.v1.2+json", headers=()):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def reply_json(self, value, status=200):
        self.reply(status, json.dumps(value).encode())

    def do_GET(self):
        url = urllib.parse.urlparse(self.path)
        query = urllib.parse.parse_qs(url.query)
        if url.path == "/control/calls":
            self.reply_json(self.faults.wait_for_calls(int(query.get("wait", ["0"])[0]), query.get("op", [None])[0]))
        elif url.path == "/control/volumes":
            self.reply_json(self.volumes.summary())
        else:
            self.reply(404, b"404 page not found\n", "text/plain")

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.startswith("/control"):
            return self.control(body)
        op = self.path.rpartition(".")[2]
        request = json.loads(body) if body else {}
        self.faults.record({"op": op, "name": request.get("Name", ""), "id": request.get("ID", ""),
                            "opts": request.get("Opts"), "time": time.time(),
                            "trace": self.headers.get("X-Dvdi-Trace-Id", ""), "accept": self.headers.get("Accept", ""),
                            "type": self.headers.get("Content-Type", "")})
        rule = self.faults.take(op, request.get("Name", ""))
        if rule is None:
            return self.reply_json(*self.answer(op, request))
        if rule["fault"] == "hold":
            if not rule.get("after"):
                self.faults.hold(rule)
            answer = self.answer(op, request)
            if rule.get("after"):
                self.faults.hold(rule)
            return self.reply_json(*answer)
        if rule.get("effect"):
            self.answer(op, request)
        return self.misbehave(rule, request)

    def control(self, body):
        if self.path == "/control":
            try:
                self.faults.add(json.loads(body))
            except (KeyError, TypeError, ValueError) as error:
                return self.reply_json({"Err": repr(error)}, 400)
        elif self.path in ("/control/clear", "/control/release"):
            self.faults.release(clear=self.path == "/control/clear")
        else:
            self.faults.record({"op": self.path, "name": "", "id": ""})
        return self.reply_json({})

    def answer(self, op, request):
        """(JSON, status) of a plugin that behaves."""
        if op == "Activate":
            return {"Implements": ["VolumeDriver"]}, 200
        if op == "Capabilities":
            return {"Capabilities": {"Scope": "local"}}, 200
        work = {"Create": self.volumes.create, "Remove": self.volumes.remove, "Mount": self.volumes.mount,
                "Unmount": self.volumes.unmount, "Path": self.volumes.path, "Get": self.volumes.get,
                "List": self.volumes.list}.get(op)
        if work is None:
            return {"Err": f"unknown call {op}"}, 404
        try:
            return {**work(request), "Err": ""}, 200
        except PluginError as error:
            return {"Err": str(error)}, 200

    def misbehave(self, rule, request):
        fault, status = rule["fault"], rule.get("status", 200)
        if fault == "error":
            self.reply_json({"Err": rule.get("text", "injected failure")}, status)
        elif fault == "plain":
            self.reply(rule.get("status", 500), rule.get("text", "internal error").encode(), "text/plain")
        elif fault == "empty":
            self.reply(status, b"")
        elif fault == "raw":
            self.reply(status, rule["body"].encode())
        elif fault == "half":
            self.reply(status, b'{"Mountpoint": "/tmp/ha')
        elif fault == "mountpoint":
            self.reply_json({"Mountpoint": rule["value"], "Volume": {"Name": request.get("Name"),
                                                                     "Mountpoint": rule["value"]}, "Err": ""})
        elif fault == "lie":
            target = self.volumes.answered_point(request["Name"])
            os.makedirs(target, exist_ok=True)
            self.reply_json({"Mountpoint": target, "Err": ""})
        elif fault == "redirect":
            self.reply(307, b"", "text/plain", [("Location", rule.get("location", "/control/redirected"))])
        elif fault == "missing":
            self.reply(404, b"404 page not found\n", "text/plain")
        else:
            self.close_connection = True
            try:
                self.break_connection(rule)
            except OSError:
                pass  # the client had enough

    def break_connection(self, rule):
        fault = rule["fault"]
        if fault == "hang":
            self.wait_for_hang_up()
        elif fault == "garbage":
            self.connection.sendall(b"\x00\x01\x02 this is not HTTP\r\n\r\n")
        elif fault == "big":
            size = rule.get("bytes", 100_000_000)
            self.connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + b'{"Mountpoint": "/')
            block = b"x" * 65536
            for _ in range(size // len(block)):
                self.connection.sendall(block)
            self.connection.sendall(b'"}')
        elif fault == "drip":
            self.connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n{")
            while True:
                self.connection.sendall(b" ")
                time.sleep(0.05)
        # "close": that was all.

    def wait_for_hang_up(self):
        poller = select.poll()
        poller.register(self.connection, select.POLLHUP | select.POLLRDHUP)
        poller.poll()


class QuietThreads(socketserver.ThreadingMixIn):
    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], OSError):  # a client that is gone is no news
            super().handle_error(request, client_address)


class UnixServer(QuietThreads, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 512


class TcpServer(QuietThreads, socketserver.TCPServer):
    daemon_threads = True
    request_queue_size = 512
    allow_reuse_address = True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="folder for volumes and mounts")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--socket")
    where.add_argument("--port", type=int, help="on 127.0.0.1; 0: any")
    parser.add_argument("--tls-cert")
    parser.add_argument("--tls-key")
    parser.add_argument("--tls-client-ca", help="clients must show a certificate of this authority")
    parser.add_argument("--semantics", choices=["ids", "strict", "calls"], default="ids",
                        help="mounts counted by ID; the same, and repeating one is an error; by calls")
    parser.add_argument("--folder", default="",
                        help="hand out that folder of each mount, which lies in a folder of the volume's name, as REX-Ray does")
    parser.add_argument("--faults", help="a file with a JSON list of rules")
    options = parser.parse_args()

    Handler.volumes = Volumes(options.base, options.semantics, options.folder)
    Handler.faults = Faults()
    if options.faults:
        with open(options.faults, encoding="utf-8") as file:
            Handler.faults.add(json.load(file))
    if options.socket:
        if os.path.exists(options.socket):
            os.unlink(options.socket)
        server = UnixServer(options.socket, Handler)
        address = f"unix://{options.socket}"
    else:
        server = TcpServer(("127.0.0.1", options.port), Handler)
        address = f"127.0.0.1:{server.server_address[1]}"
    if options.tls_cert:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.tls_cert, options.tls_key)
        if options.tls_client_ca:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(options.tls_client_ca)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    print(f"ready {address}", flush=True)
    server.serve_forever(poll_interval=60)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
