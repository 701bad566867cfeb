"""Ways to misuse the commands, each of which ends in one line, or well; `tests/faults` tries more of them at random."""

import errno
import hashlib
import json
import math
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import plot_epochs
import pytest
import table
import torch

import image
import reproduce
import text
import toy
from modules.command import UserError, os_complaint
from modules.data.corpus import OneBatch, Vocabulary, read_corpus, read_lines
from modules.data.omniglot import save_tensors
from modules.domains.image_domain import IMAGE
from modules.domains.text_domain import TEXT
from modules.evaluation.metrics import MOST_UNITS, importance_weighted_nll
from modules.evaluation.space_statistics import read_snapshot, read_trajectory, snapshot_path
from modules.files import CannotWrite
from modules.generation.points import read_points
from modules.models.gaussian import log_mixture_density
from modules.training.algorithm import Algorithm1
from modules.training.records import Records
from modules.training.run_files import RunFiles
from tests.conftest import ROOT, TINY_IMAGES_CONFIG, assert_refused, command, environment, events

RUN_ID = "tiny_aggressive0_kls1.00_warm10_0_0_783435"
ARGS = ("--dataset", "tiny", "--iw_nsamples", 2)
ONCE = (*ARGS, "--max_iterations", 1)
IMAGES = ("--dataset", "tinyimages", "--iw_nsamples", 2, "--max_iterations", 1)


def state(workspace):
    """The file with the state of a run."""
    return workspace / "models" / "tiny" / f"{RUN_ID}.resume.pt"


# ---------------------------------------------------------------------- flags that would do nothing


@pytest.mark.parametrize(
    "flags, names",
    [
        ("--kl_cycles 4", "--kl_cycles --kl_start --warm_up"),
        ("--kl_start 0 --warm_up 0", "--warm_up --kl_start"),
        ("--kl_start 0.1 --beta 0", "--kl_start --beta"),
        ("--free_bits 3 --beta 0", "--free_bits --beta"),
        ("--free_bits_over sum", "--free_bits_over --free_bits"),
        ("--inner_clip encoder", "--inner_clip --aggressive"),
        ("--model lm --nsamples 2", "lm --nsamples"),
        ("--model lm --kl_start 0.5", "lm --kl_start"),
        ("--svi_steps 3", "--svi_steps savae"),
        ("--decode_from m --iw_nsamples 3", "--iw_nsamples"),
    ],
)
def test_flags_that_would_do_nothing(call, workspace, flags, names):
    args = ["--dataset", "tiny", *flags.split()]
    assert_refused(call(text.main, *args, cwd=workspace), *names.split())
    assert not (workspace / "models").exists()


@pytest.mark.parametrize(
    "flags, name",
    [("--plot_mode single --plot_niter 3", "--plot_niter"), ("--optim adam --momentum 0.5", "--momentum")],
)
def test_flags_that_would_do_nothing_in_the_toy_study(call, workspace, flags, name):
    assert_refused(call(toy.main, "--dataset", "tiny", *flags.split(), cwd=workspace), name)


@pytest.mark.parametrize("flags", ["--warm_up 10 --kl_start 1.0", "--aggressive 0", "--warm_up 0"])
def test_published_commands_keep_their_flags(call, workspace, flags):
    assert call(text.main, *ONCE, *flags.split(), cwd=workspace).returncode == 0


# ---------------------------------------------------------------------- names of runs


@pytest.mark.parametrize(
    "domain, start, found",
    [
        (TEXT, 1.0, "_kls1.00_"),
        (TEXT, 0.1, "_kls0.10_"),
        (TEXT, 0.125, "_kls0.125_"),
        (IMAGE, 1.0, "_kls1.0_"),
        (IMAGE, 0.1, "_kls0.1_"),
        (IMAGE, 0.12, "_kls0.12_"),
        (IMAGE, 1e-5, "_kls1e-05_"),
        (TEXT, 0.9999999, "_kls0.9999999_"),
    ],
)
def test_names_of_runs_never_round(domain, start, found):
    """As published where that tells runs apart."""
    assert found in domain.run_id(domain.settings(dataset="d", kl_start=start, seed=1))
    beta = domain.settings(dataset="d", kl_start=start, seed=1, beta=1 + start / 1e7)
    assert f"_beta{1 + start / 1e7}_" in domain.run_id(beta)


