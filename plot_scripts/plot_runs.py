"""Mutual information and KL of several runs while they train, in one picture.

    python plot_scripts/plot_runs.py logs/examples/ptb/*.jsonl
    python plot_scripts/plot_runs.py logs/synthetic/*.jsonl --output plot_figure/runs.png
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from matplotlib.ticker import MaxNLocator                       # noqa: E402

from modules import figures                                     # noqa: E402
from modules.errors import Parser, UserError, run_command       # noqa: E402
from modules.training.log_reader import read_events             # noqa: E402


def main():
    args = parse_arguments()
    figure, ((mi_panel, kl_panel),) = figures.pyplot.subplots(1, 2, figsize=(8, 3.2), squeeze=False, sharex=True,
                                                              layout="constrained")
    later_kl = [0.0]        # the first KL of an encoder can be a thousand times what follows: it may leave the panel
    for path in args.logs:
        events = read_events(path)
        reports = [event for event in events if event["event"] == "report"]
        if not reports:
            raise UserError(f"{path}: no reports yet; give the .jsonl file of a run that has trained for a while")
        iterations = [report["iteration"] for report in reports]
        for panel, name in ((mi_panel, "mi"), (kl_panel, "kl")):
            panel.plot(iterations, [report[name] for report in reports], linewidth=1.2, label=label(path, events[0]))
        later_kl += [report["kl"] for report in reports[len(reports) // 2:]]
    top = 2 * max(later_kl) or 1.0
    kl_panel.set_ylim(-0.05 * top, top)
    for panel, title in ((mi_panel, "mutual information of x and z"), (kl_panel, "KL(q(z|x) || p(z))")):
        panel.set(title=title, xlabel="decoder updates", ylabel="nats")
        panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        panel.axhline(0, color="#dddddd", linewidth=1, zorder=0)
        panel.spines[["top", "right"]].set_visible(False)
    figure.legend(*mi_panel.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    figures.save_figure(figure, args.output or Path("plot_figure", f"runs.{args.format}"), dpi=args.dpi)


def label(path, event):
    """What the legend calls a run: its method and seed, or its file where the first event does not tell."""
    settings = event.get("args")
    if settings is None:
        return path.stem
    method = figures.NAMES[settings["aggressive"]] + (", annealed" if settings["kl_start"] < 1 else "")
    job = f", job {settings['jobid']}" if settings["jobid"] else ""
    return f"{settings['dataset']} {method} ({settings['seed']}{job})"


def parse_arguments():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("logs", nargs="+", type=Path, help="the .jsonl files of runs")
    figures.add_figure_flags(parser)
    return parser.parse_args()


if __name__ == "__main__":
    run_command(main)
