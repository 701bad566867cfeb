"""A table of the test figures of finished runs: NLL, KL, MI, AU, as in table 1 of the paper.

    python plot_scripts/table.py logs/synthetic/*.jsonl
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from modules.reports import tables                                      # noqa: E402
from modules.command import Parser, run_command                  # noqa: E402
from modules.reports.log_reader import read_events, summarise  # noqa: E402

COLUMNS = ("nll", "ppl", "kl", "mi", "mi_agg", "active_units", "epochs", "minutes")


def main():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("logs", nargs="+", type=Path, help="the .jsonl files of finished runs")
    rows = [read_row(path) for path in parser.parse_args().logs]
    width = max(len(name) for name, _ in rows)
    print("run".ljust(width), *(column.rjust(12) for column in COLUMNS))
    for name, row in rows:
        print(name.ljust(width), *(tables.number(row[column]).rjust(12) for column in COLUMNS))


def read_row(path):
    """(name of the run, its test figures) from a run's JSON lines; what the run has not reached is None."""
    summary = summarise(read_events(path))
    return path.stem, {**summary, "epochs": summary["epochs"] or None,
                       "minutes": summary["seconds"] and summary["seconds"] / 60}


if __name__ == "__main__":
    run_command(main)
