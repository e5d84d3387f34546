"""Fixtures of the end-to-end tests; support.py has what is behind them.

Run one file by hand:  DVDI_BIN=build/dev/bin tests/run-e2e python3 tests/e2e/test_main_job.py -k hello
"""

import os

import pytest
import support


def pytest_configure(config):
    if not os.access(support.program(), os.X_OK):
        pytest.exit(f"{support.program()} is not there: build it, or set DVDI_BIN", returncode=2)
    with open("/proc/self/mountinfo", encoding="utf-8") as table:
        # A shared mount would carry the mounts of the tests to the whole machine.
        if any(" shared:" in line.split(" - ")[0] for line in table):
            pytest.exit("run by tests/run-e2e, in a mount namespace of its own", returncode=2)
    support.adopt_orphans()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    if call.when == "call":
        item.call_failed = outcome.get_result().failed


@pytest.fixture
def dvdi(request):
    """A node of its own: dvdi.run(...), dvdi.json(...), dvdi.faulty(), dvdi.rclone(), ... (support.Node)."""
    node = support.Node()
    yield node
    node.finish(getattr(request.node, "call_failed", False))


@pytest.fixture
def rclone(dvdi):
    """The node's rclone, as the driver `rc`."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("there is no /dev/fuse")
    try:
        return dvdi.rclone("rc")
    except FileNotFoundError:
        pytest.skip("there is no rclone: package rclone")
