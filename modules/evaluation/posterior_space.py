"""Recording the posterior mean space while a model trains: what figures 1 to 3 of the paper are drawn from.

Each file in `plot_data/` is an `.npz` with, for the same training sentences throughout, `model_mean` (the mean of the
model's true posterior p(z|x), on a grid) and `inference_mean` (the mean of q(z|x)), their average `kl` and their `mi`,
both in nats (q(z) mixed over all of these sentences), and `settings`, the run's arguments as JSON.
"""

import json
from pathlib import Path

import numpy as np
import torch

from modules.command import UserError
from modules.evaluation import metrics
from modules.evaluation.model_posterior import posterior_mean
from modules.files import BAD_FILE, write_npz
from modules.models.gaussian import kl_to_standard_normal

BOUND = 1e30  # of numbers; no NaN is below it, and what is can still be drawn


class Snapshots:
    """Observer of a `Trainer`: the whole cloud every `every` outer iterations, one file each (figures 1 and 2).

    `model_mean`, `inference_mean` [sentences]; `iteration`, `kl`, `mi` scalars.
    """

    def __init__(self, sentences, grid, every, settings):
        self.sentences, self.grid, self.every, self.settings = sentences, grid, every, settings

    def __call__(self, half, trainer):
        iteration = trainer.progress.iteration
        if half != "encoder" and iteration % self.every == 0:
            point = measure(trainer.model, self.sentences, self.grid, trainer.s.seed)
            path = snapshot_path(self.settings["aggressive"], iteration)
            write_statistics(path, {**point, "iteration": iteration}, self.settings)

    def files(self):
        """What an earlier run of this kind has left."""
        pattern = snapshot_path(self.settings["aggressive"], "*")
        return {path: settings_of(path) for path in sorted(pattern.parent.glob(pattern.name))}

    def resume(self, iteration):
        """Nothing to forget: a snapshot is written again when its iteration comes again."""


class Trajectory:
    """Observer of a `Trainer`: the same few sentences after each half-step, in one growing file (figure 3).

    `model_mean`, `inference_mean` [half-steps, sentences]; `iteration`, `kl`, `mi` [half-steps]; `half` [half-steps],
    "start", then "encoder" and "decoder" by turns. An encoder half-step leaves `model_mean` alone, a decoder half-step
    `inference_mean` (but of a semi-amortised model, whose inference asks the decoder).
    """

    def __init__(self, sentences, grid, settings):
        self.sentences, self.grid, self.settings = sentences, grid, settings
        self.path = trajectory_path(settings["aggressive"])
        self.points = []

    def __call__(self, half, trainer):
        seed, iteration = trainer.s.seed, trainer.progress.iteration + (half == "encoder")
        known = self.points[-1]["model_mean"] if half == "encoder" else None
        point = measure(trainer.model, self.sentences, self.grid, seed, known)
        self.points.append({**point, "iteration": iteration, "half": half})
        if half != "encoder":
            arrays = {name: np.array([point[name] for point in self.points]) for name in self.points[0]}
            write_statistics(self.path, arrays, self.settings)

    def files(self):
        """What an earlier run of this kind has left."""
        return {self.path: settings_of(self.path)} if self.path.exists() else {}

    def resume(self, iteration):
        """Take up the file of the interrupted run, without what came after `iteration`."""
        if iteration == 0:  # the trainer announces the start again
            return
        saved = read_trajectory(self.settings["aggressive"])
        names = saved.keys() - {"settings"}
        self.points = [
            {name: saved[name][i] for name in names} for i in np.flatnonzero(saved["iteration"] <= iteration)
        ]


def measure(model, sentences, grid, seed, model_mean=None):
    """Posterior means of the sentences of a split, in its order, with their average KL and MI: a dict.

    `model_mean` is what a caller knows already, where the decoder has not moved.
    """
    with metrics.evaluation_mode(model), torch.no_grad():
        encoded = metrics.posteriors(model, sentences, seed)
        if model_mean is None:
            means = [posterior_mean(model.decoder, x, grid) for x in sentences]
            model_mean = torch.cat(means).squeeze(1).cpu().numpy()
        kl = torch.cat([kl_to_standard_normal(mean, logvar) for mean, logvar, _ in encoded]).mean()
        return {
            "model_mean": model_mean,
            "inference_mean": torch.cat([mean for mean, _, _ in encoded]).squeeze(1).cpu().numpy(),
            "kl": float(kl),
            "mi": metrics.aggregate_mutual_information(encoded),
        }


def snapshot_path(aggressive, iteration):
    """Where the cloud of one iteration is kept."""
    return Path("plot_data", "multiple", f"aggressive{aggressive}_iter{iteration}.npz")


def trajectory_path(aggressive):
    """Where the path of the single mode is kept."""
    return Path("plot_data", "single", f"aggressive{aggressive}.npz")


def read_snapshot(aggressive, iteration):
    """The cloud of one iteration, a dict as `Snapshots` says; raises UserError naming a missing or bad file."""
    return read_statistics(snapshot_path(aggressive, iteration), dimensions=1)


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
