#!/usr/bin/env python3
"""The Debian package of what a build folder holds: what is in it, and what its scripts do to a root of their own. How it
installs on a real Debian is tried by tools/fresh-machine --package.

    package_test.py ROOT BUILD
"""
import gzip
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

problems = []


def expect(condition, text):
    if not condition:
        problems.append(text)


def run(*command, **options):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=240, **options)


def check_content(deb, unpacked):
    fields = dict(re.findall(r"^([\w-]+): (.*)$", run("dpkg-deb", "--field", deb).stdout, re.M))
    expect(fields.get("Package") == "dvdi", f"the package is called {fields.get('Package')}")
    for library in ["libc6", "libcurl4", "libsqlite3-0", "libnats"]:
        expect(library in fields.get("Depends", ""), f"it does not depend on {library}: {fields.get('Depends')}")
    for program in ["e2fsprogs", "xfsprogs"]:
        expect(program in fields.get("Recommends", ""), f"it does not recommend {program}")

    listing = run("dpkg-deb", "--contents", deb).stdout.splitlines()
    modes, links = {}, {}
    for line in listing:
        mode, owner, _, _, _, name = line.split(None, 5)
        name = name.removeprefix(".").rstrip("/")
        modes[name.partition(" -> ")[0]] = mode
        expect(owner == "root/root", f"belongs to {owner}: {line}")
        expect(mode[0] in "d-l" and "s" not in mode, f"mode: {line}")
        if mode[0] == "l":
            links[name.partition(" -> ")[0]] = name.partition(" -> ")[2]
        else:
            expect(mode[5] != "w" and mode[8] != "w", f"mode: {line}")
    expected = ["/usr/bin/dvdi", "/usr/bin/dvdcli", "/usr/sbin/dvdid", "/etc/dvdi/dvdi.toml",
                "/lib/systemd/system/dvdid.service", "/lib/systemd/system/dvdid.socket",
                "/usr/lib/tmpfiles.d/dvdi.conf", "/usr/lib/sysusers.d/dvdi.conf",
                "/usr/share/bash-completion/completions/dvdi", "/usr/share/bash-completion/completions/dvdid",
                "/usr/share/bash-completion/completions/dvdcli", "/usr/share/man/man1/dvdcli.1.gz",
                "/usr/share/man/man1/dvdi.1.gz", "/usr/share/man/man8/dvdid.8.gz", "/usr/share/man/man5/dvdi.toml.5.gz",
                "/usr/share/doc/dvdi/copyright", "/usr/share/doc/dvdi/changelog.gz", "/usr/share/doc/dvdi/CHANGELOG.md",
                "/usr/share/doc/dvdi/docs/configuration.md", "/usr/share/doc/dvdi/examples/marathon-hello.json",
                "/usr/share/dvdi/prometheus/dvdi.rules.yml", "/usr/share/dvdi/prometheus/scrape.yml",
                "/usr/include/dvdi/dvdi.h", "/usr/share/doc/dvdi/examples/c/prepare.c"]
    [library] = [path.parent for path in unpacked.rglob("libdvdi.so")] or [unpacked / "usr/lib"]
    for name in ["libdvdi.so", "libdvdi.so.0", "pkgconfig/dvdi.pc", "cmake/dvdi/dvdi-config.cmake",
                 "cmake/dvdi/dvdi-config-version.cmake", "cmake/dvdi/dvdi-targets.cmake"]:
        expected.append(f"/{(library / name).relative_to(unpacked)}")
    for name in expected:
        expect(name in modes, f"it lacks {name}")
    for name, mode in modes.items():
        program = "/bin/" in name or "/sbin/" in name
        if mode[0] != "l":
            expect(mode[0] == "d" or mode == ("-rwxr-xr-x" if program else "-rw-r--r--"), f"mode: {mode} {name}")
        expect(not name.startswith(("/var", "/run", "/usr/local", "/home", "/tmp")), f"it has {name}")
    version = fields.get("Version")
    folder = f"/{library.relative_to(unpacked)}"
    expect(links == {f"{folder}/libdvdi.so": "libdvdi.so.0", f"{folder}/libdvdi.so.0": f"libdvdi.so.{version}"},
           f"the links are {links}")
    # Programs that link the library depend on this package; the linker's cache knows it.
    shlibs = (unpacked / "DEBIAN/shlibs").read_text(encoding="utf-8")
    expect(shlibs == f"libdvdi 0 dvdi (>= {version})\n", f"shlibs: {shlibs}")
    expect("activate-noawait ldconfig" in (unpacked / "DEBIAN/triggers").read_text(encoding="utf-8"), "ldconfig is not run")
    text = gzip.open(unpacked / "usr/share/doc/dvdi/changelog.gz", "rt", encoding="utf-8").read()
    expect(re.match(r"dvdi \([\d.]+\) \w+; urgency=\w+\n\n  \* .*\n\n -- .+ <.+@.+>  \w{3}, \d\d \w{3} \d{4} ", text),
           f"no Debian changelog: {text}")
    conffiles = (unpacked / "DEBIAN/conffiles").read_text(encoding="utf-8").split()
    expect(conffiles == sorted(name for name in modes if name.startswith("/etc/") and modes[name][0] == "-"),
           f"conffiles: {conffiles}")
    for script in ["postinst", "prerm", "postrm"]:
        path = unpacked / "DEBIAN" / script
        expect(path.stat().st_mode & 0o777 == 0o755, f"{script} is not to be run")
        done = run("sh", "-n", path)
        expect(done.returncode == 0, f"{script}: {done.stderr}")
    programs = [path for path in unpacked.rglob("*bin/*") if path.is_file()]
    expect(sorted(path.name for path in programs) == ["dvdcli", "dvdi", "dvdid"], f"the programs are {programs}")
    for name in [*programs, library / "libdvdi.so"]:
        sections = run("readelf", "--wide", "--sections", "--dynamic", name).stdout
        expect(".symtab" not in sections, f"{name.name} is not stripped")
        expect("RUNPATH" not in sections and "RPATH" not in sections, f"{name.name} looks for libraries in a build folder")


