"""Tables and figures of the runs that there are: our figures beside the published ones."""

import math
import statistics
from collections import Counter
from dataclasses import dataclass, replace

import scipy.special

from modules.files import replacing
from modules.methods import dimensions, method_name
from modules.reports import figures, tables
from modules.reports.curves import epochs_figure, optimum_figure, runs_figure
from modules.reports.log_reader import MI_OF_EPOCHS
from modules.reproduction import published
from modules.reproduction.plan import OF_PAPER, Table
from modules.reproduction.runner import state_to_show

TITLES = {
    **published.NAMES,
    "ppl": "PPL",
    "gap": "above optimum",
    "mi_agg": "MI, whole split",
    "aggressive_epochs": "aggressive epochs",
    "encoder_steps": "encoder steps, thousands",
}
OF_Z = ("kl", "mi", "mi_agg", "active_units", "encoder_steps")  # figures that a model without z lacks
FACTORS = {"hours": 1 / 3600, "minutes": 1 / 60, "encoder_steps": 1e-3}  # what makes them of what a log holds
DECIMALS = {"active_units": 1, "aggressive_epochs": 1, "minutes": 1, "encoder_steps": 0}  # of others 2
COLLAPSED = 0.1  # nats of aggregate MI below which z counts as lost


@dataclass(frozen=True, eq=False)
class Row:
    """A method in a table, its runs and their states, one a seed."""

    table: Table
    method: str
    runs: list
    states: list
    s = property(lambda row: row.runs[0].s)
    name = property(lambda row: method_name(row.s.record()))
    has_z = property(lambda row: dimensions(row.s) > 0)
    kinds = property(lambda row: Counter(state.kind for state in row.states))

    def summaries(self):
        """{seed: figures} of the finished runs."""
        finished = ((run, state.figures) for run, state in zip(self.runs, self.states) if state.kind == "finished")
        optimum = self.table.optimum
        return {run.s.seed: {**one, "gap": optimum and one["nll"] - optimum.nll} for run, one in finished}

    def figure(self, key):
        """(mean, sample standard deviation, None of a single run) over the finished runs; None where there is none."""
        name = "seconds" if key in ("hours", "minutes") else key
        values = [one[name] for one in self.summaries().values()]
        if (
            (key in OF_Z and not self.has_z)
            or (key == "aggressive_epochs" and not self.s.aggressive)
            or not values
            or None in values
        ):
            return None
        return mean_and_deviation([value * FACTORS.get(key, 1) for value in values])

    def collapsed(self):
        """How many finished runs have lost z: at their best model, after the last epoch, at any epoch after the first;
        empty where there are none, or no z."""
        columns = [[one[key] for one in self.summaries().values()] for key in ("mi_agg", *MI_OF_EPOCHS)]
        if not self.has_z or any(None in column or not column for column in columns):
            return ()
        return tuple(sum(mi < COLLAPSED for mi in column) for column in columns)

    def reached(self, logs):
        """[(log, None of a model without z; NLL, None before the end)] of the runs that have trained."""
        begun = [(run, state.figures) for run, state in zip(self.runs, self.states) if state.figures["epochs"]]
        return [(replace(run.files, logs=logs).log() if self.has_z else None, figures["nll"]) for run, figures in begun]

    def difference(self, other):
        """(mean, half a 95% interval) of this row's NLL less another's, seed by seed; None of fewer than two seeds.

        The interval is Student's for the mean of the paired differences.
        """
        ours, theirs = self.summaries(), other.summaries()
        pairs = [ours[seed]["nll"] - theirs[seed]["nll"] for seed in ours.keys() & theirs.keys()]
        if other is self or len(pairs) < 2:
            return None
        quantile = scipy.special.stdtrit(len(pairs) - 1, 0.975)
        return statistics.fmean(pairs), quantile * statistics.stdev(pairs) / math.sqrt(len(pairs))


