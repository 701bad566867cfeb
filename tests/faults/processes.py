"""The real commands in processes forked from this one, which has imported everything already."""

import os
import resource
import signal
import sys
import time
import traceback
from collections import namedtuple
from pathlib import Path

import animate
import plot_epochs
import plot_multiple
import plot_runs
import plot_single
import table

import image
import prepare_data
import reproduce
import text
import toy
from modules.checkpoint import load_checkpoint
from modules.command import run_command
from tests.conftest import Outcome

SCRIPTS = {
    module.__name__: module
    for module in (
        text,
        image,
        toy,
        prepare_data,
        reproduce,
        animate,
        plot_epochs,
        plot_multiple,
        plot_runs,
        plot_single,
        table,
    )
}
MEMORY = 2**31  # bytes that a process may take beyond what it starts with
PATIENCE = 20  # seconds for what has been asked to stop
Kind = namedtuple("Kind", "script domain run_id args")  # of run, on a tiny data set

SHORT = ("--iw_nsamples", "2", "--save_every", "0", "--train_limit", "14")
KINDS = [
    Kind(
        script,
        script,
        f"{dataset}_aggressive{aggressive}_{run}_0_0_783435",
        ("--dataset", dataset, "--aggressive", str(aggressive), *SHORT),
    )
    for script, dataset, run in (("text", "tiny", "kls1.00_warm10"), ("image", "tinyimages", "ns1_kls1.0_warm10"))
    for aggressive in (0, 1)
]


class Process:
    """A script of the repository, started in `folder` in a process of its own."""

    def __init__(self, script, args, folder):
        self.streams = [folder / ".stdout", folder / ".stderr"]
        self.code, self.pid = None, os.fork()
        if self.pid == 0:
            self._become(SCRIPTS[script].main, [f"{script}.py", *map(str, args)], folder)

    def _become(self, main, argv, folder):
        """Be the command, and end."""
        code = 1
        try:
            os.chdir(folder)
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
            for number, path in enumerate(self.streams, 1):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
            sys.argv = argv
            used = int(Path("/proc/self/statm").read_text().split()[0]) * 4096 if sys.platform == "linux" else 2**34
            resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, -1))
            run_command(main)
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def ended(self, seconds):
        """Whether it has ended, after waiting that long for it at most."""
        until = time.monotonic() + seconds
        while self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() >= until:
                return False
            else:
                time.sleep(0.002)
        return True

    def kill(self):
        """End it at once."""
        os.kill(self.pid, signal.SIGKILL)
        self.ended(60)

    def outcome(self, seconds=120):
        """Its `Outcome`; what takes longer is asked to stop as by Ctrl-C, and AssertionError if it does not."""
        for _ in range(3):
            if self.ended(seconds):
                break
            os.kill(self.pid, signal.SIGINT)
            seconds = PATIENCE
        else:
            self.kill()
            raise AssertionError("hangs, whatever it is told")
        return Outcome(self.code, *(path.read_text(errors="replace") for path in self.streams))


def run(script, args, folder, seconds=120):
    """Run a script to its end: its `Outcome`."""
    return Process(script, args, folder).outcome(seconds)


def model_path(folder, kind):
    """The best model of a run of that kind."""
    return folder / "models" / kind.run_id.partition("_")[0] / f"{kind.run_id}.pt"


def weights(folder, kind):
    """What two runs of a kind must agree in: best model, and the whole last state but for clock, logs and flags."""
    best = load_checkpoint(model_path(folder, kind), kind.domain)
    state = load_checkpoint(model_path(folder, kind).with_suffix(".resume.pt"), kind.domain)
    state["training"]["progress"].pop("seconds")
    state["training"].pop("records")
    for content in (best, state):
        content.pop("args")
    return best, state


def assert_clear(ran, command):
    """It ended as the conventions say: well, or in one line on standard error besides remarks."""
    assert "Traceback" not in ran.stderr, f"{command}\n{ran.stderr[-2000:]}"
    assert ran.returncode in (0, 1, 2, 130), f"{command}: exit code {ran.returncode}: {ran.stderr[-300:]}"
    said = [line for line in ran.stderr.splitlines() if line and not line.startswith("note: ")]
    if ran.returncode == 2:
        one = len(said) == 1 or said and "data sets could not be prepared" in said[-1]  # a line for each of them
        assert one and all("error: " in line for line in said), f"{command}: not one line:\n{ran.stderr[-2000:]}"
