"""Scripts that draw or tabulate: whatever a file holds, one clear line and exit code 2, never a traceback."""

import importlib
import json

import numpy as np
import pytest
from conftest import ROOT, assert_refused
from matplotlib import pyplot

PLOTS = ROOT / "plot_scripts"
LOG_SCRIPTS = ("plot_epochs", "plot_runs", "table")
STATISTICS = {
    "plot_single": "single/aggressive1",
    "plot_multiple": "multiple/aggressive1_iter3",
    "animate --steps 1 2": "single/aggressive1",
    "animate --mode multiple": "multiple/aggressive1_iter3",
}
SETTINGS = {"dataset": "tiny", "seed": 1}
EVENTS = [
    {"event": "run", "args": SETTINGS},
    {"event": "report", "epoch": 0, "iteration": 3, "kl": 2.0, "mi": 1.0},
    {"event": "val", "epoch": 0, "kl": 2.0, "mi": 1.0, "kl_agg": 0.9, "seconds": 3.0},
    {"event": "test", "final": True, "kl": 2.0, "mi": 1.0, "mi_agg": 1.0, "active_units": 2},
    {"event": "iw", "nll": 30.0, "ppl": None},
]


def statistics(path):
    """Sound arrays of a snapshot or a trajectory, whichever is kept at `path`."""
    steps = (20,) if path.startswith("single") else ()
    arrays = {name: np.zeros((*steps, 4)) for name in ("model_mean", "inference_mean")}
    arrays |= {name: np.ones(steps) for name in ("kl", "mi")}
    arrays["iteration"] = np.arange(20) if steps else np.array(3)
    return arrays | {"half": np.full(steps, "encoder"), "settings": np.array("{}")}


@pytest.fixture
def run(call, tmp_path):
    """`run(command, *args)`: a plot script's command line, in a folder of its own; returns an `Outcome`."""

    def run(command, *args):
        name, *flags = command.split()
        return call(importlib.import_module(name).main, *flags, *args, cwd=tmp_path)

    yield run
    pyplot.close("all")


@pytest.fixture
def draw(run, tmp_path):
    """`draw(command, arrays)`: draw a file of these arrays, or bytes."""

    def draw(command, arrays):
        path = tmp_path / "plot_data" / f"{STATISTICS[command]}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **arrays) if isinstance(arrays, dict) else path.write_bytes(arrays)
        return run(command, "--dpi", 20)

    return draw


@pytest.mark.parametrize("script", LOG_SCRIPTS)
def test_sound_logs(run, tmp_path, script):
    (tmp_path / "run.jsonl").write_text("".join(f"{json.dumps(event)}\n" for event in EVENTS))
    assert run(script, "run.jsonl").returncode == 0


@pytest.mark.parametrize(
    "number, change",
    [
        (1, {"kl": "2"}),
        (1, {"kl": None}),
        (1, {"mi": float("nan")}),
        (1, {"kl": float("inf")}),
        (1, {"iteration": True}),
        (1, {"kl": 1e308}),
        (1, {"iteration": 10**400}),
        (2, {"kl_agg": "x"}),
        (2, {"kl_agg": None}),
        (2, {"seconds": []}),
        (2, {"epoch": float("nan")}),
        (3, {"mi_agg": "x"}),
        (3, {"active_units": {}}),
        (4, {"nll": "30"}),
        (4, {"ppl": float("nan")}),
        (0, {"event": 3.0, "args": [1]}),
        (0, {"args": "x"}),
        (2, {"event": {}}),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize("script", LOG_SCRIPTS)
def test_logs_of_wrong_content(run, tmp_path, script, number, change):
    events = [{**event, **(change if i == number else {})} for i, event in enumerate(EVENTS)]
    (tmp_path / "run.jsonl").write_text("".join(f"{json.dumps(event)}\n" for event in events))
    assert_refused(run(script, "run.jsonl"), f"run.jsonl, line {number + 1}: not an event")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "3\n", '"kl"\n', "null\n", "{}\n", "9" * 5000 + "\n"], ids=lambda text: text[:5]
)
@pytest.mark.parametrize("script", LOG_SCRIPTS)
def test_logs_of_other_json(run, tmp_path, script, text):
    (tmp_path / "run.jsonl").write_text(text)
    assert_refused(run(script, "run.jsonl"), "run.jsonl, line 1: not an event")


@pytest.mark.parametrize("change", [{"beta": []}, {"free_bits": {}}, {"bn_gamma": "x"}])
@pytest.mark.parametrize("script", ["plot_epochs", "plot_runs"])
def test_settings_of_no_run(run, tmp_path, script, change):
    events = [{"event": "run", "args": {**SETTINGS, **change}}, *EVENTS[1:]]
    (tmp_path / "run.jsonl").write_text("".join(f"{json.dumps(event)}\n" for event in events))
    assert_refused(run(script, "run.jsonl"), "run.jsonl: the settings")


