"""Tables and figures of the runs that there are: our figures beside the published ones."""

import math
import statistics
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from modules.reports import figures, tables
from modules.cli import LOGS
from modules.config import load_config
from modules.reports.curves import epochs_figure, runs_figure
from modules.command import UserError
from modules.files import replacing
from modules.methods import method_name
from modules.reproduction.plan import METHODS, Method, plan_run
from modules.reproduction.states import state_of
from modules.reports.log_reader import read_events

PUBLISHED = {"nll": "NLL", "kl": "KL", "mi": "MI", "active_units": "AU"}       # names that the paper has, too
LATENT = ("kl", "mi", "mi_agg", "active_units")         # what a model without latent variable does not have
EPOCHS_DRAWN = ("vae", "vae_anneal", "aggressive", "aggressive_anneal")         # figure 5


@dataclass(frozen=True)
class Column:
    """A figure of ours: its key, its name in the header, how many decimals it has."""

    key: str
    title: str
    decimals: int = 2


COLUMNS = (Column("nll", "NLL"), Column("ppl", "PPL"), Column("kl", "KL"), Column("mi", "MI"),
           Column("mi_agg", "MI, whole split"), Column("active_units", "AU", 1),
           Column("aggressive_epochs", "aggressive epochs", 1), Column("hours", "hours"))


@dataclass(frozen=True)
class Row:
    """A method and the states of its runs."""

    method: Method
    settings: dict
    states: list

    @property
    def name(self):
        return method_name(self.settings)

    def count(self, *kinds):
        """How many runs are in one of these states."""
        return sum(state.kind in kinds for state in self.states)

    def figure(self, key):
        """(mean, sample standard deviation, None of a single run) over the finished runs; None where there is none."""
        values = [self._value(state.figures, key) for state in self.states if state.kind == "finished"]
        if not values or None in values:
            return None
        return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None

    def applies(self, key):
        """Whether runs of this method have such a figure at all."""
        if self.settings["model"] == "lm" and key in LATENT:
            return False
        return key != "aggressive_epochs" or bool(self.settings["aggressive"])

    def _value(self, summary, key):
        if key == "hours":
            return summary["seconds"] and summary["seconds"] / 3600
        return summary[key]


def build(tables_and_rows, scale, output, logs=LOGS):
    """Write tables and figures of {Table: {Method: runs}} into the folder `output`, and print the tables."""
    for table, runs in tables_and_rows.items():
        rows = collect(runs, logs)
        stem = Path(output, f"{scale}_{table.name}")
        title, (header, cells) = caption(table), layout(table, rows)
        markdown = f"{title}\n\n{tables.markdown(header, cells)}"
        print(f"\n{markdown}")
        for suffix, content in ((".md", markdown), (".tex", tables.latex(title, header, cells)),
                                (".csv", tables.comma_separated([record(table, row) for row in rows]))):
            write(stem.with_name(stem.name + suffix), content)
        draw(table, runs, stem, logs)


def collect(runs, logs=LOGS):
    """The Rows of {Method: runs}."""
    return [Row(method, vars(its[0].args), [state_of(run, logs) for run in its]) for method, its in runs.items()]


def layout(table, rows):
    """(header, rows of text cells) of a table: our figures, the number of seeds, the published figures."""
    columns = [column for column in COLUMNS if column.key != "ppl" or table.domain == "text"]
    header = ["method", *(column.title for column in columns), "seeds",
              *(f"{name} (paper)" for name in PUBLISHED.values())]
    return header, [[row.name, *_ours(columns, row), seeds(row), *_published(table, row)] for row in rows]


def seeds(row):
    """How many runs the figures are of: "3", or "1 of 3 (1 failed, 1 not run)"."""
    finished = row.count("finished")
    others = dict.fromkeys(state.kind for state in row.states if state.kind != "finished")
    rest = ", ".join(f"{row.count(kind)} {kind}" for kind in others)
    return f"{finished} of {len(row.states)} ({rest})" if rest else str(finished)


def caption(table):
    """What a reader has to know of the figures."""
    run = plan_run(table, METHODS[0], 0)
    batch = load_config(run.args.dataset, run.keys, vars(run.args))["batch_size"]
    svi = f", SA-VAE with {table.svi} steps" if table.svi else ""
    return (f"{table.title}: test split, best model, nats; mean (standard deviation) over the seeds that are finished; "
            f"hours of training. NLL with {run.args.iw_nsamples} samples, annealing over {table.anneal} epochs{svi}, "
            f"batches of {batch}, so MI is at most log {batch} = {math.log(batch):.2f}. "
            f"Right: He et al. 2019, {table.published.name}, five seeds. {table.remark}").strip()


def record(table, row):
    """A row as a program wants it: a dict of plain values, unrounded."""
    counts = {"finished": row.count("finished"), "failed": row.count("failed", "damaged"),
              "half_done": row.count("running", "unfinished"), "not_run": row.count("not run")}
    pairs = {column.key: row.figure(column.key) if row.applies(column.key) else None for column in COLUMNS}
    pairs.update({f"paper_{key}": table.published.figure(row.method.key, key) for key in PUBLISHED})
    ours = {f"{name}_{part}": value for name, pair in pairs.items()
            for part, value in zip(("mean", "sd"), pair or (None, None))}
    return {"table": table.name, "method": row.method.key, "name": row.name, "seeds": len(row.states), **counts, **ours}


def write(path, content):
    """Write a text file, atomically, and say where."""
    with replacing(path) as temporary:
        temporary.write_text(content, encoding="utf-8")
    print(f"wrote {path}")


def draw(table, runs, stem, logs=LOGS):
    """Two figures from the first seed of each method, as far as it has trained: MI over updates, and figure 5 of the
    paper.

    Each as PDF, for a paper, and as PNG, to be looked at.
    """
    trained = {method_name(vars(its[0].args)): its[0].log(logs=logs) for its in runs.values()
               if its[0].args.model != "lm" and _has(its[0], "report", logs)}
    validated = {method_name(vars(its[0].args)): its[0].log(logs=logs) for method, its in runs.items()
                 if method.key in EPOCHS_DRAWN and _has(its[0], "val", logs)}
    if trained:
        figures.save_figure(runs_figure(list(trained.values()), ["mi"], list(trained)), *_formats(stem, "mi"))
    if validated:
        figures.save_figure(epochs_figure(list(validated.values()), list(validated)), *_formats(stem, "epochs"))


def _formats(stem, name):
    """The files of one figure."""
    return [stem.with_name(f"{stem.name}_{name}{suffix}") for suffix in (".pdf", ".png")]


def _has(run, kind, logs):
    """Whether a run's log, if it can be read, has an event of this kind."""
    path = run.log(logs=logs)
    with suppress(UserError):
        return path.is_file() and any(event["event"] == kind for event in read_events(path))
    return False


def _ours(columns, row):
    """The cells of our figures; where there is none yet, how far the runs are stands in the first."""
    if not row.count("finished"):
        return ["; ".join(dict.fromkeys(map(str, row.states))), *("-" for _ in columns[1:])]
    return [tables.with_deviation(row.figure(column.key), column.decimals) if row.applies(column.key) else ""
            for column in columns]


def _published(table, row):
    """The cells of the published figures, empty where the paper has none."""
    found = {key: table.published.figure(row.method.key, key) for key in PUBLISHED}
    return [tables.with_deviation(pair, 1 if key == "active_units" else table.published.decimals) if pair else ""
            for key, pair in found.items()]
