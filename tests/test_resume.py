"""Runs that are killed, interrupted and taken up again end where an uninterrupted run ends, to the last bit."""

import json
import re
import shutil
import signal
import time
from collections import namedtuple

import pytest
import torch
from filelock import FileLock

import text
from modules.checkpoint import load_checkpoint
from modules.training.loop import Trainer
from modules.training.recipe import IMAGE, TEXT
from tests.conftest import TINY_CONFIG, logged, make_image_workspace, make_workspace, run_script, start_script

Kind = namedtuple("Kind", "domain recipe make_workspace run_id args")  # of run: what is trained, and how

RUN_ID = "tiny_aggressive1_kls0.10_warm2_0_0_783435"
EPOCHS = 6
ARGS = (
    "--dataset",
    "tiny",
    "--aggressive",
    1,
    "--kl_start",
    0.1,
    "--warm_up",
    2,
    "--momentum",
    0.5,
    "--train_limit",
    24,
    "--iw_nsamples",
    5,
    "--epochs",
    EPOCHS,
)
SENTENCES = Kind("text", TEXT, make_workspace, RUN_ID, ARGS)
IMAGES = Kind(
    "image",
    IMAGE,
    make_image_workspace,
    "tinyimages_aggressive1_ns1_kls0.1_warm2_0_0_783435",
    ("--dataset", "tinyimages", "--aggressive", 1, "--kl_start", 0.1, "--warm_up", 2, "--iw_nsamples", 5),
)


def files(folder):
    """Every file that a run made: {path: bytes}."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for top in ("models", "logs")
        for path in sorted((folder / top).rglob("*"))
        if path.is_file()
    }


def best(folder, kind=SENTENCES):
    """The saved best model of a run."""
    return load_checkpoint(state_path(folder, kind).with_name(f"{kind.run_id}.pt"), kind.domain)


def state_path(folder, kind=SENTENCES):
    dataset = kind.run_id.partition("_")[0]
    return folder / "models" / dataset / f"{kind.run_id}.resume.pt"


def state(folder, kind=SENTENCES):
    """The saved state of a run."""
    return load_checkpoint(state_path(folder, kind), kind.domain)


def log_lines(folder):
    """The log without its times."""
    (path,) = (folder / "logs").rglob("*.log")
    return re.sub(r"time elapsed \S+s", "time elapsed", path.read_text()).splitlines()


def json_events(folder):
    """The JSON events without their times, and without what the environment may change between two runs."""
    (path,) = (folder / "logs").rglob("*.jsonl")
    return [
        {name: value for name, value in json.loads(line).items() if name not in ("seconds", "git_commit")}
        for line in path.read_text().splitlines()
    ]


def run_to_the_end(kind, folder, *args):
    ran = run_script(f"{kind.domain}.py", *kind.args, "--save_every", 0, *args, cwd=folder)
    assert (ran.returncode, ran.stderr) == (0, "")


def saved_iteration(folder, kind):
    """The outer iteration at which the checkpoint on disk stands."""
    return state(folder, kind)["training"]["progress"]["iteration"]


class Process:
    """A training run that can be watched through its files and stopped."""

    def __init__(self, kind, folder, *args):
        self.kind, self.folder, self.started = kind, folder, time.time()
        self.process = start_script(f"{kind.domain}.py", *kind.args, *args, cwd=folder)

    def wait_until(self, condition):
        """Wait until `condition()` holds, while the run is going."""
        end = time.monotonic() + 100
        while not condition():
            assert self.process.poll() is None, f"the run ended too early: {self.process.stderr.read()}"
            assert time.monotonic() < end, "the run takes too long"
            time.sleep(0.005)

    def wait_for_checkpoint(self, iteration):
        """Wait until a checkpoint of this outer iteration, or a later one, is on disk."""
        self.wait_until(
            lambda: state_path(self.folder, self.kind).exists() and saved_iteration(self.folder, self.kind) >= iteration
        )

    def wait_for_lines(self, count):
        """Wait until the log has grown by `count` lines after what the resumed run keeps of it."""
        (log,) = (self.folder / "logs").rglob("*.log")
        kept = state(self.folder, self.kind)["training"]["records"][0]
        self.wait_until(lambda: log.read_bytes()[kept:].count(b"\n") >= count and log.stat().st_mtime > self.started)

    def stop(self, number):
        """Send a signal; returns (exit code, standard error)."""
        self.process.send_signal(number)
        _, stderr = self.process.communicate(timeout=60)
        return self.process.returncode, stderr


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A folder with a run on sentences that nothing disturbed."""
    folder = make_workspace(tmp_path_factory.mktemp("uninterrupted") / "workspace")
    run_to_the_end(SENTENCES, folder)
    return folder


