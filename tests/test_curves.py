"""Pictures of runs while they train: what is drawn is what the logs say."""

import json
import shutil

import plot_epochs
import plot_runs
import pytest
import table
from matplotlib import pyplot

from modules.evaluation.optimum import Optimum
from modules.reports.curves import epochs_figure, optimum_figure, run_figure, run_label, run_labels, runs_figure
from modules.reports.log_reader import read_epochs, read_events
from tests.test_log_reader import AGGRESSIVE, EARLIER, PLAIN


@pytest.fixture(autouse=True)
def no_figure_stays():
    yield
    pyplot.close("all")


def curves(panel):
    """{label: (x values, y values)} of the curves of a panel."""
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in panel.lines}


def test_figure_5_has_a_panel_a_run():
    panels = epochs_figure([PLAIN, AGGRESSIVE, PLAIN], ["plain", "aggressive", "again"]).axes
    assert [panel.get_title() for panel in panels] == ["plain", "aggressive", "again"]
    for panel, log in zip(panels, (PLAIN, AGGRESSIVE)):
        recorded, _ = read_epochs(log)
        drawn = list(curves(panel).values())
        assert drawn[:3] == [(recorded["epoch"], recorded[name]) for name in ("kl", "mi", "kl_agg")]
    assert curves(panels[1])["end of the aggressive phase"][0] == [6, 6]  # its seventh epoch
    assert "end of the aggressive phase" not in curves(panels[0])


def test_the_way_to_the_optimum():
    """Of two methods, the second with two runs, the last of which is not finished, and of one without z."""
    logs = [log.with_suffix(".jsonl") for log in (PLAIN, AGGRESSIVE, PLAIN)]
    runs = {"plain": [(logs[0], 11.0)], "both": [(logs[1], 10.25), (logs[2], None)], "lm": [(None, 12.0), (None, 13.0)]}
    left, right = optimum_figure(runs, Optimum(10.0, 0.1, 4.0)).axes
    *drawn, best = left.lines
    for log, curve in zip(logs, drawn, strict=True):
        assert list(curve.get_ydata()) == [event["mi_agg"] for event in read_events(log) if event["event"] == "val"]
    assert [curve.get_color() for curve in drawn] == ["C0", "C1", "C1"] and set(best.get_ydata()) == {4.0}
    assert [dots.get_offsets().tolist() for dots in right.collections] == [[[1, 0]], [[0.25, 1]], [[2, 2], [3, 2]]]
    assert [list(mean.get_xdata()) for mean in right.lines] == [[1], [0.25], [2.5]]
    assert [label.get_text() for label in right.get_yticklabels()] == list(runs)


def test_every_column_tells_its_epochs():
    """Of three panels in two rows the second stands above an empty place."""
    labels = [panel.xaxis.get_tick_params()["labelbottom"] for panel in epochs_figure([PLAIN] * 3, list("abc")).axes]
    assert labels == [False, True, True]


@pytest.mark.parametrize("log, aggressive", [(AGGRESSIVE, [-0.5, 6.5]), (PLAIN, None)])  # its first seven epochs
def test_the_picture_of_one_run(log, aggressive):
    log = log.with_suffix(".jsonl")
    vals = [event for event in map(json.loads, log.read_text().splitlines()) if event["event"] == "val"]
    figure = run_figure(log)
    left, right = figure.axes
    assert figure.get_suptitle() == run_label(log, read_events(log)[0])
    drawn = [*curves(left).values(), *curves(right).values()]
    names = ("kl", "mi_agg", "kl_agg", "loss")
    assert drawn == [([val["epoch"] for val in vals], [val[name] for val in vals]) for name in names]
    for panel in (left, right):
        assert [[span.get_x(), span.get_x() + span.get_width()] for span in panel.patches] == [aggressive] * bool(
            aggressive
        )


def test_the_script_of_figure_5(call, tmp_path, monkeypatch):
    """It takes text logs, too, and names a run by its method where the log tells, else by its file."""
    script = plot_epochs
    earlier = tmp_path / "earlier.log"
    earlier.write_text(EARLIER)
    alone = shutil.copy(PLAIN, tmp_path)
    saved = []
    monkeypatch.setattr(script.figures, "save_figure", lambda figure, path, **options: saved.append((figure, path)))
    assert call(script.main, AGGRESSIVE, earlier, alone, cwd=tmp_path).returncode == 0
    ((figure, path),) = saved
    assert str(path) == "plot_figure/epochs.pdf"
    assert [panel.get_title() for panel in figure.axes] == ["ptb aggressive (783435)", "earlier", PLAIN.stem]
    monkeypatch.undo()
    ran = call(script.main, AGGRESSIVE, PLAIN, "--output", tmp_path / "five.png", cwd=tmp_path)
    assert ran.returncode == 0 and (tmp_path / "five.png").stat().st_size > 1000
    ran = call(script.main, tmp_path / "none.log", cwd=tmp_path)
    assert ran.returncode == 2 and "none.log: no such log" in ran.stderr and ran.stderr.count("\n") == 1


