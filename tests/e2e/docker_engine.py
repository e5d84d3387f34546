"""A Docker engine of a test's own."""

import contextlib
import os
import shutil
import subprocess
import tarfile

from support import call, mounts, stop, umount


class Docker:
    """A Docker engine of the test's own, in the mount namespace of the tests."""

    def __init__(self, dvdi):
        self.root = dvdi.root / "docker"
        self.root.mkdir()
        self.socket = str(self.root / "d.sock")
        self.log = self.root / "dockerd.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                ["dockerd", "--iptables=false", "--ip6tables=false", "--bridge=none", "--data-root", str(self.root / "data"),
                 "--exec-root", str(self.root / "exec"), "-H", f"unix://{self.socket}", "--pidfile", str(self.root / "pid")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")
        dvdi.undo.append(self.end)

    def answers(self):
        if self.process.poll() is not None:
            return "ended"
        with contextlib.suppress(OSError):
            return call(self.socket, "GET", "/_ping")[0] == 200
        return False

    def run(self, *args, check=True):
        done = subprocess.run(["docker", "-H", f"unix://{self.socket}", *args], capture_output=True, text=True, timeout=60,
                              check=False, env={"PATH": os.environ["PATH"], "HOME": str(self.root)})
        assert not check or done.returncode == 0, done
        return done.stdout.strip()

    def import_busybox(self):
        tar = self.root / "image.tar"
        with tarfile.open(tar, "w") as archive:
            archive.add(shutil.which("busybox"), "bin/busybox")
            for name in ("sh", "sleep", "cat", "true"):
                link = tarfile.TarInfo(f"bin/{name}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                archive.addfile(link)
        self.run("import", str(tar), "bb")

    def start(self, volume):
        return self.run("run", "--detach", "--network", "none", "--volume-driver", "rc", "--volume", f"{volume}:/data", "bb",
                        "/bin/sleep", "1000000")

    def remove(self, container):
        self.run("rm", "--force", container)

    def shell(self, container, script):
        return self.run("exec", container, "/bin/sh", "-c", script)

    def end(self):
        if self.process.poll() is None:
            for container in self.run("ps", "--all", "--quiet", check=False).split():
                self.remove(container)
        stop(self.process)
        for point in sorted((one[0] for one in mounts() if one[0].startswith(f"{self.root}/")), reverse=True):
            umount(point, lazy=True)
