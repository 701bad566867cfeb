"""Ways to misuse the commands, each of which ends in one line, or well; `tests/faults` tries more of them at random."""

import errno
import json
import math
import os
import subprocess
import sys

import pytest
import torch

import image
import plot_epochs
import reproduce
import table
import text
import toy
from modules.command import os_complaint
from modules.data.corpus import OneBatch, read_corpus
from modules.domains.image_domain import IMAGE
from modules.domains.text_domain import TEXT
from modules.models.gaussian import log_mixture_density
from modules.training.algorithm import Algorithm1
from modules.training.records import Records
from tests.conftest import TINY_IMAGES_CONFIG, assert_refused, command, environment, events

RUN_ID = "tiny_aggressive0_kls1.00_warm10_0_0_783435"
ARGS = ("--dataset", "tiny", "--iw_nsamples", 2)
ONCE = (*ARGS, "--max_iterations", 1)
IMAGES = ("--dataset", "tinyimages", "--iw_nsamples", 2, "--max_iterations", 1)


def state(workspace):
    """The file with the state of a run."""
    return workspace / "models" / "tiny" / f"{RUN_ID}.resume.pt"


# ---------------------------------------------------------------------- flags that would do nothing

@pytest.mark.parametrize("flags, names", [
    ("--kl_cycles 4", "--kl_cycles --kl_start --warm_up"), ("--kl_start 0 --warm_up 0", "--warm_up --kl_start"),
    ("--kl_start 0.1 --beta 0", "--kl_start --beta"), ("--free_bits 3 --beta 0", "--free_bits --beta"),
    ("--free_bits_over sum", "--free_bits_over --free_bits"), ("--inner_clip encoder", "--inner_clip --aggressive"),
    ("--model lm --nsamples 2", "lm --nsamples"), ("--model lm --kl_start 0.5", "lm --kl_start"),
    ("--svi_steps 3", "--svi_steps savae"), ("--decode_from m --iw_nsamples 3", "--iw_nsamples"),
])
def test_flags_that_would_do_nothing(call, workspace, flags, names):
    args = ["--dataset", "tiny", *flags.split()]
    assert_refused(call(text.main, *args, cwd=workspace), *names.split())
    assert not (workspace / "models").exists()


@pytest.mark.parametrize("flags, name", [("--plot_mode single --plot_niter 3", "--plot_niter"),
                                         ("--optim adam --momentum 0.5", "--momentum")])
def test_flags_that_would_do_nothing_in_the_toy_study(call, workspace, flags, name):
    assert_refused(call(toy.main, "--dataset", "tiny", *flags.split(), cwd=workspace), name)


@pytest.mark.parametrize("flags", ["--warm_up 10 --kl_start 1.0", "--aggressive 0", "--warm_up 0"])
def test_published_commands_keep_their_flags(call, workspace, flags):
    assert call(text.main, *ONCE, *flags.split(), cwd=workspace).returncode == 0


# ---------------------------------------------------------------------- names of runs

@pytest.mark.parametrize("domain, start, found", [
    (TEXT, 1.0, "_kls1.00_"), (TEXT, 0.1, "_kls0.10_"), (TEXT, 0.125, "_kls0.125_"),
    (IMAGE, 1.0, "_kls1.0_"), (IMAGE, 0.1, "_kls0.1_"), (IMAGE, 0.12, "_kls0.12_"), (IMAGE, 1e-5, "_kls1e-05_")])
def test_names_of_runs_never_round(domain, start, found):
    """As published where that tells runs apart."""
    assert found in domain.run_id(domain.settings(dataset="d", kl_start=start, seed=1))


def test_another_run_of_the_same_name_is_told_from_this_one(call, image_workspace):
    assert call(image.main, *IMAGES, cwd=image_workspace).returncode == 0
    assert_refused(call(image.main, *IMAGES, "--nz", 3, cwd=image_workspace), "nz", "2", "3", "--jobid")


# ---------------------------------------------------------------------- states with something else in them

@pytest.mark.parametrize("field, value", [
    ("epoch", "x"), ("epoch", -1), ("batch", 2.5), ("seconds", "x"), ("finished", "no"), ("iteration", None),
    ("reported", {}), ("phase", {}), ("order", "x"), ("order", torch.arange(3)), ("records", [1]),
    ("records", [-5, -5]), ("generator", torch.zeros(3)), ("rng", None), ("args", 3), ("config", 3)])
def test_states_with_a_field_of_another_kind(call, workspace, field, value):
    assert call(text.main, *ONCE, cwd=workspace).returncode == 0
    content = torch.load(state(workspace))
    for part in (content["training"]["progress"], content["training"], content):
        if field in part or part is content:
            part[field] = value
            break
    torch.save(content, state(workspace))
    ran = call(text.main, *ARGS, "--resume", cwd=workspace)
    assert ran.returncode == 2 and len(ran.stderr.splitlines()) == 1
    assert "resume.pt: damaged" in ran.stderr
    assert field in ran.stderr or field in ("generator", "rng", "order", "phase", "args", "config")


# ---------------------------------------------------------------------- files that are none

@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no such pipes")
@pytest.mark.parametrize("main, args", [
    (text.main, (*ONCE, "--train_data", "pipe")), (text.main, (*ARGS, "--eval", "--load_path", "pipe")),
    (image.main, (*IMAGES, "--data_file", "pipe")), (table.main, ("pipe",)),
    (plot_epochs.main, ("pipe",))], ids=["text", "model", "images", "table", "plot"])
def test_a_pipe_does_not_hang(call, workspace, main, args):
    (workspace / "config" / "config_tinyimages.py").write_text(TINY_IMAGES_CONFIG)
    os.mkfifo(workspace / "pipe")
    assert_refused(call(main, *args, cwd=workspace), "pipe")


