from support import EXAMPLES


def test_marathon_example_run_twice_shows_two_lines(dvdi):
    app = EXAMPLES / "marathon-hello.json"
    first = dvdi.run("run", app, code=0).stdout.splitlines()
    second = dvdi.run("run", app, code=0).stdout.splitlines()
    assert len(first) == 1 and len(second) == 2
    assert second[0] == first[0]


def test_rclone_smoke(dvdi):
    dvdi.rclone("rc")
    dvdi.run("run", EXAMPLES / "volumes.json", "--", "sh", "-c", "date > data/x; cat data/x", code=0)


def test_faulty_smoke(dvdi):
    p = dvdi.faulty("f")
    p.rule("Mount", "error", times=1, text="nope")
    assert "nope" in dvdi.run("run", "--volume", "f/v:data", "--", "true", code=125).stderr
    dvdi.run("run", "--volume", "f/v:data", "--", "true", code=0)
    assert len(p.calls("Mount")) == 2
