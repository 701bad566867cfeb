"""From runs to tables: the plan's commands, how far runs are, the tables, the Slurm script, and the runner, killed."""

import csv
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

import image
import reproduce
import text
from modules.command import UserError, run_command
from modules.methods import method_name
from modules.reproduction import plan, report, runner, states
from modules.reports.log_reader import SUMMARY, TESTED, summarise
from tests.conftest import environment, events, run_script

TINY = plan.Table("tiny", "Tiny & 100% made_up", "text", "--dataset tiny --iw_nsamples 5", 2, 1,
                  plan.YAHOO, remark=plan.DIFFERENT)
METHODS = {method.key: method for method in plan.METHODS}


@pytest.fixture
def tiny(workspace, monkeypatch):
    """The workspace, current, where `--scale tiny` is one table of the tiny data set."""
    monkeypatch.chdir(workspace)
    monkeypatch.setitem(plan.SCALES, "tiny", (TINY,))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return workspace


def planned(key, task=0):
    return plan.plan_run(TINY, METHODS[key], task)


def made_up_events(run, **figures):
    """What the log of a finished run holds, so far as tables read it."""
    figures = {"nll": 8.0, "ppl": 7.0, "kl": 2.0, "mi": 1.5, "mi_agg": 1.75, "active_units": 2, "seconds": 3600.0,
               **figures}
    val = {"event": "val", "kl": 1.0, "mi": 0.5, "kl_agg": 0.25}
    report_ = {"event": "report", "epoch": 0, "kl": 1.0, "mi": 0.5}
    return [{"event": "run", "id": run.id, "args": {**vars(run.args), "encoder_from": None}, "config": {"nz": 2}},
            {**report_, "iteration": 5}, {**report_, "iteration": 10},
            {**val, "epoch": 0, "aggressive": bool(run.args.aggressive), "seconds": 1800.0},
            {**val, "epoch": 1, "aggressive": False, "seconds": figures["seconds"]},
            {"event": "test", "final": True, **{name: figures[name] for name in TESTED}},
            {"event": "iw", "nll": figures["nll"], "ppl": figures["ppl"], "nsamples": 5}]


def write_log(run, made_up):
    run.log().parent.mkdir(parents=True, exist_ok=True)
    run.log().write_text("".join(f"{json.dumps(event)}\n" for event in made_up))


# ---------------------------------------------------------------------- names

@pytest.mark.parametrize("settings, name", [
    ({}, "VAE"),
    ({"aggressive": 0, "kl_start": 1.0, "warm_up": 10}, "VAE"),
    ({"kl_start": 0.1}, "VAE + anneal"),
    ({"kl_start": 0.1, "warm_up": 0}, "VAE"),
    ({"aggressive": 1}, "aggressive"),
    ({"aggressive": 1, "kl_start": 0.1, "model": None}, "aggressive + anneal"),
    ({"model": "lm", "kl_start": 0.1}, "LM"),
    ({"model": "lm", "img_size": None}, "PixelCNN"),
    ({"model": "savae", "kl_start": 0.1}, "SA-VAE + anneal"),
    ({"model": "savae", "aggressive": 1}, "aggressive SA-VAE"),
    ({"beta": 0.4, "kl_start": 0.1}, "beta-VAE 0.4 + anneal"),
    ({"beta": 0.0, "kl_start": 0.1}, "autoencoder"),
    ({"kl_start": 0.0, "warm_up": 2, "kl_cycles": 4}, "VAE, cyclical"),
    ({"free_bits": 0.1}, "VAE, free bits 0.1 per dimension"),
    ({"free_bits": 3.0, "free_bits_over": "sum", "encoder_from": "a.pt", "kl_start": 0.1},
     "VAE + anneal, free bits 3 in all, encoder initialised"),
    ({"aggressive": 1, "bn_gamma": 0.6}, "aggressive, batch norm 0.6"),
    ({"committed_rate": 3.0}, "VAE, committed rate 3"),
])
def test_the_name_of_a_method(settings, name):
    assert method_name(settings) == name


# ---------------------------------------------------------------------- the plan

