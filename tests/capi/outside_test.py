#!/usr/bin/env python3
"""A program outside the tree builds with the libdvdi that was installed under a prefix: by pkg-config, by CMake, as C and as
C++; and it runs with that library. The prefix is then moved: nothing in it may name the place where it was.

    outside_test.py ROOT BUILD
"""
import os
import pathlib
import subprocess
import sys
import tempfile

PROJECT = """cmake_minimum_required(VERSION 3.25)
project(outside C CXX)
find_package(dvdi {version} REQUIRED)
add_executable(cmake_c main.c)
target_link_libraries(cmake_c dvdi::dvdi)
add_executable(cmake_cpp main.cpp)
target_link_libraries(cmake_cpp dvdi::dvdi)
"""
MAIN = """#include <dvdi/dvdi.h>
#include <stdio.h>
int main(void) {
  dvdi_client *client = dvdi_client_new("/nowhere/dvdid.sock");
  dvdi_answer *answer = dvdi_call(client, "GET", "/healthz", NULL, 0, 1000, NULL);
  int away = dvdi_answer_code(answer) == DVDI_UNAVAILABLE;
  printf("%s %s\\n", dvdi_version(), dvdi_code_name(dvdi_answer_code(answer)));
  dvdi_answer_free(answer);
  dvdi_client_free(client);
  return away ? 0 : 1;
}
"""
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]


def run(*command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60, check=False, **options)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def use(prefix, work):
    """Builds and runs what is in `work` with what is in `prefix`; what the programs said."""
    [pc] = prefix.rglob("dvdi.pc")
    environment = {name: value for name, value in os.environ.items() if name not in ("LD_LIBRARY_PATH", "CMAKE_PREFIX_PATH")}
    environment["PKG_CONFIG_PATH"] = str(pc.parent)
    version = run("pkg-config", "--modversion", "dvdi", env=environment).strip()
    flags = run("pkg-config", "--cflags", "--libs", "dvdi", env=environment).split()
    if not all(flag.startswith(("-I", "-L", "-l")) for flag in flags):
        sys.exit(f"pkg-config: {flags}")
    run("cc", "-std=c99", *WARNINGS, "main.c", "-o", "pkg_c", *flags, cwd=work, env=environment)
    run("c++", *WARNINGS, "main.cpp", "-o", "pkg_cpp", *flags, cwd=work, env=environment)
    (work / "CMakeLists.txt").write_text(PROJECT.format(version=version), encoding="utf-8")
    run("cmake", "-S", work, "-B", work / "build", f"-DCMAKE_PREFIX_PATH={prefix}", "-DCMAKE_FIND_USE_PACKAGE_REGISTRY=OFF",
        "-DCMAKE_FIND_USE_CMAKE_SYSTEM_PATH=OFF", env=environment)
    run("cmake", "--build", work / "build", env=environment)
    said = [run(work / name, env={**environment, "LD_LIBRARY_PATH": str(pc.parent.parent)}) for name in ("pkg_c", "pkg_cpp")]
    # CMake writes where the library is into what it builds.
    said += [run(work / "build" / name, env=environment) for name in ("cmake_c", "cmake_cpp")]
    return version, said


def main():
    root, build = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
    with tempfile.TemporaryDirectory(prefix="dvdi-outside.") as folder:
        folder = pathlib.Path(folder)
        prefix = folder / "prefix"
        run("cmake", "--install", build, "--component", "libdvdi", "--prefix", prefix)
        files = [path for path in prefix.rglob("*") if path.is_file()]
        if (prefix / "include/dvdi/dvdi.h").read_bytes() != (root / "include/dvdi/dvdi.h").read_bytes():
            sys.exit("another header was installed")
        for path in files:
            if path.suffix in (".pc", ".cmake", ".h") and any(
                    str(place) in path.read_text(encoding="utf-8") for place in (root, build, folder)):
                sys.exit(f"{path.relative_to(prefix)} names a folder of this machine")
        prefix = prefix.rename(folder / "moved")
        for name in ("main.c", "main.cpp"):
            (folder / name).write_text(MAIN, encoding="utf-8")
        version, said = use(prefix, folder)
        if said != [f"{version} unavailable\n"] * 4:
            sys.exit(f"the programs said {said}")
    print(f"{len(files)} files installed; four programs built with them and run")
    return 0


if __name__ == "__main__":
    sys.exit(main())
