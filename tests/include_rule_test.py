#!/usr/bin/env python3
"""Keeps the dependency rule of ARCHITECTURE.md: a folder uses only itself and folders before it in the list there.

    include_rule_test.py --root DIR [--links FILE]   reads the includes of DIR/src, and what the CMake targets link
    include_rule_test.py --self-test                 plants violations and looks whether they are found

FILE has a line for each CMake target: name, kind (library, program or test), folder, what it links (";" between).
"""
import argparse
import pathlib
import re
import sys
import tempfile

INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]')
SOURCES = {".h", ".hpp", ".cpp", ".cc", ".c"}


def folder_order(architecture):
    """The folders in their order. Folders inside one ("driver(/docker, /local)") come with the one that holds them."""
    for line in architecture.splitlines():
        if re.match(r"^\s+proto\s+base\s", line):
            break
    else:
        raise SystemExit("ARCHITECTURE.md: the list of folders (a line that begins with 'proto  base') is not there")
    order, inner = [], {}
    for name, parts in re.findall(r"(\w+)(?:\(([^)]*)\))?", line):
        order.append(name)
        inner[name] = re.findall(r"/(\w+)", parts)
    return order, inner


class Rule:
    def __init__(self, architecture):
        self.order, self.inner = folder_order(architecture)

    def place(self, path):
        """("driver", "docker") for driver/docker/x.h; (None, None) for what is in no folder of the list."""
        parts = pathlib.PurePosixPath(path).parts
        if parts == ("dvdi", "dvdi.h"):  # include/dvdi/dvdi.h
            return "capi", None
        if parts[:1] == ("dvdi",):  # generated from proto/dvdi
            return "proto", None
        if len(parts) < 2 or parts[0] not in self.order:
            return None, None
        inner = parts[1] if len(parts) > 2 and parts[1] in self.inner[parts[0]] else None
        return parts[0], inner

    def complaint(self, user, used):
        """Why `user` may not use `used` (two places), or None where it may."""
        if self.order.index(used[0]) > self.order.index(user[0]):
            return f"{user[0]} may not use {used[0]}, which is not before it in the list in ARCHITECTURE.md"
        if used[0] == user[0] and used[1] not in (None, user[1]):
            what = f"{user[0]}/{user[1]}" if user[1] else f"{user[0]} itself"
            return f"{what} may not use {used[0]}/{used[1]}"
        return None


def check_includes(rule, root):
    problems, count = [], 0
    source_root = root / "src"
    for path in sorted(source_root.rglob("*")):
        if path.suffix not in SOURCES or not path.is_file():
            continue
        user = rule.place(path.relative_to(source_root).as_posix())
        where = path.relative_to(root).as_posix()
        if user[0] is None:
            problems.append(f"{where}:1: this folder is not in the list in ARCHITECTURE.md")
            continue
        count += 1
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            quote, name = match.groups()
            used = rule.place(name)
            if quote == "<":
                # <linux/...> is the kernel's; the other names are nobody's but ours.
                if used[0] not in (None, "linux"):
                    problems.append(f'{where}:{number}: {name} is ours: include it as "{name}"')
                continue
            if used[0] is None:
                problems.append(f'{where}:{number}: "{name}" is not a path from src/ (as in "base/result.h")')
                continue
            complaint = rule.complaint(user, used)
            if complaint:
                problems.append(f'{where}:{number}: includes "{name}": {complaint}')
    return problems, count


def check_links(rule, text):
    problems, targets = [], {}
    for line in text.splitlines():
        name, kind, folder, links = line.split("\t")
        place = rule.place(folder.removeprefix("src/") + "/CMakeLists.txt")
        targets[name] = (kind, folder, place, set(re.findall(r"\w+", links)))
    for name, (kind, folder, place, links) in targets.items():
        if place[0] is None:
            problems.append(f"{folder}/CMakeLists.txt: {name}: this folder is not in the list in ARCHITECTURE.md")
            continue
        for used in sorted(links & targets.keys()):
            # Every test may be linked to linux: cmake/Dvdi.cmake does so for the private mount namespace.
            if used == name or (kind == "test" and used == "dvdi_linux"):
                continue
            if targets[used][2][0] is None:
                continue
            complaint = rule.complaint(place, targets[used][2])
            if complaint:
                problems.append(f"{folder}/CMakeLists.txt: {name} links {used}: {complaint}")
    return problems, len(targets)