@pytest.mark.parametrize("scale, sizes", [("small", [22, 22]), ("paper", [70, 70, 70])])
def test_the_runs_of_a_scale(scale, sizes):
    """13 rows and the autoencoder: 4 rows with 3 seeds and 9 with 1, or 5 seeds of all; no two runs share files."""
    tables = [plan.runs_of(plan.rows_of(table)) for table in plan.SCALES[scale]]
    assert [len(runs) for runs in tables] == sizes
    ids = [run.id for runs in tables for run in runs]
    assert len(set(ids)) == len(ids)
    for runs in tables:
        assert all(run.needs is None or runs.index(run.needs) < runs.index(run) for run in runs)


def test_the_commands_are_what_the_scripts_understand(monkeypatch):
    """Each command, read by its script itself, is a run of that id, and says what its row's name says."""
    names = set()
    for script, table in ((text, plan.SCALES["small"][0]), (image, plan.SCALES["small"][1])):
        for run in plan.runs_of(plan.rows_of(table, seeds=2)):
            monkeypatch.setattr(sys, "argv", [run.script, *run.flags])
            args = script.parse_arguments()
            assert plan.DOMAINS[table.domain].run_name(args) == run.id
            assert vars(run.args).items() <= vars(args).items()
            names.add((table.domain, method_name(vars(args))))
    assert len(names) == 2 * 14
    assert {("text", "beta-VAE 0.4 + anneal"), ("image", "beta-VAE 0.8 + anneal")} <= names


def test_a_run_starts_from_the_model_of_the_same_seed():
    run = plan.plan_run(plan.SCALES["small"][0], METHODS["ae_init"], 2)
    assert run.args.encoder_from == run.needs.model
    assert run.needs.args.beta == 0 and run.needs.args.seed == run.args.seed == 202


def test_published_figures():
    assert plan.YELP.figure("aggressive_anneal", "active_units") == (11.3, 1.0)
    assert plan.YAHOO.figure("vae", "kl") == (0.0, None)
    assert plan.OMNIGLOT.figure("lm", "nll") == (89.73, 0.04)
    assert plan.OMNIGLOT.figure("lm", "kl") is None and plan.OMNIGLOT.figure("cyclical", "nll") is None


def test_dry_run_prints_a_script(workspace):
    """The real command: as many lines to run as runs, each below its state, and nothing is run."""
    ran = run_script("reproduce.py", "--dry_run", "--tables", "ptb", "--methods", "vae", "ae_init", "--seeds", 1,
                     cwd=workspace)
    assert (ran.returncode, ran.stderr) == (0, "")
    lines = ran.stdout.splitlines()
    assert lines[0] == "# ptb_tiny_aggressive0_kls1.00_warm10_0_0_783435: not run"
    assert lines[1].endswith("text.py --dataset ptb_tiny --train_limit 5000 --iw_nsamples 100 --kl_start 1.0 "
                             "--taskid 0")
    assert [line.split()[0] for line in lines] == ["#", "python"] * 3 and "--beta 0.0" in lines[3]
    assert not (workspace / "logs").exists()