def test_another_run_of_the_same_name_is_told_from_this_one(call, image_workspace):
    assert call(image.main, *IMAGES, cwd=image_workspace).returncode == 0
    assert_refused(call(image.main, *IMAGES, "--nz", 3, cwd=image_workspace), "nz", "2", "3", "--jobid")


# ---------------------------------------------------------------------- states with something else in them


@pytest.mark.parametrize(
    "field, value",
    [
        ("epoch", "x"),
        ("epoch", -1),
        ("batch", 2.5),
        ("seconds", "x"),
        ("finished", "no"),
        ("iteration", None),
        ("reported", {}),
        ("phase", {}),
        ("order", "x"),
        ("order", torch.arange(3)),
        ("records", [1]),
        ("records", [-5, -5]),
        ("generator", torch.zeros(3)),
        ("rng", None),
        ("args", 3),
        ("config", 3),
    ],
)
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
@pytest.mark.parametrize(
    "main, args",
    [
        (text.main, (*ONCE, "--train_data", "pipe")),
        (text.main, (*ARGS, "--eval", "--load_path", "pipe")),
        (image.main, (*IMAGES, "--data_file", "pipe")),
        (table.main, ("pipe",)),
        (plot_epochs.main, ("pipe",)),
    ],
    ids=["text", "model", "images", "table", "plot"],
)
def test_a_pipe_does_not_hang(call, workspace, main, args):
    (workspace / "config" / "config_tinyimages.py").write_text(TINY_IMAGES_CONFIG)
    os.mkfifo(workspace / "pipe")
    assert_refused(call(main, *args, cwd=workspace), "pipe")


@pytest.mark.parametrize(
    "main, args",
    [
        (reproduce.main, ("--slurm", "")),
        (reproduce.main, ("--report", "--output", "")),
        (plot_epochs.main, ("",)),
        (plot_epochs.main, ("x", "--output", "")),
    ],
)
def test_a_name_without_letters(call, tmp_path, main, args):
    assert_refused(call(main, *args, cwd=tmp_path), "must be the name of a file")


@pytest.mark.parametrize("config", ["import sys; sys.exit()", "raise OSError(2, 'x')", "1 / 0", "params = {"])
def test_a_config_that_ends_the_program(call, workspace, config):
    (workspace / "config" / "config_tiny.py").write_text(config)
    assert_refused(call(text.main, *ONCE, cwd=workspace), "config_tiny.py")


def test_a_line_break_in_a_flag_makes_no_second_line(call, workspace):
    assert_refused(call(text.main, *ONCE, "--train_data", "a\nb", cwd=workspace), "a b")
    assert_refused(call(text.main, *ONCE, "--a\nb", cwd=workspace), "--a b")


LOG = os.path.join(ROOT, "logs", "examples", "synthetic", "synthetic_aggressive1_kls1.00_warm10_0_0_783435.jsonl")


