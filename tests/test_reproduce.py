"""From runs to tables: the plan's commands, how far runs are, the tables, the Slurm script, and the runner, killed."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

import image
import reproduce
import text
from modules.domains.domain import Domain
from modules.domains.text_domain import TEXT
from modules.methods import method_name
from modules.reports.log_reader import SUMMARY, TESTED, summarise
from modules.reproduction import plan, published, report, runner
from tests.conftest import ROOT, assert_refused, environment, events, run_script

SMALL, PAPER = plan.SCALES["small"], plan.SCALES["paper"]
TINY = plan.Table(
    "tiny",
    "Tiny & 100% made_up",
    TEXT,
    "--dataset tiny --iw_nsamples 5",
    "Yahoo",
    0.4,
    rows=SMALL[0].rows,
    seeds=(2, 1),
    remark="!",
)


@pytest.fixture
def tiny(workspace, monkeypatch):
    """The workspace, current, where `--scale tiny` is one table of the tiny data set."""
    monkeypatch.chdir(workspace)
    monkeypatch.setitem(plan.SCALES, "tiny", (TINY,))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return workspace


def planned(method, task=0, table=TINY):
    return plan.plan_run(table, plan.ROWS[method], task)


def made_up_events(run, **figures):
    """What the log of a finished run holds, so far as tables read it."""
    figures = {**dict(zip(SUMMARY, (8.0, 7.0, 2.0, 1.5, 1.75, 2))), "seconds": 3600.0, **figures}
    val = {"event": "val", "kl": 1.0, "mi": 0.5, "kl_agg": 0.25}
    report = {"event": "report", "epoch": 0, "kl": 1.0, "mi": 0.5}
    run_, aggressive = {"event": "run", "id": run.id, "args": run.s.record()}, bool(run.s.aggressive)
    first = {**val, "epoch": 0, "aggressive": aggressive, "seconds": 1800.0}
    last = {**val, "epoch": 1, "aggressive": False, "seconds": figures["seconds"]}
    test = {"event": "test", "final": True, **{name: figures[name] for name in TESTED}}
    iw = {"event": "iw", "nll": figures["nll"], "ppl": figures["ppl"]}
    return [run_, {**report, "iteration": 5}, {**report, "iteration": 10}, first, last, test, iw]


def write_log(run, made_up):
    run.files.log().parent.mkdir(parents=True, exist_ok=True)
    run.files.log().write_text("".join(f"{json.dumps(event)}\n" for event in made_up))


# ---------------------------------------------------------------------- the plan


@pytest.mark.parametrize(
    "scale, sizes",
    [
        ("small", [24, 24]),
        ("paper", [80, 80, 80]),
        ("synthetic", [82]),
        ("ptb_short", [21]),
        ("ptb", [4]),
        ("demo", [2]),
        ("adam", [12, 24]),
    ],
)
def test_the_runs_of_a_scale(scale, sizes):
    """13 rows and the autoencoder: 5 rows with 3 seeds and 8 with 1, or 15 rows with 5; of the synthetic set 7 rows
    with 10 seeds and 3 with 3; of short sentences 7 with 3; with Adam 11, or 7 with 3, and the autoencoder. No two
    runs share files; a seed of every row comes before the next seed, and a run after the one that it needs."""
    tables = [reproduce.select({table: plan.rows_of(table)}) for table in plan.SCALES[scale]]
    assert [len(runs) for runs in tables] == sizes
    assert len({run.id for runs in tables for run in runs}) == sum(sizes)
    for runs in tables:
        for run in [run for run in runs if run.needs]:
            assert runs.index(run.needs) < runs.index(run) and run.s.encoder_from == run.needs.files.model
            assert run.needs.s.beta == 0 and run.needs.s.seed == run.s.seed
        assert [run.s.taskid for run in runs] == sorted(run.s.taskid for run in runs)


NAMES = """LM; VAE; VAE + anneal; beta-VAE 0.4 + anneal; SA-VAE + anneal; aggressive; aggressive + anneal;
aggressive, steady; aggressive + anneal, steady; VAE, cyclical; VAE, free bits 0.1 per dimension;
VAE, free bits 3 in all; autoencoder;
VAE + anneal, free bits 3 in all, encoder initialised; VAE, batch norm 0.6; VAE, committed rate 3"""
TEXT_NAMES = re.split(r";\s", NAMES)
IMAGE_NAMES = re.split(r";\s", NAMES.replace("LM", "PixelCNN").replace("beta-VAE 0.4", "beta-VAE 0.8"))


@pytest.mark.parametrize("script, table, names", [(text, PAPER[0], TEXT_NAMES), (image, PAPER[2], IMAGE_NAMES)])
def test_the_commands_are_what_the_scripts_understand(monkeypatch, script, table, names):
    """Each command, read by its script itself, is a run of that id, and says what its row's name says."""
    began = []
    monkeypatch.setattr(Domain, "begin", lambda *args: None)
    monkeypatch.setattr(script, "train_and_test", lambda run_id, beginning, s, recipe: began.append((run_id, s)))
    for run in reproduce.select({table: plan.rows_of(table, seeds=2)}):
        monkeypatch.setattr(sys, "argv", [run.script, *run.arguments])
        script.main()
        run_id, s = began[-1]
        assert (run_id, s.record(), s.resume, s.overwrite) == (run.id, run.s.record(), True, False)
    assert [method_name(s.record()) for _, s in began] == 2 * names