@pytest.mark.parametrize("main, args", [(reproduce.main, ("--slurm", "")), (reproduce.main, ("--report", "--output", "")),
                                        (plot_epochs.main, ("",)), (plot_epochs.main, ("x", "--output", ""))])
def test_a_name_without_letters(call, tmp_path, main, args):
    assert_refused(call(main, *args, cwd=tmp_path), "must be the name of a file")


@pytest.mark.parametrize("config", ["import sys; sys.exit()", "raise OSError(2, 'x')", "1 / 0", "params = {"])
def test_a_config_that_ends_the_program(call, workspace, config):
    (workspace / "config" / "config_tiny.py").write_text(config)
    assert_refused(call(text.main, *ONCE, cwd=workspace), "config_tiny.py")


def test_a_line_break_in_a_flag_makes_no_second_line(call, workspace):
    assert_refused(call(text.main, *ONCE, "--train_data", "a\nb", cwd=workspace), "a b")
    assert_refused(call(text.main, *ONCE, "--a\nb", cwd=workspace), "--a b")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no full device")
def test_a_full_disk_names_the_file(workspace, call):
    assert call(text.main, *ONCE, cwd=workspace).returncode == 0
    log = workspace / "logs" / "tiny" / f"{RUN_ID}.log"
    log.unlink()
    log.symlink_to("/dev/full")
    ran = call(text.main, *ARGS, "--resume", cwd=workspace)
    assert ran.returncode == 2 and f"{RUN_ID}.log" in ran.stderr.splitlines()[-1]
    assert "make room" in ran.stderr.splitlines()[-1] and "Traceback" not in ran.stderr


def test_only_a_lack_of_memory_is_called_so(call, tmp_path, monkeypatch):
    def main(words):
        def fail():
            raise RuntimeError(words)
        fail.__module__ = "text"
        return fail
    for words in ("could not create a primitive", "[enforce fail] DefaultCPUAllocator: not enough memory"):
        assert_refused(call(main(words), cwd=tmp_path), "out of memory", "--batch_size")
    for words in ("an illegal memory access was encountered", "channels_last memory format"):
        with pytest.raises(RuntimeError):
            call(main(words), cwd=tmp_path)


def test_a_reader_that_has_seen_enough_does_not_end_training(workspace):
    line = f"{' '.join(command('text.py', *ARGS, '--epochs', 1))} | head -n 1"
    ran = subprocess.run(line, shell=True, cwd=workspace, env=environment(), capture_output=True, text=True, timeout=120)
    assert ran.stdout.startswith("data: ") and ran.stderr == ""
    assert [event["event"] for event in events(workspace, RUN_ID)][-1] == "iw"
    assert "let it read" in os_complaint(BrokenPipeError(errno.EPIPE, "Broken pipe"))


def test_no_module_needs_what_only_linux_has():
    """Windows has no fcntl and no resource."""
    code = "import sys; sys.modules.update(fcntl=None, resource=None)\nimport text, image, toy, reproduce, prepare_data"
    ran = subprocess.run([sys.executable, "-c", code], cwd=command("")[1], env=environment(), capture_output=True,
                         text=True, timeout=120)
    assert (ran.returncode, "Traceback" in ran.stderr) == (0, False)        # filelock warns


# ---------------------------------------------------------------------- figures

def test_densities_of_values_that_cancel_are_those_of_torch_distributions():
    """Means of 1e6 and narrow posteriors: an expanded square has no digit left."""
    random = torch.Generator().manual_seed(1)
    mean = 1e6 + torch.randn(5, 3, generator=random, dtype=torch.float64)
    logvar = torch.randn(5, 3, generator=random, dtype=torch.float64) - 4
    z = mean + (logvar / 2).exp() * torch.randn(5, 3, generator=random, dtype=torch.float64)
    normal = torch.distributions.Normal(mean, (logvar / 2).exp())
    expected = normal.log_prob(z.unsqueeze(1)).sum(dim=2).logsumexp(dim=1) - math.log(5)
    torch.testing.assert_close(log_mixture_density(z, mean, logvar).double(), expected, rtol=1e-6, atol=1e-6)


def test_json_lines_are_strict(tmp_path):
    records = Records(tmp_path, "run", words=False)
    records.write("note", x=math.nan, y=-math.inf, z=1.5)
    records.close()
    def refuse(constant):
        raise AssertionError(constant)
    event = json.loads((tmp_path / "run.jsonl").read_text(), parse_constant=refuse)
    assert event == {"event": "note", "x": None, "y": None, "z": 1.5}


@pytest.mark.parametrize("aggressive", [0, 1])
def test_the_single_mode_trains_on_the_plotted_batch_alone(call, workspace, monkeypatch, aggressive):
    """In inner and outer steps (published figure 3), and each of its iterations."""
    seen, gradients = [], Algorithm1.gradients
    monkeypatch.setattr(Algorithm1, "gradients", lambda self, x, weight: seen.append(x) or gradients(self, x, weight))
    ran = call(toy.main, "--dataset", "tiny", "--aggressive", aggressive, "--plot_mode", "single", "--num_plot", 7,
               "--zmin", -2, "--zmax", 2, "--max_iterations", 3, cwd=workspace)
    assert ran.returncode == 0
    corpus, _ = read_corpus(workspace / "datasets" / "tiny_data" / "tiny.train.txt", limit=7)
    plotted = OneBatch(corpus, 7, 1).batch(None, 0)
    assert len(seen) > 3 if aggressive else len(seen) == 3
    assert all(torch.equal(x, plotted) for x in seen)


