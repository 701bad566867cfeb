"""What an earlier run of the same name has left: a state to go on from, or files that make way or stand in the way."""

import json
from contextlib import suppress

from modules.checkpoint import load_checkpoint
from modules.command import UserError, note
from modules.files import clear_leftovers, replacing
from modules.settings import saved_settings
from modules.training.scalars import EVENT_FILES


def clear_leftovers_of(files):
    """Remove what is left of writes that were cut short; the run must be held."""
    for path in (files.model, files.state, files.log(".png")):
        clear_leftovers(path)


def saved_state(files, statistics, description, s):
    """The state to resume from; raises UserError if it, or an observer's `statistics`, {path: the record of their
    settings}, are another run's."""
    path = files.state
    saved = load_checkpoint(path, description["domain"])
    if not {"model", "training", "args"} <= saved.keys():
        raise UserError(f"{path}: a model, but not the state of a run to go on with; start again with --overwrite")
    s.refuse_others(
        saved_settings(saved),
        lambda name, its_own, ours: (
            f"{path}: the run was started with {name} = {its_own}, not {ours}; resume it with what it was started with"
        ),
    )
    if any(saved[name] != description.get(name) for name in ("data", "vocabulary") if name in saved):
        raise UserError(
            f"{path}: the data have changed since this run was started; put the old ones back, or start "
            "again with --overwrite or another --jobid"
        )
    _refuse_statistics_of_others(statistics, s)
    return saved


def make_way(files, statistics, description, s):
    """Remove the files of the run and an observer's `statistics` before it starts, with --overwrite or where nothing is
    lost by it; else raise UserError."""
    scalars = files.log(".tensorboard")
    own = [files.model, files.state, files.log(".log"), files.log(), files.log(".png")]
    there = [path for path in own if path.exists()]
    if there and not s.overwrite and (files.model.exists() or _has_trained(files, description["domain"])):
        _refuse(there[0], files, s)
    _refuse_statistics_of_others(statistics, s)
    if statistics and not s.overwrite:
        raise UserError(
            f"{next(iter(statistics))}: statistics of an earlier run; --overwrite replaces them, or move them to "
            "another place first"
        )
    removed = [*there, *statistics, *scalars.glob(EVENT_FILES)]
    for folder in {path.parent for path in removed}:
        with replacing(folder / f"{files.run_id}.probe") as temporary:  # refused before anything is removed, not after
            temporary.touch()
        (folder / f"{files.run_id}.probe").unlink()
    for path in removed:
        path.unlink(missing_ok=True)
    with suppress(OSError):  # there is none, or something else lies in it
        scalars.rmdir()
    if s.resume:
        note(f"{files.state}: there is no such run to resume; it starts")


def _refuse_statistics_of_others(statistics, s):
    """Raise UserError if one of an observer's files, {path: the record of its settings}, is of another run."""
    for path, saved in statistics.items():
        s.refuse_others(
            saved,
            lambda name, its_own, ours, path=path: (
                f"{path}: statistics of a run with {name} = {its_own}, not {ours}; move them to another place first"
            ),
        )


def _refuse(path, files, s):
    """Raise the UserError for a run whose name is taken, by the file `path` among others."""
    if s.resume:
        raise UserError(
            f"{files.state}: the state to go on from is missing; put it back, or start again with --overwrite"
        )
    s.refuse_others(
        _settings_in(files.log()),
        lambda name, its_own, ours: (
            f"{path}: a run of this name was made with {name} = {its_own}, this one has {ours}; "
            "--jobid N gives this one another name"
        ),
    )
    goes_on = "--resume goes on with it, " if files.state.exists() else ""
    raise UserError(
        f"{path}: this run has been made before; {goes_on}--overwrite starts it again, "
        "--jobid N gives this one another name"
    )


def _settings_in(log):
    """The settings that the JSON lines of a run begin with, empty if there are none to be read."""
    with suppress(OSError, ValueError, AttributeError, StopIteration), open(log, encoding="utf-8") as lines:
        return saved_settings(json.loads(next(lines)))
    return {}


def _has_trained(files, domain):
    """Whether the JSON lines or the state of a run tell of any training; without, nothing is lost with them."""
    log = files.log()
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    if '"event": "report"' in text or '"event": "val"' in text:
        return True
    with suppress(UserError, KeyError, TypeError):  # no state, or none that can be gone on from
        return load_checkpoint(files.state, domain)["training"]["progress"]["iteration"] > 0
    return False
