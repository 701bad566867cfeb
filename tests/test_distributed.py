"""Several processes that train one model do what one does: the same losses, stops and figures, the same messages."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock

import text
from modules.checkpoint import load_checkpoint
from modules.command import UserError
from modules.distributed import Team, _all_there
from modules.models.layers.precision import bf16_is_slow
from tests.conftest import ROOT, assert_refused, environment
from tests.team_scenarios import SCENARIOS, TEAMS, train

ARGS = ("--dataset", "tiny", "--aggressive", 1, "--iw_nsamples", 5)
RUN_ID = "tiny_aggressive1_kls1.00_warm10_0_0_783435"
FORKED = (sys.executable, "-m", "tests.team_scenarios")
TORCHRUN = (
    *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
    str(ROOT / "text.py"),
)
TOLERANCES = {"joint clip": 1e-6}  # relative, of losses in float32; else 1e-9


@pytest.fixture(scope="module")
def teams(tmp_path_factory):
    """{number of processes: what each of them found in `team_scenarios`}, and the folder of their data."""
    folder = tmp_path_factory.mktemp("teams")
    ran = subprocess.run(
        [*FORKED, str(folder)], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert (ran.stderr, ran.returncode) == ("", 0)
    found = {size: [torch.load(folder / f"{size}_{rank}.pt") for rank in range(size)] for size in TEAMS}
    return found, folder


@pytest.mark.parametrize("size, name", [(size, name) for size, names in TEAMS.items() for name in names])
def test_several_processes_do_what_one_does(teams, size, name):
    found, folder = teams
    alone, tolerance = train(name, folder, Team()), TOLERANCES.get(name, 1e-9)
    first, *others = (each[name] for each in found[size])
    for other in others:
        assert other["events"] == first["events"] and other["iw"] == first["iw"] and other["steps"] == first["steps"]
        assert all(torch.equal(value, first["weights"][key]) for key, value in other["weights"].items())
    assert first["steps"] == alone["steps"] and len(first["events"]) == len(alone["events"])
    for ours, its in zip(first["events"], alone["events"]):
        assert {key: value for key, value in ours.items() if not isinstance(value, float)} == {
            key: value for key, value in its.items() if not isinstance(value, float)
        }  # AU, stops, the phase's end
        assert ours == pytest.approx(its, rel=tolerance, abs=tolerance)
    assert first["iw"] == pytest.approx(alone["iw"], rel=tolerance)
    for key, value in first["weights"].items():
        torch.testing.assert_close(value, alone["weights"][key], rtol=1e3 * tolerance, atol=1e3 * tolerance)
    aggressive = SCENARIOS[name][1].get("aggressive", 1)
    assert any(event["event"] == "aggressive phase ends" for event in alone["events"]) == bool(aggressive)
    assert bool(alone["steps"]) == bool(aggressive)


@pytest.mark.parametrize("kind", ["text", "image"])
def test_a_team_that_is_stopped_goes_on_bit_for_bit(teams, kind):
    for rank in teams[0][2]:
        stopped, undisturbed = rank[f"{kind}, interrupted"], rank[f"{kind}, undisturbed"]
        assert stopped["iw"] == undisturbed["iw"] and stopped["steps"] == undisturbed["steps"]
        assert all(torch.equal(value, stopped["weights"][key]) for key, value in undisturbed["weights"].items())
        assert stopped["events"][-1] == undisturbed["events"][-1]


def start(*launcher, args, cwd):
    """Start `text.py` on two processes."""
    surroundings = {**environment(), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*launcher, *map(str, args)],
        cwd=cwd,
        env=surroundings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, process):
    end = time.monotonic() + 100
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


def saved_iteration(folder):
    path = folder / "models" / "tiny" / f"{RUN_ID}.resume.pt"
    return load_checkpoint(path, "text")["training"]["progress"]["iteration"] if path.exists() else -1


def last_words(process):
    """What the processes themselves said in the end; torchrun's own report comes after it."""
    stderr = process.communicate(timeout=100)[1]
    assert process.returncode != 0 and "[rank" not in stderr
    return [line for line in stderr.splitlines() if line.startswith(("error:", "interrupted", "stopping"))]


def children(process):
    """The ids of what a process has started, the first one first."""
    return [int(child) for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="no /proc to find the processes in")
def test_a_run_of_two_from_the_first_signal_to_the_figures(workspace, call):
    """Ctrl-C, a killed process and an error of the first end both with one line; one process alone ends the run."""
    process = start(*TORCHRUN, args=(*ARGS, "--save_every", 0), cwd=workspace)
    wait_for(lambda: saved_iteration(workspace) >= 1, process)
    process.send_signal(signal.SIGINT)
    said = last_words(process)  # none if torchrun, in haste, takes down the store in which the word is claimed
    assert len(said) < 2 and all(line.startswith("interrupted: saved ") for line in said)
    stopped = saved_iteration(workspace)

    process = start(*FORKED, "text", args=(*ARGS, "--save_every", 0, "--resume"), cwd=workspace)
    wait_for(lambda: saved_iteration(workspace) > stopped, process)
    os.kill(children(process)[1], signal.SIGKILL)
    said = last_words(process)  # none if the system ends the other first, as happens on a busy machine
    assert len(said) < 2 and all(line.startswith("error: another process of this run has ended") for line in said)

    with FileLock(workspace / "models" / "tiny" / f"{RUN_ID}.lock"):
        (said,) = last_words(start(*FORKED, "text", args=(*ARGS, "--resume"), cwd=workspace))
    assert said.startswith("error: ") and ".lock: another process is at this run" in said

    ran = call(text.main, *ARGS, "--resume", cwd=workspace)
    assert ran.returncode == 0 and "iw nll: " in ran.stdout and len(list((workspace / "logs").rglob("*"))) == 4


def test_another_process_that_is_gone_is_named():
    with pytest.raises(UserError, match=r"another process of this run has ended.* \(closed\); .*--resume goes on"):
        with _all_there():
            raise RuntimeError("closed")


def test_each_process_has_noise_of_its_own_in_each_iteration():
    torch.manual_seed(5)
    Team(0, 3).draw_noise_of(1, 2)
    assert torch.initial_seed() == 5  # the first goes on
    seeds = set()
    for rank, seed, iteration in [(1, 1, 2), (2, 1, 2), (1, 3, 2), (1, 1, 4), (1, 1, 2)]:
        Team(rank, 3).draw_noise_of(seed, iteration)
        seeds.add(torch.initial_seed())
    assert len(seeds) == 4


def test_what_several_processes_do_not_do(call, workspace, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert_refused(call(text.main, "--dataset", "tiny", "--decode_from", "m.pt", cwd=workspace), "without torchrun")


@pytest.mark.parametrize(
    "capabilities, slow",
    [
        ({"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": False, "avx2": True}, True),
        ({"architecture": "x86_64", "avx512_bf16": True, "amx_bf16": False}, False),
        ({"architecture": "aarch64"}, False),
        ({}, False),
    ],
)
def test_bf16_without_instructions_for_it_is_remarked_on(call, workspace, monkeypatch, capabilities, slow):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert bf16_is_slow(torch.device("cpu")) == slow and not bf16_is_slow(torch.device("meta"))
    ran = call(text.main, "--dataset", "tiny", "--precision", "bf16", "--epochs", 1, "--iw_nsamples", 2, cwd=workspace)
    assert ran.returncode == 0 and ran.stderr.count("\n") == slow == ran.stderr.startswith("note: --precision bf16: ")