@pytest.mark.parametrize("flags, says", [
    (("--scale", "big"), "--scale"), (("--methods", "vae", "vea"), "vea"), (("--seeds", 11), "--seeds"),
    (("--tables", "yahoo"), "--tables yahoo: --scale small has ptb, omniglot"), (("--workers", 0), "--workers"),
    (("--logs", "x"), "--report"), (("--dry_run", "--report"), "--dry_run"), (("--runs", "nosuch"), "nosuch"),
    (("--runs", "x", "--report"), "--runs"), (("--report", "--logs", "nosuch"), "--logs nosuch: no such folder"),
])
def test_bad_flags(call, tmp_path, flags, says):
    ran = call(reproduce.main, *flags, cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert says in ran.stderr and ran.stderr.count("\n") == 1


@pytest.mark.parametrize("script", [text, image, reproduce])
def test_help_names_the_defaults_that_there_are(call, tmp_path, script):
    ran = call(script.main, "--help", cwd=tmp_path)
    assert ran.returncode == 0 and "(default: " in ran.stdout
    assert "default: None" not in ran.stdout and "default: False" not in ran.stdout


# ---------------------------------------------------------------------- how far a run is

def test_a_summary_is_of_the_end_of_the_log():
    run = planned("aggressive")
    made_up = made_up_events(run, nll=9.5)
    expected = {"nll": 9.5, "ppl": 7.0, "kl": 2.0, "mi": 1.5, "mi_agg": 1.75, "active_units": 2, "epochs": 2,
                "aggressive_epochs": 1, "seconds": 3600.0, "gap": None}
    assert tuple(expected) == SUMMARY and summarise(made_up) == expected
    resumed = [*made_up, {**made_up[3], "epoch": 2, "aggressive": False, "seconds": 4000.0}]        # with more epochs
    assert summarise(resumed) == {**expected, **dict.fromkeys(SUMMARY[:6]), "epochs": 3, "seconds": 4000.0}
    assert summarise([])["epochs"] == 0 and summarise([])["nll"] is None


def test_states(tiny):
    run = planned("vae")
    made_up = made_up_events(run)
    assert str(states.state_of(run)) == "not run" and states.flags_to_start(run) == ()

    write_log(run, made_up[:1])                     # killed before its first checkpoint
    run.log(".log").write_text("")
    assert str(states.state_of(run)) == "not run" and states.flags_to_start(run) == ("--overwrite",)

    write_log(run, made_up[:4])
    assert str(states.state_of(run)) == "unfinished: epoch 1"
    with pytest.raises(UserError, match=re.escape(f"{run.log()}: ") + ".*" + re.escape(f"{run.state}")):
        states.flags_to_start(run)                  # there is work to lose, and no state to go on from
    run.state.parent.mkdir(parents=True)
    run.state.write_bytes(b"")
    assert states.flags_to_start(run) == ("--resume",)

    with states.locked(run.log(".err")):
        assert str(states.state_of(run)) == "running: epoch 1"
        assert states.locked(run.log(".err")) is None
    assert str(states.state_of(run)) == "unfinished: epoch 1"

    run.log(".err").write_text("Traceback ...\nValueError: no\n\n")
    state = states.state_of(run)
    assert (str(state), state.error) == ("failed", "ValueError: no")

    write_log(run, made_up)
    assert str(states.state_of(run)) == "finished"

    run.log().unlink()                              # the advice above followed by half: its state is no beginning
    with pytest.raises(UserError, match=re.escape(f"{run.state}: ") + ".*" + re.escape(f"{run.log()}")):
        states.flags_to_start(run)


def test_a_lock_is_on_the_file_that_is_there(tmp_path, monkeypatch):
    """Another process may remove the file between its opening and its locking."""
    path = tmp_path / "run.err"

    def flock_late(file, how, flock=states.fcntl.flock):
        monkeypatch.undo()
        path.unlink()
        return flock(file, how)
    monkeypatch.setattr(states.fcntl, "flock", flock_late)
    with states.locked(path):
        assert path.exists() and states.locked(path) is None


@pytest.mark.parametrize("name, value, end", [("train_limit", 7, None), ("train_limit", 7, 4), ("nz", 3, None),
                                              ("iw_nsamples", 500, None), ("epochs", 9, None)])
@pytest.mark.parametrize("flag", ["--report", "--dry_run", "--workers=1"])
def test_another_run_of_the_same_name_is_refused(tiny, call, name, value, end, flag):
    """Whether it is finished or on the way, and whether its flags or its config differ."""
    run = planned("vae")
    made_up = made_up_events(run)
    made_up[0]["config" if name == "nz" else "args"][name] = value
    write_log(run, made_up[:end])
    ran = call(reproduce.main, "--scale", "tiny", "--methods", "vae", flag, cwd=tiny)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert str(run.log()) in ran.stderr and f"--{name} {value}" in ran.stderr and ran.stderr.count("\n") == 1
    assert not (tiny / "build").exists() and not (tiny / "models").exists()


def test_what_may_change_on_a_resume_is_not_refused(tiny):
    run = planned("vae")
    made_up = made_up_events(run)
    made_up[0]["args"].update(save_every=3, iw_batch=7, test_nepoch=1)
    write_log(run, made_up)
    assert states.state_of(run).kind == "finished"
    made_up[0]["args"].update(epochs=9, iw_nsamples=500)        # of a finished run, its figures would be others
    write_log(run, made_up[:4])
    assert states.state_of(run).kind == "unfinished"


# ---------------------------------------------------------------------- tables

@pytest.fixture
def made_up_logs(tiny):
    """Runs in every state: vae finished twice, vae_anneal once, lm once; one failed, one half done; others not run."""
    write_log(planned("lm"), made_up_events(planned("lm"), nll=9.0, kl=0.0, mi=0.0, mi_agg=0.0, active_units=0))
    write_log(planned("vae", 0), made_up_events(planned("vae", 0), nll=8.0, kl=-0.0, active_units=1))
    write_log(planned("vae", 1), made_up_events(planned("vae", 1), nll=8.5, kl=-0.0, active_units=2, seconds=7200.0))
    write_log(planned("vae_anneal", 0), made_up_events(planned("vae_anneal", 0), nll=7.25))
    planned("vae_anneal", 1).log(".err").write_text("error: no such thing\n")
    write_log(planned("aggressive", 0), made_up_events(planned("aggressive", 0))[:4])
    planned("aggressive_anneal", 0).log(".err").write_text("error: no such thing\n")
    return tiny


def read_table(path):
    """The cells of a Markdown table: {first cell of a row: {column: cell}}."""
    lines = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in path.read_text().splitlines()
             if line.startswith("|")]
    assert set(lines[1]) == {"---"} and len({len(line) for line in lines}) == 1
    return {line[0]: dict(zip(lines[0], line)) for line in lines[2:]}