def test_names_of_other_methods():
    assert method_name({"aggressive": 1, "kl_start": 0.1, "model": None}) == "aggressive + anneal"
    assert method_name({"model": "savae", "aggressive": 1}) == "aggressive SA-VAE"
    assert method_name({"aggressive": 1, "bn_gamma": 0.6}) == "aggressive, batch norm 0.6"
    assert method_name({"kl_start": 0.1, "warm_up": 0}) == method_name({}) == "VAE"


def test_published_figures():
    assert published.figures("Yelp", "aggressive_anneal")["active_units"] == (11.3, 1.0)
    assert published.figures("Yahoo", "vae")["kl"] == (0.0, None)
    assert published.figures("Omniglot", "lm") == {"nll": (89.73, 0.04)} and not published.figures("Yahoo", "cyclical")
    assert published.printed("Omniglot", "beta_anneal")["kl"] == "9.98 (0.20)"


def test_dry_run_prints_a_script(workspace):
    """The real command: as many lines to run as runs, each below its state, and nothing is run."""
    chosen = ("--tables", "ptb", "--methods", "vae", "ae_init", "--seeds", 1)
    ran = run_script("reproduce.py", "--dry_run", *chosen, cwd=workspace)
    assert (ran.returncode, ran.stderr) == (0, "")
    lines = ran.stdout.splitlines()
    assert lines[0] == "# ptb_tiny_aggressive0_kls1.00_warm10_0_0_783435: not run"
    flags = "--dataset ptb_tiny --train_limit 5000 --iw_nsamples 100 --kl_start 1.0 --taskid 0 --resume"
    assert lines[1].endswith(f"text.py {flags}")
    assert [line.split()[0] for line in lines] == ["#", "python"] * 3 and "--beta 0.0" in lines[3]
    assert not (workspace / "logs").exists()


BAD_FLAGS = {
    "--scale big": "--scale",
    "--methods vae vea": "vea",
    "--methods steady": "--methods steady: --scale small has no such row",
    "--seeds 11": "--seeds",
    "--tables yahoo": "--tables yahoo: --scale small has ptb, omniglot",
    "--workers 0": "--workers",
    "--logs x": "--report",
    "--dry_run --report": "--dry_run",
    "--runs nosuch": "nosuch",
    "--runs x --report": "--runs",
    "--report --logs nosuch": "--logs nosuch: no such folder",
}


@pytest.mark.parametrize("flags", BAD_FLAGS)
def test_bad_flags(call, tmp_path, flags):
    assert_refused(call(reproduce.main, *flags.split(), cwd=tmp_path), BAD_FLAGS[flags])


# ---------------------------------------------------------------------- how far a run is