@pytest.fixture(scope="module")
def uninterrupted_images(tmp_path_factory):
    """The same on images."""
    folder = make_image_workspace(tmp_path_factory.mktemp("uninterrupted_images") / "workspace")
    run_to_the_end(IMAGES, folder)
    return folder


def disturb(kind, folder):
    """Run to the end, killed three times and interrupted once on the way; returns what Ctrl-C did."""
    run = Process(kind, folder, "--save_every", 0)
    run.wait_for_checkpoint(2)
    time.sleep(0.05)  # into the next inner loop
    assert run.stop(signal.SIGKILL)[0] == -signal.SIGKILL

    run = Process(kind, folder, "--resume", "--save_every", 10)  # saves nothing in the epoch: its lines are in vain
    run.wait_for_lines(3)
    assert run.stop(signal.SIGKILL)[0] == -signal.SIGKILL

    before = saved_iteration(folder, kind)
    run = Process(kind, folder, "--resume", "--save_every", 10)
    run.wait_for_lines(2)
    interrupted = *run.stop(signal.SIGINT), saved_iteration(folder, kind) - before

    run = Process(kind, folder, "--resume", "--save_every", 0)
    run.wait_for_checkpoint(11)
    assert run.stop(signal.SIGKILL)[0] == -signal.SIGKILL

    run_to_the_end(kind, folder, "--resume")
    return interrupted


@pytest.fixture(scope="module", params=[SENTENCES, IMAGES], ids=lambda kind: kind.domain)
def disturbed(request, tmp_path_factory):
    """(kind of run, folder with one that nothing disturbed, folder with a disturbed one, what Ctrl-C did)."""
    kind = request.param
    folder = kind.make_workspace(tmp_path_factory.mktemp("disturbed") / "workspace")
    interrupted = disturb(kind, folder)
    whole = request.getfixturevalue("uninterrupted" if kind is SENTENCES else "uninterrupted_images")
    return kind, whole, folder, interrupted


def test_the_moments_are_within_the_aggressive_first_epoch_and_after_it(disturbed):
    kind, whole, _, _ = disturbed
    first, second = [e for e in json_events(whole) if e["event"] == "val"][:2]
    assert first["aggressive"] and first["encoder_steps"] > 2 * kind.recipe.inner_test_every * first["iteration"]
    assert 2 + 3 < first["iteration"] < 11 < second["iteration"]


def test_killed_and_resumed_the_weights_are_the_same_to_the_bit(disturbed):
    kind, *folders, _ = disturbed
    whole, pieces = (best(folder, kind) for folder in folders)
    assert whole["model"].keys() == pieces["model"].keys()
    assert all(torch.equal(whole["model"][name], value) for name, value in pieces["model"].items())
    assert whole["epoch"] == pieces["epoch"] and whole["metrics"] == pieces["metrics"]


def same(a, b):
    """Equality that reaches into dicts, lists and tensors."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_killed_and_resumed_the_whole_state_is_the_same(disturbed):
    """Last weights, optimisers, random states, schedules, sums to report: everything but the clock."""
    kind, *folders, _ = disturbed
    whole, pieces = states = [state(folder, kind) for folder in folders]
    for content in states:
        content["training"]["progress"].pop("seconds")
        content["training"].pop("records")  # the files' lengths, which the clock's digits change
        content["args"].pop("save_every")
    assert whole["training"]["encoder_optimiser"]["state"]  # momentum, or Adam's: there is a state to lose
    assert [part for part in whole if not same(whole[part], pieces[part])] == []


def test_killed_and_resumed_the_log_is_the_same(disturbed):
    _, whole, pieces, _ = disturbed
    assert log_lines(pieces) == log_lines(whole)
    events = json_events(pieces)
    assert [event for event in events if event["event"] != "resume"] == json_events(whole)
    resumed = [event for event in events if event["event"] == "resume"]
    may_differ = dict.fromkeys(("epochs", "save_every"))
    assert resumed and all(
        {**event["args"], **may_differ} == {**events[0]["args"], **may_differ} and "torch" in event for event in resumed
    )


def test_ctrl_c_saves_and_says_how_to_go_on(disturbed):
    kind, _, _, (code, stderr, iterations) = disturbed
    assert code == 130
    assert iterations > 0  # the checkpoint is of the moment, not the last one before
    last = stderr.splitlines()[-1]
    assert last.startswith("interrupted") and "--resume" in last and f"{kind.run_id}.resume.pt" in last
    assert "Traceback" not in stderr


def test_nothing_temporary_is_left_of_a_run_that_was_not_killed(uninterrupted):
    ends = {name.rpartition(RUN_ID)[2] for name in files(uninterrupted)}
    assert ends == {".pt", ".resume.pt", ".log", ".jsonl", ".png"}


# ---------------------------------------------------------------------- a finished run


@pytest.fixture
def finished(uninterrupted, tmp_path):
    """A copy of the finished run's folder, for a test that may change it."""
    return shutil.copytree(uninterrupted, tmp_path / "finished")


