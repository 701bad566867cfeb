"""Drawing in the posterior mean space, shared by the plot scripts. No window is needed."""

import io
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")

from matplotlib import pyplot

from modules.command import UserError
from modules.evaluation.posterior_space import read_snapshot, read_trajectory, snapshot_path
from modules.files import write_bytes

ENCODER, DECODER, POINT = "#c44e52", "#4c72b0", "#55595f"
NAMES = {0: "plain", 1: "aggressive"}
MODEL_AXIS = r"mean of the model posterior $p_\theta(z|x)$"
INFERENCE_AXIS = r"mean of $q_\phi(z|x)$"


def new_figure(limits, rows=1, columns=1, size=3.0):
    """(figure, axes [rows, columns]) of square panels, `size` inches each, both axes from limits[0] to limits[1], with
    the diagonal on which q(z|x) agrees with the true posterior."""
    shared = {"squeeze": False, "sharex": True, "sharey": True, "layout": "constrained"}
    figure, axes = pyplot.subplots(rows, columns, figsize=(size * columns, size * rows), **shared)
    for panel in axes.flat:
        panel.set(xlim=limits, ylim=limits, aspect="equal")
        panel.axline((0, 0), slope=1, color="#bbbbbb", linewidth=1, zorder=0)
        panel.axhline(0, color="#dddddd", linewidth=1, zorder=0)
        panel.spines[["top", "right"]].set_visible(False)
    return figure, axes


def draw_cloud(axes, snapshot):
    """One snapshot of many sentences: a dot each, with KL and MI written in the corner."""
    axes.scatter(snapshot["model_mean"], snapshot["inference_mean"], s=6, color=DECODER, alpha=0.6, linewidth=0)
    kl, mi = (round(float(snapshot[name]), 2) + 0.0 for name in ("kl", "mi"))  # + 0.0: no "-0.00"
    axes.text(0.04, 0.96, f"KL {kl:.2f}\nMI {mi:.2f}", transform=axes.transAxes, va="top", fontsize=9)


def path_figure(path, limits, size):
    """(figure, panel) for a path as `read_path` returns it, with a legend below that says which colour is which
    half-step; `limits` of both axes, None: a range that holds the path, 0 and a margin."""
    low, high = min(0.0, path[0].min(), path[1].min()), max(0.0, path[0].max(), path[1].max())
    margin = 0.08 * (high - low or 1.0)
    figure, ((panel,),) = new_figure(limits or (low - margin, high + margin), size=size)
    panel.set(xlabel=MODEL_AXIS, ylabel=INFERENCE_AXIS)
    panel.plot([], [], color=ENCODER, label=r"encoder step ($\phi$)")
    panel.plot([], [], color=DECODER, label=r"decoder step ($\theta$)")
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=2)
    return figure, panel


def draw_moves(axes, model_mean, inference_mean, half):
    """The path of one sentence through consecutive half-steps: encoder moves vertical, decoder moves horizontal.

    model_mean, inference_mean, half: [half-steps + 1]; half says which network moved to get there.
    """
    points = list(zip(model_mean, inference_mean))
    for start, end, network in zip(points, points[1:], half[1:]):
        colour = ENCODER if network == "encoder" else DECODER
        arrow = {"arrowstyle": "->", "color": colour, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", end, start, arrowprops=arrow)
    axes.scatter(model_mean[:1], inference_mean[:1], s=14, color=POINT, zorder=3)


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


def load_snapshot(aggressive, iteration):
    """The snapshot of one iteration; raises UserError naming those that exist."""
    existing = saved_iterations(aggressive)
    if iteration not in existing:
        there = f"there are {', '.join(map(str, existing))}"
        raise UserError(f"--iter {iteration}: no snapshot of the {NAMES[aggressive]} run there; {there}")
    return read_snapshot(aggressive, iteration)


def save_figure(figure, *paths, **options):
    """Write a figure atomically to each of the paths, in the format of its suffix, and say where."""
    for path in map(Path, paths):
        kind = path.suffix[1:]
        if kind not in figure.canvas.get_supported_filetypes():
            raise UserError(f"{path}: the name of a figure ends with its format, .pdf or .png")
        figure.savefig(buffer := io.BytesIO(), format=kind, **options)
        write_bytes(path, buffer.getbuffer())
        print(f"wrote {path}")
    pyplot.close(figure)
