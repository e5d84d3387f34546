#!/usr/bin/env python3
"""The simulator itself: one seed is one run, and it finds bugs that were planted.

usage: simulation_test.py FOLDER   with the programs simulate, simulate_bug_1, ..."""

import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

FOLDER = pathlib.Path(sys.argv.pop())


def run(program, *arguments):
    # The budget for what is planted: a minute in all.
    return subprocess.run([FOLDER / program, *arguments], capture_output=True, text=True, timeout=20, check=False)


class OneSeedIsOneRun(unittest.TestCase):
    def trace(self, seed):
        with tempfile.NamedTemporaryFile() as file:
            done = run("simulate", "--seed", str(seed), "--steps", "6000", "--trace", file.name)
            self.assertEqual(done.returncode, 0, done.stderr)
            return pathlib.Path(file.name).read_bytes()

    def test_two_runs_of_one_seed_have_the_same_trace(self):
        for seed in (3, 11):
            first = self.trace(seed)
            self.assertGreater(first.count(b"\n"), 500)
            self.assertEqual(first, self.trace(seed))

    def test_another_seed_is_another_run(self):
        self.assertNotEqual(self.trace(3), self.trace(4))


class WhatIsPlantedIsFound(unittest.TestCase):
    def found(self, number, what):
        program = f"simulate_bug_{number}"
        done = run(program, "--seed", "1", "--steps", "1000000", "--quiet")
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertRegex(done.stderr, what)
        # The command that it names comes to the same place.
        replay = re.search(r"replay: tools/simulate (.*) --trace FILE", done.stderr)
        again = run(program, *replay[1].split())
        self.assertEqual(again.returncode, 1)
        self.assertEqual(re.findall("violation at.*", done.stderr), re.findall("violation at.*", again.stderr))

    def test_a_commit_that_is_not_synced(self):
        self.found(1, "was there and is no more|was acknowledged")

    def test_a_debt_that_is_dropped(self):
        self.found(2, "the ledger knows nothing|at the end")

    def test_an_unmount_under_another_container(self):
        self.found(3, "lost the mount|while .* uses it|has .* mounted, and the ledger says")


if __name__ == "__main__":
    unittest.main()
