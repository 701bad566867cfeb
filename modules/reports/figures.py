"""Drawing in the posterior mean space, shared by the plot scripts. No window is needed."""

import io
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot

from modules.command import UserError
from modules.files import write_bytes

ENCODER, DECODER, POINT = "#c44e52", "#4c72b0", "#55595f"
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
