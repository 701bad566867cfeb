"""The figures of each sentence or image of a split, as a CSV file: which ones a model finds likely."""

import csv

import torch

from modules.files import replacing

FIGURES = ("iw_nll", "kl", "reconstruction")  # in nats, in the order of the columns


class Examples:
    """Keeps the figures of each example while a split is measured, batch after batch."""

    def __init__(self):
        self.kept = {}

    def __call__(self, name, values):
        """Keep a batch's values [batch] or [batch, 1] of the figure `name`, and return them."""
        self.kept.setdefault(name, []).append(values)
        return values

    def write(self, path, split):
        """Write a header and a row for each example, in the order of its file, atomically, and say where.

        The columns are `index`, `FIGURES`, and what `split.about_each` tells besides. Raises UserError, naming the
        file, if it cannot be written.
        """
        figures = {name: torch.cat(self.kept[name]).flatten().tolist() for name in FIGURES}
        its = split.about_each()
        columns = {"index": its.pop("index"), **figures, **its}
        with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
            rows = csv.writer(stream, lineterminator="\n")
            rows.writerow(columns)
            rows.writerows(sorted(zip(*columns.values())))
        print(f"wrote {path}")
