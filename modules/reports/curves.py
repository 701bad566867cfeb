"""Curves of runs while they train, drawn from their logs."""

from math import nan
from statistics import fmean
from textwrap import fill

from matplotlib import pyplot
from matplotlib.ticker import MaxNLocator

from modules.command import UserError
from modules.methods import method_name
from modules.reports.log_reader import read_epochs, read_events, run_events
from modules.settings import saved_settings

EPOCH_CURVES = {
    "kl": (r"KL$(q_\phi(z|x)\,\Vert\,p(z))$", "#55595f", "-"),
    "mi": ("MI", "#4c72b0", "--"),
    "kl_agg": (r"KL$(q_\phi(z)\,\Vert\,p(z))$", "#c44e52", "-."),
}
RUN_PANELS = {"mi": "mutual information of x and z", "kl": "KL(q(z|x) || p(z))"}
LETTER, HANDLE, LINE = 0.06, 0.6, 0.17  # inches in a legend: of a letter, of the line beside it, of a row
COLOURS, STYLES = 10, ("-", "--", ":", "-.")  # of matplotlib's cycle; runs beyond it differ in their lines


def epochs_figure(logs, titles=None):
    """One panel a log with its three curves (paper, figure 5), sharing their axes; at most two beside each other."""
    titles = titles or run_labels({log: next(iter(run_events(log)), {}) for log in logs})
    columns = min(2, len(titles))
    rows = -(-len(titles) // columns)
    shared = {"squeeze": False, "sharex": True, "sharey": True, "layout": "constrained"}
    figure, panels = pyplot.subplots(rows, columns, figsize=(4.5 * columns, 3.2 * rows), **shared)
    for panel, log, title in zip(panels.flat, logs, titles):
        draw_epochs(panel, log)
        panel.set_title(title, fontsize=10)
    for panel in panels.flat[len(titles) :]:
        panel.remove()
        panels[-2, -1].tick_params(labelbottom=True)  # the panel above it is now the last of its column
    return figure


def run_figure(log):
    """Validation figures of the run whose `.jsonl` is `log`, one dot an epoch: left KL = MI + KL(q(z) || p(z)), q(z)
    mixed over the whole split; right the loss. Aggressive epochs are shaded."""
    events = read_events(log)
    vals = [event for event in events if event["event"] == "val"]
    epochs = [val["epoch"] for val in vals]
    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.2), sharex=True, layout="constrained")
    figure.suptitle(run_label(log, events[0]), fontsize=10)
    for name, (label, colour, style) in EPOCH_CURVES.items():
        values = [val["mi_agg" if name == "mi" else name] for val in vals]
        panels[0].plot(epochs, values, style, color=colour, marker=".", label=label)
    panels[1].plot(epochs, [val["loss"] for val in vals], color="#55595f", marker=".")
    aggressive = [val["epoch"] for val in vals if val["aggressive"]]
    for panel, title in zip(panels, ("validation KL = MI + KL(q(z) || p(z))", "validation loss")):
        if aggressive:
            panel.axvspan(aggressive[0] - 0.5, aggressive[-1] + 0.5, color="#eeeeee", zorder=0, label="aggressive")
        _finish(panel, title=title, xlabel="epoch")
    panels[0].legend(frameon=False, fontsize=8)
    return figure


def optimum_figure(runs, optimum):
    """How near methods come to the best that can be done (`modules.evaluation.optimum.Optimum`): left aggregate MI of
    the validation split over epochs, a line a run; right how far the test NLL is above the optimum, a dot a run and a
    bar at their mean.

    runs: {method: [(log, NLL), ...]}, a pair a seed; the log of a model without z is None, and the NLL of a run that is
    not finished.
    """
    size = (10, max(2.8, 1.6 + 0.28 * len(runs)))
    figure, (left, right) = pyplot.subplots(1, 2, figsize=size, layout="constrained", width_ratios=(1, 1.2))
    for place, seeds in enumerate(runs.values()):
        colour = f"C{place % COLOURS}"
        for log in (log for log, _ in seeds if log):
            vals = [event for event in read_events(log) if event["event"] == "val"]
            left.plot(
                [val["epoch"] for val in vals], [val.get("mi_agg", nan) for val in vals], color=colour, linewidth=0.9
            )
        above = [nll - optimum.nll for _, nll in seeds if nll is not None]
        right.scatter(above, [place] * len(above), s=22, color=colour, alpha=0.6, linewidth=0)
        right.plot([fmean(above)] if above else [], [place] * bool(above), "|", color=colour, markersize=18)
    left.axhline(optimum.information, color="#55595f", linestyle=":")
    place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "ha": "right", "va": "top"}
    left.annotate("what there is to know", (1, optimum.information), (0, -3), **place, fontsize=8)
    _finish(left, title="mutual information of x and z, validation", xlabel="epoch")
    _finish(right, title="test NLL above the optimum", xlabel="nats")
    right.set(ylabel="", yticks=range(len(runs)), ylim=(len(runs) - 0.4, -0.6))
    right.set_yticklabels([fill(method, 28) for method in runs], linespacing=0.9)
    right.xaxis.set_major_locator(MaxNLocator(6))
    right.grid(axis="x", color="#eeeeee")
    right.set_axisbelow(True)
    for colour, label in enumerate(right.get_yticklabels()):
        label.set_color(f"C{colour % COLOURS}")
    return figure