def test_resuming_a_finished_run_says_so_and_changes_nothing(call, finished):
    before = files(finished)
    ran = call(text.main, *ARGS, "--resume", cwd=finished)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert len(ran.stdout.splitlines()) == 1 and RUN_ID in ran.stdout and "finished" in ran.stdout
    assert files(finished) == before


@pytest.mark.parametrize("missing", [None, ".log", ".jsonl", ".pt", ".resume.pt"])
def test_a_rerun_refuses_and_leaves_the_files(call, finished, missing):
    """Any one of its files is enough to refuse for."""
    for path in [*(finished / "models").rglob("*.pt"), *(finished / "logs").rglob("*.*")]:
        if missing == path.name.removeprefix(RUN_ID):
            path.unlink()
    before = files(finished)
    ran = call(text.main, *ARGS, cwd=finished)
    assert ran.returncode == 2
    (line,) = ran.stderr.splitlines()
    assert RUN_ID in line and "--overwrite" in line
    assert ("--resume" in line) == (missing != ".resume.pt")  # without a state there is nothing to resume
    assert files(finished) == before


def test_overwrite_starts_anew(call, uninterrupted, finished):
    """The log then holds the new run alone, and the run is the same as the first one as far as it goes."""
    ran = call(text.main, *ARGS, "--overwrite", "--epochs", 1, cwd=finished)
    remark = "note: --epochs 1: the KL weight will still be growing at the end, 0.55 (--warm_up 2)\n"
    assert (ran.returncode, ran.stderr) == (0, remark)
    assert re.sub(r"time elapsed \S+s", "time elapsed", logged(ran)).splitlines() == log_lines(finished)
    new, old = ([e for e in json_events(folder) if e["event"] == "val"] for folder in (finished, uninterrupted))
    assert new == old[:1]
    assert [e["event"] for e in json_events(finished)].count("run") == 1


def test_a_finished_run_goes_on_when_given_more_epochs(call, uninterrupted, finished):
    assert call(text.main, *ARGS, "--overwrite", "--epochs", 1, cwd=finished).returncode == 0
    assert call(text.main, *ARGS, "--resume", "--epochs", 2, cwd=finished).returncode == 0
    new, old = (
        [e for e in json_events(folder) if e["event"] in ("val", "report")] for folder in (finished, uninterrupted)
    )
    assert new == old[: len(new)] and new[-1]["epoch"] == 1
    assert [e["event"] for e in json_events(finished)].count("iw") == 2


@pytest.mark.parametrize(
    "args, name",
    [
        (("--nz", 3), "nz"),
        (("--momentum", 0.1), "momentum"),
        (("--inner_clip", "encoder"), "inner_clip"),
        (("--batch_size", 2), "batch_size"),
        (("--train_limit", 23), "train_limit"),
        (("--nsamples", 2), "nsamples"),
        (("--precision", "bf16"), "precision"),
    ],
)
def test_other_settings_are_refused(call, finished, args, name):
    before = files(finished)
    ran = call(text.main, *ARGS, *args, "--resume", cwd=finished)
    assert ran.returncode == 2
    (line,) = ran.stderr.splitlines()
    assert name in line and str(args[1]) in line and "resume.pt" in line
    assert files(finished) == before


def test_another_config_is_refused(call, finished):
    (finished / "config" / "config_tiny.py").write_text(TINY_CONFIG.replace('"enc_nh": 8', '"enc_nh": 9'))
    ran = call(text.main, *ARGS, "--resume", cwd=finished)
    assert ran.returncode == 2
    (line,) = ran.stderr.splitlines()
    assert "enc_nh" in line