def test_a_summary_is_of_the_end_of_the_log():
    run = planned("aggressive", table=SMALL[0])
    made_up = made_up_events(run, nll=9.5)
    made_up[-3]["encoder_steps"], made_up[-3]["mi_agg"] = 90, 1.6
    expected = dict(zip(SUMMARY, (9.5, 7.0, 2.0, 1.5, 1.75, 2, 2, 1, 3600.0, 90, 1.6, 1.6)))
    assert summarise(made_up) == expected
    resumed = [*made_up, {**made_up[4], "epoch": 2, "seconds": 4000.0}]  # with more epochs
    assert summarise(resumed) == {**expected, **dict.fromkeys(SUMMARY[:6]), "epochs": 3, "seconds": 4000.0}
    of_an_epoch = {**made_up[-2], "epoch": 1, "final": False}
    assert summarise([*made_up[:-2], of_an_epoch])["kl"] is None
    assert summarise([])["epochs"] == 0 and summarise([])["nll"] is None


@pytest.mark.parametrize(
    "mi, least", [([0.0, 1.0, 0.3, 0.5], 0.3), ([0.0, 0.4], 0.4), ([0.2], 0.2), ([None, None], None)]
)
def test_the_least_mi_is_that_of_all_epochs_but_the_first(mi, least):
    vals = [{"event": "val", "epoch": epoch, "mi_agg": value} for epoch, value in enumerate(mi)]
    assert summarise(vals)["least_mi_agg"] == least


def test_states(tiny):
    run = planned("vae")
    made_up = made_up_events(run)
    assert str(runner.state_of(run)) == "not run"
    write_log(run, made_up[:1])  # killed before its first report
    assert str(runner.state_of(run)) == "not run"
    write_log(run, made_up[:4])
    run.files.log(".err").write_text("a warning\n")  # it may be at work
    assert str(runner.state_of(run)) == "unfinished: epoch 1"
    run.files.log(".err").write_text("Traceback ...\nValueError: no\nfailed: ValueError: no\n\n")
    assert (str(runner.state_of(run)), runner.state_of(run).error) == ("failed", "ValueError: no")
    write_log(run, made_up)
    assert str(runner.state_of(run)) == "finished"


def test_a_state_here_says_nothing_of_logs_elsewhere(tiny):
    run = planned("vae")
    run.files.state.parent.mkdir(parents=True)
    run.files.state.touch()
    assert str(runner.state_of(run)).startswith("unfinished")
    assert str(runner.state_of(run, tiny / "elsewhere")) == "not run"


@pytest.mark.parametrize(
    "name, end", [("train_limit", 7), ("train_limit", 4), ("nz", 7), ("iw_nsamples", 7), ("epochs", 7)]
)
def test_another_run_of_the_same_name_is_refused(tiny, call, name, end):
    """Whether it is finished or on the way, and whether its flags or its config differ; what only shows goes on."""
    run = planned("vae")
    made_up = made_up_events(run)
    made_up[0]["args"][name] = 9
    write_log(run, made_up[:end])
    args = ("--scale", "tiny", "--methods", "vae", "--seeds", 1)
    assert_refused(call(reproduce.main, *args, cwd=tiny), run.files.log(), f"--{name} 9")
    assert not (tiny / "build").exists() and not (tiny / "models").exists()
    shown = call(reproduce.main, *args, "--dry_run", cwd=tiny)
    assert shown.returncode == 0 and f"failed ({run.files.log()}: made with --{name} 9" in shown.stdout
    ran = call(reproduce.main, *args, "--report", cwd=tiny)
    assert ran.returncode == 0 and f"note: {run.id} is left out: {run.files.log()}: made with --{name} 9" in ran.stderr
    assert first_cells(tiny) == ["failed"]


def test_what_may_change_on_a_resume_is_not_refused(tiny):
    """Nor are other places of files, a setting that the log does not know, or the two parts of older records."""
    run = planned("vae")
    made_up = made_up_events(run)
    settings = made_up[0]["args"]
    settings.update(save_every=3, iw_batch=7, test_nepoch=1, train_data="/elsewhere/train.txt")
    del settings["inner_clip"]
    made_up[0]["config"] = {"nz": settings.pop("nz")}
    write_log(run, made_up)
    assert runner.state_of(run).kind == "finished"
    settings.update(epochs=9, iw_nsamples=500)  # of a finished run, its figures would be others
    write_log(run, made_up[:4])
    assert runner.state_of(run).kind == "unfinished"


# ---------------------------------------------------------------------- tables


