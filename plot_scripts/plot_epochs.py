"""KL, mutual information and KL(q(z) || p(z)) over the epochs of some runs, a panel each (paper, figure 5).

    python plot_scripts/plot_epochs.py logs/examples/ptb/*.jsonl
    python plot_scripts/plot_epochs.py logs/yahoo/<id>.log --output plot_figure/yahoo.png
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from modules.reports import figures                                     # noqa: E402
from modules.reports.curves import epochs_figure, log_label             # noqa: E402
from modules.command import Parser, run_command                  # noqa: E402


def main():
    args = parse_arguments()
    figure = epochs_figure(args.logs, [log_label(log) for log in args.logs])
    figures.save_figure(figure, args.output or Path("plot_figure", f"epochs.{args.format}"), dpi=args.dpi)


def parse_arguments():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("logs", nargs="+", type=Path, help="the .jsonl or .log files of runs, also of earlier code")
    figures.add_figure_flags(parser)
    return parser.parse_args()


if __name__ == "__main__":
    run_command(main)
