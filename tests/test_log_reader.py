"""Reading logs: this project's, those of earlier code, cut short or broken."""

import json
import math
import os
import shutil

import pytest

from modules.command import UserError
from modules.reports.log_reader import read_epochs, read_events, summarise
from modules.training.records import Records
from modules.training.run_files import RunFiles
from tests.conftest import ROOT, run_script

EXAMPLES = ROOT / "logs" / "examples" / "ptb"
AGGRESSIVE = EXAMPLES / "ptb_aggressive1_kls1.00_warm10_0_0_783435.log"
PLAIN = EXAMPLES / "ptb_aggressive0_kls1.00_warm10_0_0_783435.log"

EARLIER = """\
Namespace(dataset='yahoo', aggressive=1)
epoch: 0, iter: 200, avg_loss: 674.9796, kl: 8.9184, mi: 0.0743, recon: 666.0612,au 3, time elapsed 820.74s
pre mi:0.0000. cur mi:2.1795
kl weight 0.1900
VAL --- avg_loss: 438.1920, kl: 3.8495, mi: 2.1795, recon: 434.3425, nll: 438.1920, ppl: 91.0101
5 active units
update best loss
TEST --- avg_loss: 440.0000, kl: 9.0000, mi: 1.0000, recon: 431.0000, nll: 440.0000, ppl: 92.0000
pre mi:2.1795. cur mi:2.0000
STOP BURNING
kl weight 0.2800
VAL --- avg_loss: 430.5000, kl: 2.5000, mi: 2.0000, recon: 428.0000, nll: 430.5000, ppl: 85.1000
VAL --- avg_loss: 95.1000, kl: 0.1000, mi: -0.0000, recon: 95.0000, nll: 95.1000
VAL --- avg_loss: nan, kl: nan, mi: nan, recon: nan, nll: nan, ppl: nan
update lr, old lr: 1.000000
new lr: 0.500000
iw nll: 357.0282, iw ppl: 40.1981
"""
OURS = """\
VAL --- avg_loss: 110.2000, kl: 0.7519, mi: 0.2298, recon: 109.4481, nll: 110.2000, ppl: 153.6669
mi_agg: 0.2486, kl_agg: 0.5033
10 active units
TEST --- avg_loss: 110.4930, kl: 0.7521, mi: 0.2042, recon: 109.7409, nll: 110.4930, ppl: 154.6895
mi_agg: 0.2237, kl_agg: 0.5284
VAL --- avg_loss: 108.4899, kl: 0.7455, mi: 0.4387, recon: 107.7444, nll: 108.4899, ppl: 142.1335
"""
EVENTS = [
    {"event": "run", "id": "x"},
    {"event": "report", "epoch": 0, "iteration": 3, "kl": 9.0, "mi": 9.0},
    {"event": "val", "epoch": 0, "kl": 0.75185, "mi": 0.22978, "mi_agg": 0.24857, "kl_agg": 0.50328},
    {"event": "test", "epoch": 0, "kl": 8.0, "mi": 8.0, "mi_agg": 8.0, "kl_agg": 8.0},
    {"event": "aggressive phase ends", "epoch": 1},
    {"event": "val", "epoch": 1, "kl": 0.5, "mi": 0.25},
]


def json_lines(events):
    return "".join(f"{json.dumps(event)}\n" for event in events)


