"""Drawing in the posterior mean space, shared by the plot scripts. No window is needed."""

import math
import re
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")

from matplotlib import pyplot  # noqa: E402

from modules.command import UserError  # noqa: E402
from modules.evaluation.posterior_space import read_snapshot, snapshot_path  # noqa: E402
from modules.files import replacing  # noqa: E402
from modules.settings import whole  # noqa: E402

ENCODER, DECODER, POINT = "#c44e52", "#4c72b0", "#55595f"
NAMES = {0: "plain", 1: "aggressive"}
MODEL_AXIS = r"mean of the model posterior $p_\theta(z|x)$"
INFERENCE_AXIS = r"mean of $q_\phi(z|x)$"


def add_figure_flags(parser):
    """The flags of every script that draws one figure."""
    parser.add_argument("--format", choices=("pdf", "png"), default="pdf", help="of the figure")
    parser.add_argument("--dpi", type=whole(1), default=100, help="resolution of a png")
    parser.add_argument("--output", type=Path, help="another place for the figure; its suffix is the format")


def add_axis_flag(parser, default=None, help="range of both axes"):
    """The flag for the range of both axes."""
    parser.add_argument("--axis", type=float, nargs=2, default=default, metavar=("LOW", "HIGH"), help=help)


def check_axis(parser, args):
    """Refuse a range that is none."""
    if args.axis and not -math.inf < args.axis[0] < args.axis[1] < math.inf:
        parser.error(f"--axis {args.axis[0]} {args.axis[1]}: the first must be below the second")


def new_figure(rows=1, columns=1, size=3.0):
    """(figure, axes [rows, columns]) of square panels, `size` inches each."""
    return pyplot.subplots(rows, columns, figsize=(size * columns, size * rows), squeeze=False, sharex=True,
                           sharey=True, layout="constrained")


def prepare_axes(axes, limits):
    """Square axes from limits[0] to limits[1], with the diagonal on which q(z|x) agrees with the true posterior."""
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    axes.axline((0, 0), slope=1, color="#bbbbbb", linewidth=1, zorder=0)
    axes.axhline(0, color="#dddddd", linewidth=1, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)


def draw_cloud(axes, snapshot):
    """One snapshot of many sentences: a dot each, with KL and MI written in the corner. Returns the artists."""
    dots = axes.scatter(snapshot["model_mean"], snapshot["inference_mean"], s=6, color=DECODER, alpha=0.6, linewidth=0)
    kl, mi = (round(float(snapshot[name]), 2) + 0.0 for name in ("kl", "mi"))       # + 0.0: no "-0.00"
    words = axes.text(0.04, 0.96, f"KL {kl:.2f}\nMI {mi:.2f}", transform=axes.transAxes, va="top", fontsize=9)
    return dots, words


def fitting_limits(*values):
    """One range for both axes that holds all the values, 0 and a margin."""
    low, high = min(0.0, *(v.min() for v in values)), max(0.0, *(v.max() for v in values))
    margin = 0.08 * (high - low or 1.0)
    return low - margin, high + margin


def draw_moves(axes, model_mean, inference_mean, half):
    """The path of one sentence through consecutive half-steps: encoder moves vertical, decoder moves horizontal.

    model_mean, inference_mean, half: [half-steps + 1]; half says which network moved to get there. Returns the artists.
    """
    artists = []
    for i in range(1, len(model_mean)):
        artists.append(axes.annotate(
            "", (model_mean[i], inference_mean[i]), (model_mean[i - 1], inference_mean[i - 1]),
            arrowprops={"arrowstyle": "->", "color": ENCODER if half[i] == "encoder" else DECODER, "linewidth": 1.2,
                        "shrinkA": 0, "shrinkB": 0}))
    artists.append(axes.scatter(model_mean[:1], inference_mean[:1], s=14, color=POINT, zorder=3))
    return artists


def move_legend(axes):
    """Say, below the axes, which colour is which half-step."""
    axes.plot([], [], color=ENCODER, label=r"encoder step ($\phi$)")
    axes.plot([], [], color=DECODER, label=r"decoder step ($\theta$)")
    axes.figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=2)


def point_path(trajectory, point):
    """(model means, inference means), [half-steps] each, of one sentence; raises UserError if there is none."""
    count = trajectory["model_mean"].shape[1]
    if not 0 <= point < count:
        raise UserError(f"--id {point}: the statistics hold points 0 to {count - 1}")
    return trajectory["model_mean"][:, point], trajectory["inference_mean"][:, point]


def between_steps(trajectory, first, last):
    """Slice of the half-steps of iterations first..last, with the point before them."""
    iterations = trajectory["iteration"]
    chosen = np.flatnonzero((iterations >= first) & (iterations <= last))
    if len(chosen) == 0 or iterations.max() < last:
        raise UserError(f"steps {first} to {last}: the statistics hold steps {iterations.min()} to {iterations.max()}")
    return slice(max(0, chosen[0] - 1), chosen[-1] + 1)


def find_iterations(aggressive):
    """The iterations of which there is a snapshot, in order."""
    pattern = snapshot_path(aggressive, "*")
    matches = [re.search(r"iter(\d+)\.npz$", path.name) for path in pattern.parent.glob(pattern.name)]
    return sorted(int(match.group(1)) for match in matches if match)


def saved_iterations(aggressive):
    """`find_iterations`; raises UserError if there is none."""
    found = find_iterations(aggressive)
    if not found:
        pattern = snapshot_path(aggressive, "*")
        raise UserError(f"{pattern}: no statistics; `python toy.py --aggressive {aggressive} --plot_mode multiple` "
                        "writes them")
    return found


def load_snapshot(aggressive, iteration):
    """The snapshot of one iteration; raises UserError naming those that exist."""
    existing = saved_iterations(aggressive)
    if iteration not in existing:
        raise UserError(f"--iter {iteration}: no snapshot of the {NAMES[aggressive]} run there; there are "
                        f"{', '.join(map(str, existing))}")
    return read_snapshot(aggressive, iteration)


def save_figure(figure, *paths, **options):
    """Write a figure atomically to each of the paths, in the format of its suffix, and say where."""
    for path in map(Path, paths):
        kind = path.suffix[1:]
        if kind not in figure.canvas.get_supported_filetypes():
            raise UserError(f"{path}: the name of a figure ends with its format, .pdf or .png")
        with replacing(path) as temporary:
            figure.savefig(temporary, format=kind, **options)
        print(f"wrote {path}")
    pyplot.close(figure)
