#!/usr/bin/env python3
"""A plain consumer of a NATS stream that has dvdi's events: without any library, and without anything of dvdi's.

    nats_consumer.py HOST:PORT [STREAM [SUBJECT]]

reads the stream from its begin, drops what comes twice, and says of each node what it has and whether its chain holds:
exit code 1 where one has a gap or was changed. Speaks the client protocol of NATS over a socket (INFO, CONNECT, SUB,
PUB, MSG, HMSG) and asks JetStream by its subjects ($JS.API.…).
"""

import hashlib
import json
import re
import socket
import sys

GENESIS = "0" * 64
TAIL = re.compile(rb',"hash":"([0-9a-f]{64})"\}$')


class Message:
    def __init__(self, subject, reply, headers, payload):
        self.subject, self.reply, self.headers, self.payload = subject, reply, headers, payload


class Nats:
    """One connection. A status line of the server ("404 No Messages") is headers["Status"]."""

    def __init__(self, host, port, user=None, password=None, timeout=30):
        self.socket = socket.create_connection((host, port), timeout)
        self.file = self.socket.makefile("rb")
        self.info = json.loads(self.line().removeprefix(b"INFO "))
        options = {"verbose": False, "pedantic": False, "headers": True, "no_responders": True, "lang": "python",
                   "version": "0", "protocol": 1}
        if user:
            options |= {"user": user, "pass": password}
        self.asked = 0
        self.inbox = f"_INBOX.consumer{id(self)}"
        self.send(b"CONNECT " + json.dumps(options).encode() + b"\r\n")
        self.send(f"SUB {self.inbox}.* 1\r\n".encode())

    def close(self):
        self.file.close()
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def line(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the server has closed the connection")
        return line[:-2]

    def publish(self, subject, payload=b"", reply=""):
        self.send(f"PUB {subject} {reply + ' ' if reply else ''}{len(payload)}\r\n".encode() + payload + b"\r\n")

    def next_message(self):
        while True:
            line = self.line()
            word, *rest = line.split(b" ")
            if word == b"PING":
                self.send(b"PONG\r\n")
            elif word == b"-ERR":
                raise ConnectionError(line.decode())
            elif word in (b"MSG", b"HMSG"):
                sizes = 2 if word == b"HMSG" else 1
                subject, _sid, *reply = [part.decode() for part in rest[:-sizes]]
                whole = self.file.read(int(rest[-1]))
                self.file.read(2)
                head_size = int(rest[-2]) if word == b"HMSG" else 0
                return Message(subject, reply[0] if reply else "", self.headers(whole[:head_size]), whole[head_size:])

    @staticmethod
    def headers(raw):
        lines = raw.decode().split("\r\n")
        found = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
        status = lines[0].removeprefix("NATS/1.0").strip()
        return {**found, "Status": status} if status else found

    def request(self, subject, payload=b""):
        self.asked += 1
        reply = f"{self.inbox}.{self.asked}"
        self.publish(subject, payload, reply)
        while True:
            message = self.next_message()
            if message.subject == reply:
                if message.headers.get("Status", "").startswith("503"):
                    raise LookupError(f"nobody answers to {subject}")
                return message

    def api(self, call, request=None):
        answer = json.loads(self.request(f"$JS.API.{call}", json.dumps(request or {}).encode()).payload)
        if "error" in answer:
            raise LookupError(f"{call}: {answer['error']}")
        return answer

    def read(self, stream, subject, batch=200):
        """Every message of a stream under a subject, from the first to the last that is there now: a pull consumer."""
        name = self.api(f"CONSUMER.CREATE.{stream}", {"stream_name": stream, "config": {
            "deliver_policy": "all", "ack_policy": "none", "filter_subject": subject}})["name"]
        try:
            while True:
                self.asked += 1
                self.publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}",
                             json.dumps({"batch": batch, "no_wait": True}).encode(), f"{self.inbox}.{self.asked}")
                for count in range(batch):
                    message = self.next_message()
                    status = message.headers.get("Status", "")
                    if status.startswith(("404", "408")):  # no more now
                        if count == 0:
                            return
                        break
                    if status:
                        raise LookupError(status)
                    yield message
        finally:
            self.api(f"CONSUMER.DELETE.{stream}.{name}")


class Chain:
    """The events of one node, as they come. What comes twice is dropped; anything else that is wrong is a problem."""

    def __init__(self):
        self.first = self.last = 0
        self.hash = None
        self.count = self.repeated = 0
        self.hashes = {}
        self.problems = []

    def add(self, raw):
        event = json.loads(raw)
        sequence, end = int(event["sequence"]), TAIL.search(raw)
        # The hash is over the bytes as they are, without the member "hash".
        if not end or hashlib.sha256(raw[:end.start()] + b"}").hexdigest() != end.group(1).decode():
            self.problems.append(f"event {sequence}: it was changed")
            return
        digest = end.group(1).decode()
        if sequence in self.hashes:
            self.repeated += 1
            if self.hashes[sequence] != digest:
                self.problems.append(f"event {sequence}: there are two of that number")
            return
        self.hashes[sequence] = digest
        if self.count == 0:
            self.first = sequence
            if sequence == 1 and event["previoushash"] != GENESIS:
                self.problems.append("event 1 follows another")
        elif sequence != self.last + 1:
            self.problems.append(f"event {sequence} comes after {self.last}")
        elif event["previoushash"] != self.hash:
            self.problems.append(f"event {sequence} does not follow the one before it")
        self.last, self.hash, self.count = sequence, digest, self.count + 1


def read_chains(nats, stream="dvdi", subject="dvdi"):
    """NODE -> Chain."""
    chains = {}
    for message in nats.read(stream, f"{subject}.>"):
        node, kind = message.subject.removeprefix(f"{subject}.").split(".", 1)
        event = json.loads(message.payload)
        chain = chains.setdefault(node, Chain())
        if (event["source"], event["type"]) != (f"/dvdi/node/{node}", kind):
            chain.problems.append(f"event {event['id']} under the subject {message.subject}")
        if (message.headers.get("Nats-Msg-Id"), message.headers.get("content-type")) != (
                event["id"], "application/cloudevents+json"):
            chain.problems.append(f"event {event['id']} with the headers {message.headers}")
        chain.add(message.payload)
    return chains


def main():
    host, port = sys.argv[1].rsplit(":", 1)
    chains = read_chains(Nats(host, int(port)), *sys.argv[2:])
    for node, chain in sorted(chains.items()):
        print(f"{node}: {chain.count} events, {chain.first} to {chain.last}, {chain.repeated} came again, "
              f"{'the chain holds' if not chain.problems else '; '.join(chain.problems[:5])}")
    sys.exit(any(chain.problems for chain in chains.values()))


if __name__ == "__main__":
    main()
