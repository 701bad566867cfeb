"""The cloud of posterior means at some iterations of the toy study (paper, figures 1 and 2).

python plot_scripts/plot_multiple.py --aggressive 1 --iter 2000         # one panel
python plot_scripts/plot_multiple.py                                    # a row of snapshots for each run there is
python plot_scripts/plot_multiple.py --aggressive 0 1 --iter 0 200 2000 # two rows: plain above, aggressive below
"""

from start import FIGURE, UserError, parse, run_command, whole

from modules.evaluation.space_statistics import NAMES, find_iterations, read_snapshot, saved_iterations
from modules.reports import figures

FLAGS = {
    "aggressive": {"nargs": "+", "default": None, "help": "one row for each (default: the runs with statistics)"},
    "iter": {"type": int, "nargs": "+", "help": "iterations (default: evenly spread over what there is)"},
    "panels": {"type": whole(2), "default": 5, "help": "of a row, at most, where --iter does not say which"},
    "axis": {"default": [-3.0, 3.0]},
}


def main():
    args = parse(__doc__, *FIGURE, **FLAGS)
    runs = args.aggressive or [run for run in (0, 1) if find_iterations(run)] or [1]
    iterations = args.iter or common_iterations(runs, args.panels)
    figure, axes = figures.new_figure(args.axis, len(runs), len(iterations), size=2.4)
    for row, run in zip(axes, runs):
        for panel, iteration in zip(row, iterations):
            figures.draw_cloud(panel, read_snapshot(run, iteration))
        row[0].set_ylabel(NAMES[run], fontsize=11)
    for panel, iteration in zip(axes[0], iterations):
        panel.set_title(f"iteration {iteration}", fontsize=11)
    figure.supxlabel(figures.MODEL_AXIS, fontsize=10)
    figure.supylabel(figures.INFERENCE_AXIS, fontsize=10)
    when = iterations[0] if len(iterations) == 1 else "s"
    name = f"plot_figure/multiple/aggressive{'_'.join(map(str, runs))}_iter{when}.{args.format}"
    figures.save_figure(figure, args.output or name, dpi=args.dpi)


def common_iterations(runs, panels):
    """At most `panels` of the iterations of which every run has a snapshot, evenly spread, first and last among them.

    Raises UserError if there is none.
    """
    common = sorted(set.intersection(*(set(saved_iterations(run)) for run in runs)))
    if not common:
        raise UserError("plot_data/multiple: the two runs have no iteration in common; choose one with --aggressive")
    if len(common) <= panels:
        return common
    return [common[round(i * (len(common) - 1) / (panels - 1))] for i in range(panels)]


if __name__ == "__main__":
    run_command(main)
