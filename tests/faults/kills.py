"""Training that is killed at random moments and taken up again."""

import json
import re
import time

from tests.conftest import make_image_workspace, make_workspace
from tests.faults.processes import KINDS, Process, run, weights
from tests.test_resume import same

MOST_KILLS = 9  # of one run


def workspace(kind, folder):
    """The tiny data set that a kind of run is of, in `folder`."""
    return (make_workspace if kind.domain == "text" else make_image_workspace)(folder)


def records(folder):
    """The log, and the JSON events, without what the clock and a resume add."""
    (log,) = (folder / "logs").rglob("*.log")
    lines = re.sub(r"time elapsed \S+s", "", log.read_text()).splitlines()
    events = [json.loads(line) for line in log.with_suffix(".jsonl").read_text().splitlines()]
    return lines, [
        {name: value for name, value in event.items() if name not in ("seconds", "git_commit", "args")}
        for event in events
        if event["event"] != "resume"
    ]


def names(folder):
    """The files that a run has left."""
    return sorted(path.name for top in ("models", "logs") for path in (folder / top).rglob("*"))


class Kills:
    """A trial is one run, killed some times and then left to end: it must be as one that nothing disturbed."""

    def __init__(self, folder):
        self.whole = []
        for kind in KINDS:
            place = workspace(kind, folder / kind.run_id)
            started = time.monotonic()
            ran = run(kind.script, kind.args, place)
            assert ran.returncode == 0, ran.stderr
            self.whole.append((kind, place, time.monotonic() - started))

    def __call__(self, rng, folder):
        kind, whole, seconds = rng.choice(self.whole)
        place, ends, flags = workspace(kind, folder / "run"), [], []
        for _ in range(rng.randint(1, MOST_KILLS)):
            process = Process(kind.script, [*kind.args, *flags, "--save_every", rng.choice((0, 10))], place)
            if process.ended(rng.uniform(0, seconds / 3)):
                break
            process.kill()
            ends.append("killed and the same to the bit")
            flags = ["--resume"]
        ran = run(kind.script, [*kind.args, "--resume"], place)
        assert ran.returncode == 0, f"{kind.run_id}, killed {len(ends)} times: {ran.stderr}"
        assert same(weights(place, kind), weights(whole, kind)), f"{kind.run_id}: other weights"
        assert records(place) == records(whole), f"{kind.run_id}: other records"
        assert names(place) == names(whole), f"{kind.run_id}: {names(place)}"
        return ends