@pytest.mark.parametrize(
    "path, what", [(".", "a folder"), ("..", "a folder"), ("none.jsonl", "no such log"), ("none.log", "no such log")]
)
@pytest.mark.parametrize("script", LOG_SCRIPTS)
def test_no_log(run, script, path, what):
    assert_refused(run(script, path), what)


@pytest.mark.parametrize("command", STATISTICS)
@pytest.mark.parametrize("largest", [0.0, 9e29])
def test_sound_statistics(draw, command, largest):
    arrays = statistics(STATISTICS[command])
    arrays["model_mean"].flat[-1] = largest
    ran = draw(command, arrays)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("name", ["model_mean", "inference_mean", "iteration", "kl", "mi", "settings"])
@pytest.mark.parametrize("command", STATISTICS)
def test_statistics_of_wrong_content(draw, command, name):
    """Names missing, strings, other lengths, NaN, no numbers."""
    sound = statistics(STATISTICS[command])
    wrong = [np.array("x"), np.array(b"\xff"), np.full(sound[name].shape, "x"), np.array([{}], dtype=object)]
    if name != "settings":
        wrong += [
            np.full(sound[name].shape, value) for value in (np.nan, np.inf, 1e300, 1j, True, np.datetime64("now"))
        ]
        wrong += [np.zeros(shape, dtype=int) for shape in ((0,), (3,), (20, 3), (0, 0), (20, 4, 1))]
    for content in wrong:
        assert_refused(draw(command, {**sound, name: content}), STATISTICS[command], "not a statistics file")
    del sound[name]
    assert_refused(draw(command, sound), STATISTICS[command], name)


@pytest.mark.parametrize("command", ["plot_single", "animate --steps 1 2"])
def test_half_steps_of_wrong_content(draw, command):
    sound = statistics(STATISTICS[command])
    for half in (np.array("encoder"), np.full(3, "encoder"), np.array([{}], dtype=object)):
        assert_refused(draw(command, {**sound, "half": half}), STATISTICS[command], "not a statistics file")
    del sound["half"]
    assert_refused(draw(command, sound), "half")


@pytest.mark.parametrize("content", [b"", b"x", b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"\x80\x04."])
@pytest.mark.parametrize("command", STATISTICS)
def test_no_archive(draw, command, content):
    assert_refused(draw(command, content), STATISTICS[command], "not a statistics file")


@pytest.mark.parametrize("command", ["plot_single", "plot_multiple"])
def test_an_archive_with_a_flaw(draw, tmp_path, command):
    """Whichever byte is another one: a picture, or one line."""
    assert draw(command, statistics(STATISTICS[command])).returncode == 0
    sound = (tmp_path / "plot_data" / f"{STATISTICS[command]}.npz").read_bytes()
    for place in np.random.default_rng(1).integers(len(sound), size=8):
        ran = draw(command, sound[:place] + bytes([sound[place] ^ 255]) + sound[place + 1 :])
        assert ran.returncode in (0, 2) and ran.stderr.count("\n") == ran.returncode // 2


@pytest.mark.parametrize("script", ["plot_epochs", "plot_runs", *STATISTICS])
@pytest.mark.parametrize(
    "flags, says",
    [
        (("--dpi", 10**9), "--dpi"),
        (("--output", "file/x.png"), "file"),
        (("--output", "file/x.gif"), "file"),
        (("--output", ""), ""),
    ],
)
def test_flags_that_cannot_be(run, tmp_path, script, flags, says):
    (tmp_path / "file").touch()
    if script in STATISTICS:
        path = tmp_path / "plot_data" / f"{STATISTICS[script]}.npz"
        path.parent.mkdir(parents=True)
        np.savez(path, **statistics(STATISTICS[script]))
    else:
        (tmp_path / "run.jsonl").write_text("".join(f"{json.dumps(event)}\n" for event in EVENTS))
    logs = () if script in STATISTICS else ("run.jsonl",)
    assert_refused(run(script, *logs, *flags), says)


SCRIPTS = [
    *sorted(path.stem for path in ROOT.glob("*.py")),
    *sorted({path.stem for path in PLOTS.glob("*.py")} - {"start"}),
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_says_what_it_takes(run, script):
    ran = run(script, "--help")
    assert ran.returncode == 0 and ran.stderr == "" and ran.stdout.startswith("usage: ")


def test_the_model_is_drawn(run, tmp_path):
    ran = run("draw_model", "--output", "model.png")
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "model.png").read_bytes().startswith(b"\x89PNG")
