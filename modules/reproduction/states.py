"""How far a run has come, from its files alone."""

import fcntl
import os
from contextlib import suppress
from dataclasses import dataclass

from modules.cli import LOGS, MAY_CHANGE_ON_RESUME
from modules.config import load_config
from modules.command import UserError
from modules.reports.log_reader import read_events, summarise

FIGURES_DEPEND_ON = {"epochs", "iw_nsamples"}       # what may change on a resume, but not between figures of one table
PATHS = {"encoder_from", "load_path", "train_data", "val_data", "test_data", "data_file"}


@dataclass(frozen=True)
class State:
    """Where a run stands: "finished", "running", "failed", "unfinished", "not run", or "damaged" if its log cannot be
    read; and what it has to show."""

    kind: str
    figures: dict           # as `summarise` returns them
    error: str = ""         # of a failed run, the last line of its standard error; of a damaged one, what is wrong

    def __str__(self):
        epochs = self.figures["epochs"]
        return f"{self.kind}: epoch {epochs}" if self.kind in ("running", "unfinished") else self.kind


def state_of(run, logs=LOGS):
    """The State of a run; raises UserError if its log is that of another run.

    A process started by the runner holds a lock on its .err file as long as it lives, even if the command that started
    it has ended.
    """
    path = run.log(logs=logs)
    try:
        events = read_events(path) if path.is_file() else []
    except UserError as error:
        return State("damaged", summarise([]), str(error))
    figures = summarise(events)
    _check_as_planned(run, path, events, figures["nll"] is not None)
    errors = run.log(".err", logs)
    if figures["nll"] is not None:
        return State("finished", figures)
    if _is_locked(errors):
        return State("running", figures)
    if last_line(errors):
        return State("failed", figures, last_line(errors))
    return State("unfinished" if run.state.is_file() or _has_trained(events) else "not run", figures)


def flags_to_start(run):
    """What a run's command needs besides its flags, after what an earlier one left: to go on, to begin, to begin anew.

    Raises UserError if work would be lost.
    """
    events = read_events(run.log()) if run.log().is_file() else []
    if run.state.is_file():
        if not any(event["event"] == "run" for event in events):
            raise UserError(f"{run.state}: the beginning of its run's log, {run.log()}, is missing; put the log back, "
                            f"or, to begin again, move this file and {run.model} away too")
        return ("--resume",)
    if _has_trained(events):
        raise UserError(f"{run.log()}: this run was stopped, and the state to go on from, {run.state}, is missing; "
                        f"put it back, or, to begin again, move the log and {run.model} away")
    killed_at_once = run.log(".log").is_file() and not run.model.is_file()      # before its first checkpoint
    return ("--overwrite",) if killed_at_once else ()


def last_line(path):
    """The last line of a text file that has something in it; "" if there is none."""
    with suppress(FileNotFoundError):
        lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        return lines[-1].strip() if lines else ""
    return ""


def locked(path):
    """The file, opened for appending and locked; None while another process holds the lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(path, "a", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    if not _is_at(file, path):
        file.close()
        return locked(path)         # another process removed the file between the two calls: ours is no longer there
    return file


def _is_at(file, path):
    """Whether an open file is still the one at `path`."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False


def _is_locked(path):
    if not path.is_file():
        return False
    file = locked(path)
    if file:
        file.close()
    return file is None


def _has_trained(events):
    return any(event["event"] in ("report", "val") for event in events)


def _check_as_planned(run, path, events, finished):
    """Raise UserError if the log was made with other settings than planned; flags younger than it are passed over."""
    started = [event for event in events if event["event"] in ("run", "resume")]
    if not started:
        return
    free = (MAY_CHANGE_ON_RESUME - (FIGURES_DEPEND_ON if finished else set())) | PATHS
    planned = {"args": vars(run.args), "config": load_config(run.args.dataset, run.keys, vars(run.args))}
    for part, ours in planned.items():
        for name, value in started[-1].get(part, {}).items():
            if name not in free and name in ours and value != ours[name]:
                raise UserError(f"{path}: made with --{name} {value}, but the plan says {ours[name]}; move the log, "
                                f"{run.model} and {run.state} to another place, or change the plan")