@pytest.fixture
def made_up_logs(tiny):
    """Runs in every state: vae finished twice, vae_anneal once, lm once; one failed, one half done; others not run."""
    for method, task, figures in (
        ("lm", 0, {"nll": 9.0, "kl": 0.0, "mi": 0.0, "mi_agg": 0.0, "active_units": 0}),
        ("vae", 0, {"kl": -0.0, "active_units": 1}),
        ("vae", 1, {"nll": 8.5, "kl": -0.0, "seconds": 7200.0}),
        ("vae_anneal", 0, {"nll": 7.25}),
    ):
        write_log(planned(method, task), made_up_events(planned(method, task), **figures))
    planned("vae_anneal", 1).files.log(".err").write_text("failed: no such thing\n")
    write_log(planned("aggressive", 0), made_up_events(planned("aggressive", 0))[:4])
    planned("aggressive_anneal", 0).files.log(".err").write_text("failed: no such thing\n")
    return tiny


def read_table(folder, name="build/tables/tiny_tiny.md"):
    """The lines of a Markdown table: {first cell: the others}."""
    lines = [line[2:-2].split(" | ", 1) for line in (folder / name).read_text().splitlines() if line.startswith("|")]
    assert len({cells.count(" | ") for _, cells in lines}) == 1 and set(lines[1][1]) == {"-", "|", " "}
    return dict(lines)


def test_the_table(made_up_logs, call):
    ran = call(reproduce.main, "--scale", "tiny", "--report", cwd=made_up_logs)
    assert ran.returncode == 0
    failed = [planned("aggressive_anneal", 0), planned("vae_anneal", 1)]
    assert {*ran.stderr.splitlines()} == {f"note: {run.id} is left out: no such thing" for run in failed}
    table = read_table(made_up_logs)
    assert [*table][:5] == ["method", "---", "LM", "VAE", "VAE + anneal"] and len(table) == 15
    ours = "NLL | PPL | KL | MI | MI, whole split | AU | aggressive epochs | hours | seeds"
    assert table["method"] == f"{ours} | NLL (paper) | KL (paper) | MI (paper) | AU (paper)"
    # of 8 and 8.5 the mean is 8.25 and the sample deviation 0.5 / sqrt(2); of 1 and 2 hours 1.5 and 1 / sqrt(2)
    ours = "8.25 (0.35) | 7.00 (0.00) | 0.00 (0.00) | 1.50 (0.00) | 1.75 (0.00) | 1.5 (0.7) |  | 1.50 (0.71) | 2"
    assert table["VAE"] == f"{ours} | 329.0 (0.1) | 0.0 | 0.0 | 0.0"
    ours = "7.25 | 7.00 | 2.00 | 1.50 | 1.75 | 2.0 |  | 1.00 | 1 of 2 (1 failed)"
    assert table["VAE + anneal"] == f"{ours} | 328.6 (0.0) | 0.0 | 0.0 | 0.0"
    assert table["LM"] == "9.00 | 7.00 |  |  |  |  |  | 1.00 | 1 of 2 (1 not run) | 328.0 (0.3) |  |  | "
    ours = f"unfinished: epoch 1; not run{7 * ' | -'} | 0 of 2 (1 unfinished, 1 not run)"
    assert table["aggressive"] == f"{ours} | 328.2 (0.2) | 5.6 (0.2) | 3.0 (0.0) | 8.0 (0.0)"
    assert table["aggressive + anneal"].startswith("failed; not run | -")
    assert table["VAE, cyclical"] == f"not run{7 * ' | -'} | 0 of 1 (1 not run) |  |  |  | "
    assert "NLL with 5 samples, annealing over 10 epochs, batches of 4, so MI is at most log 4 = 1.39." in ran.stdout
    for figure in ("mi.pdf", "mi.png", "epochs.pdf", "epochs.png"):
        assert (made_up_logs / "build" / "tables" / f"tiny_tiny_{figure}").stat().st_size > 1000