def mean_and_deviation(values):
    """The mean and, of several values, the sample standard deviation, else None."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def build(tables_and_rows, scale, output, logs):
    """Write tables and figures of {Table: {method: runs}} into the folder `output`, and print the tables.

    Returns {run id: why} of the runs that have failed, or whose log is that of another run.
    """
    left_out = {}
    for table, methods in tables_and_rows.items():
        states = {method: [state_to_show(run, logs) for run in runs] for method, runs in methods.items()}
        rows = [Row(table, method, runs, states[method]) for method, runs in methods.items()]
        left_out |= {run.id: one.error for row in rows for run, one in zip(row.runs, row.states) if one.error}
        against = next((row for row in rows if row.method == table.against), None)
        title, lines = caption(table, rows[0].s), [cells(row, against) for row in rows]
        if table.optimum:
            lines.append(optimum_line(table.optimum, lines[0]))
        markdown = f"{title}\n\n{tables.markdown(lines)}"
        csv = tables.comma_separated([record(row, against) for row in rows])
        print(f"\n{markdown}")
        for suffix, content in ((".md", markdown), (".tex", tables.latex(title, lines)), (".csv", csv)):
            with replacing(output / f"{scale}_{table.name}{suffix}") as temporary:
                temporary.write_text(content, encoding="utf-8")
            print(f"wrote {output / f'{scale}_{table.name}{suffix}'}")
        draw(table, rows, output / f"{scale}_{table.name}", logs)
    return left_out


def caption(table, s):
    """What a reader has to know of the figures; s are the settings of a run."""
    svi = f", SA-VAE with {table.svi.split()[1]} steps" if table.svi else ""
    time = next((f"; {unit} of training" for unit in ("minutes", "hours") if unit in table.columns), "")
    paper = f"Right: He et al. 2019, {table.published}, five seeds. " if table.published else ""
    return (
        f"{table.title}: test split, best model, nats; mean (standard deviation) over the seeds that are "
        f"finished{time}. NLL with {s.iw_nsamples} samples, annealing over {table.anneal} epochs{svi}, "
        f"batches of {s.batch_size}, so MI is at most log {s.batch_size} = {math.log(s.batch_size):.2f}. "
        f"{collapse_explained(table)}{paper}{table.remark}"
    ).strip()


def collapse_explained(table):
    """What the columns of a table with a comparison mean."""
    if not table.against:
        return ""
    return (
        f"Collapsed: MI over the whole split below {COLLAPSED}, of the best model / after the last epoch / "
        f"at any epoch after the first. "
        f"The difference in NLL is paired by seed, with the half width of its 95% interval. "
    )


def cells(row, against=None):
    """{header: text} of a row: our figures, or how far the runs are, the number of seeds, the published figures.

    `against` is the row whose NLL is taken off this one's, if there is one.
    """
    table, line = row.table, {"method": row.name}
    for key in table.columns if table.domain.has_words else [key for key in table.columns if key != "ppl"]:
        if key == "collapsed":
            line[key] = " / ".join(map(str, row.collapsed()))
            continue
        pair = row.figure(key)
        line[TITLES.get(key, key)] = tables.with_deviation(pair, DECIMALS.get(key, 2)) if pair else ""
    if against:
        pair = row.difference(against)
        line[f"NLL less {against.name}'s"] = f"{pair[0]:+.2f} ± {pair[1]:.2f}" if pair else ""
    if not row.kinds["finished"]:
        line.update(dict.fromkeys(list(line)[1:], "-"), NLL="; ".join(dict.fromkeys(map(str, row.states))))
    rest = ", ".join(f"{count} {kind}" for kind, count in row.kinds.items() if kind != "finished")
    line["seeds"] = str(row.kinds["finished"]) + (f" of {len(row.states)} ({rest})" if rest else "")
    if not table.published:
        return line
    paper = published.printed(table.published, row.method)
    return {**line, **{f"{title} (paper)": paper.get(key, "") for key, title in published.NAMES.items()}}


def optimum_line(optimum, like):
    """The row of the best that can be done, with the headers of the row `like`."""
    known = {"method": "optimum", "NLL": f"{optimum.nll:.2f}", TITLES["gap"]: "0.00"}
    return {**dict.fromkeys(like, ""), **known, TITLES["mi_agg"]: f"{optimum.information:.2f}"}


def record(row, against=None):
    """A row as a program wants it: a dict of plain values, unrounded."""
    table = row.table
    values = {"table": table.name, "method": row.method, "name": row.name, "planned": len(row.states)}
    kinds = {"finished": "finished", "failed": "failed", "half_done": "unfinished", "not_run": "not run"}
    values.update((name, row.kinds[kind]) for name, kind in kinds.items())
    paper = published.figures(table.published, row.method)
    pairs = {key: row.figure(key) for key in table.columns if key != "collapsed"}
    pairs |= {f"paper_{key}": paper.get(key) for key in published.NAMES}
    for key, pair in pairs.items():
        values[f"{key}_mean"], values[f"{key}_sd"] = pair or (None, None)
    if against:
        values["nll_less"], values["nll_less_95"] = row.difference(against) or (None, None)
        values.update(zip(("collapsed_best", "collapsed_last", "collapsed_ever"), row.collapsed() or [None] * 3))
    return values


def draw(table, rows, stem, logs):
    """Figures, as PDF and as PNG: from the first seed of each method that has trained, MI over updates and figure 5 of
    the paper; from every seed, where the optimum is known, how near methods come to it."""
    reached = {row: found for row in rows if (found := row.reached(logs))}
    latent = {row.name: found[0][0] for row, found in reached.items() if row.has_z}
    main = {row.name: latent[row.name] for row in reached if row.has_z and row.method in OF_PAPER}
    drawn = {}
    if latent:
        drawn["mi"] = runs_figure([*latent.values()], ["mi"], [*latent])
    if main:
        drawn["epochs"] = epochs_figure([*main.values()], [*main])
    if latent and table.optimum:
        drawn["optimum"] = optimum_figure({row.name: found for row, found in reached.items()}, table.optimum)
    for name, figure in drawn.items():
        figures.save_figure(figure, f"{stem}_{name}.pdf", f"{stem}_{name}.png")
