"""Mutual information and KL of several runs while they train, in one picture.

    python plot_scripts/plot_runs.py logs/examples/ptb/*.jsonl
    python plot_scripts/plot_runs.py logs/synthetic/*.jsonl --output plot_figure/runs.png
    python plot_scripts/plot_runs.py logs/ptb_tiny/*_0_783435.jsonl --panels mi
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from modules.reports import figures                                     # noqa: E402
from modules.reports.curves import RUN_PANELS, runs_figure              # noqa: E402
from modules.command import Parser, run_command                  # noqa: E402


def main():
    args = parse_arguments()
    figures.save_figure(runs_figure(args.logs, args.panels), args.output or Path("plot_figure", f"runs.{args.format}"),
                        dpi=args.dpi)


def parse_arguments():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("logs", nargs="+", type=Path, help="the .jsonl files of runs")
    parser.add_argument("--panels", nargs="+", choices=tuple(RUN_PANELS), default=tuple(RUN_PANELS),
                        help="what to draw, a panel each")
    figures.add_figure_flags(parser)
    return parser.parse_args()


if __name__ == "__main__":
    run_command(main)