@pytest.mark.parametrize(
    "script, flags, file",
    [
        ("prepare_data.py", "--dataset ptb --mirror mirror", "ptb.train.txt"),
        ("prepare_data.py", "--dataset synthetic --generate", "synthetic_train.txt"),
        ("plot_scripts/plot_runs.py", f"{LOG} --output x.pdf", "x.pdf"),
        ("plot_scripts/plot_epochs.py", f"{LOG} --output x.png", "x.png"),
    ],
)
@pytest.mark.skipif(os.name != "posix", reason="sizes of files are bounded by ulimit")
def test_no_room_for_a_file_names_it(tmp_path, script, flags, file):
    """Here because no file may have more than 4 KiB; nothing stays, and no other way to get the data is proposed."""
    (tmp_path / "mirror").mkdir()
    for part in ("train", "valid", "test"):
        content = f"{part} of a line\n" * 1000
        (tmp_path / "mirror" / f"ptb.{part}.txt").write_text(content)
        with open(tmp_path / "mirror" / "SHA256SUMS", "a") as sums:
            sums.write(f"{hashlib.sha256(content.encode()).hexdigest()}  ptb.{part}.txt\n")
    bounded = ["bash", "-c", 'ulimit -f 4; exec "$@"', "-", *command(script, *flags.split())]
    ran = subprocess.run(bounded, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert_refused(ran, "error: cannot write", file, "File too large")
    assert "By hand" not in ran.stderr
    assert {path.name for path in tmp_path.rglob("*")} <= {
        "mirror",
        *os.listdir(tmp_path / "mirror"),
        "datasets",
        ".lock",
    }


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no full device")
def test_no_room_for_the_images(tmp_path):
    images = tmp_path / "omniglot.pt"
    images.with_name(f"{images.name}.{os.getpid()}.tmp").symlink_to("/dev/full")  # where `replacing` writes first
    with pytest.raises(CannotWrite, match="omniglot.pt: No space left on device; make room there"):
        save_tensors([torch.zeros(40, 1, 28, 28)] * 3, images)
    assert not list(tmp_path.iterdir())


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
    ran = subprocess.run(
        line, shell=True, cwd=workspace, env=environment(), capture_output=True, text=True, timeout=120
    )
    assert ran.stdout.startswith("data: ") and ran.stderr == ""
    assert [event["event"] for event in events(workspace, RUN_ID)][-1] == "iw"
    assert "let it read" in os_complaint(BrokenPipeError(errno.EPIPE, "Broken pipe"))


def test_no_module_needs_what_only_linux_has():
    """Windows has no fcntl and no resource."""
    code = "import sys; sys.modules.update(fcntl=None, resource=None)\nimport text, image, toy, reproduce, prepare_data"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=command("")[1], env=environment(), capture_output=True, text=True, timeout=120
    )
    assert (ran.returncode, "Traceback" in ran.stderr) == (0, False)  # filelock warns


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
    records = Records(RunFiles("tiny", "run", tmp_path), words=False)
    records.write("note", x=math.nan, y=-math.inf, z=1.5)
    records.close()

    def refuse(constant):
        raise AssertionError(constant)

    event = json.loads((tmp_path / "tiny" / "run.jsonl").read_text(), parse_constant=refuse)
    assert event == {"event": "note", "x": None, "y": None, "z": 1.5}


@pytest.mark.parametrize("aggressive", [0, 1])
def test_the_single_mode_trains_on_the_plotted_batch_alone(call, workspace, monkeypatch, aggressive):
    """In inner and outer steps (published figure 3), and each of its iterations: as many sentences of one length."""
    seen, gradients = [], Algorithm1.gradients
    monkeypatch.setattr(Algorithm1, "gradients", lambda self, x, weight: seen.append(x) or gradients(self, x, weight))
    ran = call(
        toy.main,
        "--dataset",
        "tiny",
        "--aggressive",
        aggressive,
        "--plot_mode",
        "single",
        "--num_plot",
        7,
        "--zmin",
        -2,
        "--zmax",
        2,
        "--max_iterations",
        3,
        cwd=workspace,
    )
    assert ran.returncode == 0
    path = workspace / "datasets" / "tiny_data" / "tiny.train.txt"
    _, vocabulary = read_corpus(path)
    lines = path.read_text().splitlines()
    length = min(n for n in range(1, 10) if sum(len(line.split()) == n for line in lines) >= 7)
    expected = [line for line in lines if len(line.split()) == length][:7]
    assert expected != lines[:7]  # of which no batch could be made
    assert len(seen) > 3 if aggressive else len(seen) == 3
    for x in seen:
        assert [vocabulary.sentence(row[1:-1].tolist()) for row in x] == expected
    assert read_trajectory(aggressive)["model_mean"].shape[1] == 7