def draw_epochs(panel, log):
    """KL, MI and KL(q(z) || p(z)) of a log, one dot per validation; a thin line is at the one that ended the
    aggressive phase."""
    epochs, aggressive = read_epochs(log)
    for name, (label, colour, style) in EPOCH_CURVES.items():
        panel.plot(epochs["epoch"], epochs[name], style, color=colour, marker=".", label=label)
    if aggressive is not None:
        panel.axvline(aggressive - 1, color="#999999", linewidth=0.8, label="end of the aggressive phase")
    _finish(panel, xlabel="epoch")
    panel.legend(frameon=False, fontsize=8)


def runs_figure(logs, names=tuple(RUN_PANELS), labels=None):
    """One panel for each of `names` (of RUN_PANELS) with a curve a log over decoder updates, and a legend below.

    Raises UserError, naming the log, if one has no reports yet.
    """
    runs = [read_events(log) for log in logs]
    labels = labels or run_labels({log: next(iter(events), {}) for log, events in zip(logs, runs)})
    runs = [[event for event in events if event["event"] == "report"] for events in runs]
    if [] in runs:
        log = logs[runs.index([])]
        raise UserError(f"{log}: no reports yet; give the .jsonl file of a run that has trained for a while")
    width = 4 * max(2, len(names))
    columns = max(1, int(width / (LETTER * max(map(len, labels)) + HANDLE)))
    size = (width, 3 + LINE * -(-len(logs) // columns))
    figure, (panels,) = pyplot.subplots(1, len(names), figsize=size, squeeze=False, sharex=True, layout="constrained")
    for panel, name in zip(panels, names):
        _draw_reports(panel, name, runs, labels)
    lines, texts = panels[0].get_legend_handles_labels()
    figure.legend(lines, texts, loc="outside lower center", ncols=columns, frameon=False, fontsize=8)
    return figure


def _draw_reports(panel, name, runs, labels):
    """The figure `name` of the reports of some runs, a curve each, over decoder updates."""
    for i, (reports, label) in enumerate(zip(runs, labels)):
        x, y = ([report[key] for report in reports] for key in ("iteration", name))
        panel.plot(x, y, STYLES[i // COLOURS % len(STYLES)], color=f"C{i % COLOURS}", linewidth=1.2, label=label)
    if name == "kl":  # the first KL of an encoder can be a thousand times what follows: it may leave the panel
        top = 2 * max(0.0, *(report["kl"] for reports in runs for report in reports[len(reports) // 2 :])) or 1.0
        panel.set_ylim(-0.05 * top, top)
    panel.axhline(0, color="#dddddd", linewidth=1, zorder=0)
    _finish(panel, title=RUN_PANELS[name], xlabel="decoder updates")


def _finish(panel, **words):
    panel.set(ylabel="nats", **words)
    panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    panel.spines[["top", "right"]].set_visible(False)


def run_labels(beginnings):
    """What a legend calls runs, {log: its first event}: a list of labels. Those of one name are told apart by the
    settings that differ, or, where none does, by the folder."""
    labels = {log: run_label(log, event) for log, event in beginnings.items()}
    of_name = {label: [log for log in labels if labels[log] == label] for label in labels.values()}
    for alike in (logs for logs in of_name.values() if len(logs) > 1):
        settings = {log: saved_settings(beginnings[log]) for log in alike}
        names = dict.fromkeys(name for its in settings.values() for name in its)
        differ = [name for name in names if len({str(its.get(name)) for its in settings.values()}) > 1]
        for log, its in settings.items():
            parts = [f"{name} {its.get(name)}" for name in differ] or [f"in {log.parent}"]
            labels[log] = ", ".join([labels[log], *parts])
    return [*labels.values()]


def run_label(path, event):
    """What the legend calls a run: its method and seed, or its file where the first event does not tell.

    Raises UserError, naming the log, for settings that no run has.
    """
    settings, label = saved_settings(event), path.stem
    if {"dataset", "seed"} <= settings.keys():
        job = f", job {settings['jobid']}" if settings.get("jobid") else ""
        try:
            label = f"{settings['dataset']} {method_name(settings)} ({settings['seed']}{job})"
        except (TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{path}: the settings in its first line are none of a run ({error})") from None
    return label.replace("$", r"\$")  # to matplotlib, a formula would begin
