"""Animations of the posterior mean space, from saved statistics alone.

    python plot_scripts/animate.py --aggressive 1 --mode single --id 0       # the path of one sentence
    python plot_scripts/animate.py --aggressive 1 --mode multiple            # the cloud over training
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from matplotlib.animation import FuncAnimation, PillowWriter            # noqa: E402

from modules.reports import figures                                             # noqa: E402
from modules.command import Parser, UserError, run_command               # noqa: E402
from modules.settings import whole                                      # noqa: E402
from modules.files import replacing                                     # noqa: E402
from modules.evaluation.posterior_space import read_trajectory                     # noqa: E402


def main():
    args = parse_arguments()
    figure, axes = figures.new_figure(size=3.6)
    panel = axes[0, 0]
    panel.set(xlabel=figures.MODEL_AXIS, ylabel=figures.INFERENCE_AXIS)
    draw, frames = (single_frames if args.mode == "single" else multiple_frames)(panel, args)
    write_animation(figure, draw, frames, args)


def single_frames(panel, args):
    """(draw, number of frames): one frame a half-step, the path behind it kept."""
    trajectory = read_trajectory(args.aggressive)
    first, last = args.steps or (int(trajectory["iteration"].min()), int(trajectory["iteration"].max()))
    part = figures.between_steps(trajectory, first, last)
    model_mean, inference_mean = (mean[part] for mean in figures.point_path(trajectory, args.id))
    iterations, half = trajectory["iteration"][part], trajectory["half"][part]
    figures.prepare_axes(panel, args.axis or figures.fitting_limits(model_mean, inference_mean))
    figures.move_legend(panel)

    def draw(i):
        panel.set_title(f"{figures.NAMES[args.aggressive]}, step {iterations[i]}", fontsize=10)
        move = slice(max(0, i - 1), i + 1)
        return figures.draw_moves(panel, model_mean[move], inference_mean[move], half[move])

    return draw, len(iterations)


def multiple_frames(panel, args):
    """(draw, number of frames): one frame a snapshot."""
    iterations = figures.saved_iterations(args.aggressive)
    figures.prepare_axes(panel, args.axis or (-3.0, 3.0))
    artists = []

    def draw(i):
        while artists:
            artists.pop().remove()
        artists.extend(figures.draw_cloud(panel, figures.load_snapshot(args.aggressive, iterations[i])))
        panel.set_title(f"{figures.NAMES[args.aggressive]}, iteration {iterations[i]}", fontsize=10)
        return artists

    return draw, len(iterations)


def write_animation(figure, draw, frames, args):
    """Write the frames as a GIF, atomically, and say where."""
    path = args.output or Path("plot_figure", args.mode, f"aggressive{args.aggressive}_{args.mode}.gif")
    if path.suffix != ".gif":
        raise UserError(f"{path}: an animation is a .gif")
    with replacing(path) as temporary:
        FuncAnimation(figure, draw, frames, init_func=lambda: []).save(
            _as_gif(temporary), writer=PillowWriter(fps=args.fps), dpi=args.dpi)
        _as_gif(temporary).replace(temporary)
    print(f"wrote {path}")


def _as_gif(path):
    """The writer goes by the suffix."""
    return path.with_suffix(".gif.tmp.gif")


def parse_arguments():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--aggressive", type=int, choices=(0, 1), default=1, help="which run")
    parser.add_argument("--mode", choices=("single", "multiple"), default="single", help="one path, or the cloud")
    parser.add_argument("--id", type=int, default=0, help="single: which sentence, counted from 0")
    parser.add_argument("--steps", type=int, nargs=2, metavar=("FIRST", "LAST"),
                        help="single: outer iterations to show (default: all)")
    figures.add_axis_flag(parser, help="range of both axes (default: -3 to 3, or what the path needs)")
    parser.add_argument("--fps", type=whole(1), default=6, help="frames a second")
    parser.add_argument("--dpi", type=whole(1), default=80, help="resolution")
    parser.add_argument("--output", type=Path, help="another place for the animation")
    args = parser.parse_args()
    figures.check_axis(parser, args)
    return args


if __name__ == "__main__":
    run_command(main)