def test_many_runs_keep_apart():
    log = AGGRESSIVE.with_suffix(".jsonl")
    figure = runs_figure([log] * 25, ["mi"], [f"run {i}" for i in range(25)])
    (panel,) = figure.axes
    lines = [line for line in panel.lines if line.get_label().startswith("run")]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == len(lines) == 25
    reports = [event for event in read_events(log) if event["event"] == "report"]
    assert curves(panel)["run 7"] == ([event["iteration"] for event in reports], [event["mi"] for event in reports])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [f"run {i}" for i in range(25)]


def test_the_legend_stays_in_the_picture():
    figure = runs_figure([AGGRESSIVE.with_suffix(".jsonl")] * 4, ["mi"], ["a rather long name of a method " * 2] * 4)
    figure.canvas.draw()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0


def test_which_panels(call, tmp_path, monkeypatch):
    script = plot_runs
    saved = []
    monkeypatch.setattr(script.figures, "save_figure", lambda figure, path, **options: saved.append(figure))
    for flags, titles in (
        ((), ["mutual information of x and z", "KL(q(z|x) || p(z))"]),
        (("--panels", "mi"), ["mutual information of x and z"]),
    ):
        assert call(script.main, AGGRESSIVE.with_suffix(".jsonl"), *flags, cwd=tmp_path).returncode == 0
        assert [panel.get_title() for panel in saved.pop().axes] == titles
    ran = call(script.main, AGGRESSIVE.with_suffix(".jsonl"), "--panels", "au", cwd=tmp_path)
    assert ran.returncode == 2 and "--panels" in ran.stderr


def test_what_the_legend_calls_a_run(tmp_path):
    settings = {"dataset": "ptb", "aggressive": 1, "kl_start": 0.1, "seed": 101, "jobid": 2}
    assert run_label(tmp_path / "x.jsonl", {"args": settings}) == "ptb aggressive + anneal (101, job 2)"
    of_config = {"args": {**settings, "jobid": 0, "bn_gamma": None}, "config": {"bn_gamma": 0.6}}
    assert run_label(tmp_path / "x.jsonl", of_config) == "ptb aggressive + anneal, batch norm 0.6 (101)"
    two = {"args": {"dataset": "ptb", "model": "savae", "beta": 0.4, "seed": 1}}
    assert run_label(tmp_path / "x.jsonl", two) == "ptb SA-VAE, beta-VAE 0.4 (1)"
    assert run_label(tmp_path / "x.jsonl", {}) == run_label(tmp_path / "x.jsonl", {"args": {}}) == "x"
    assert run_label(tmp_path / "$x$.jsonl", {}) == r"\$x\$"


def test_runs_of_one_name_are_told_apart_by_what_differs(tmp_path):
    plain = {"dataset": "ptb", "aggressive": 0, "seed": 101, "lr": 1.0, "momentum": 0.0}
    beginnings = {
        tmp_path / "a" / "x.jsonl": {"args": plain},
        tmp_path / "a" / "y.jsonl": {"args": {**plain, "lr": 0.3, "clip_norm": 2.0}},
        tmp_path / "a" / "z.jsonl": {"args": {**plain, "aggressive": 1}},
        tmp_path / "a" / "old.jsonl": {},
        tmp_path / "b" / "old.jsonl": {},
    }
    assert run_labels(beginnings) == [
        "ptb VAE (101), lr 1.0, clip_norm None",
        "ptb VAE (101), lr 0.3, clip_norm 2.0",
        "ptb aggressive (101)",
        f"old, in {tmp_path / 'a'}",
        f"old, in {tmp_path / 'b'}",
    ]


def test_the_files_of_a_run_are_one_run(call, tmp_path, monkeypatch):
    """As a shell gives them for `logs/ptb/*`; whichever of them is named."""
    json_lines = shutil.copy(AGGRESSIVE.with_suffix(".jsonl"), tmp_path)
    files = [shutil.copy(AGGRESSIVE, tmp_path), tmp_path / f"{AGGRESSIVE.stem}.png", json_lines]
    drawn = []
    monkeypatch.setattr(plot_epochs.figures, "save_figure", lambda figure, path, **options: drawn.append(figure))
    for given in (files, files[:1], files[1:2]):
        assert call(plot_epochs.main, *given, cwd=tmp_path).returncode == 0
        assert len(drawn.pop().axes) == 1
        assert call(plot_runs.main, *given, cwd=tmp_path).returncode == 0
        assert len(drawn.pop().legends[0].get_texts()) == 1
        assert call(table.main, *given, cwd=tmp_path).stdout.count(AGGRESSIVE.stem) == 1
