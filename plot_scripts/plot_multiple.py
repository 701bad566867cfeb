"""The cloud of posterior means at some iterations of the toy study (paper, figures 1 and 2).

    python plot_scripts/plot_multiple.py --aggressive 1 --iter 2000         # one panel
    python plot_scripts/plot_multiple.py --aggressive 1                     # a row of snapshots
    python plot_scripts/plot_multiple.py --aggressive 0 1 --iter 0 200 2000 # two rows: plain above, aggressive below
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from modules import figures                                    # noqa: E402
from modules.errors import Parser, run_command                 # noqa: E402

PANELS = 5      # of a row, where --iter does not say which


def main():
    args = parse_arguments()
    iterations = args.iter or spread(figures.saved_iterations(args.aggressive[0]))
    figure, axes = figures.new_figure(len(args.aggressive), len(iterations))
    for row, aggressive in zip(axes, args.aggressive):
        for panel, iteration in zip(row, iterations):
            figures.prepare_axes(panel, args.axis)
            figures.draw_cloud(panel, figures.load_snapshot(aggressive, iteration))
            if row is axes[0]:
                panel.set_title(f"iteration {iteration}", fontsize=10)
        row[0].set_ylabel(f"{figures.NAMES[aggressive]}", fontsize=11)
    figure.supxlabel(figures.MODEL_AXIS, fontsize=10)
    figure.supylabel(figures.INFERENCE_AXIS, fontsize=10)
    figures.save_figure(figure, args.output or default_path(args, iterations), dpi=args.dpi)


def spread(iterations):
    """At most PANELS of the iterations, evenly spread, first and last among them."""
    if len(iterations) <= PANELS:
        return iterations
    return [iterations[round(i * (len(iterations) - 1) / (PANELS - 1))] for i in range(PANELS)]


def default_path(args, iterations):
    """Where the figure goes if --output does not say."""
    runs = "_".join(map(str, args.aggressive))
    when = iterations[0] if len(iterations) == 1 else "s"
    return Path("plot_figure", "multiple", f"aggressive{runs}_iter{when}.{args.format}")


def parse_arguments():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--aggressive", type=int, choices=(0, 1), nargs="+", default=[1], help="one row for each")
    parser.add_argument("--iter", type=int, nargs="+", help="iterations; without it, a row of what there is")
    parser.add_argument("--axis", type=float, nargs=2, default=[-3.0, 3.0], metavar=("LOW", "HIGH"),
                        help="range of both axes")
    parser.add_argument("--format", choices=("pdf", "png"), default="pdf", help="of the figure")
    parser.add_argument("--dpi", type=int, default=100, help="resolution of a png")
    parser.add_argument("--output", type=Path, help="another place for the figure; its suffix is the format")
    args = parser.parse_args()
    if args.axis[0] >= args.axis[1]:
        parser.error(f"--axis {args.axis[0]} {args.axis[1]}: the first must be below the second")
    return args


if __name__ == "__main__":
    run_command(main)
