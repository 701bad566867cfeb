"""A table of the test figures of finished runs: NLL, KL, MI, AU, as in table 1 of the paper.

python plot_scripts/table.py logs/synthetic/*.jsonl
"""

from start import parse, run_command

from modules.reports.log_reader import read_events, summarise
from modules.reports.tables import number

COLUMNS = ("nll", "ppl", "kl", "mi", "mi_agg", "active_units", "epochs", "minutes")


def main():
    logs = parse(__doc__, logs="the .jsonl files of finished runs").logs
    summaries = [summarise(read_events(log)) for log in logs]
    width = max(len(log.stem) for log in logs)
    print("run".ljust(width), *(column.rjust(12) for column in COLUMNS))
    for log, summary in zip(logs, summaries):
        minutes = summary["seconds"] and summary["seconds"] / 60
        row = {**summary, "epochs": summary["epochs"] or None, "minutes": minutes}  # None: not reached
        print(log.stem.ljust(width), *(number(row[column]).rjust(12) for column in COLUMNS))


if __name__ == "__main__":
    run_command(main)
