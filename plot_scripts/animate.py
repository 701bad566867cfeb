"""Animations of the posterior mean space, from saved statistics alone.

python plot_scripts/animate.py --aggressive 1 --mode single --id 0       # the path of one sentence
python plot_scripts/animate.py --aggressive 1 --mode multiple            # the cloud over training
"""

from tempfile import TemporaryDirectory

from matplotlib.animation import FuncAnimation, PillowWriter
from start import Path, UserError, parse, run_command, whole

from modules.evaluation.space_statistics import NAMES, read_path, read_snapshot, saved_iterations
from modules.files import replacing
from modules.reports import figures

FLAGS = {
    "aggressive": {},
    "mode": {"choices": ("single", "multiple"), "default": "single", "help": "one path, or the cloud"},
    "id": {"help": "single: which sentence, counted from 0"},
    "steps": {"help": "single: outer iterations to show (default: all)"},
    "axis": {"help": "range of both axes (default: -3 to 3, or what the path needs)"},
    "fps": {"type": whole(1), "default": 6, "help": "frames a second"},
    "dpi": {"default": 80, "help": "resolution"},
    "output": {"help": "another place for the animation"},
}


def main():
    args = parse(__doc__, **FLAGS)
    figure, draw, frames = (single if args.mode == "single" else multiple)(args)
    path = args.output or Path("plot_figure", args.mode, f"aggressive{args.aggressive}_{args.mode}.gif")
    if path.suffix != ".gif":
        raise UserError(f"{path}: an animation is a .gif")
    with replacing(path) as temporary, TemporaryDirectory() as folder:
        gif = Path(folder, "animation.gif")  # the writer goes by the suffix
        animation = FuncAnimation(figure, draw, frames, init_func=list)
        animation.save(gif, writer=PillowWriter(fps=args.fps), dpi=args.dpi)
        temporary.write_bytes(gif.read_bytes())
    print(f"wrote {path}")


def single(args):
    """(figure, draw, number of frames): one frame a half-step, the path behind it kept."""
    *path, iterations = read_path(args.aggressive, args.id, args.steps)
    figure, panel = figures.path_figure(path, args.axis, size=3.6)

    def draw(i):
        figures.draw_moves(panel, *(values[max(0, i - 1) : i + 1] for values in path))
        panel.set_title(f"{NAMES[args.aggressive]}, step {iterations[i]}", fontsize=10)

    return figure, draw, len(iterations)


def multiple(args):
    """(figure, draw, number of frames): one frame a snapshot."""
    iterations = saved_iterations(args.aggressive)
    snapshots = [read_snapshot(args.aggressive, iteration) for iteration in iterations]
    figure, ((panel,),) = figures.new_figure(args.axis or (-3.0, 3.0), size=3.6)
    panel.set(xlabel=figures.MODEL_AXIS, ylabel=figures.INFERENCE_AXIS)

    def draw(i):
        for artist in (*panel.collections, *panel.texts):
            artist.remove()
        figures.draw_cloud(panel, snapshots[i])
        panel.set_title(f"{NAMES[args.aggressive]}, iteration {iterations[i]}", fontsize=10)

    return figure, draw, len(iterations)


if __name__ == "__main__":
    run_command(main)
