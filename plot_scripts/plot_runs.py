"""Mutual information and KL of several runs while they train, in one picture.

python plot_scripts/plot_runs.py logs/examples/ptb/*.jsonl
python plot_scripts/plot_runs.py logs/synthetic/*.jsonl --output plot_figure/runs.png
python plot_scripts/plot_runs.py logs/ptb_tiny/*_0_783435.jsonl --panels mi
"""

from start import FIGURE, parse, run_command

from modules.reports import figures
from modules.reports.curves import RUN_PANELS, runs_figure


def main():
    panels = {"nargs": "+", "choices": tuple(RUN_PANELS), "default": tuple(RUN_PANELS)}
    panels["help"] = "what to draw, a panel each"
    args = parse(__doc__, *FIGURE, logs="the .jsonl files of runs", panels=panels)
    figure = runs_figure(args.logs, args.panels)
    figures.save_figure(figure, args.output or f"plot_figure/runs.{args.format}", dpi=args.dpi)


if __name__ == "__main__":
    run_command(main)
