"""An operator, an account and a user of a nats-server that knows its users by signed tokens (JWT), as `nsc` makes them."""

import base64
import binascii
import json
import os
import pathlib
import subprocess
import tempfile

OPERATOR, ACCOUNT, USER, SEED = 14 << 3, 0, 20 << 3, 18 << 3


def encoded(raw):
    """With its checksum, in base 32: the text form of a key."""
    return base64.b32encode(raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")).rstrip(b"=").decode()


class Key:
    """An ed25519 key of one kind; openssl does the arithmetic."""

    def __init__(self, kind):
        seed = os.urandom(32)
        self.der = bytes.fromhex("302e020100300506032b657004220420") + seed
        public = self.openssl("pkey", "-inform", "DER", "-pubout", "-outform", "DER", "-in")[-32:]
        self.public = encoded(bytes([kind]) + public)
        self.seed = encoded(bytes([SEED | kind >> 5, (kind & 31) << 3]) + seed)

    def openssl(self, *args, **more):
        with tempfile.NamedTemporaryFile() as file:
            file.write(self.der)
            file.flush()
            return subprocess.run(["openssl", *args, file.name], check=True, capture_output=True, **more).stdout

    def token(self, subject, name, claims):
        """A JWT that this key signs."""
        def part(value):
            return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
        body = {"jti": name, "iat": 1700000000, "iss": self.public, "sub": subject, "name": name,
                "nats": {"version": 2, **claims}}
        text = ".".join(part(json.dumps(one).encode()) for one in ({"typ": "JWT", "alg": "ed25519-nkey"}, body))
        with tempfile.NamedTemporaryFile() as message:
            message.write(text.encode())
            message.flush()
            signature = self.openssl("pkeyutl", "-sign", "-rawin", "-in", message.name, "-keyform", "DER", "-inkey")
        return f"{text}.{part(signature)}"


def make_account(folder: pathlib.Path, jetstream_folder):
    """Writes FOLDER/accounts.conf for the server and FOLDER/user.creds for its user."""
    operator, system, account, user = Key(OPERATOR), Key(ACCOUNT), Key(ACCOUNT), Key(USER)
    no_limits = {name: -1 for name in ("subs", "data", "payload", "imports", "exports", "conn", "leaf", "mem_storage",
                                       "disk_storage", "streams", "consumer")}
    # The server's own account may not have JetStream.
    own_limits = {**no_limits, "mem_storage": 0, "disk_storage": 0}
    tokens = {one.public: operator.token(one.public, "account", {
        "type": "account", "limits": {**limits, "wildcards": True}, "default_permissions": {"pub": {}, "sub": {}}})
        for one, limits in ((account, no_limits), (system, own_limits))}
    preload = ", ".join(f"{public}: {token}" for public, token in tokens.items())
    (folder / "accounts.conf").write_text(
        f"operator: {operator.token(operator.public, 'operator', {'type': 'operator'})}\n"
        f"system_account: {system.public}\nresolver: MEMORY\nresolver_preload {{ {preload} }}\n"
        f"jetstream {{ store_dir: \"{jetstream_folder}\" }}\n")
    user_token = account.token(user.public, "user", {
        "type": "user", "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1})
    credentials = folder / "user.creds"
    credentials.write_text(
        f"-----BEGIN NATS USER JWT-----\n{user_token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n")
    credentials.chmod(0o600)
    return credentials
