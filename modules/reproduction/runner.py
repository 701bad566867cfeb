"""Runs the commands of a plan, several at a time, each a process of its own that can be stopped and taken up again."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from modules.config import REPOSITORY
from modules.command import Interrupted, UserError
from modules.reproduction.plan import Run
from modules.reproduction.states import flags_to_start, last_line, locked, state_of

POLL_SECONDS = 0.1
INTERRUPTED = 130           # exit code of a script that has saved and stopped


@dataclass(eq=False)
class Job:
    """A run at work. `errors` is its standard error, locked for as long as the process lives."""

    run: Run
    process: subprocess.Popen
    errors: TextIO
    started: float


def run_all(runs, workers):
    """Make all `runs` finished, at most `workers` at a time, and say when each starts and ends.

    Returns {run id: reason} of those that failed, or were skipped because the run that they need failed. On Ctrl-C or
    SIGTERM the runs are asked to save and stop, and when they have, raises Interrupted, with the failures already
    named; a second one stops them at once.
    """
    with tqdm(total=len(runs), unit="run", disable=not sys.stderr.isatty()) as bar, _stop_requests() as received:
        work = Work(runs, workers, bar)
        try:
            while work.jobs or (work.waiting and not received):
                if not received:
                    work.start()
                work.pass_on(received)
                bar.refresh()
                time.sleep(POLL_SECONDS)
                work.collect(stopping=bool(received))
        finally:
            work.stop()
    if received:
        name_failures(work.failed)
        raise Interrupted("the same command goes on from each run's last checkpoint")
    return work.failed


def name_failures(failed):
    """Print {run id: reason} on standard error, a line each."""
    for run_id, reason in failed.items():
        print(f"{run_id} {reason}", file=sys.stderr)


class Work:
    """The runs that wait, those at work, and those that failed."""

    def __init__(self, runs, workers, bar):
        self.waiting, self.jobs, self.failed, self.elsewhere = list(runs), [], {}, set()
        self.bar, self.signals_passed_on = bar, 0
        self.workers = workers
        threads = str(max(1, _cores() // workers))
        self.environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads)}

    def start(self):
        """Start what may start, in order, while there are workers."""
        for run in list(self.waiting):
            if len(self.jobs) == self.workers:
                return
            if run.needs and run.needs.id in self.failed:
                self.waiting.remove(run)
                self._leave(run, "skipped", f"needs {run.needs.id}, which failed")
            elif run.needs not in (*self.waiting, *(job.run for job in self.jobs)):
                self._launch(run)

    def pass_on(self, received):
        """Send the processes the signals that came since the last call."""
        for number in received[self.signals_passed_on:]:
            for job in self.jobs:
                job.process.send_signal(number)
        self.signals_passed_on = len(received)

    def collect(self, stopping):
        """Take note of the processes that have ended."""
        for job in [job for job in self.jobs if job.process.poll() is not None]:
            self.jobs.remove(job)
            self._end(job, stopping)

    def stop(self):
        """Ask what is still at work to save and stop, and wait for it: nothing is, unless this command has failed."""
        for job in self.jobs:
            job.process.terminate()
        for job in self.jobs:
            job.process.wait()

    def _launch(self, run):
        """Start a run, unless another process is at it: then it waits, and may be finished when its turn comes."""
        errors = locked(run.log(".err"))
        if errors is None:
            if run.id not in self.elsewhere:
                self._say("waiting", run, "another process is already working on it")
                self.elsewhere.add(run.id)
            return
        self.waiting.remove(run)
        try:
            errors.truncate(0)
            if state_of(run).kind == "finished":
                self._finish(run, errors, "")
            else:
                self._start_process(run, errors, flags_to_start(run))
        except UserError as error:
            self._fail(run, errors, str(error))

    def _start_process(self, run, errors, more):
        process = subprocess.Popen(
            [sys.executable, str(REPOSITORY / run.script), *run.flags, *more], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=errors, env=self.environment,
            start_new_session=True)         # so that Ctrl-C reaches it once, through us
        self.jobs.append(Job(run, process, errors, time.monotonic()))
        self._say("resumed" if "--resume" in more else "started", run)

    def _end(self, job, stopping):
        code, took = job.process.returncode, f"after {(time.monotonic() - job.started) / 60:.1f} minutes"
        if code == 0 and state_of(job.run).kind == "finished":
            self._finish(job.run, job.errors, took)
        elif stopping and code in (INTERRUPTED, -signal.SIGINT, -signal.SIGTERM):
            _release(job.errors, remove=True)
            self._say("stopped", job.run, took)
        elif code < 0:
            self._fail(job.run, job.errors, f"ended by signal {-code}")
        elif code == 0:
            self._fail(job.run, job.errors, f"ended, but {job.run.log()} has no test figures")
        else:
            self._fail(job.run, job.errors, last_line(job.run.log(".err")) or f"ended with exit code {code}")

    def _finish(self, run, errors, took):
        _release(errors, remove=True)
        self._say("finished", run, took)
        self.bar.update()

    def _fail(self, run, errors, reason):
        """Note a failure, and leave the reason at the end of the file of errors, where `state_of` finds it."""
        if last_line(run.log(".err")) != reason:
            print(reason, file=errors, flush=True)
        _release(errors, remove=False)
        self._leave(run, "failed", reason)

    def _leave(self, run, kind, reason):
        self.failed[run.id] = f"{kind}: {reason}"
        self._say(kind, run, reason)
        self.bar.update()

    def _say(self, what, run, more=""):
        tqdm.write(f"{what:9} {run.id} {more}".rstrip(), file=sys.stdout)
        sys.stdout.flush()


def _release(errors, remove):
    """Give up the lock on a file of errors, and the file if nothing is to be kept in it."""
    if remove:
        Path(errors.name).unlink(missing_ok=True)
    errors.close()


@contextmanager
def _stop_requests():
    """Within: Ctrl-C and SIGTERM are only added to the list that is yielded."""
    received = []
    previous = {number: signal.signal(number, lambda signum, frame: received.append(signum))
                for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, old in previous.items():
            signal.signal(number, old)


def _cores():
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