def fresh_root(folder):
    root = pathlib.Path(folder)
    for name in ["etc", "run/dvdi", "usr/lib/sysusers.d", "usr/lib/tmpfiles.d", "lib/systemd/system", "var/lib"]:
        (root / name).mkdir(parents=True)
    (root / "etc/group").write_text("root:x:0:\n", encoding="utf-8")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n", encoding="utf-8")
    return root


def make_state(root, volume):
    state = root / "var/lib/dvdi"
    for name in ["sandboxes/c1", "local/mnt", "local/volumes"]:
        (state / name).mkdir(parents=True, exist_ok=True)
    for name in ["state.db", "state.db-wal", "locks", "engine.lock", "sandboxes/c1/file", "local/locks", "local/mnt.lock",
                 "state.db.damaged-20261124T000000Z"]:
        (state / name).write_text("x", encoding="utf-8")
    if volume:
        (state / "local/volumes/v/data").mkdir(parents=True)
        (state / "local/volumes/v/data/precious").write_text("x", encoding="utf-8")
    return state


def check_scripts(unpacked):
    def script(root, name, *arguments, before=()):
        environment = dict(os.environ, DPKG_ROOT=str(root), DPKG_MAINTSCRIPT_PACKAGE="dvdi")
        done = run(*before, "sh", unpacked / "DEBIAN" / name, *arguments, env=environment)
        expect(done.returncode == 0, f"{name} {arguments}: {done.returncode} {done.stdout} {done.stderr}")
        return done.stdout + done.stderr

    with tempfile.TemporaryDirectory(prefix="dvdi-package.") as folder:
        root = fresh_root(folder)
        for name in ["usr/lib/sysusers.d", "usr/lib/tmpfiles.d", "lib/systemd/system"]:
            shutil.copytree(unpacked / name, root / name, dirs_exist_ok=True)
        for _ in range(2):  # installed, then upgraded
            script(root, "postinst", "configure", "")
        wants = root / "etc/systemd/system/sockets.target.wants/dvdid.socket"
        expect(wants.is_symlink(), "postinst does not enable the socket")
        enabled = [path.name for path in (root / "etc/systemd").rglob("dvdid.service")]
        expect(not enabled, "postinst enables the service")
        expect("\ndvdi:" in (root / "etc/group").read_text(encoding="utf-8"), "postinst makes no group")
        # What the administrator has disabled stays so.
        wants.unlink()
        script(root, "postinst", "configure", "0.0.9")
        expect(not wants.is_symlink(), "postinst enables what was disabled")
        state = make_state(root, volume=True)
        script(root, "prerm", "remove")
        script(root, "postrm", "remove")
        expect((state / "state.db").exists(), "removing the package removes the ledger")
        said = script(root, "postrm", "purge")
        expect((state / "local/volumes/v/data/precious").exists(), "purging the package removes a volume's data")
        expect("local/volumes is kept" in said, f"purging does not say that volumes are kept: {said}")
        expect(not (state / "state.db").exists() and not (state / "sandboxes").exists(), "purging keeps the ledger")
        script(root, "postrm", "purge")

    with tempfile.TemporaryDirectory(prefix="dvdi-package.") as folder:
        root = fresh_root(folder)
        state = make_state(root, volume=False)
        (state / "not-ours").write_text("x", encoding="utf-8")
        said = script(root, "postrm", "purge")
        expect((state / "not-ours").exists() and "did not make" in said, f"purging removes what dvdi did not make: {said}")
        (state / "not-ours").unlink()
        said = script(root, "postrm", "purge")
        expect(not state.exists() and not said, f"purging leaves a state directory without volumes: {said}")

    if os.geteuid() != 0:
        print("[  SKIPPED ] package_test, purging with a mount (only root can mount)")
        return
    with tempfile.TemporaryDirectory(prefix="dvdi-package.") as folder:
        root = fresh_root(folder)
        state = make_state(root, volume=False)
        said = script(root, "postrm", "purge", before=[
            "unshare", "--mount", "--propagation", "private", "sh", "-c",
            f'mount -t tmpfs none {state}/local/mnt && "$@"', "sh"])
        expect((state / "state.db").exists(), "purging removes the ledger under a mount")
        expect("something is mounted" in said, f"purging does not say what is mounted: {said}")


def main():
    root, build = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
    for program in ["cpack", "dpkg-shlibdeps", "dpkg-deb", "deb-systemd-helper"]:
        if not shutil.which(program):
            print(f"[  SKIPPED ] package_test ({program} is not there: tools/packages install package)")
            return 77
    done = run(root / "tools/package", "--from", build)
    if done.returncode:
        print(done.stdout, done.stderr)
        return 1
    deb, = (build / "package").glob("dvdi_*.deb")
    with tempfile.TemporaryDirectory(prefix="dvdi-package.") as folder:
        unpacked = pathlib.Path(folder) / "unpacked"
        run("dpkg-deb", "--raw-extract", deb, unpacked)
        check_content(deb, unpacked)
        check_scripts(unpacked)
    for problem in problems:
        print(problem)
    print(f"{deb.name}: {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