@pytest.fixture
def write(tmp_path):
    """`write(text, name="run.log")`: a file of that text; returns its path."""

    def write(text, name="run.log"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_a_log_of_earlier_code(write):
    """It has no kl_agg; lines that nobody knows and the test figures are passed over."""
    path = write(EARLIER)
    epochs, aggressive = read_epochs(path)
    assert list(epochs) == ["epoch", "kl", "mi", "kl_agg"]
    assert epochs["epoch"] == [0, 1, 2, 3]
    assert epochs["kl"] == pytest.approx([3.8495, 2.5, 0.1, math.nan], nan_ok=True)
    assert epochs["mi"] == pytest.approx([2.1795, 2.0, 0.0, math.nan], nan_ok=True)
    assert epochs["kl_agg"] == pytest.approx([1.67, 0.5, 0.1, math.nan], nan_ok=True)
    assert aggressive == 2
    assert read_epochs(write(EARLIER.replace("STOP BURNING\n", "")))[1] is None


def test_a_text_log_of_ours(write):
    """kl_agg is what stands below VAL, not below TEST; where it is not there yet, it is KL - MI."""
    assert read_epochs(write(OURS))[0] == {
        "epoch": [0, 1],
        "kl": [0.7519, 0.7455],
        "mi": [0.2298, 0.4387],
        "kl_agg": [0.5033, pytest.approx(0.3068)],
    }
    assert read_epochs(str(write(OURS.replace("\n", "\r\n"))))[0]["kl_agg"][0] == 0.5033


@pytest.mark.parametrize(
    "tail",
    [
        "VAL",
        "VAL --- avg_loss: 9.1, kl: 0.7",
        "VAL --- avg_loss: 9.1, kl: 0.7, mi: 0.2",
        "mi_agg: 0.4935, kl_agg: 0.2",
        "mi_agg: 0.49",
    ],
)
def test_a_text_log_cut_short(write, tail):
    """Half a figure is no figure."""
    assert read_epochs(write(OURS + tail)) == read_epochs(write(OURS, "whole.log"))


def test_json_lines_win_over_the_text_beside_them(write):
    expected = {"epoch": [0, 1], "kl": [0.75185, 0.5], "mi": [0.22978, 0.25], "kl_agg": [0.50328, 0.25]}
    log = write(EARLIER)
    json_log = write(json_lines(EVENTS), "run.jsonl")
    assert read_epochs(log) == read_epochs(json_log) == (expected, 2)
    log.unlink()
    assert read_epochs(json_log) == (expected, 2)


def test_json_lines_cut_short(write):
    text = json_lines(EVENTS)
    path = write(text[:-9], "run.jsonl")
    assert read_events(path) == EVENTS[:-1]
    assert read_epochs(path)[0]["kl"] == [0.75185]
    assert read_events(write(text[:-1], "run.jsonl")) == EVENTS  # only the newline is missing


def test_a_real_log(tmp_path):
    """The text and the JSON lines of one run agree as far as the text goes."""
    text, aggressive_of_text = read_epochs(shutil.copy(AGGRESSIVE, tmp_path))
    epochs, aggressive = read_epochs(AGGRESSIVE)
    assert epochs["epoch"] == text["epoch"] == list(range(25))
    for name in ("kl", "mi", "kl_agg"):
        assert epochs[name] == pytest.approx(text[name], abs=0.5001e-4) and epochs[name] != text[name]
    assert [text[name][5] for name in ("kl", "mi", "kl_agg")] == [1.1936, 0.5914, 0.5409]
    assert [epochs[name][0] for name in ("kl", "mi", "kl_agg")] == [
        0.7518583665438858,
        0.22978835299316763,
        0.5032793595546161,
    ]
    assert aggressive == aggressive_of_text == 7 and read_epochs(PLAIN)[1] is None


@pytest.mark.parametrize(
    "name, content, says",
    [
        ("run.log", None, "run.log: no such log"),
        ("run.jsonl", None, "run.jsonl: no such log"),
        ("run.log", b"", "run.log: no VAL figures"),
        ("run.log", b"epoch: 0, iter: 200, avg_loss: 6.1, kl: 8.9\n", "run.log: no VAL figures"),
        ("run.log", b"VAL --- \xff\n", "run.log: not UTF-8"),
        ("run.log", b"kl weight 1\nVAL --- loss 3\nnew lr: 1\n", "run.log, line 2: VAL without kl and mi"),
        ("run.jsonl", b"", "run.jsonl: no VAL figures"),
        ("run.jsonl", b"\xff", "run.jsonl: not UTF-8"),
        ("run.jsonl", b'{"event": "run"}\n{"event": "va\n{"event": "best"}', "run.jsonl, line 2: not an event"),
        ("run.jsonl", b'{"event": "run"}\n{"event": "va\n', "run.jsonl, line 2: not an event"),
        ("run.jsonl", b"VAL --- avg_loss", "run.jsonl, line 1: not an event"),
        ("run.jsonl", b"[1]\n", "run.jsonl, line 1: not an event"),
        ("run.jsonl", b'{"event": "val", "epoch": 0}\n', "run.jsonl, line 1: not an event"),
        ("run.jsonl", b'{"event": "val", "epoch": 0, "kl": "1", "mi": 0}\n', "run.jsonl, line 1: not an event"),
        ("run.jsonl", b'{"event": "report", "epoch": 0, "kl": 1, "mi": 0}\n', "run.jsonl, line 1: not an event"),
        ("run.jsonl", b'{"event": "run", "args": null}\n', "run.jsonl, line 1: not an event"),
        ("run.jsonl", b'{"event": ["val"]}\n', "run.jsonl, line 1: not an event"),
    ],
)
def test_bad_logs(tmp_path, name, content, says):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_epochs(path)
    assert str(error.value).startswith(f"{tmp_path}{os.sep}{says}") and "\n" not in str(error.value)


def test_a_test_figure_that_is_not_finite_leaves_the_log_readable(tmp_path):
    """The log has null for it, as JSON has no infinity."""
    files = RunFiles("tiny", "run", tmp_path)
    records = Records(files, words=True)
    records.write(
        "test",
        loss=math.inf,
        reconstruction=3.0,
        kl=math.inf,
        mi=1.0,
        mi_agg=1.0,
        kl_agg=0.0,
        active_units=1,
        size=4,
        units=9,
        final=True,
    )
    records.close()
    (event,) = read_events(files.log())
    assert event["kl"] is None and summarise([event])["mi"] == 1.0 and summarise([event])["kl"] is None


def test_the_table_of_runs(write):
    ran = run_script("plot_scripts/table.py", AGGRESSIVE.with_suffix(".jsonl"), cwd=ROOT)
    assert ran.stdout.splitlines()[1].split() == [
        AGGRESSIVE.stem,
        "94.49",
        "74.55",
        "0.61",
        "0.56",
        "0.60",
        "1",
        "25",
        "34.74",
    ]
    ran = run_script("plot_scripts/table.py", write(EARLIER), cwd=ROOT)
    assert ran.returncode == 2 and "line 1: not an event" in ran.stderr and ran.stderr.count("\n") == 1
