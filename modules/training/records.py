"""What a run leaves behind to be read: a text log for people and notebooks, JSON lines for programs, a picture."""

import json
import logging
import math
import os
import platform
import subprocess
import sys

import numpy
import torch
from tqdm import tqdm

from modules.command import UserError, note, one_line, os_complaint
from modules.evaluation.metrics import perplexity
from modules.reports.log_reader import read_events
from modules.settings import REPOSITORY
from modules.training.scalars import Scalars

FIGURES = (
    "{split} --- avg_loss: {loss:.4f}, kl: {kl:.4f}, mi: {mi:.4f}, recon: {reconstruction:.4f}, "
    "nll: {loss:.4f}{ppl}\nmi_agg: {mi_agg:.4f}, kl_agg: {kl_agg:.4f}\n{active_units} active units"
)
LINES = {  # what people and notebooks read of an event, made of the event
    "report": "epoch: {epoch}, iter: {iteration}, avg_loss: {loss:.4f}, kl: {kl:.4f}, mi: {mi:.4f}, "
    "recon: {reconstruction:.4f},au {active_units}, time elapsed {seconds:.2f}s",
    "mi_agg ends the phase": "validation batches hold few x each, so mi is at most {mi_ceiling:.2f}: "
    "mi_agg ends the aggressive phase",
    "aggressive phase": "pre mi:{best:.4f}. cur mi:{mi:.4f}",
    "aggressive phase ends": "STOP BURNING",
    "val": "kl weight {kl_weight:.4f}\n" + FIGURES,
    "test": FIGURES,
    "best": "update best loss",
    "decay": "new lr: {lr:f}",
    "iw": "iw nll: {nll:.4f}{ppl}",
    "optimum": "optimum: {nll:.4f} nats; {gap:.4f} above it; "
    "information {information:.4f}, of which mi_agg has {share}%",
}


def lines_of(event, words):
    """The lines of an event, if it has any; `words` tells whether perplexities stand there."""
    told = {name: _rounded(value) for name, value in event.items()} | {"split": event["event"].upper(), "ppl": ""}
    if event["event"] == "data":
        return [
            "data: "
            + "; ".join(f"{name} {_described(its)}" for name, its in event["splits"].items())
            + (f"; vocabulary {event['vocabulary']:,}" if words else "")
        ]
    if event["event"] in ("val", "test"):
        if words:
            told["ppl"] = f", ppl: {perplexity(event['loss'], event['size'], event['units']):.4f}"
    elif event["event"] == "optimum":
        told["share"] = round(100 * event["share"])
    elif event["event"] == "iw" and words:
        told["ppl"] = f", iw ppl: {math.inf if event['ppl'] is None else event['ppl']:.4f}"
    return LINES[event["event"]].format(**told).splitlines() if event["event"] in LINES else []


def _rounded(value):
    """A number as its line shows it: what rounds to 0 from below is 0, not "-0.0000"."""
    return 0.0 if isinstance(value, float) and -5e-5 <= value <= 0 else value


def _described(its):
    """What a split holds, in words."""
    if "images" in its:
        return f"{its['images']:,} images"
    lengths = f"{its['shortest']} to {its['longest']}" if its["shortest"] < its["longest"] else f"{its['longest']}"
    left_out = f", {its['left_out']:,} longer ones left out" if "left_out" in its else ""
    return (
        f"{its['sentences']:,} sentences of {lengths} words, {its['words']:,} in all, {its['unk']:.2%} <unk>{left_out}"
    )


class Printer:
    """Records that are only printed; `words` tells whether the data are text. Without files, nothing is to be kept."""

    def __init__(self, words):
        self.words = words

    def say(self, line):
        """Print a line."""
        try:
            tqdm.write(line, file=sys.stdout)
            sys.stdout.flush()
        except BrokenPipeError:  # who reads has seen enough: the run goes on without it
            sys.stdout = open(os.devnull, "w", encoding="utf-8")

    def write(self, event, **values):
        """Print the lines of an event."""
        for line in lines_of({"event": event, **values}, self.words):
            self.say(line)

    def positions(self):
        return []

    def rewind(self, positions):
        """Nothing was written."""

    def draw(self, again=True):
        """Nothing was recorded."""

    def close(self):
        """Nothing is open."""


class Records(Printer):
    """The `.log` and `.jsonl` of a run's `files`, both only ever appended to; its `.tensorboard/` if asked for.

    A resumed run first goes back to where the files stood when its checkpoint was written: what came after is
    computed, and written, again.
    """

    def __init__(self, files, words, tensorboard=False):
        super().__init__(words)
        self.run_files, self.paths = files, [files.log(".log"), files.log()]
        self.paths[0].parent.mkdir(parents=True, exist_ok=True)
        self._files = [open(path, "a", encoding="utf-8") for path in self.paths]
        self._tensorboard, self._scalars = tensorboard, None

    def say(self, line):
        """Print and log a line."""
        super().say(line)
        self._append(0, line)

    def write(self, event, **values):
        """Print and log the lines of an event, and append it as one JSON object."""
        super().write(event, **values)
        told = _strict({"event": event, **values})
        self._append(1, json.dumps(told, allow_nan=False))
        if self._scalars:
            self._scalars.write(told)
        elif self._tensorboard:  # only now is it settled which earlier events a resumed run keeps
            self._scalars = Scalars(self.run_files.log(".tensorboard"), read_events(self.paths[1]))

    def positions(self):
        """Sizes of the two files in bytes, for a checkpoint."""
        return [file.tell() for file in self._files]

    def rewind(self, positions):
        """Forget what was written after these positions; a file that is shorter stays as it is, and is told of."""
        for file, path, position in zip(self._files, self.paths, positions):
            if position < path.stat().st_size:
                file.truncate(position)
            elif position > path.stat().st_size:
                note(f"{path}: shorter than when the run was saved; what it lacks is not written again")
            file.seek(0, 2)

    def draw(self, again=True):
        """Draw the run's epochs beside its log, if it has any, and say where; if not `again`, only a missing picture.

        One that cannot be drawn is only remarked on, since the run is safe.
        """
        picture = self.run_files.log(".png")
        try:
            ended = any(event["event"] == "val" for event in read_events(self.paths[1]))
            if ended and (again or not picture.exists()):
                logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it would tell of its font cache
                from modules.reports import figures  # not before: Matplotlib takes its time
                from modules.reports.curves import run_figure

                figures.save_figure(run_figure(self.paths[1]), picture)
        except Exception as error:
            why = f"{type(error).__name__}: {one_line(str(error))}"
            note(f"{picture}: not drawn ({why}); the run is safe, and --resume tries again")

    def close(self):
        """Close the files, and tell if one of the two is no longer where it was."""
        for path in self.paths:
            if not path.exists():
                note(f"{path}: removed while the run went on; its records are lost")
        for file in self._files:
            file.close()
        if self._scalars:
            self._scalars.close()

    def _append(self, which, line):
        try:
            print(line, file=self._files[which], flush=True)
        except OSError as error:
            raise UserError(
                f"cannot write {os_complaint(error, self.paths[which])}; then go on with --resume"
            ) from error


def _strict(event):
    """An event without what JSON does not know: numbers that are not finite become null."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in event.items()
    }


def environment(processes=1):
    """Versions, the git commit and the number of processes that a run's figures depend on."""
    return {
        **({"processes": processes} if processes > 1 else {}),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "git_commit": _git_commit(),
    }


def _git_commit():
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None