def test_the_table(made_up_logs, call):
    ran = call(reproduce.main, "--scale", "tiny", "--report", cwd=made_up_logs)
    assert (ran.returncode, ran.stderr) == (0, "")
    table = read_table(made_up_logs / "build" / "tables" / "tiny_tiny.md")
    assert list(table)[:3] == ["LM", "VAE", "VAE + anneal"] and len(table) == 13
    # of 8 and 8.5 the mean is 8.25 and the sample deviation 0.5 / sqrt(2); of 1 and 2 hours 1.5 and 1 / sqrt(2)
    assert table["VAE"] == {
        "method": "VAE", "NLL": "8.25 (0.35)", "PPL": "7.00 (0.00)", "KL": "0.00 (0.00)", "MI": "1.50 (0.00)",
        "MI, whole split": "1.75 (0.00)", "AU": "1.5 (0.7)", "aggressive epochs": "", "hours": "1.50 (0.71)",
        "seeds": "2", "NLL (paper)": "329.0 (0.1)", "KL (paper)": "0.0", "MI (paper)": "0.0", "AU (paper)": "0.0"}
    one = table["VAE + anneal"]
    assert (one["NLL"], one["AU"], one["seeds"]) == ("7.25", "2.0", "1 of 2 (1 failed)")
    assert table["LM"]["NLL"] == "9.00"
    assert {table["LM"][name] for name in ("KL", "MI", "MI, whole split", "AU", "KL (paper)")} == {""}
    half = table["aggressive"]
    assert (half["NLL"], half["KL"], half["seeds"]) == ("unfinished: epoch 1; not run", "-",
                                                        "0 of 2 (1 unfinished, 1 not run)")
    assert half["MI (paper)"] == "3.0 (0.0)"
    assert table["aggressive + anneal"]["NLL"] == "failed; not run"
    missing = table["VAE, cyclical"]
    assert (missing["NLL"], missing["KL"], missing["seeds"]) == ("not run", "-", "0 of 1 (1 not run)")
    assert missing["NLL (paper)"] == ""
    assert "compare the pattern" in ran.stdout and "| 8.25 (0.35) |" in ran.stdout
    assert "NLL with 5 samples, annealing over 10 epochs, batches of 4, so MI is at most log 4 = 1.39." in ran.stdout
    for figure in ("mi.pdf", "mi.png", "epochs.pdf", "epochs.png"):
        assert (made_up_logs / "build" / "tables" / f"tiny_tiny_{figure}").stat().st_size > 1000


