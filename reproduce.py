"""Turn runs into tables: run whatever a table still lacks, then print our figures beside the paper's.

    python reproduce.py --dry_run                           # the commands of all runs, and how far each is
    python reproduce.py --workers 2                         # the tables that two cores can fill in some hours
    python reproduce.py --methods vae aggressive --seeds 1 --tables ptb
    python reproduce.py --report                            # the tables of what there is
    python reproduce.py --scale paper --slurm array.sh      # the published tables, on a cluster

Prints the commands first. Finished runs are skipped and interrupted ones resumed; Ctrl-C lets the runs save. A run that
fails leaves the others alone and is named at the end, with exit code 1. Tables go to build/tables as Markdown, LaTeX
and CSV, with two figures: mutual information of every method over training, and figure 5 of the paper.
"""

import os
import shlex
import sys
from pathlib import Path

from modules import cli
from modules.config import REPOSITORY
from modules.command import Parser, UserError, run_command
from modules.reproduction import plan, report, runner, slurm
from modules.reproduction.states import flags_to_start, state_of


def main():
    args = parse_arguments()
    tables = {table: plan.rows_of(table, [method for method in plan.METHODS if method.key in args.methods], args.seeds)
              for table in plan.SCALES[args.scale] if table.name in args.tables}
    runs = chosen([run for rows in tables.values() for run in plan.runs_of(rows)], args.runs)
    if args.report:
        report.build(tables, args.scale, args.output, args.logs)
    elif args.slurm:
        slurm.write_array(runs, args.slurm, [*this_command(), *selection(args)], ["--output", str(args.output)])
    else:
        show(runs)
        failed = {} if args.dry_run else runner.run_all(unfinished(runs), args.workers)
        if not args.dry_run and not args.runs:
            report.build(tables, args.scale, args.output)
        end(failed)


def chosen(runs, ids):
    """The runs with these ids (None: all) and those that they need."""
    unknown = set(ids or ()) - {run.id for run in runs}
    if unknown:
        raise UserError(f"--runs {min(unknown)}: no such run in the tables, methods and seeds asked for; --dry_run "
                        "lists them")
    wanted = [run for run in runs if ids is None or run.id in ids]
    needed = {run.needs for run in wanted}
    return [run for run in runs if run in wanted or run in needed]


def unfinished(runs):
    return [run for run in runs if state_of(run).kind != "finished"]


def show(runs):
    """Print the commands of the runs, each below a comment on how far it is: together a shell script."""
    for run in runs:
        state = state_of(run)
        print(f"# {run.id}: {state}{f' ({state.error})' if state.error else ''}")
        if state.kind not in ("finished", "running", "damaged"):
            try:
                print(shlex.join(["python", script_path(run.script), *run.flags, *flags_to_start(run)]))
            except UserError as error:
                print(f"# {error}")
    sys.stdout.flush()


def end(failed):
    """Name the runs that failed, if any, and end with exit code 1 then."""
    runner.name_failures(failed)
    if failed:
        raise SystemExit(1)


def script_path(name):
    """Where a script lies, from the current folder."""
    return os.path.relpath(REPOSITORY / name)


def this_command():
    return [sys.executable, script_path("reproduce.py")]


def selection(args):
    """The flags that choose the runs of `args`."""
    return ["--scale", args.scale, "--tables", *args.tables, "--methods", *args.methods,
            *(["--seeds", str(args.seeds)] if args.seeds else [])]


def parse_arguments():
    methods = [method.key for method in plan.METHODS]
    names = {scale: [table.name for table in tables] for scale, tables in plan.SCALES.items()}
    parser = Parser(description=__doc__.splitlines()[0])
    what = parser.add_argument_group("which runs")
    what.add_argument("--scale", choices=tuple(names), default="small",
                      help="small: real data and networks for two CPU cores; paper: as published, on GPUs")
    what.add_argument("--tables", nargs="+", metavar="TABLE", help="; ".join(
        f"{scale}: {', '.join(its)}" for scale, its in names.items()) + " (all of the scale)")
    what.add_argument("--methods", nargs="+", choices=methods, metavar="METHOD",
                      help=f"rows of the tables, of {', '.join(methods)} (all)")
    what.add_argument("--seeds", type=cli.checked(int, lambda n: 1 <= n <= len(cli.SEEDS), "whole number from 1 to 10"),
                      help="of each row; by default, the scale says")
    what.add_argument("--runs", nargs="+", metavar="ID", help="only these of them, and what they need; no tables")
    how = parser.add_argument_group("what to do with them")
    how.add_argument("--workers", type=cli.COUNT, default=1, help="runs at a time; they share the cores, unless "
                     "OMP_NUM_THREADS is set")
    instead = how.add_mutually_exclusive_group()
    instead.add_argument("--dry_run", action="store_true", help="only print the commands")
    instead.add_argument("--slurm", type=Path, metavar="FILE", help="only write a Slurm array script, one task a run")
    instead.add_argument("--report", action="store_true", help="only write the tables and figures of what there is")
    how.add_argument("--logs", type=Path, help="with --report: another folder of logs than logs/")
    how.add_argument("--output", type=Path, default=Path("build", "tables"), help="folder of tables and figures")
    args = parser.parse_args()
    args.tables, args.methods = args.tables or names[args.scale], args.methods or methods
    unknown = set(args.tables) - set(names[args.scale])
    if unknown:
        parser.error(f"--tables {min(unknown)}: --scale {args.scale} has {', '.join(names[args.scale])}")
    if args.logs and not args.report:
        parser.error("--logs goes with --report")
    if args.logs and not args.logs.is_dir():
        parser.error(f"--logs {args.logs}: no such folder")
    if args.runs and args.report:
        parser.error("--runs and --report exclude each other: a table is of all its runs")
    args.logs = args.logs or cli.LOGS
    return args


if __name__ == "__main__":
    run_command(main)
