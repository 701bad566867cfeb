"""The path of one sentence through the posterior mean space, half-step by half-step (paper, figure 3).

python plot_scripts/plot_single.py --aggressive 1 --id 0
python plot_scripts/plot_single.py --aggressive 0 --id 3 --steps 1 30 --format png
"""

from start import FIGURE, parse, run_command

from modules.evaluation.space_statistics import NAMES, read_path
from modules.reports import figures


def main():
    axis = {"help": "range of both axes (default: what the path needs)"}
    args = parse(__doc__, *FIGURE, aggressive={}, id={}, steps={"default": [11, 19]}, axis=axis)
    path = read_path(args.aggressive, args.id, args.steps)
    figure, panel = figures.path_figure(path, args.axis, size=4.0)
    figures.draw_moves(panel, *path[:3])
    panel.set_title(f"{NAMES[args.aggressive]}, steps {args.steps[0]} to {args.steps[1]}")
    name = f"plot_figure/single/aggressive{args.aggressive}_id{args.id}.{args.format}"
    figures.save_figure(figure, args.output or name, dpi=args.dpi)


if __name__ == "__main__":
    run_command(main)
