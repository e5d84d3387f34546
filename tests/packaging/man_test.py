#!/usr/bin/env python3
"""man(1) has nothing to say against the pages of docs/man, and they and the completions name every command and option
that the programs' --help shows.

    man_test.py ROOT BIN
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys

problems = []


def warnings(page):
    done = subprocess.run(["man", "--warnings", "--encoding=UTF-8", "--local-file", "--ditroff", str(page)], text=True,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=60,
                          env=dict(os.environ, LC_ALL="C.UTF-8", MANWIDTH="80", MAN_KEEP_STDERR="1"))
    return done.stderr.strip() or (f"exit code {done.returncode}" if done.returncode else "")


def plain(page):
    done = subprocess.run(["man", "--encoding=UTF-8", "--local-file", str(page)], text=True, capture_output=True, timeout=60,
                          env=dict(os.environ, LC_ALL="C.UTF-8", MANWIDTH="200", MANPAGER="cat", MAN_KEEP_FORMATTING=""))
    return re.sub(r".\x08|\x1b\[[\d;]*m", "", done.stdout)


def help_of(program, *command):
    done = subprocess.run([str(program), *command, "--help"], text=True, capture_output=True, timeout=60)
    return done.stdout


def options_in(text):
    """The long options that a help text defines: at the beginning of an indented line."""
    return set(re.findall(r"^ +(?:-\w, ?)?(--[a-z][a-z-]+)", text, re.M))


def commands_in(text):
    """The names below the heading "Subcommands:", or whatever CLI11 calls it."""
    match = re.search(r"^(?:Subcommands|SUBCOMMANDS|Commands):\n((?: .*\n|\n)+)", text, re.M)
    return re.findall(r"^  ([a-z][a-z-]*)", match.group(1), re.M) if match else []


def check_program(root, program, page, completion):
    manual = plain(root / "docs/man" / page)
    words = set(re.findall(r"--?[\w-]+|\w[\w-]*", (root / "packaging/completions" / completion).read_text(encoding="utf-8")))
    seen, todo = 0, [()]
    while todo:
        command = todo.pop()
        text = help_of(program, *command)
        name = " ".join([program.name, *command])
        if not text:
            problems.append(f"{name} --help says nothing")
            continue
        for inner in commands_in(text):
            todo.append((*command, inner))
            if not re.search(rf"\b{inner}\b", manual):
                problems.append(f"{page} does not name the command `{name} {inner}`")
            if inner not in words:
                problems.append(f"{completion} does not complete `{name} {inner}`")
        for option in options_in(text):
            seen += 1
            if option not in manual:
                problems.append(f"{page} does not name {option} of `{name}`")
            if option not in words:
                problems.append(f"{completion} does not complete {option} of `{name}`")
    return seen


def main():
    root, programs = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
    if not shutil.which("man"):
        print("[  SKIPPED ] man_test (man is not there: tools/packages install test)")
        return 77
    pages = sorted((root / "docs/man").glob("*.[1-8]"))
    for page in pages:
        said = warnings(page)
        if said:
            problems.append(f"man --warnings {page.name} says:\n{said}")
        # The page that the test is about can be read at all.
        if "NAME" not in plain(page):
            problems.append(f"man shows nothing of {page.name}")
    seen = 0
    for program, page in [("dvdi", "dvdi.1"), ("dvdcli", "dvdcli.1"), ("dvdid", "dvdid.8")]:
        seen += check_program(root, programs / program, page, f"{program}.bash")
    for file in sorted((root / "packaging/completions").glob("*.bash")):
        done = subprocess.run(["bash", "-n", str(file)], capture_output=True, text=True, timeout=60)
        if done.returncode:
            problems.append(done.stderr)
    for problem in problems:
        print(problem)
    print(f"{len(pages)} pages, {seen} options, {len(problems)} problems")
    return 1 if problems or len(pages) < 3 or seen < 20 else 0


if __name__ == "__main__":
    sys.exit(main())
