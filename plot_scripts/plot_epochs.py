"""KL, mutual information and KL(q(z) || p(z)) over the epochs of some runs, a panel each (paper, figure 5).

python plot_scripts/plot_epochs.py logs/examples/ptb/*.jsonl
python plot_scripts/plot_epochs.py logs/yahoo/<id>.log --output plot_figure/yahoo.png
"""

from start import FIGURE, parse, run_command

from modules.reports import figures
from modules.reports.curves import epochs_figure


def main():
    args = parse(__doc__, *FIGURE, logs="the .jsonl or .log files of runs, also of earlier code")
    figures.save_figure(epochs_figure(args.logs), args.output or f"plot_figure/epochs.{args.format}", dpi=args.dpi)


if __name__ == "__main__":
    run_command(main)
