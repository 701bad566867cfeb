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
from itertools import chain
from pathlib import Path

from modules.command import Interrupted, Parser, UserError, note, run_command
from modules.domains.domain import SEEDS
from modules.reproduction import plan, report, runner, slurm
from modules.settings import REPOSITORY, file_name, whole
from modules.training.run_files import LOGS


def main():
    args = parse_arguments()
    methods = [method for method in plan.ROWS if method in args.methods]
    chosen = [table for table in plan.SCALES[args.scale] if table.name in args.tables]
    tables = {table: rows for table in chosen if (rows := plan.rows_of(table, methods, args.seeds))}
    if not tables:
        raise UserError(f"--methods {' '.join(methods)}: --scale {args.scale} has no such row")
    runs = select(tables, args.runs)
    if args.report:
        for run_id, error in report.build(tables, args.scale, args.output, args.logs or LOGS).items():
            note(f"{run_id} is left out: {error}")
    elif args.slurm:
        slurm.write_array(runs, args.slurm, this_command(args), ["--output", str(args.output)])
    elif args.dry_run:
        show(runs)
    else:
        unfinished = [run for run in runs if runner.state_of(run).kind != "finished"]
        show(runs)
        run_all(args, unfinished, tables)


def run_all(args, runs, tables):
    """Make the runs, write the tables, and name the runs that failed, with exit code 1."""
    failed, stopped = runner.run_all(runs, args.workers)
    if not args.runs and not stopped:
        report.build(tables, args.scale, args.output, LOGS)
    for run_id, reason in failed.items():
        print(f"{run_id} {reason}", file=sys.stderr)
    if stopped:
        raise Interrupted("the same command goes on from each run's last checkpoint")
    raise SystemExit(1 if failed else 0)


def select(tables, ids=None):
    """The runs of {Table: rows}, or those of them with these ids, each after the run that it needs.

    Of a table, a seed of every row comes first, then the next seed.
    """
    runs = []
    for rows in tables.values():
        for run in sorted(chain(*rows.values()), key=lambda run: run.s.taskid):
            runs += [one for one in (run.needs, run) if one and one not in runs]
    unknown = set(ids or ()) - {run.id for run in runs}
    if unknown:
        raise UserError(f"--runs {min(unknown)}: no such run in what is asked for; --dry_run lists them")
    wanted = [run for run in runs if ids is None or run.id in ids]
    return [run for run in runs if run in {*wanted, *(one.needs for one in wanted)}]


def show(runs):
    """Print the commands of the runs, each below a comment on how far it is: together a shell script."""
    for run in runs:
        state = runner.state_to_show(run)
        print(f"# {run.id}: {state}{f' ({state.error})' if state.error else ''}")
        if state.kind != "finished":
            print(shlex.join(["python", os.path.relpath(REPOSITORY / run.script), *run.arguments]))
    sys.stdout.flush()


def this_command(args):
    """This command, with the flags that choose the runs of `args`."""
    selection = ["--scale", args.scale, "--tables", *args.tables, "--methods", *args.methods]
    seeds = ["--seeds", str(args.seeds)] if args.seeds else []
    return [sys.executable, os.path.relpath(__file__), *selection, *seeds]


def parse_arguments():
    """The command line, checked."""
    names = {scale: [table.name for table in tables] for scale, tables in plan.SCALES.items()}
    named = "; ".join(f"{scale}: {', '.join(its)}" for scale, its in names.items())
    methods = ", ".join(plan.ROWS)
    parser = Parser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--scale", choices=tuple(names), default="small", help="paper: for GPUs; the others: for two cores")
    add("--tables", nargs="+", metavar="TABLE", help=f"{named} (all of the scale)")
    add("--methods", nargs="+", choices=plan.ROWS, metavar="METHOD", help=f"rows, of {methods} (all)")
    add("--seeds", type=whole(1, len(SEEDS)), help="of each row; by default, the scale says")
    add("--runs", nargs="+", metavar="ID", help="only these of them, and what they need; no tables")
    add("--workers", type=whole(1), default=1, help="runs at a time; OMP_NUM_THREADS unset, they share the cores")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--dry_run", action="store_true", help="only print the commands")
    instead.add_argument(
        "--slurm", type=file_name, metavar="FILE", help="only write a Slurm array script, one task a run"
    )
    instead.add_argument("--report", action="store_true", help="only write the tables and figures of what there is")
    add("--logs", type=file_name, help="with --report: another folder of logs than logs/")
    add("--output", type=file_name, default=Path("build", "tables"), help="folder of tables and figures")
    args = parser.parse_args()
    args.tables, args.methods = args.tables or names[args.scale], args.methods or list(plan.ROWS)
    unknown = set(args.tables) - set(names[args.scale])
    if unknown:
        parser.error(f"--tables {min(unknown)}: --scale {args.scale} has {', '.join(names[args.scale])}")
    if args.logs and not args.report:
        parser.error("--logs goes with --report")
    if args.logs and not args.logs.is_dir():
        parser.error(f"--logs {args.logs}: no such folder")
    if args.runs and args.report:
        parser.error("--runs and --report exclude each other: a table is of all its runs")
    return args


if __name__ == "__main__":
    run_command(main)
