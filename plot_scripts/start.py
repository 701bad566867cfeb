"""What every script of this folder imports first: it brings the project's modules within reach, and shares flags."""

import sys
from math import inf
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from modules.command import Parser, UserError, run_command
from modules.reports.log_reader import log_of
from modules.settings import file_name, whole

__all__ = ["FIGURE", "Path", "UserError", "parse", "run_command", "whole"]
FLAGS = {
    "aggressive": {"type": int, "choices": (0, 1), "default": 1, "help": "which run"},
    "id": {"type": int, "default": 0, "help": "which sentence, counted from 0"},
    "steps": {"type": int, "nargs": 2, "metavar": ("FIRST", "LAST"), "help": "outer iterations to show"},
    "axis": {"type": float, "nargs": 2, "metavar": ("LOW", "HIGH"), "help": "range of both axes"},
    "format": {"choices": ("pdf", "png"), "default": "pdf", "help": "of the figure"},
    "dpi": {"type": whole(1, 2400), "default": 100, "help": "resolution of a png"},
    "output": {"type": file_name, "help": "another place for the figure; its suffix is the format"},
}
FIGURE = ("format", "dpi", "output")  # the flags of every script that draws one figure


def parse(doc, *names, logs=None, **changes):
    """The arguments of a script whose docstring is `doc`: flags of FLAGS by name, and others, or some as `changes`,
    {name: what argparse is to know}; `logs` is the help of the paths that it takes, if it does: one a run remains."""
    parser = Parser(description=doc.splitlines()[0])
    if logs:
        parser.add_argument("logs", nargs="+", type=file_name, help=logs)
    for name in (*changes, *names):
        parser.add_argument(f"--{name}", **{**FLAGS.get(name, {}), **changes.get(name, {})})
    args = parser.parse_args()
    if logs:
        args.logs = list(dict.fromkeys(map(log_of, args.logs)))
    low, high = getattr(args, "axis", None) or (0, 1)
    if not -inf < low < high < inf:
        parser.error(f"--axis {low} {high}: the first must be below the second")
    return args
