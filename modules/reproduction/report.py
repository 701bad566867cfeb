"""Tables and figures of the runs that there are: our figures beside the published ones."""

import math
import statistics
from collections import Counter
from dataclasses import dataclass

from modules.files import replacing
from modules.methods import method_name
from modules.reports import figures, tables
from modules.reports.curves import epochs_figure, runs_figure
from modules.reproduction import published
from modules.reproduction.plan import MAIN
from modules.reproduction.runner import state_of

COLUMNS = ("nll", "ppl", "kl", "mi", "mi_agg", "active_units", "aggressive_epochs", "hours")  # our figures
TITLES = {**published.NAMES, "ppl": "PPL", "mi_agg": "MI, whole split", "aggressive_epochs": "aggressive epochs"}


@dataclass(frozen=True, eq=False)
class Row:
    """A method, its runs and their states, one a seed."""

    method: str
    runs: list
    states: list
    s = property(lambda row: row.runs[0].s)
    name = property(lambda row: method_name(row.s.record()))
    kinds = property(lambda row: Counter(state.kind for state in row.states))

    def figure(self, key):
        """(mean, sample standard deviation, None of a single run) over the finished runs; None where there is none."""
        summaries = [state.figures for state in self.states if state.kind == "finished"]
        values = [one["seconds"] and one["seconds"] / 3600 if key == "hours" else one[key] for one in summaries]
        without_z = self.s.model == "lm" and key in ("kl", "mi", "mi_agg", "active_units")
        if without_z or (key == "aggressive_epochs" and not self.s.aggressive) or not values or None in values:
            return None
        return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def build(tables_and_rows, scale, output, logs):
    """Write tables and figures of {Table: {method: runs}} into the folder `output`, and print the tables."""
    for table, methods in tables_and_rows.items():
        rows = [Row(method, runs, [state_of(run, logs) for run in runs]) for method, runs in methods.items()]
        title, lines = caption(table, rows[0].s), [cells(table, row) for row in rows]
        markdown = f"{title}\n\n{tables.markdown(lines)}"
        csv = tables.comma_separated([record(table, row) for row in rows])
        print(f"\n{markdown}")
        for suffix, content in ((".md", markdown), (".tex", tables.latex(title, lines)), (".csv", csv)):
            with replacing(output / f"{scale}_{table.name}{suffix}") as temporary:
                temporary.write_text(content, encoding="utf-8")
            print(f"wrote {output / f'{scale}_{table.name}{suffix}'}")
        draw(rows, output / f"{scale}_{table.name}", logs)


def caption(table, s):
    """What a reader has to know of the figures; s are the settings of a run."""
    svi = f", SA-VAE with {table.svi.split()[1]} steps" if table.svi else ""
    return (
        f"{table.title}: test split, best model, nats; mean (standard deviation) over the seeds that are finished; "
        f"hours of training. NLL with {s.iw_nsamples} samples, annealing over {table.anneal} epochs{svi}, "
        f"batches of {s.batch_size}, so MI is at most log {s.batch_size} = {math.log(s.batch_size):.2f}. "
        f"Right: He et al. 2019, {table.published}, five seeds. {table.remark}"
    ).strip()


def cells(table, row):
    """{header: text} of a row: our figures, or how far the runs are, the number of seeds, the published figures."""
    line = {"method": row.name}
    for key in COLUMNS if table.domain.has_words else [key for key in COLUMNS if key != "ppl"]:
        pair = row.figure(key)
        decimals = 1 if key in ("active_units", "aggressive_epochs") else 2
        line[TITLES.get(key, key)] = tables.with_deviation(pair, decimals) if pair else ""
    if not row.kinds["finished"]:
        line.update(dict.fromkeys(list(line)[1:], "-"), NLL="; ".join(dict.fromkeys(map(str, row.states))))
    rest = ", ".join(f"{count} {kind}" for kind, count in row.kinds.items() if kind != "finished")
    line["seeds"] = str(row.kinds["finished"]) + (f" of {len(row.states)} ({rest})" if rest else "")
    paper = published.printed(table.published, row.method)
    return {**line, **{f"{title} (paper)": paper.get(key, "") for key, title in published.NAMES.items()}}


def record(table, row):
    """A row as a program wants it: a dict of plain values, unrounded."""
    values = {"table": table.name, "method": row.method, "name": row.name, "seeds": len(row.states)}
    kinds = {"finished": "finished", "failed": "failed", "half_done": "unfinished", "not_run": "not run"}
    values.update((name, row.kinds[kind]) for name, kind in kinds.items())
    paper = published.figures(table.published, row.method)
    pairs = {key: row.figure(key) for key in COLUMNS} | {f"paper_{key}": paper.get(key) for key in published.NAMES}
    for key, pair in pairs.items():
        values[f"{key}_mean"], values[f"{key}_sd"] = pair or (None, None)
    return values


def draw(rows, stem, logs):
    """Two figures, as PDF and as PNG, from the first seed of each method, as far as it has trained: MI over updates,
    and figure 5 of the paper."""
    trained = {row: row.runs[0].log(logs=logs) for row in rows if row.states[0].figures["epochs"]}
    latent = {row.name: log for row, log in trained.items() if row.s.model != "lm"}
    main = {row.name: log for row, log in trained.items() if row.method in MAIN}
    if latent:
        figures.save_figure(runs_figure([*latent.values()], ["mi"], [*latent]), f"{stem}_mi.pdf", f"{stem}_mi.png")
    if main:
        figures.save_figure(epochs_figure([*main.values()], [*main]), f"{stem}_epochs.pdf", f"{stem}_epochs.png")
