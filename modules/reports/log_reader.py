"""Reads what a run left behind (`modules.training.records`), and the text logs of earlier code of this kind."""

import json
import re
from pathlib import Path

from modules.command import UserError

COLUMNS = ("epoch", "kl", "mi", "kl_agg")
TESTED = ("kl", "mi", "mi_agg", "active_units")
MI_OF_EPOCHS = ("last_mi_agg", "least_mi_agg")
SUMMARY = ("nll", "ppl", *TESTED, "epochs", "aggressive_epochs", "seconds", "encoder_steps", *MI_OF_EPOCHS)
NEEDED = {
    "report": {"epoch", "iteration", "kl", "mi"},
    "val": {"epoch", "kl", "mi"},
    "aggressive phase ends": {"epoch"},
}
NUMBERS = {*COLUMNS, *TESTED, "iteration", "nll", "ppl", "seconds", "encoder_steps"}  # of events that have them
BOUND = 1e300  # of numbers, in magnitude: they can still be drawn, and no NaN is below it
FIGURE = r"(-?(?:\d+\.?\d*|nan|inf))"
LAST_FIGURE = r"(-?(?:\d+\.\d{4}|nan|inf))"  # of its line: all four decimals, or it was cut short
AGGREGATE = rf"mi_agg: {FIGURE}, kl_agg: {LAST_FIGURE}"
VAL_OR_STOP = re.compile(rf"STOP BURNING|VAL ---(?P<figures>.*\bkl: {FIGURE}, mi: {FIGURE},.*(?:\n{AGGREGATE})?)?")


def read_epochs(path):
    """The validation figures of a run, and how many of its epochs were aggressive, None where the end is not recorded.

    The figures are {"epoch", "kl", "mi", "kl_agg"}, lists with one entry an epoch, counted from 0, in nats per sentence
    or image. `mi` mixes q(z) over the batch, as the published figures do. `kl_agg` is KL(q(z) || p(z)) = KL - MI with
    q(z) mixed over the whole split, so it is not `kl` - `mi`; only where it was not recorded, in logs of earlier code,
    is it that. `path` is as for `run_events`; raises UserError also where there are no figures yet.
    """
    events = run_events(path)
    rows = [{"kl_agg": event["kl"] - event["mi"], **event} for event in events if event["event"] == "val"]
    if not rows:
        raise UserError(f"{path}: no VAL figures; give the log of a run that has finished an epoch")
    ends = [event["epoch"] + 1 for event in events if event["event"] == "aggressive phase ends"]
    return {name: [row[name] for row in rows] for name in COLUMNS}, next(iter(ends), None)


def run_events(path):
    """The events of a run, dicts, from its `.log` or `.jsonl`; raises UserError for a file that is not there or no log.

    Where the `.jsonl` lies beside the `.log`, it is read instead: it has more digits, and more events.
    """
    path = log_of(path)
    return read_events(path) if path.suffix == ".jsonl" else _text_events(path)


def log_of(path):
    """The `.jsonl` beside a file of a run, or the file where there is none."""
    json_lines = Path(path).parent / f"{Path(path).stem}.jsonl"
    return json_lines if json_lines.is_file() else Path(path)


def read_events(path):
    """The events of a run's JSON lines, a list of dicts; raises UserError naming the file and line.

    A last line that was cut short, because the run goes on or was killed, is left out.
    """
    text = _read_text(path)
    lines, events = text.splitlines(), []
    for number, line in enumerate(lines, start=1):
        try:
            events.append(_checked(json.loads(line)))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            if events and number == len(lines) and not text.endswith("\n"):
                break
            needed = "a .jsonl file as the scripts write it is needed"
            raise UserError(f"{path}, line {number}: not an event of a run; {needed}") from None
    return events


def _checked(event):
    """An event, if it tells what others read of it; else raises one of the errors of `read_events`."""
    needed = NEEDED.get(event["event"], set())
    for name in needed | NUMBERS & event.keys():
        number, may_lack = event[name], name in ("nll", "ppl") or event["event"] == "test"
        if isinstance(number, bool) or not ((number is None and may_lack) or abs(number) < BOUND):
            raise ValueError
    if not all(isinstance(event.get(name, {}), dict) for name in ("args", "config")):
        raise ValueError
    return event


def summarise(events):
    """What a run has come to, a dict of the names in SUMMARY, from its `read_events`.

    The test figures (nats; ppl a word) are those of the best model, None until it has been tested at the end of
    training; `epochs` that are done, those of them that were aggressive, and `seconds` of training, `encoder_steps`
    (encoder-only ones) and validation MI (`last_mi_agg`) as of the last; `least_mi_agg` is the least after the first
    epoch (of a single epoch its own).
    """
    summary = {**dict.fromkeys(SUMMARY), "epochs": 0, "aggressive_epochs": 0}
    for event in events:
        if event["event"] == "iw":
            summary.update(nll=event.get("nll"), ppl=event.get("ppl"))
        elif event["event"] == "test" and event.get("final"):
            summary.update({name: event.get(name) for name in TESTED})
        elif event["event"] in ("report", "val"):
            summary.update(dict.fromkeys(("nll", "ppl", *TESTED)))  # what was tested before is no longer the end
        if event["event"] == "val":
            summary.update(epochs=event["epoch"] + 1, last_mi_agg=event.get("mi_agg"))
            summary.update({name: event.get(name) for name in ("seconds", "encoder_steps")})
            summary["aggressive_epochs"] += bool(event.get("aggressive"))
    of_epochs = [event.get("mi_agg") for event in events if event["event"] == "val"]
    known = [mi for mi in of_epochs[1:] or of_epochs if mi is not None]
    return {**summary, "least_mi_agg": min(known, default=None)}


def _text_events(path):
    """The events `val`, counted, one an epoch, and `aggressive phase ends` of a text log, as `read_events` has them."""
    text = _read_text(path)
    events, epoch = [], 0
    for found in VAL_OR_STOP.finditer(text):
        if found[0] == "STOP BURNING":
            events.append({"event": "aggressive phase ends", "epoch": epoch})
        elif found["figures"]:
            figures = zip(("kl", "mi", "mi_agg", "kl_agg"), found.groups()[1:])
            events.append({"event": "val", "epoch": epoch, **{name: float(x) for name, x in figures if x is not None}})
            epoch += 1
        elif "\n" in text[found.end() :]:  # not a last line that was cut short
            number = text[: found.start()].count("\n") + 1
            raise UserError(f"{path}, line {number}: VAL without kl and mi; give the .log or .jsonl file of a run")
    return events


def _read_text(path):
    if Path(path).exists() and not Path(path).is_file():
        raise UserError(f"{path}: a folder, a pipe or a device; give the .log or .jsonl file of a run")
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such log") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; give the .log or .jsonl file of a run") from None