@pytest.mark.parametrize("lines, ceiling", [("red\nred one\n", 0.0), ("red\nblue\nred one\n", math.log(2) * 2 / 3)])
def test_small_validation_batches_let_the_whole_split_end_the_phase(call, workspace, lines, ceiling):
    """`mi`, mixed over a batch of one sentence, is 0 but for rounding; over one of two it is at most log 2."""
    (workspace / "datasets" / "tiny_data" / "tiny.valid.txt").write_text(lines)
    ran = call(text.main, *ARGS, "--aggressive", 1, "--epochs", 1, cwd=workspace)
    assert ran.returncode == 0 and f"is at most {ceiling:.2f}: mi_agg ends the aggressive phase" in ran.stdout
    (val,) = (
        event for event in events(workspace, RUN_ID.replace("aggressive0", "aggressive1")) if event["event"] == "val"
    )
    assert f"cur mi:{val['mi_agg'] + 0.0:.4f}" in ran.stdout and val["mi"] < ceiling + 1e-9


def test_batches_of_one_cannot_be_normalised(call, workspace):
    assert_refused(
        call(text.main, *ONCE, "--bn_gamma", 0.6, "--batch_size", 1, cwd=workspace), "--bn_gamma", "--batch_size"
    )


def test_initialisation_leaves_what_a_method_adds():
    s = TEXT.settings(
        nz=2, ni=3, enc_nh=4, dec_nh=4, dec_dropout_in=0.0, dec_dropout_out=0.0, batch_size=4, bn_gamma=0.6
    )
    parameters = dict(TEXT.build(s, Vocabulary(), "test").named_parameters())
    shifts = [value for name, value in parameters.items() if name.endswith("shift")]
    assert len(shifts) == 1 and not shifts[0].any()
    assert all(value.any() for name, value in parameters.items() if not name.endswith("shift"))


@pytest.mark.parametrize("line", ["red one", "<s> red one </s>", "red one </s>"])
def test_marks_around_a_line_are_no_words(tmp_path, line):
    (tmp_path / "x.txt").write_text(f"{line}\n")
    corpus, vocabulary = read_corpus(tmp_path / "x.txt")
    again = read_lines(tmp_path / "x.txt", vocabulary)
    assert vocabulary.words[4:] == ["red", "one"]
    assert corpus[0].tolist() == again[0].tolist() == [vocabulary.bos, 4, 5, vocabulary.eos]


def test_what_was_read_is_told_and_oddities_are_remarked_on(call, workspace):
    (workspace / "datasets" / "tiny_data" / "tiny.train.txt").write_text("<!DOCTYPE html> x y z\n")
    ran = call(text.main, *ONCE, cwd=workspace)
    assert ran.returncode == 0 and ran.stdout.startswith(
        "data: train 1 sentences of 5 words, 5 in all, 0.00% <unk>; val "
    )
    assert "vocabulary 9" in ran.stdout.splitlines()[0]
    (data,) = (event for event in events(workspace, RUN_ID) if event["event"] == "data")
    assert data["splits"]["val"]["unk"] == 1 and data["splits"]["val"]["sentences"] == 20 and data["vocabulary"] == 9
    for words in ("begins like a web page", "one single line", "100% of the words of the test split are <unk>"):
        assert words in ran.stderr


# ---------------------------------------------------------------------- what is there already


@pytest.mark.parametrize("header", ["{'descr': '<f4', 'shape': (3", "{'descr': '<f4',\n  'x'\n 1", "\0", "{"])
@pytest.mark.parametrize("read", [read_snapshot, lambda aggressive, iteration: read_points(Path("x.npz"), 1)])
def test_a_broken_header_of_an_array(tmp_path, monkeypatch, header, read):
    """numpy parses headers as Python, and raises what Python's tokenizer does."""
    monkeypatch.chdir(tmp_path)
    array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    for path in (snapshot_path(0, 5), Path("x.npz")):
        path.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path, "w") as archive:
            for name in ("mean", "settings"):
                archive.writestr(f"{name}.npy", array)
    with pytest.raises(UserError, match="npz"):
        read(0, 5)


