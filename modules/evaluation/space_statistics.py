"""The files of the posterior mean space of a run (`modules.evaluation.posterior_space`), written and read.

Each file in `plot_data/` is an `.npz` with, for the same training sentences throughout, `model_mean` (the mean of the
model's true posterior p(z|x), on a grid) and `inference_mean` (the mean of q(z|x)), their average `kl` and their `mi`,
both in nats (q(z) mixed over all of these sentences), and `settings`, the run's arguments as JSON.
"""

import json
from pathlib import Path

import numpy as np

from modules.command import UserError
from modules.files import BAD_FILE, write_npz

BOUND = 1e30  # of numbers, in magnitude: they can still be drawn, and no NaN is below it
NAMES = {0: "plain", 1: "aggressive"}


def snapshot_path(aggressive, iteration):
    """Where the cloud of one iteration is kept."""
    return Path("plot_data", "multiple", f"aggressive{aggressive}_iter{iteration}.npz")


def trajectory_path(aggressive):
    """Where the path of the single mode is kept."""
    return Path("plot_data", "single", f"aggressive{aggressive}.npz")


def read_trajectory(aggressive):
    """The path of the single mode, a dict as `Trajectory` says; raises UserError naming a missing or bad file."""
    return read_statistics(trajectory_path(aggressive), dimensions=2)


def write_statistics(path, arrays, settings):
    """Write an `.npz` atomically, the settings inside."""
    write_npz(path, settings=np.array(json.dumps(settings)), **arrays)


def settings_of(path):
    """The settings of the run that a statistics file is of, empty if it does not tell."""
    try:
        with np.load(path, allow_pickle=False) as saved:
            return dict(json.loads(str(saved["settings"])))
    except BAD_FILE:
        return {}


def read_statistics(path, dimensions):
    """The arrays of a statistics file as a dict, `settings` as a dict too.

    `dimensions` of `model_mean`: 1 in a snapshot, 2 in a trajectory. Raises UserError naming a bad file.
    """
    try:
        with np.load(path, allow_pickle=False) as saved:
            content = dict(saved)
        content["settings"] = json.loads(str(content["settings"]))
        points = content["model_mean"].shape
        steps = points[: dimensions - 1]  # () or [half-steps]
        shapes = {"model_mean": points, "inference_mean": points, "iteration": steps, "kl": steps, "mi": steps}
        numbers = all(content[name].dtype.kind in "iuf" and np.abs(content[name]).max() < BOUND for name in shapes)
        if dimensions == 2:
            shapes["half"] = steps
        found = {name: content[name].shape for name in shapes}
        if len(points) != dimensions or found != shapes or not numbers or content["iteration"].dtype.kind == "f":
            raise ValueError(f"no numbers, or of the shapes {found}")
    except FileNotFoundError:
        raise UserError(f"{path}: no such statistics; toy.py writes them") from None
    except BAD_FILE as error:
        raise UserError(f"{path}: not a statistics file of toy.py, or damaged ({error}); run toy.py again") from None
    return content


def read_path(aggressive, point, steps=None):
    """(model means, inference means, halves, iterations), each [half-steps + 1], of sentence number `point`.

    From the point before iteration steps[0] to the end of steps[1]; None: all. Raises UserError for what is not there.
    """
    trajectory = read_trajectory(aggressive)
    iterations, count = trajectory["iteration"], trajectory["model_mean"].shape[1]
    first, last = steps or (iterations.min(), iterations.max())
    if first > last:
        raise UserError(f"steps {first} to {last}: the first comes after the last; turn them round")
    chosen = np.flatnonzero((iterations >= first) & (iterations <= last))
    if len(chosen) == 0 or iterations.max() < last:
        raise UserError(f"steps {first} to {last}: the statistics hold steps {iterations.min()} to {iterations.max()}")
    if not 0 <= point < count:
        raise UserError(f"--id {point}: the statistics hold points 0 to {count - 1}")
    part = slice(max(0, chosen[0] - 1), chosen[-1] + 1)
    means = (trajectory[name][part, point] for name in ("model_mean", "inference_mean"))
    return *means, trajectory["half"][part], iterations[part]


def find_iterations(aggressive):
    """The iterations of which there is a snapshot, in order."""
    pattern = snapshot_path(aggressive, "*")
    numbers = [path.stem.partition("_iter")[2] for path in pattern.parent.glob(pattern.name)]
    return sorted(int(number) for number in numbers if number.isdecimal())


def saved_iterations(aggressive):
    """`find_iterations`; raises UserError if there is none."""
    if found := find_iterations(aggressive):
        return found
    command = f"`python toy.py --aggressive {aggressive} --plot_mode multiple`"
    raise UserError(f"{snapshot_path(aggressive, '*')}: no statistics; {command} writes them")


def read_snapshot(aggressive, iteration):
    """The cloud of one iteration, a dict as `Snapshots` says; UserError for a bad file, or naming those there are."""
    existing = saved_iterations(aggressive)
    if iteration not in existing:
        there = f"there are {', '.join(map(str, existing))}"
        raise UserError(f"--iter {iteration}: no snapshot of the {NAMES[aggressive]} run there; {there}")
    return read_statistics(snapshot_path(aggressive, iteration), dimensions=1)
