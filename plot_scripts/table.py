"""A table of the test figures of finished runs: NLL, KL, MI, AU, as in table 1 of the paper.

    python plot_scripts/table.py logs/synthetic/*.jsonl
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from modules.errors import Parser, run_command       # noqa: E402
from modules.training.log_reader import read_events  # noqa: E402

COLUMNS = ("nll", "ppl", "kl", "mi", "mi_agg", "active_units", "epochs", "minutes")


def main():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("logs", nargs="+", type=Path, help="the .jsonl files of finished runs")
    rows = [read_row(path) for path in parser.parse_args().logs]
    width = max(len(name) for name, _ in rows)
    print("run".ljust(width), *(column.rjust(12) for column in COLUMNS))
    for name, row in rows:
        print(name.ljust(width), *(format_cell(row[column]).rjust(12) for column in COLUMNS))


def read_row(path):
    """(name of the run, its test figures) from a run's JSON lines; what the run has not reached is None."""
    row = dict.fromkeys(COLUMNS)
    for event in read_events(path):
        if event["event"] == "iw":
            row["nll"], row["ppl"] = event["nll"], event["ppl"]
        elif event["event"] == "test" and event.get("final"):
            row.update({column: event[column] for column in ("kl", "mi", "mi_agg", "active_units")})
        elif event["event"] == "val":
            row["epochs"], row["minutes"] = event["epoch"] + 1, event["seconds"] / 60
    return path.stem, row


def format_cell(value):
    """A number as the table shows it."""
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{round(value, 2) + 0.0:.2f}"       # + 0.0: no "-0.00"


if __name__ == "__main__":
    run_command(main)
