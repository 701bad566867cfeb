"""The path of one sentence through the posterior mean space, half-step by half-step (paper, figure 3).

    python plot_scripts/plot_single.py --aggressive 1 --id 0
    python plot_scripts/plot_single.py --aggressive 0 --id 3 --steps 1 30 --format png
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from modules.reports import figures                                             # noqa: E402
from modules.command import Parser, run_command                          # noqa: E402
from modules.evaluation.posterior_space import read_trajectory                     # noqa: E402


def main():
    args = parse_arguments()
    trajectory = read_trajectory(args.aggressive)
    part = figures.between_steps(trajectory, *args.steps)
    model_mean, inference_mean = (mean[part] for mean in figures.point_path(trajectory, args.id))
    figure, axes = figures.new_figure(size=4.0)
    figures.prepare_axes(axes[0, 0], args.axis or figures.fitting_limits(model_mean, inference_mean))
    figures.draw_moves(axes[0, 0], model_mean, inference_mean, trajectory["half"][part])
    figures.move_legend(axes[0, 0])
    axes[0, 0].set(xlabel=figures.MODEL_AXIS, ylabel=figures.INFERENCE_AXIS,
                   title=f"{figures.NAMES[args.aggressive]}, steps {args.steps[0]} to {args.steps[1]}")
    path = Path("plot_figure", "single", f"aggressive{args.aggressive}_id{args.id}.{args.format}")
    figures.save_figure(figure, args.output or path, dpi=args.dpi)


def parse_arguments():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--aggressive", type=int, choices=(0, 1), default=1, help="which run")
    parser.add_argument("--id", type=int, default=0, help="which sentence, counted from 0")
    parser.add_argument("--steps", type=int, nargs=2, default=[11, 19], metavar=("FIRST", "LAST"),
                        help="outer iterations to show")
    figures.add_axis_flag(parser, help="range of both axes (default: what the path needs)")
    figures.add_figure_flags(parser)
    args = parser.parse_args()
    figures.check_axis(parser, args)
    return args


if __name__ == "__main__":
    run_command(main)