def test_a_flag_that_says_what_the_config_says_is_no_other_setting(call, finished):
    ran = call(text.main, *ARGS, "--resume", "--enc_nh", 8, cwd=finished)
    assert (ran.returncode, ran.stderr) == (0, "") and "finished" in ran.stdout


@pytest.mark.parametrize("split", ["train", "valid", "test"])
@pytest.mark.parametrize(
    "change",
    [
        lambda lines: ["a new word", *lines],
        lambda lines: lines[:15],
        lambda lines: lines[::-1],
    ],
    ids=["another vocabulary", "another number of batches", "another order"],
)
def test_other_data_are_refused(call, finished, change, split):
    """The batches of the epoch at hand, the vocabulary, or the loss to beat would not be those of the checkpoint."""
    path = finished / "datasets" / "tiny_data" / f"tiny.{split}.txt"
    path.write_text("".join(f"{line}\n" for line in change(path.read_text().splitlines())))
    before = files(finished)
    ran = call(text.main, *ARGS, "--resume", "--epochs", EPOCHS + 1, cwd=finished)
    assert ran.returncode == 2
    assert len(ran.stderr.splitlines()) == 1
    assert files(finished) == before


def test_resume_starts_where_there_is_nothing_to_go_on_with(call, workspace, finished):
    ran = call(text.main, *ARGS, "--resume", "--epochs", EPOCHS, cwd=workspace)
    assert ran.returncode == 0
    assert log_lines(workspace) == log_lines(finished)


def test_a_run_killed_before_its_first_report_has_nothing_to_lose(call, workspace, finished):
    """The plain command starts it anew, and leaves no trace of what was there."""
    for path in (
        workspace / "logs" / "tiny" / f"{RUN_ID}.jsonl",
        workspace / "logs" / "tiny" / f"{RUN_ID}.log",
        state_path(workspace),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"event": "run", "args": {}}\n' if path.suffix == ".jsonl" else "")
    assert call(text.main, *ARGS, "--epochs", EPOCHS, cwd=workspace).returncode == 0
    assert log_lines(workspace) == log_lines(finished)


def test_an_interrupted_run_is_not_started_again_without_a_word(call, workspace, monkeypatch):
    """Its state may be hours old, though it has not reported yet."""
    monkeypatch.setattr(Trainer, "_report_every", lambda trainer: 1000)
    assert call(text.main, *ARGS, "--max_iterations", 1, cwd=workspace).returncode == 0
    before = files(workspace)
    assert all('"event": "report"' not in path.read_text() for path in (workspace / "logs").rglob("*.jsonl"))
    ran = call(text.main, *ARGS, cwd=workspace)
    assert ran.returncode == 2 and "--resume goes on with it" in ran.stderr
    assert files(workspace) == before


def test_a_run_whose_state_is_gone_is_not_started_again(call, finished):
    state_path(finished).unlink()
    before = files(finished)
    ran = call(text.main, *ARGS, "--resume", cwd=finished)
    assert ran.returncode == 2 and len(ran.stderr.splitlines()) == 1
    assert f"{RUN_ID}.resume.pt" in ran.stderr and "--overwrite" in ran.stderr
    assert files(finished) == before


def test_one_process_at_a_time_holds_a_run(call, finished):
    before = files(finished)
    with FileLock(state_path(finished).with_name(f"{RUN_ID}.lock")):
        ran = call(text.main, *ARGS, "--resume", "--epochs", EPOCHS + 1, cwd=finished)
    assert ran.returncode == 2 and "another process" in ran.stderr and len(ran.stderr.splitlines()) == 1
    (finished / "models" / "tiny" / f"{RUN_ID}.lock").unlink(missing_ok=True)
    assert files(finished) == before


@pytest.mark.parametrize(
    "content",
    [lambda state: state.read_bytes()[:1000], lambda state: state.with_name(f"{RUN_ID}.pt").read_bytes()],
    ids=["torn", "a model, not a state"],
)
def test_a_bad_state_is_refused(call, finished, content):
    path = state_path(finished)
    path.write_bytes(content(path))
    before = files(finished)
    ran = call(text.main, *ARGS, "--resume", cwd=finished)
    assert ran.returncode == 2
    (line,) = ran.stderr.splitlines()
    assert "resume.pt" in line
    assert files(finished) == before