def self_test():
    rule = Rule("""
        proto  base  linux  capi  driver(/docker, /local)  volume
    """)
    good = {
        "src/base/a.h": "",
        "src/linux/b.h": '#include <linux/fs.h>\n#include <vector>\n#include "base/a.h"\n',
        "src/driver/driver.h": '#include "dvdi/v1/container.pb.h"\n#include "linux/b.h"\n',
        "src/driver/docker/c.h": '#include "driver/driver.h"\n#include "driver/docker/d.h"\n',
        "src/capi/m.cpp": '#include "dvdi/dvdi.h"\n',
        "src/volume/e.cpp": '#include "driver/driver.h"\n#include "volume/f.h"\n',
    }
    # What is planted, and the place that has to be named.
    bad = {
        "src/base/g.cpp": ("// first\n\n#include <string>\n  #  include \"volume/f.h\"\n", "src/base/g.cpp:4:"),
        "src/driver/local/h.h": ('#include "driver/docker/c.h"\n', "src/driver/local/h.h:1:"),
        "src/driver/i.cpp": ('#include "driver/local/h.h"\n', "src/driver/i.cpp:1:"),
        "src/linux/j.cpp": ('#include "b.h"\n', "src/linux/j.cpp:1:"),
        "src/volume/k.h": ("#include <base/a.h>\n", "src/volume/k.h:1:"),
        "src/linux/n.cpp": ('#include "dvdi/dvdi.h"\n', "src/linux/n.cpp:1:"),
        "src/extra/l.h": ("", "src/extra/l.h:1:"),
    }
    with tempfile.TemporaryDirectory() as directory:
        root = pathlib.Path(directory)

        def write(path, text):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text, encoding="utf-8")

        for path, text in good.items():
            write(path, text)
        problems, count = check_includes(rule, root)
        assert problems == [] and count == len(good), problems
        for path, (text, _) in bad.items():
            write(path, text)
        problems, _ = check_includes(rule, root)
        for path, (_, place) in bad.items():
            assert sum(problem.startswith(place) for problem in problems) == 1, (path, problems)
        assert len(problems) == len(bad), problems

    links = "\n".join([
        "dvdi_base\tlibrary\tsrc/base\tdvdi_options;fmt::fmt",
        "dvdi_linux\tlibrary\tsrc/linux\tdvdi_base",
        "base_test\ttest\tsrc/base\tdvdi_linux;dvdi_base",
        "dvdi_docker\tlibrary\tsrc/driver/docker\tdvdi_driver;$<LINK_ONLY:dvdi_linux>",
        "dvdi_driver\tlibrary\tsrc/driver\tdvdi_base",
        "dvdi_local\tlibrary\tsrc/driver/local\tdvdi_driver",
    ])
    assert check_links(rule, links) == ([], 6), check_links(rule, links)
    for planted, place in [
        ("dvdi_bad\tlibrary\tsrc/base\tdvdi_linux", "dvdi_bad links dvdi_linux"),
        ("dvdi_bad\tlibrary\tsrc/base\t$<LINK_ONLY:dvdi_driver>", "dvdi_bad links dvdi_driver"),
        ("dvdi_bad\tlibrary\tsrc/driver/local\tdvdi_docker", "dvdi_bad links dvdi_docker"),
        ("bad_test\ttest\tsrc/base\tdvdi_driver", "bad_test links dvdi_driver"),
        ("dvdi_bad\tlibrary\tsrc/extra\tdvdi_base", "dvdi_bad: this folder"),
    ]:
        problems, _ = check_links(rule, links + "\n" + planted)
        assert len(problems) == 1 and place in problems[0], (planted, problems)
    print(f"each of {len(bad)} planted includes and 5 planted links was found")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=pathlib.Path)
    parser.add_argument("--links", type=pathlib.Path)
    parser.add_argument("--self-test", action="store_true")
    arguments = parser.parse_args()
    if arguments.self_test:
        self_test()
        return 0
    rule = Rule((arguments.root / "ARCHITECTURE.md").read_text(encoding="utf-8"))
    problems, files = check_includes(rule, arguments.root)
    summary = f"{files} files"
    if arguments.links:
        found, targets = check_links(rule, arguments.links.read_text(encoding="utf-8"))
        problems += found
        summary += f" and {targets} targets"
    for problem in problems:
        print(problem)
    if files == 0:
        print("no source files were found: wrong --root?")
    print(f"{summary} read, {len(problems)} against the rule")
    return 1 if problems or files == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
