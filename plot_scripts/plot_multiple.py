"""The cloud of posterior means at some iterations of the toy study (paper, figures 1 and 2).

    python plot_scripts/plot_multiple.py --aggressive 1 --iter 2000         # one panel
    python plot_scripts/plot_multiple.py                                    # a row of snapshots for each run there is
    python plot_scripts/plot_multiple.py --aggressive 0 1 --iter 0 200 2000 # two rows: plain above, aggressive below
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from modules.reports import figures                                    # noqa: E402
from modules.command import Parser, UserError, run_command      # noqa: E402


def main():
    args = parse_arguments()
    runs = args.aggressive or [run for run in (0, 1) if figures.find_iterations(run)] or [1]
    iterations = args.iter or spread(common_iterations(runs), args.panels)
    figure, axes = figures.new_figure(len(runs), len(iterations), size=2.4)
    for row, aggressive in zip(axes, runs):
        for panel, iteration in zip(row, iterations):
            figures.prepare_axes(panel, args.axis)
            figures.draw_cloud(panel, figures.load_snapshot(aggressive, iteration))
        row[0].set_ylabel(figures.NAMES[aggressive], fontsize=11)
    for panel, iteration in zip(axes[0], iterations):
        panel.set_title(f"iteration {iteration}", fontsize=11)
    figure.supxlabel(figures.MODEL_AXIS, fontsize=10)
    figure.supylabel(figures.INFERENCE_AXIS, fontsize=10)
    figures.save_figure(figure, args.output or default_path(runs, iterations, args.format), dpi=args.dpi)


def common_iterations(runs):
    """The iterations of which every run has a snapshot; raises UserError if there is none."""
    common = set.intersection(*(set(figures.saved_iterations(run)) for run in runs))
    if not common:
        raise UserError("plot_data/multiple: the two runs have no iteration in common; choose one with --aggressive")
    return sorted(common)


def spread(iterations, panels):
    """At most `panels` of the iterations, evenly spread, first and last among them."""
    if len(iterations) <= panels:
        return iterations
    return [iterations[round(i * (len(iterations) - 1) / (panels - 1))] for i in range(panels)]


def default_path(runs, iterations, suffix):
    """Where the figure goes if --output does not say."""
    when = iterations[0] if len(iterations) == 1 else "s"
    return Path("plot_figure", "multiple", f"aggressive{'_'.join(map(str, runs))}_iter{when}.{suffix}")


def parse_arguments():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--aggressive", type=int, choices=(0, 1), nargs="+",
                        help="one row for each (default: the runs of which there are statistics)")
    parser.add_argument("--iter", type=int, nargs="+", help="iterations (default: evenly spread over what there is)")
    parser.add_argument("--panels", type=int, default=5, help="of a row, at most, where --iter does not say which")
    figures.add_axis_flag(parser, [-3.0, 3.0])
    figures.add_figure_flags(parser)
    args = parser.parse_args()
    figures.check_axis(parser, args)
    if args.panels < 2:
        parser.error(f"--panels {args.panels}: a row has at least 2")
    return args


if __name__ == "__main__":
    run_command(main)
