"""Recording the posterior mean space while a model trains: what figures 1 to 3 of the paper are drawn from."""

import numpy as np
import torch

from modules.evaluation import metrics
from modules.evaluation.model_posterior import posterior_mean
from modules.evaluation.space_statistics import (
    read_trajectory,
    settings_of,
    snapshot_path,
    trajectory_path,
    write_statistics,
)
from modules.models.gaussian import kl_to_standard_normal


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