def test_the_table_for_programs_of_logs_in_another_folder(made_up_logs, call):
    (made_up_logs / "logs").rename(made_up_logs / "elsewhere")
    args = ("--scale", "tiny", "--report", "--logs", "elsewhere", "--output", "here")
    assert call(reproduce.main, *args, cwd=made_up_logs).returncode == 0
    with open(made_up_logs / "here" / "tiny_tiny.csv", newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    counts = ("planned", "finished", "failed", "half_done", "not_run")
    assert [int(rows["vae_anneal"][name]) for name in counts] == [2, 1, 1, 0, 0]
    assert [int(rows["aggressive"][name]) for name in counts] == [2, 0, 0, 1, 1]
    assert float(rows["vae"]["nll_mean"]) == 8.25
    assert float(rows["vae"]["nll_sd"]) == pytest.approx(0.125**0.5, rel=1e-15)
    assert rows["vae_anneal"]["nll_mean"] == "7.25" and rows["vae_anneal"]["nll_sd"] == ""
    assert [rows["aggressive"][f"{name}_mean"] for name in ("nll", "paper_mi")] == ["", "3.0"]
    assert rows["lm"]["kl_mean"] == "" and rows["cyclical"]["paper_nll_mean"] == ""


def test_the_table_in_latex(made_up_logs, call):
    """Environments nest, every row has as many cells as columns are declared, and special characters are escaped."""
    assert call(reproduce.main, "--scale", "tiny", "--report", cwd=made_up_logs).returncode == 0
    content = (made_up_logs / "build" / "tables" / "tiny_tiny.tex").read_text()
    environments = ["begin{table}", "begin{tabular}", "end{tabular}", "end{table}"]
    assert re.findall(r"\\((?:begin|end)\{\w+\})", content) == environments
    columns = re.search(r"\\begin\{tabular\}\{(lr*)\}", content)[1]
    rows = [line for line in content.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 14 and {len(re.split(r"(?<!\\)&", row)) for row in rows} == {len(columns)} == {14}
    assert r"Tiny \& 100\% made\_up" in content
    assert not re.search(r"(?<!\\)[%_#$^~]", content)
    assert content.count("{") == content.count("}")


def row_of(method, **figures):
    """A row of the synthetic table whose finished runs, one a seed, have these figures: {name: [one a seed]}."""
    table = plan.SYNTHETIC
    seeds = len(figures["nll"])
    states = [
        runner.State("finished", {name: values[seed] for name, values in figures.items()}) for seed in range(seeds)
    ]
    return report.Row(table, method, plan.rows_of(table, [method], seeds)[method], states)


def test_a_paired_comparison():
    """Differences -1, -2, -3: mean -2, deviation 1; t(p) = (2p - 1) / sqrt(2p (1 - p)) with 2 degrees of freedom."""
    ours, theirs = row_of("aggressive", nll=[9.0, 18.0, 27.0]), row_of("vae", nll=[10.0, 20.0, 30.0])
    mean, half = ours.difference(theirs)
    assert mean == -2 and half == pytest.approx(0.95 / (2 * 0.975 * 0.025) ** 0.5 / 3**0.5)
    assert theirs.difference(theirs) is None and row_of("lm", nll=[1.0]).difference(theirs) is None


def test_a_table_with_an_optimum():
    """Two of three runs end without z, one of these had it when it was best, and the third had lost it on the way; the
    gap is taken of the known optimum."""
    mi = {"mi_agg": [0.0, 0.5, 1.0], "last_mi_agg": [0.0, 0.09, 1.0], "least_mi_agg": [0.0, 0.01, 0.05]}
    row = row_of("vae", **{**dict.fromkeys(SUMMARY, [1.0, 1.0, 1.0]), "nll": [36.0, 36.0, 36.3], **mi})
    assert row.collapsed() == (1, 2, 3)
    assert report.cells(row, row)["collapsed"] == "1 / 2 / 3"
    assert [report.record(row, row)[f"collapsed_{at}"] for at in ("best", "last", "ever")] == [1, 2, 3]
    assert row.figure("gap") == pytest.approx((36.1 - 28.966722, 0.3 / 3**0.5))
    line = report.optimum_line(plan.SYNTHETIC.optimum, {"method": "VAE", "NLL": "1", "KL": "2"})
    assert (line["method"], line["NLL"], line["KL"], line["MI, whole split"]) == ("optimum", "28.97", "", "4.11")


# ---------------------------------------------------------------------- Slurm


def rows_of(lines):
    """The rows of a Markdown table of results, {method: {column: cell}}."""
    header, _, *rows = ([cell.strip() for cell in line.strip("|\n").split("|")] for line in lines)
    return {row[0]: dict(zip(header, row)) for row in rows}


def test_the_pages_have_the_table_of_the_committed_logs(tmp_path):
    ran = run_script(
        "reproduce.py", "--scale", "synthetic", "--report", "--logs", ROOT / "logs" / "examples", cwd=tmp_path
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    printed = rows_of(line for line in ran.stdout.splitlines() if line.startswith("|"))
    for page in ("README.md", "docs/results.md"):
        lines = (ROOT / page).read_text().splitlines()
        start = next(i for i, line in enumerate(lines) if line.startswith("| method ") and "collapsed" in line)
        table = rows_of(lines[start : lines.index("", start)])
        assert len(table) >= 10 and all(
            cells == {column: printed[method][column] for column in cells} for method, cells in table.items()
        )


def test_a_slurm_array_replaces_no_other_file(tiny, call):
    args = ("--scale", "tiny", "--slurm")
    (tiny / "notes.md").write_text("mine\n")
    assert_refused(call(reproduce.main, *args, "notes.md", cwd=tiny), "notes.md", "another file")
    assert (tiny / "notes.md").read_text() == "mine\n"
    assert [call(reproduce.main, *args, "array.sh", cwd=tiny).returncode for _ in range(2)] == [0, 0]


def test_a_slurm_array(tiny, call):
    """As many tasks as runs that none other needs; each makes its own run, whatever else is asked for."""
    chosen = ["--scale", "tiny", "--tables", "tiny", "--methods", "vae", "ae_init"]
    ran = call(reproduce.main, *chosen, "--slurm", "a b/array.sh", "--output", "c d", cwd=tiny)
    assert (ran.returncode, ran.stderr) == (0, "") and "3 tasks" in ran.stdout
    content = (tiny / "a b" / "array.sh").read_text()
    assert "#SBATCH --array=0-2\n" in content and "--methods vae ae_init --report --output 'c d'\n" in content
    probe = content.replace("exec ", "echo ")
    wanted = [planned("vae", 0).id, planned("ae_init", 0).id, planned("vae", 1).id]
    for task, run_id in enumerate(wanted):
        surroundings = {**environment(), "SLURM_ARRAY_TASK_ID": str(task)}
        said = subprocess.check_output(["bash", "-c", probe], env=surroundings, text=True).split()
        assert said[1:] == [os.path.relpath(reproduce.__file__), *chosen, "--runs", run_id]
    ran = call(reproduce.main, *said[2:-1], wanted[1], "--dry_run", cwd=tiny)
    assert re.findall("# (.*): not run", ran.stdout) == [planned("ae_init").needs.id, wanted[1]]


# ---------------------------------------------------------------------- the runner

SWEEP = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from tests import test_reproduce as tests
tests.plan.SCALES["tiny"] = (tests.TINY,)
def start(*args, popen=tests.runner.Popen, **options):
    process = popen(*args, **options)
    open("pid", "w").write(str(process.pid))
    return process
tests.runner.Popen = start
from modules.command import run_command
run_command(tests.reproduce.main)
"""


def figures_of(folder, run):
    """The events of a run that hold figures, without times."""
    kept = [event for event in events(folder, run.id) if event["event"] not in ("run", "resume")]
    return [{name: value for name, value in event.items() if name != "seconds"} for event in kept]


def test_stopped_killed_and_resumed(tiny, call):
    """Ctrl-C lets the run save; one killed with -9 is named; the same command goes on, to the figures of a run in one
    piece, and then has nothing left to do."""
    config = tiny / "config" / "config_tiny.py"
    config.write_text(config.read_text().replace('"epochs": 2', '"epochs": 20'))
    args, run = ("--scale", "tiny", "--methods", "vae", "--seeds", "1"), planned("vae")

    def validations():
        return run.files.log().read_text().count('"event": "val"') if run.files.log().exists() else 0

    def stop(kill, after):
        """Start the sweep, `kill(its process, process id of its run)` after some validations: (exit code, output)."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        sweep = subprocess.Popen([sys.executable, "-c", SWEEP, *args], env=environment(), text=True, **pipes)
        try:
            end = time.monotonic() + 100
            while validations() < after:
                assert sweep.poll() is None and time.monotonic() < end
                time.sleep(0.02)
            pid = int((tiny / "pid").read_text())
            assert os.getsid(pid) == pid  # Ctrl-C in a terminal reaches it through the command alone
            kill(sweep, pid)
            said, _ = sweep.communicate(timeout=100)
        finally:
            sweep.terminate()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        return sweep.returncode, said

    code, said = stop(lambda sweep, pid: sweep.send_signal(signal.SIGINT), 2)
    assert code == 130 and "Traceback" not in said
    assert said.splitlines()[-1] == "interrupted: the same command goes on from each run's last checkpoint"
    assert run.files.state.is_file() and not run.files.log(".err").exists()
    assert validations() < 20 and str(runner.state_of(run)) == f"unfinished: epoch {validations()}"

    code, said = stop(lambda sweep, pid: os.kill(pid, signal.SIGKILL), validations() + 2)
    assert code == 1 and f"resumed   {run.id}" in said and said.endswith(f"{run.id} failed: ended by signal 9\n")

    assert f"resumed   {run.id}" in call(reproduce.main, *args, cwd=tiny).stdout
    assert " | 1 | 329.0" in read_table(tiny)["VAE"] and not run.files.log(".err").exists()
    in_pieces, before = figures_of(tiny, run), run.files.log().read_bytes()
    ran = call(reproduce.main, *args, cwd=tiny)
    assert (ran.returncode, ran.stderr) == (0, "") and "resumed" not in ran.stdout
    assert run.files.log().read_bytes() == before
    assert call(text.main, *run.arguments[:-1], "--overwrite", cwd=tiny).returncode == 0
    assert figures_of(tiny, run) == in_pieces


STAND_IN = """
import json, os, signal, sys, time
part = json.load(open("parts.json"))[" ".join(sys.argv[1:])]
signal.signal(signal.SIGINT, lambda *call: sys.exit(part["code"]))
sys.stderr.write(part["error"])
open(part["log"], "w").write(part["content"])
print(part["id"], os.environ["OMP_NUM_THREADS"], file=open("notes", "a"), flush=True)
while part["waits_for"]:
    if len(open("notes").readlines()) == part["waits_for"]:
        os.kill(os.getppid(), signal.SIGINT)
    time.sleep(0.1)
if part["code"] < 0:
    os.kill(os.getpid(), -part["code"])
sys.exit(part["code"])
"""


@pytest.fixture
def stand_in(tiny, monkeypatch):
    """`stand_in({method: (exit code, standard error)})`: a `text.py` that writes a made-up log and ends like that; with
    `waits_for` when that many of them are at work, of which each sends its parent Ctrl-C."""

    def prepare(ends, waits_for=0):
        parts = {}
        for method, flags in {**plan.ROWS, "autoencoder": plan.AUTOENCODER["text"]}.items():
            run = plan.plan_run(TINY, flags, 0)
            code, error = ends.get(method, (0, "a warning"))
            content = "".join(f"{json.dumps(event)}\n" for event in made_up_events(run)[: 1 if code else None])
            part = {"id": run.id, "log": str(run.files.log()), "content": content, "code": code, "error": error}
            parts[" ".join(run.arguments)] = {**part, "waits_for": waits_for}
        (tiny / "parts.json").write_text(json.dumps(parts))

    (tiny / "text.py").write_text(STAND_IN)
    monkeypatch.setattr(runner, "REPOSITORY", tiny)
    return prepare


def started(folder):
    """What the stand-ins noted, in order: (id, number of threads) each; forgotten then."""
    lines = (folder / "notes").read_text().splitlines()
    (folder / "notes").unlink()
    return [tuple(line.split()) for line in lines]


def first_cells(folder):
    """What stands in the first column of figures."""
    return [cells.split(" | ")[0] for cells in read_table(folder).values()][2:]


def test_a_run_that_cannot_save_when_stopped_has_failed(tiny, call, stand_in):
    """The failure is named, with its reason; the runs that did save are not, and none is started any more."""
    runs = planned("vae"), planned("free_bits")
    stand_in({"vae": (2, "error: no space left"), "free_bits": (130, "interrupted: saved")}, waits_for=2)
    chosen = ("--scale", "tiny", "--seeds", 1, "--methods", "vae", "free_bits", "batch_norm")
    ran = call(reproduce.main, *chosen, "--workers", 2, cwd=tiny)
    assert ran.returncode == 130 and len(started(tiny)) == 2
    assert ran.stderr.splitlines()[0] == f"{runs[0].id} failed: error: no space left"
    assert ran.stderr.splitlines()[1].startswith("interrupted: ") and len(ran.stderr.splitlines()) == 2
    assert [runner.state_of(run).kind for run in runs] == ["failed", "not run"]


def test_failures_do_not_stop_the_others(tiny, call, stand_in):
    """They are named at the end with exit code 1, shown in the table, and tried again by the next command."""
    methods = ("vae", "ae_init", "batch_norm", "cyclical", "committed_rate")
    args = ("--scale", "tiny", "--seeds", 1, "--methods", *methods)
    runs = {key: planned(key) for key in methods}
    autoencoder = runs["ae_init"].needs
    killed = -signal.SIGKILL, "a warning\n"
    stand_in({"autoencoder": (2, "error: no data\n\n"), "batch_norm": killed, "cyclical": (3, "")})
    ran = call(reproduce.main, *args, cwd=tiny)
    assert ran.returncode == 1
    assert ran.stderr.splitlines() == [
        f"{runs['cyclical'].id} failed: ended with exit code 3, and {runs['cyclical'].files.log()} has no test figures",
        f"{autoencoder.id} failed: error: no data",
        f"{runs['ae_init'].id} skipped: needs {autoencoder.id}, which failed",
        f"{runs['batch_norm'].id} failed: ended by signal 9",
    ]
    order = [runs["vae"], runs["cyclical"], autoencoder, runs["batch_norm"], runs["committed_rate"]]
    assert [run_id for run_id, _ in started(tiny)] == [run.id for run in order]
    assert first_cells(tiny) == ["8.00", "failed", "not run", "failed", "8.00"]
    assert autoencoder.files.log(".err").read_text() == "error: no data\n\n\nfailed: error: no data\n"
    assert not runs["vae"].files.log(".err").exists()  # a warning of a run that ended well is not kept

    stand_in({})
    ran = call(reproduce.main, *args, cwd=tiny)
    assert (ran.returncode, ran.stderr) == (0, "")
    order = [runs["cyclical"], autoencoder, runs["ae_init"], runs["batch_norm"]]
    assert [run_id for run_id, _ in started(tiny)] == [run.id for run in order]
    assert list(tiny.glob("logs/tiny/*.err")) == []


def test_a_log_that_cannot_be_read_leaves_the_others_alone(tiny, call, stand_in):
    damaged = planned("lm")
    write_log(damaged, [{"event": "val"}])
    args = ("--scale", "tiny", "--methods", "lm", "vae", "--seeds", 1)
    ran = call(reproduce.main, *args, "--dry_run", cwd=tiny)
    assert f"# {damaged.id}: failed ({damaged.files.log()}, line 1: not an event" in ran.stdout
    stand_in({"lm": (2, "error: made before")})
    ran = call(reproduce.main, *args, cwd=tiny)
    assert (ran.returncode, ran.stderr) == (1, f"{damaged.id} failed: error: made before\n")
    assert first_cells(tiny) == ["failed", "8.00"]


@pytest.mark.parametrize("workers, set_by_user, threads", [(1, "", "6"), (2, "", "3"), (4, "", "1"), (2, "5", "5")])
def test_workers_share_the_cores(tiny, call, stand_in, monkeypatch, workers, set_by_user, threads):
    """As many at a time as there are workers, but what needs another run waits for it."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(6), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS")
    if set_by_user:
        monkeypatch.setenv("OMP_NUM_THREADS", set_by_user)
    stand_in({})
    chosen = ("--scale", "tiny", "--seeds", 1, "--methods", "lm", "vae", "ae_init", "free_bits")
    ran = call(reproduce.main, *chosen, "--workers", workers, cwd=tiny)
    assert ran.returncode == 0
    assert [number for _, number in started(tiny)] == [threads] * 5
    said = [line.split()[:2] for line in ran.stdout.splitlines() if line.startswith(("started ", "finished "))]
    at_work = [sum(1 if what == "started" else -1 for what, _ in said[: i + 1]) for i in range(len(said))]
    assert len(said) == 10 and max(at_work) == workers
    needing = planned("ae_init")
    assert said.index(["started", needing.id]) > said.index(["finished", needing.needs.id])