def test_the_table_for_programs(made_up_logs, call):
    assert call(reproduce.main, "--scale", "tiny", "--report", "--output", "here", cwd=made_up_logs).returncode == 0
    with open(made_up_logs / "here" / "tiny_tiny.csv", newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    counts = ("seeds", "finished", "failed", "half_done", "not_run")
    assert [int(rows["vae_anneal"][name]) for name in counts] == [2, 1, 1, 0, 0]
    assert [int(rows["aggressive"][name]) for name in counts] == [2, 0, 0, 1, 1]
    assert float(rows["vae"]["nll_mean"]) == 8.25
    assert float(rows["vae"]["nll_sd"]) == pytest.approx(0.125 ** 0.5, rel=1e-15)
    assert rows["vae_anneal"]["nll_mean"] == "7.25" and rows["vae_anneal"]["nll_sd"] == ""
    assert (rows["aggressive"]["nll_mean"], rows["aggressive"]["paper_mi_mean"]) == ("", "3.0")
    assert rows["lm"]["kl_mean"] == "" and rows["cyclical"]["paper_nll_mean"] == ""


def test_the_table_in_latex(made_up_logs, call):
    """Environments nest, every row has as many cells as columns are declared, and special characters are escaped."""
    assert call(reproduce.main, "--scale", "tiny", "--report", cwd=made_up_logs).returncode == 0
    content = (made_up_logs / "build" / "tables" / "tiny_tiny.tex").read_text()
    assert re.findall(r"\\(begin|end)\{(\w+)\}", content) == [
        ("begin", "table"), ("begin", "tabular"), ("end", "tabular"), ("end", "table")]
    columns = re.search(r"\\begin\{tabular\}\{(l r*|lr*)\}", content)[1]
    rows = [line for line in content.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 14 and {len(re.split(r"(?<!\\)&", row)) for row in rows} == {len(columns)} == {14}
    assert r"Tiny \& 100\% made\_up" in content
    assert not re.search(r"(?<!\\)[%_#$^~]", content)
    assert content.count("{") == content.count("}")


def test_a_table_of_logs_in_another_folder(made_up_logs, call):
    (made_up_logs / "logs").rename(made_up_logs / "elsewhere")
    for flags, nll in (((), "not run"), (("--logs", "elsewhere"), "8.25 (0.35)")):
        assert call(reproduce.main, "--scale", "tiny", "--report", *flags, cwd=made_up_logs).returncode == 0
        assert read_table(made_up_logs / "build" / "tables" / "tiny_tiny.md")["VAE"]["NLL"] == nll


def test_a_log_that_cannot_be_read_is_shown_and_leaves_the_others_alone(made_up_logs, call, stand_in):
    """Nor does a run whose state is lost; both are named at the end, with the mend."""
    damaged, lost = planned("lm"), planned("aggressive", 0)
    damaged.log().write_text('{"event": "val"}\n')
    args = ("--scale", "tiny", "--methods", "lm", "vae", "aggressive", "--seeds", 1)
    for flag in ("--report", "--dry_run"):
        ran = call(reproduce.main, *args, flag, cwd=made_up_logs)
        assert (ran.returncode, ran.stderr) == (0, "")
    assert f"# {damaged.id}: damaged ({damaged.log()}, line 1: not an event" in ran.stdout
    assert f"# {lost.log()}: this run was stopped" in ran.stdout and "python" not in ran.stdout
    table = read_table(made_up_logs / "build" / "tables" / "tiny_tiny.md")
    assert (table["LM"]["NLL"], table["LM"]["seeds"]) == ("damaged", "0 of 1 (1 damaged)")
    assert table["VAE"]["NLL"] == "8.00"

    planned("vae", 0).log().unlink()
    stand_in({})
    ran = call(reproduce.main, *args, cwd=made_up_logs)
    assert [run_id for run_id, _ in started(made_up_logs)] == [planned("vae", 0).id]
    assert ran.returncode == 1 and [line.split()[:2] for line in ran.stderr.splitlines()] == [
        [damaged.id, "failed:"], [lost.id, "failed:"]]


def test_no_figure_where_a_run_lacks_it():
    run = planned("vae")
    finished = [states.State("finished", summarise(made_up_events(run, ppl=ppl))) for ppl in (7.0, None)]
    row = report.Row(METHODS["vae"], vars(run.args), finished)
    assert row.figure("ppl") is None and row.figure("nll") == (8.0, 0.0)


# ---------------------------------------------------------------------- Slurm

def test_a_slurm_array(tiny, call):
    """As many tasks as runs that none other needs; each makes its own run, whatever else is asked for."""
    ran = call(reproduce.main, "--scale", "tiny", "--methods", "vae", "ae_init", "--slurm", "a b/array.sh", "--output",
               "c d", cwd=tiny)
    assert (ran.returncode, ran.stderr) == (0, "") and "3 tasks" in ran.stdout
    script = tiny / "a b" / "array.sh"
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    content = script.read_text()
    assert "#SBATCH --array=0-2\n" in content and "--methods vae ae_init --report --output 'c d'\n" in content
    probe = content.replace("exec ", "echo ")
    wanted = [planned("vae", 0).id, planned("ae_init", 0).id, planned("vae", 1).id]
    for task, run_id in enumerate(wanted):
        said = subprocess.run(["bash", "-c", probe], env={**environment(), "SLURM_ARRAY_TASK_ID": str(task)},
                              capture_output=True, text=True).stdout.split()
        assert said[1:] == [os.path.relpath(reproduce.__file__), "--scale", "tiny", "--tables", "tiny", "--methods",
                            "vae", "ae_init", "--runs", run_id]
    ran = call(reproduce.main, *said[2:-1], wanted[1], "--dry_run", cwd=tiny)
    assert [line for line in ran.stdout.splitlines() if line.startswith("#")] == [
        f"# {planned('ae_init').needs.id}: not run", f"# {wanted[1]}: not run"]


# ---------------------------------------------------------------------- the runner

def figures_of(folder, run):
    """The events of a run that hold figures, without times."""
    return [{name: value for name, value in event.items() if name != "seconds"} for event in events(folder, run.id)
            if event["event"] not in ("run", "resume")]


class Command:
    """`reproduce.py` as a process of its own, forked, so that it knows the tiny table and need not import torch."""

    def __init__(self, *args):
        self.output = f"{os.getpid()}_{time.monotonic()}.txt"
        self.process = multiprocessing.get_context("fork").Process(target=self._run, args=(args,))
        self.process.start()

    def _run(self, args):
        file = os.open(self.output, os.O_CREAT | os.O_WRONLY)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout, sys.stderr = (open(number, "w", buffering=1) for number in (1, 2))
        sys.argv = ["reproduce.py", *map(str, args)]
        runner.subprocess.Popen = self._start
        run_command(reproduce.main)

    def _start(self, *args, popen=subprocess.Popen, **options):
        process = popen(*args, **options)
        Path(f"{self.output}.pid").write_text(str(process.pid))
        return process

    def child(self):
        """The process id of the run that this command started last."""
        return int(Path(f"{self.output}.pid").read_text())

    def wait_until(self, condition):
        end = time.monotonic() + 100
        while not condition():
            assert self.process.is_alive() and time.monotonic() < end, self.said()
            time.sleep(0.02)

    def stop(self, number):
        """Send a signal; returns the exit code."""
        os.kill(self.process.pid, number)
        self.process.join(60)
        return self.process.exitcode

    def said(self):
        path = Path(self.output)
        return path.read_text() if path.exists() else ""


def validations(run):
    return run.log().read_text().count('"event": "val"') if run.log().exists() else 0


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def start(tiny):
    """`start(*flags)`: a `Command`; what is left of it at the end of the test is killed."""
    commands = []

    def start(*args):
        commands.append(Command(*args))
        return commands[-1]
    yield start
    for command in commands:
        command.process.kill()
        command.process.join()
        if Path(f"{command.output}.pid").exists() and is_alive(command.child()):
            os.kill(command.child(), signal.SIGKILL)


def test_killed_and_restarted(tiny, call, start):
    """Ctrl-C lets the run save; after kill -9 of the command its run goes on, and the next command waits for that."""
    config = tiny / "config" / "config_tiny.py"
    config.write_text(config.read_text().replace('"epochs": 2', '"epochs": 20'))
    args = ("--scale", "tiny", "--methods", "vae", "--seeds", 1)
    run = planned("vae")

    first = start(*args)
    first.wait_until(lambda: validations(run) >= 2)
    assert os.getsid(first.child()) == first.child()        # Ctrl-C in a terminal reaches it through the command alone
    assert first.stop(signal.SIGINT) == 130
    assert first.said().splitlines()[-1].startswith("interrupted: ") and "Traceback" not in first.said()
    assert run.state.is_file() and not run.log(".err").exists() and not is_alive(first.child())
    stopped_after = validations(run)
    assert stopped_after < 20 and str(states.state_of(run)) == f"unfinished: epoch {stopped_after}"

    second = start(*args)
    second.wait_until(lambda: validations(run) > stopped_after)
    os.kill(second.child(), signal.SIGSTOP)             # or it might be at its end too soon
    assert second.stop(signal.SIGKILL) == -signal.SIGKILL
    assert f"resumed   {run.id}" in second.said()
    assert states.state_of(run).kind == "running"       # the run itself was not killed

    third = start(*args)
    third.wait_until(lambda: f"waiting   {run.id}" in third.said())
    assert f"resumed   {run.id}" not in third.said()
    os.kill(second.child(), signal.SIGKILL)
    third.process.join(100)
    assert third.process.exitcode == 0 and f"resumed   {run.id}" in third.said()
    assert read_table(tiny / "build" / "tables" / "tiny_tiny.md")["VAE"]["seeds"] == "1"
    assert not run.log(".err").exists()
    in_pieces, before = figures_of(tiny, run), run.log().read_bytes()

    ran = call(reproduce.main, *args, cwd=tiny)         # nothing is left to do
    assert (ran.returncode, ran.stderr) == (0, "") and "resumed" not in ran.stdout and "started" not in ran.stdout
    assert run.log().read_bytes() == before

    assert call(text.main, *run.flags, "--overwrite", cwd=tiny).returncode == 0
    assert figures_of(tiny, run) == in_pieces


def test_a_run_that_cannot_save_when_stopped_has_failed(tiny, call, stand_in, monkeypatch):
    """The failure is named, with its reason, also in the table; the runs that did save are not."""
    runs = planned("vae"), planned("free_bits")
    stand_in({"vae": (2, "error: no space left"), "free_bits": (130, "interrupted: saved")})

    @contextmanager
    def stop_at_once():
        received = []
        monkeypatch.setattr(runner.Work, "collect", lambda work, stopping, collect=runner.Work.collect: (
            received or received.append(signal.SIGINT), collect(work, True)))
        monkeypatch.setattr(runner.Work, "pass_on", lambda work, received: None)
        yield received
    monkeypatch.setattr(runner, "_stop_requests", stop_at_once)
    ran = call(reproduce.main, "--scale", "tiny", "--seeds", 1, "--methods", "vae", "free_bits", "--workers", 2,
               cwd=tiny)
    assert ran.returncode == 130
    assert ran.stderr.splitlines()[0] == f"{runs[0].id} failed: error: no space left"
    assert ran.stderr.splitlines()[1].startswith("interrupted: ") and len(ran.stderr.splitlines()) == 2
    assert [states.state_of(run).kind for run in runs] == ["failed", "not run"]


STAND_IN = """
import json, os, sys
part = json.load(open("parts.json"))[" ".join(sys.argv[1:])]
print(part["id"], os.environ["OMP_NUM_THREADS"], file=open("notes", "a"))
open(part["log"], "w").write(part["content"])
sys.stderr.write(part["error"])
if part["code"] < 0:
    os.kill(os.getpid(), -part["code"])
sys.exit(part["code"])
"""


@pytest.fixture
def stand_in(tiny, monkeypatch):
    """`stand_in({method: (exit code, standard error)})`: a `text.py` that writes a made-up log and ends like that."""
    def prepare(ends):
        parts = {}
        for method in (*plan.METHODS, plan.AUTOENCODER):
            run = plan.plan_run(TINY, method, 0)
            code, error = ends.get(method.key, (0, "a warning"))
            content = "".join(f"{json.dumps(event)}\n" for event in made_up_events(run)[:1 if code else None])
            parts[" ".join(run.flags)] = {"id": run.id, "log": str(run.log()), "content": content, "code": code,
                                          "error": error}
        (tiny / "parts.json").write_text(json.dumps(parts))
    (tiny / "text.py").write_text(STAND_IN)
    monkeypatch.setattr(runner, "REPOSITORY", tiny)
    return prepare


def started(folder):
    """What the stand-ins noted, in order: (id, number of threads) each; forgotten then."""
    lines = (folder / "notes").read_text().splitlines()
    (folder / "notes").unlink()
    return [tuple(line.split()) for line in lines]


def test_failures_do_not_stop_the_others(tiny, call, stand_in, monkeypatch):
    """They are named at the end with exit code 1, shown in the table, and tried again by the next command."""
    methods = ("vae", "ae_init", "batch_norm", "cyclical", "committed_rate")
    args = ("--scale", "tiny", "--seeds", 1, "--methods", *methods)
    runs = {key: planned(key) for key in methods}
    autoencoder = runs["ae_init"].needs
    stand_in({"autoencoder": (2, "error: no data\n\n"), "batch_norm": (-signal.SIGKILL, "a warning\n"),
              "cyclical": (3, "")})
    ran = call(reproduce.main, *args, cwd=tiny)
    assert ran.returncode == 1
    assert ran.stderr.splitlines() == [
        f"{runs['cyclical'].id} failed: ended with exit code 3", f"{autoencoder.id} failed: error: no data",
        f"{runs['ae_init'].id} skipped: needs {autoencoder.id}, which failed",
        f"{runs['batch_norm'].id} failed: ended by signal 9"]
    assert [run_id for run_id, _ in started(tiny)] == [
        run.id for run in (runs["vae"], runs["cyclical"], autoencoder, runs["batch_norm"], runs["committed_rate"])]
    table = read_table(tiny / "build" / "tables" / "tiny_tiny.md")
    assert [row["NLL"] for row in table.values()] == ["8.00", "failed", "not run", "failed", "8.00"]
    assert autoencoder.log(".err").read_text() == "error: no data\n\n"
    assert states.state_of(runs["batch_norm"]).error == "ended by signal 9"     # not what it had warned of before
    assert not runs["vae"].log(".err").exists()         # a warning of a run that ended well is not kept

    stand_in({})
    ran = call(reproduce.main, *args, cwd=tiny)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert [run_id for run_id, _ in started(tiny)] == [
        run.id for run in (runs["cyclical"], autoencoder, runs["ae_init"], runs["batch_norm"])]
    assert list(tiny.glob("logs/tiny/*.err")) == []


@pytest.mark.parametrize("workers, set_by_user, threads", [(1, None, "6"), (2, None, "3"), (4, None, "1"),
                                                           (2, "5", "5")])
def test_workers_share_the_cores(tiny, call, stand_in, monkeypatch, workers, set_by_user, threads):
    """As many at a time as there are workers, but what needs another run waits for it."""
    monkeypatch.setattr(runner, "_cores", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS")
    if set_by_user:
        monkeypatch.setenv("OMP_NUM_THREADS", set_by_user)
    stand_in({})
    ran = call(reproduce.main, "--scale", "tiny", "--seeds", 1, "--methods", "lm", "vae", "ae_init", "free_bits",
               "--workers", workers, cwd=tiny)
    assert ran.returncode == 0
    assert [number for _, number in started(tiny)] == [threads] * 5
    said = [line.split()[:2] for line in ran.stdout.splitlines() if line.startswith(("started ", "finished "))]
    at_work = [sum(1 if what == "started" else -1 for what, _ in said[:i + 1]) for i in range(len(said))]
    assert len(said) == 10 and max(at_work) == workers
    needing = planned("ae_init")
    assert said.index(["started", needing.id]) > said.index(["finished", needing.needs.id])
