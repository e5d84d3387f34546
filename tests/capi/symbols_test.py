#!/usr/bin/env python3
"""What libdvdi.so shows and needs: the functions of the header and nothing else, as version DVDI_0, under the right soname,
and no library that a program which links it may have in another version (protobuf, above all).

    symbols_test.py ROOT FOLDER-OF-THE-LIBRARY
"""
import pathlib
import re
import subprocess
import sys

NEEDED = {"libcurl.so", "libfmt.so", "libboost_json.so", "libstdc++.so", "libgcc_s.so", "libm.so", "libc.so", "ld-linux-x86-64.so",
          "libasan.so", "libubsan.so", "libtsan.so"}


def output(*command):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True, timeout=60).stdout


def main():
    root, folder = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    library = folder / "libdvdi.so"
    problems = []
    version = re.search(r"project\(dvdi VERSION (\S+)", (root / "CMakeLists.txt").read_text(encoding="utf-8")).group(1)
    if library.resolve().name != f"libdvdi.so.{version}":
        problems.append(f"{library} is {library.resolve().name}")
    if (folder / "libdvdi.so.0").resolve() != library.resolve():
        problems.append("libdvdi.so.0 is not the library")

    header = (root / "include/dvdi/dvdi.h").read_text(encoding="utf-8")
    declared = set(re.findall(r"^DVDI_API [^;(]*?\b(dvdi_\w+)\(", header, re.M))
    exported = set()
    for line in output("nm", "-D", "--defined-only", library).splitlines():
        kind, name = line.split()[-2:]
        if name == "DVDI_0" and kind == "A":
            continue
        plain, _, symbol_version = name.partition("@@")
        if kind != "T" or symbol_version != "DVDI_0":
            problems.append(f"it exports {name} ({kind})")
        exported.add(plain)
    if exported != declared or not declared:
        problems.append(f"exported only: {sorted(exported - declared)}; declared only: {sorted(declared - exported)}")

    dynamic = output("readelf", "--wide", "--dynamic", library)
    if "Library soname: [libdvdi.so.0]" not in dynamic:
        problems.append("its soname is not libdvdi.so.0")
    for name in re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic):
        if name[:name.index(".so") + 3] not in NEEDED:
            problems.append(f"it needs {name}")
    if "TEXTREL" in dynamic:
        problems.append("it is not position independent")

    for problem in problems:
        print(f"libdvdi.so: {problem}")
    print(f"libdvdi.so: {len(exported)} functions, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
