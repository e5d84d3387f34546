#!/usr/bin/env python3
"""The systemd units, the tmpfiles and the sysusers of packaging/: systemd finds nothing wrong with them, dvdid stays in
the machine's mount namespace, and what they say fits the rest.

    units_test.py ROOT
"""
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

# Each gives a service a mount namespace of its own (systemd.exec(5)): the tasks would not see what dvdid mounts there.
# The comment in dvdid.service has the same list.
NAMESPACE = """
ProtectSystem ProtectHome ProtectProc ProcSubset ProtectKernelTunables ProtectKernelModules ProtectKernelLogs
ProtectControlGroups PrivateTmp PrivateDevices PrivateMounts PrivateIPC IPCNamespacePath MountFlags MountAPIVFS
ReadWritePaths ReadOnlyPaths InaccessiblePaths ExecPaths NoExecPaths BindPaths BindReadOnlyPaths TemporaryFileSystem
RootDirectory RootImage MountImages ExtensionImages ExtensionDirectories LogNamespace DynamicUser
""".split()

problems = []


def expect(condition, text):
    if not condition:
        problems.append(text)


def settings(text):
    """The assignments of a unit as (section, key, value)."""
    section, found = "", []
    for line in text.replace("\\\n", " ").splitlines():
        line = line.strip()
        if line.startswith("["):
            section = line.strip("[]")
        elif line and line[0] not in "#;":
            key, _, value = line.partition("=")
            found.append((section, key.strip(), value.strip()))
    return found


def verify(units, names):
    """What systemd-analyze verify prints about units in a root of their own. It ends with 0 whatever it finds."""
    with tempfile.TemporaryDirectory(prefix="dvdi-units.") as root:
        folder = pathlib.Path(root) / "lib/systemd/system"
        folder.mkdir(parents=True)
        # The units that ours name, as this machine has them.
        for target in pathlib.Path("/lib/systemd/system").glob("*.target"):
            shutil.copy(target, folder)
        for name, text in units.items():
            (folder / name).write_text(text, encoding="utf-8")
        for program in re.findall(r"^Exec\w+=[-+!@:]*(/\S+)", "\n".join(units.values()), re.M):
            stand_in = pathlib.Path(root) / program[1:]
            stand_in.parent.mkdir(parents=True, exist_ok=True)
            stand_in.write_text("#!/bin/sh\n", encoding="utf-8")
            stand_in.chmod(0o755)
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", f"--root={root}", *names],
                              capture_output=True, text=True, timeout=60)
        return (done.stdout + done.stderr).strip()


def seconds(text):
    units = {"s": 1, "sec": 1, "": 1, "min": 60, "m": 60, "h": 3600}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)\s*([a-z]*)", text))


def default_of(root, key):
    """The default that docs/configuration.md gives for a key of the file's first table, in seconds."""
    text = (root / "docs/configuration.md").read_text(encoding="utf-8")
    match = re.search(rf'^{key} = "?([^"\n]+)"?$', text, re.M)
    return seconds(match.group(1)) if match else None


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    if not shutil.which("systemd-analyze"):
        print("[  SKIPPED ] units_test (systemd-analyze is not there: tools/packages install test)")
        return 77
    folder = root / "packaging/systemd"
    units = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.iterdir())}
    expect(set(units) == {"dvdid.service", "dvdid.socket"}, f"{folder} has {sorted(units)}")
    printed = verify(units, sorted(units))
    expect(not printed, f"systemd-analyze verify says:\n{printed}")
    # It would say something: a wrong key, a program that is not there.
    for name, right, wrong in [("dvdid.service", "Type=notify", "Typ=notify"),
                               ("dvdid.socket", "SocketMode=0660", "SocketMode=rw"),
                               ("dvdid.service", "SystemCallFilter=~@clock", "SystemCallFilter=~@watch")]:
        expect(right in units[name], f"{name} has no {right}")
        broken = dict(units, **{name: units[name].replace(right, wrong)})
        expect(verify(broken, sorted(units)), f"{name}: systemd-analyze verify does not see {wrong}")

    service, socket = settings(units["dvdid.service"]), settings(units["dvdid.socket"])
    for _, key, _ in service:
        expect(key not in NAMESPACE, f"dvdid.service: {key}= hides dvdid's mounts in a mount namespace")
    commented = set(re.findall(r"\w+", "\n".join(re.findall(r"^#.*$", units["dvdid.service"], re.M))))
    for key in NAMESPACE:
        expect(key in commented, f"dvdid.service: the comment does not name {key}")

    def values(of, key):
        return [value for _, name, value in of if name == key]

    expect(values(socket, "SocketGroup") == ["root"], "dvdid.socket: the socket is not root's alone")
    expect(values(socket, "SocketMode") == ["0660"], "dvdid.socket: the mode of the socket")
    listens = values(socket, "ListenStream")
    expect(listens == ["/run/dvdi/dvdid.sock"], f"dvdid.socket: listens on {listens}")
    # Without it the socket's folder goes when the service stops, and the socket with it.
    expect(values(service, "RuntimeDirectoryPreserve") == ["yes"], "dvdid.service: RuntimeDirectoryPreserve=yes")
    expect(values(service, "StateDirectoryMode") == ["0711"], "dvdid.service: StateDirectoryMode=0711")
    drain = default_of(root, "drain_timeout")
    stop = seconds(values(service, "TimeoutStopSec")[0])
    expect(drain is not None, "docs/configuration.md has no drain_timeout")
    expect(drain is None or stop >= drain + 30, f"dvdid.service: TimeoutStopSec is {stop} s, drain_timeout {drain} s")

    with tempfile.TemporaryDirectory(prefix="dvdi-tmpfiles.") as made:
        for program, arguments, file in [("systemd-tmpfiles", ["--create"], "tmpfiles/dvdi.conf"),
                                         ("systemd-sysusers", [], "sysusers/dvdi.conf")]:
            if program == "systemd-tmpfiles":
                (pathlib.Path(made) / "etc").mkdir()
                (pathlib.Path(made) / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n", encoding="utf-8")
                (pathlib.Path(made) / "etc/group").write_text("root:x:0:\n", encoding="utf-8")
            done = subprocess.run([program, *arguments, f"--root={made}", str(root / "packaging" / file)],
                                  capture_output=True, text=True, timeout=60)
            said = "\n".join(line for line in (done.stdout + done.stderr).splitlines() if "Creating group" not in line)
            expect(done.returncode == 0 and not said, f"{program} {file}: {done.returncode} {said}")
        state = pathlib.Path(made) / "var/lib/dvdi"
        expect(state.is_dir() and state.stat().st_mode & 0o7777 == 0o711, "tmpfiles: /var/lib/dvdi with mode 0711")
        group = (pathlib.Path(made) / "etc/group").read_text(encoding="utf-8")
        expect(re.search(r"^dvdi:", group, re.M), "sysusers: the group dvdi")
        passwd = (pathlib.Path(made) / "etc/passwd").read_text(encoding="utf-8")
        expect("dvdi" not in passwd, "sysusers: a user dvdi, which is not needed")

    for problem in problems:
        print(problem)
    print(f"{len(units)} units, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