def test_logs_that_are_removed_are_told_of(call, workspace, monkeypatch):
    """At the end of the run, and when it is taken up."""
    log = workspace / "logs" / "tiny" / f"{RUN_ID}.log"
    assert call(text.main, *ONCE, cwd=workspace).returncode == 0
    log.unlink()
    ran = call(text.main, *ARGS, "--resume", "--max_iterations", 2, cwd=workspace)
    assert ran.returncode == 0 and f"{RUN_ID}.log: shorter than" in ran.stderr
    monkeypatch.setattr(Records, "say", lambda self, line: log.unlink(missing_ok=True))
    ran = call(text.main, *ARGS, "--resume", "--max_iterations", 3, cwd=workspace)
    assert ran.returncode == 0 and f"{RUN_ID}.log: removed while" in ran.stderr


def test_what_a_killed_process_left_is_cleared(call, workspace):
    left = [state(workspace).with_name(f"{RUN_ID}{end}.4711.tmp") for end in (".pt", ".resume.pt")]
    left.append(workspace / "logs" / "tiny" / f"{RUN_ID}.png.4711.tmp")
    other = state(workspace).with_name("another.pt.4711.tmp")
    for path in (*left, other):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    assert call(text.main, *ONCE, cwd=workspace).returncode == 0
    assert not any(path.exists() for path in left) and other.exists()


def test_overwriting_is_refused_before_anything_is_gone(call, workspace, monkeypatch):
    """Where the folder of the logs takes no new file."""
    assert call(text.main, *ONCE, cwd=workspace).returncode == 0
    before, touch = state(workspace).read_bytes(), Path.touch

    def refuse(path, *args):
        if path.parent.parent.name == "logs":
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        touch(path, *args)

    monkeypatch.setattr(Path, "touch", refuse)
    assert_refused(call(text.main, *ONCE, "--overwrite", cwd=workspace), "logs", "name another place")
    assert state(workspace).read_bytes() == before and (workspace / "logs" / "tiny" / f"{RUN_ID}.log").exists()


def test_a_run_goes_on_in_another_folder(call, workspace):
    """With its data, whose content decides, elsewhere than they were."""
    assert call(text.main, *ONCE, cwd=workspace).returncode == 0
    config = workspace / "config" / "config_tiny.py"
    (workspace / "datasets").rename(workspace / "elsewhere")
    config.write_text(config.read_text().replace("datasets/", "elsewhere/"))
    moved = workspace.rename(workspace.with_name("moved"))
    assert call(text.main, *ARGS, "--resume", "--max_iterations", 2, cwd=moved).returncode == 0


def test_long_lines_are_bounded_by_their_words():
    """Fewer pairs of an x and a z go through the decoder at once where x is very long."""

    class Model(torch.nn.Module):
        device = torch.device("cpu")

        def iw_nll(self, x, nsamples, max_rows, generator):
            rows.append(max_rows)
            return torch.zeros(len(x))

    rows, lines = [], [torch.ones(2, length, dtype=torch.long) for length in (5, 20_001)]
    split = OneBatch.__new__(OneBatch)
    split._batches, split.size, split.num_batches = lines, 4, 2
    importance_weighted_nll(Model(), split, 100, 2048, 1)
    assert rows == [2048, MOST_UNITS // 20_000]


@pytest.mark.parametrize(
    "content, says",
    [
        ([torch.full((3, 1, 7, 6), 0.5, requires_grad=True)] * 3, None),
        ([torch.zeros(3, 1, 7, 6, dtype=torch.complex64)] * 3, "tinyimages.pt"),
    ],
)
def test_odd_tensors_of_images(call, image_workspace, content, says):
    torch.save(content, image_workspace / "datasets" / "tinyimages_data" / "tinyimages.pt")
    ran = call(image.main, *IMAGES, cwd=image_workspace)
    assert ran.returncode == 0 if says is None else (assert_refused(ran, says) is None)
