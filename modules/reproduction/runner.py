"""How far runs are, from their files alone; and their commands run, several at a time, each a process of its own."""

import os
import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from subprocess import DEVNULL, Popen
from typing import NamedTuple

from tqdm import tqdm

from modules.command import UserError
from modules.reports.log_reader import read_events, summarise
from modules.settings import REPOSITORY, saved_settings
from modules.training.run_files import LOGS

STOPPED = (130, -signal.SIGINT, -signal.SIGTERM)  # exit codes of a script that was asked to stop
FAILED = "failed: "  # with it begins the last line of a failed run's file of errors, which says why


class State(NamedTuple):
    """Where a run stands: "finished", "failed", "unfinished" or "not run"; its `summarise`d figures; why it failed."""

    kind: str
    figures: dict
    error: str = ""

    def __str__(self):
        return self.kind + (f": epoch {self.figures['epochs']}" if self.kind == "unfinished" else "")


def state_of(run, logs=LOGS):
    """The State of a run; raises UserError if its log is that of another run."""
    files = replace(run.files, logs=logs)
    log, failure = files.log(), last_line(files.log(".err"))
    try:
        events = read_events(log) if log.is_file() else []
    except UserError as error:
        return State("failed", summarise([]), str(error))
    figures = summarise(events)
    finished = figures["nll"] is not None
    check_as_planned(run, log, events, {"epochs", "iw_nsamples"} if finished else set())
    if not finished and failure.startswith(FAILED):
        return State("failed", figures, failure.removeprefix(FAILED))
    state_is_here = logs == LOGS and run.files.state.is_file()
    begun = state_is_here or any(event["event"] in ("report", "val") for event in events)
    return State("finished" if finished else "unfinished" if begun else "not run", figures)


def state_to_show(run, logs=LOGS):
    """The same, "failed" where the log is that of another run."""
    try:
        return state_of(run, logs)
    except UserError as error:
        return State("failed", summarise([]), str(error))


def check_as_planned(run, log, events, figures_depend_on):
    """Raise UserError if the log was made with other settings than planned. Passed over are settings younger than it,
    and what may change on a resume without a change of figures."""
    made = next((event for event in reversed(events) if event["event"] in ("run", "resume")), {})
    free = {key for key, one in run.s.declared.items() if one.may_change} - figures_depend_on
    mend = f"move the log, {run.files.model} and {run.files.state} to another place, or change the plan"
    run.s.refuse_others(
        saved_settings(made),
        lambda name, value, ours: f"{log}: made with --{name} {value}, but the plan says {ours}; {mend}",
        lambda one: one.name in free,
    )


def last_line(file):
    """The last line of a text file that has something in it; "" if there is none."""
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def run_all(runs, workers):
    """Make all `runs` finished, at most `workers` at a time, and say when each starts and ends.

    Returns ({run id: reason} of those that failed, or were skipped because the run that they need failed, whether this
    was stopped). Ctrl-C and SIGTERM are passed on to the runs, which save and stop; a second one stops them at once.
    """
    waiting, jobs, failed, received, stopping = list(runs), {}, {}, [], False  # jobs: {run: (process, start time)}
    with tqdm(total=len(runs), unit="run", disable=not sys.stderr.isatty()) as bar, ExitStack() as at_the_end:
        for number in (signal.SIGINT, signal.SIGTERM):
            at_the_end.callback(signal.signal, number, signal.signal(number, lambda *call: received.append(call[0])))
        while jobs or (waiting and not stopping):
            ready = [run for run in waiting if run.needs not in (*waiting, *jobs)]
            for run in ready[: 0 if stopping else workers - len(jobs)]:
                waiting.remove(run)
                if run.needs and run.needs.id in failed:
                    _note(failed, "skipped", run, f"needs {run.needs.id}, which failed")
                    continue
                _note(failed, "resumed" if run.files.state.is_file() else "started", run)
                jobs[run] = _start(run, workers), time.monotonic()
                at_the_end.callback(jobs[run][0].wait)
                at_the_end.callback(jobs[run][0].terminate)  # for nothing, unless this command itself fails
            time.sleep(0.1)
            while received:
                stopping, number = True, received.pop(0)
                for process, _ in jobs.values() if os.name == "posix" else ():  # Windows has told them
                    process.send_signal(number)
            for run in [run for run, (process, _) in jobs.items() if process.poll() is not None]:
                _end(run, *jobs.pop(run), stopping, failed)
            bar.update(len(runs) - len(waiting) - len(jobs) - bar.n)
    return failed, stopping


def _start(run, workers):
    """The process of a run, in a session of its own, so that Ctrl-C reaches it only as we pass it on."""
    command = [sys.executable, str(REPOSITORY / run.script), *run.arguments]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    environment = {"OMP_NUM_THREADS": str(max(1, cores // workers)), **os.environ}
    run.files.log().parent.mkdir(parents=True, exist_ok=True)
    with open(run.files.log(".err"), "w") as errors:
        return Popen(command, stdin=DEVNULL, stdout=DEVNULL, stderr=errors, env=environment, start_new_session=True)


def _end(run, process, started, stopping, failed):
    """Note how a run has ended; why it failed is left in its file of errors, for `state_of`."""
    errors, code = run.files.log(".err"), process.returncode
    finished = code == 0 and state_of(run).kind == "finished"
    if finished or (stopping and code in STOPPED):
        errors.unlink(missing_ok=True)
        minutes = (time.monotonic() - started) / 60
        return _note(failed, "finished" if finished else "stopped", run, f"after {minutes:.1f} minutes")
    reason = f"ended by signal {-code}" if code < 0 else code and last_line(errors)
    reason = reason or f"ended with exit code {code}, and {run.files.log()} has no test figures"
    with open(errors, "a") as file:
        print(f"\n{FAILED}{reason}", file=file)
    _note(failed, "failed", run, reason)


def _note(failed, what, run, more=""):
    if what in ("failed", "skipped"):
        failed[run.id] = f"{what}: {more}"
    tqdm.write(f"{what:9} {run.id} {more}".rstrip(), file=sys.stdout)
    sys.stdout.flush()
