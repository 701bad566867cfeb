"""text.py as people run it, on a tiny data set: what it prints, what it writes, and how it refuses bad input."""

import math
import platform
import re
import shutil
from dataclasses import replace

import numpy
import pytest
import torch

import text
from modules import settings
from modules.checkpoint import load_checkpoint, save_checkpoint
from modules.domains.domain import EVALUATION, RUNNING, settle
from modules.domains.text_domain import TEXT
from modules.evaluation import metrics
from modules.generation import sentences
from modules.models.layers.precision import allow_tf32
from modules.models.vae import VAE
from modules.training.algorithm import Algorithm1
from modules.training.run import prepare_device
from tests.conftest import (
    NUMBER,
    ROOT,
    TINY_CONFIG,
    assert_refused,
    events,
    logged,
    make_workspace,
    run_pattern,
    run_script,
)

ARGS = ("--dataset", "tiny", "--iw_nsamples", 20)
PLAIN = "tiny_aggressive0_kls1.00_warm10_0_0_783435"
AGGRESSIVE = "tiny_aggressive1_kls0.10_warm1_3_0_783435"


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A folder with a finished run of the plain VAE, and what the run printed."""
    folder = make_workspace(tmp_path_factory.mktemp("plain") / "workspace")
    return folder, run_script("text.py", *ARGS, cwd=folder)


@pytest.fixture(scope="module")
def aggressive(tmp_path_factory):
    """The same of an aggressive run. Its validation data are soon unlearned: the best epoch is the first."""
    folder = make_workspace(tmp_path_factory.mktemp("aggressive") / "workspace")
    (folder / "datasets" / "tiny_data" / "tiny.valid.txt").write_text("never seen\nseen never at all\n")
    train = folder / "datasets" / "tiny_data" / "tiny.train.txt"
    train.write_text("".join(train.read_text().splitlines(keepends=True)[:20]))
    return folder, run_script(
        "text.py", *ARGS, "--aggressive", 1, "--warm_up", 1, "--kl_start", 0.1, "--jobid", 3, cwd=folder
    )


@pytest.fixture(params=["plain", "aggressive"])
def finished(request):
    """(folder, what was printed, run id) of either."""
    return *request.getfixturevalue(request.param), {"plain": PLAIN, "aggressive": AGGRESSIVE}[request.param]


def trained(folder, run_id):
    """The best model of a run."""
    return load_checkpoint(folder / "models" / "tiny" / f"{run_id}.pt", "text")


# ---------------------------------------------------------------------- a run


def test_a_run_prints_the_lines_that_notebooks_parse(finished):
    _, ran, run_id = finished
    assert ran.returncode == 0
    assert ran.stderr == (
        ""
        if run_id == PLAIN
        else "note: 100% of the words of the val split are <unk>: is it text of that vocabulary?\n"
    )
    assert re.fullmatch(run_pattern(words=True), ran.stdout), ran.stdout
    assert ("pre mi:" in ran.stdout) == ("mi_agg ends" in ran.stdout) == (run_id == AGGRESSIVE)
    assert ran.stdout.count("VAL ---") == 2 and ran.stdout.count("TEST ---") == 2  # after epoch 0, and at the end
    assert ran.stdout.count("update best loss") == (1 if run_id == AGGRESSIVE else 2)


def test_the_log_is_what_was_printed(finished):
    folder, ran, run_id = finished
    assert (folder / "logs" / "tiny" / f"{run_id}.log").read_text() == logged(ran)


def test_a_run_leaves_its_files_and_no_others(finished):
    folder, _, run_id = finished
    made = sorted(str(path.relative_to(folder)) for top in ("models", "logs") for path in (folder / top).rglob("*.*"))
    assert made == [
        f"logs/tiny/{run_id}.jsonl",
        f"logs/tiny/{run_id}.log",
        f"logs/tiny/{run_id}.png",
        f"models/tiny/{run_id}.pt",
        f"models/tiny/{run_id}.resume.pt",
    ]
    assert sorted(path.name for path in folder.iterdir()) == ["config", "datasets", "logs", "models"]


def test_the_first_event_says_what_ran(finished):
    folder, _, run_id = finished
    first = events(folder, run_id)[0]
    assert first["event"] == "run" and first["id"] == run_id
    assert first["args"]["dataset"] == "tiny" and first["args"]["iw_nsamples"] == 20
    assert first["args"]["seed"] == 783435
    assert first["args"]["aggressive"] == int(run_id == AGGRESSIVE)
    assert first["args"]["nz"] == 2 and first["args"]["dec_dropout_in"] == 0.2
    assert (first["torch"], first["numpy"], first["python"]) == (
        torch.__version__,
        numpy.__version__,
        platform.python_version(),
    )
    if (ROOT / ".git").exists():
        assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", first["git_commit"])


def test_events_carry_the_figures_of_the_lines(finished):
    folder, ran, run_id = finished
    all_events = events(folder, run_id)
    assert [e["epoch"] for e in all_events if e["event"] == "val"] == [0, 1]
    for split in ("val", "test"):
        lines = re.findall(
            rf"{split.upper()} --- avg_loss: (\S+), kl: (\S+), mi: (\S+), recon: (\S+), nll: (\S+), "
            r"ppl: (\S+)\nmi_agg: (\S+), kl_agg: (\S+)\n(\d+) active",
            ran.stdout,
        )
        of_split = [e for e in all_events if e["event"] == split]
        assert len(lines) == len(of_split) == 2
        for line, e in zip(lines, of_split):
            nll = e["reconstruction"] + e["kl"]
            expected = [
                nll,
                e["kl"],
                e["mi"],
                e["reconstruction"],
                nll,
                math.exp(nll * e["size"] / e["units"]),
                e["mi_agg"],
                e["kl_agg"],
                e["active_units"],
            ]
            assert [float(figure) for figure in line] == pytest.approx(expected, abs=6e-5)
    reports = [e for e in all_events if e["event"] == "report"]
    printed = re.findall(r"iter: (\d+), avg_loss: (\S+),", ran.stdout)
    assert [(e["iteration"], f"{e['loss']:.4f}") for e in reports] == [(int(i), loss) for i, loss in printed]
    iw = all_events[-1]
    assert f"iw nll: {iw['nll']:.4f}, iw ppl: {iw['ppl']:.4f}\n" in ran.stdout
    assert (iw["event"], iw["nsamples"]) == ("iw", 20)


def test_sizes_and_words_are_those_of_the_file(plain):
    folder, _ = plain
    lines = (folder / "datasets" / "tiny_data" / "tiny.test.txt").read_text().splitlines()
    last = [e for e in events(folder, PLAIN) if e["event"] == "test"][-1]
    assert last["size"] == len(lines)
    assert last["units"] == sum(len(line.split()) + 1 for line in lines)


def test_dense_reports_in_the_first_epoch_sparse_ones_later(plain):
    reports = [e["epoch"] for e in events(plain[0], PLAIN) if e["event"] == "report"]
    assert reports.count(0) >= 10 > reports.count(1) >= 1


def test_the_plain_vae_takes_no_inner_steps_and_the_aggressive_one_does(plain, aggressive):
    assert {e["encoder_steps"] for e in events(plain[0], PLAIN) if e["event"] == "val"} == {0}
    first = next(e for e in events(aggressive[0], AGGRESSIVE) if e["event"] == "val")
    assert first["aggressive"] and first["iteration"] * 30 <= first["encoder_steps"] <= first["iteration"] * 99


def test_the_best_model_is_kept_with_its_vocabulary(finished):
    folder, _, run_id = finished
    saved = trained(folder, run_id)
    best = min((e for e in events(folder, run_id) if e["event"] == "val"), key=lambda e: e["loss"])
    assert saved["epoch"] == best["epoch"] == (0 if run_id == AGGRESSIVE else 1)
    assert saved["metrics"]["loss"] == best["loss"]
    words = (folder / "datasets" / "tiny_data" / "tiny.train.txt").read_text().split()
    assert saved["vocabulary"] == ["<pad>", "<s>", "</s>", "<unk>", *dict.fromkeys(words)]


# ---------------------------------------------------------------------- evaluation


def test_eval_prints_the_figures_of_the_run_without_its_training_file(finished, tmp_path):
    """The vocabulary comes from the model's file, the sizes too, and the noise is the same."""
    folder, ran, run_id = finished
    other = make_workspace(tmp_path / "elsewhere")
    (other / "datasets" / "tiny_data" / "tiny.train.txt").unlink()
    config = other / "config" / "config_tiny.py"
    config.write_text(config.read_text().replace('"enc_nh": 8, "dec_nh": 8', '"enc_nh": 9, "dec_nh": 7'))
    model = shutil.copy(folder / "models" / "tiny" / f"{run_id}.pt", other / "copied.pt")
    evaluated = run_script("text.py", *ARGS, "--eval", "--load_path", model, cwd=other)
    assert (evaluated.returncode, evaluated.stderr) == (0, "")
    told, _, figures = evaluated.stdout.partition("\n")
    assert told.startswith("data: test 22 sentences of 1 to 4 words, 62 in all, ") and told in ran.stdout.replace(
        "train", "data: train"
    ).replace("; test", "\ndata: test")
    assert figures == logged(ran)[ran.stdout.rindex("TEST ---") :]
    assert not (other / "models").exists() and not (other / "logs").exists()


def evaluate(call, folder, *args):
    """(one-sample NLL, importance-weighted NLL, its PPL) of the plain run's model under these flags."""
    ran = call(
        text.main,
        "--dataset",
        "tiny",
        "--eval",
        "--load_path",
        folder / "models" / "tiny" / f"{PLAIN}.pt",
        *args,
        cwd=folder,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    return tuple(float(re.search(rf"\b{name}: ({NUMBER})", ran.stdout)[1]) for name in ("nll", "iw nll", "iw ppl"))


def test_mi_is_mixed_over_batches_of_the_size_of_training(call, plain, tmp_path, monkeypatch):
    """Whatever the dataset's config says now, unless a flag does."""
    other = shutil.copytree(plain[0], tmp_path / "other")
    config = other / "config" / "config_tiny.py"
    config.write_text(config.read_text().replace('"batch_size": 4', '"batch_size": 2'))
    sizes = []
    monkeypatch.setattr(
        text,
        "TEXT",
        replace(TEXT, read_splits=lambda s, *more: sizes.append(s.batch_size) or (TEXT.read_splits(s, *more))),
    )
    for flags in ([], ["--batch_size", 3]):
        ran = call(text.main, *ARGS, *flags, "--eval", "--load_path", f"models/tiny/{PLAIN}.pt", cwd=other)
        assert (ran.returncode, ran.stderr) == (0, "")
    assert sizes == [4, 3]


def test_a_test_split_that_changed_since_is_remarked_on(call, plain, tmp_path):
    other = shutil.copytree(plain[0], tmp_path / "other")
    lines = other / "datasets" / "tiny_data" / "tiny.test.txt"
    lines.write_text(lines.read_text() + "red one\n")
    model = f"models/tiny/{PLAIN}.pt"
    for flags in ((), ("--batch_size", 3)):
        assert call(text.main, *ARGS, *flags, "--eval", "--load_path", model, cwd=plain[0]).stderr == ""
        ran = call(text.main, *ARGS, *flags, "--eval", "--load_path", model, cwd=other)
        assert ran.returncode == 0 and ran.stderr.startswith(f"note: {model}: made when tiny had another test split")


def test_another_seed_measures_under_other_noise(call, plain):
    assert evaluate(call, plain[0], "--seed", 1) != evaluate(call, plain[0], "--seed", 2)


# ---------------------------------------------------------------------- flags


def parse(*args):
    return settle(
        settings.parse(
            (*TEXT.groups, RUNNING, EVALUATION, sentences.DECODING),
            "text.py",
            ["--dataset", "synthetic", *map(str, args)],
        )
    )


def test_an_evaluation_is_that_of_the_runs_end(call, workspace):
    """Under the noise of the run's seed, which is not that of --taskid 0, unless a flag says otherwise."""
    ran = call(text.main, *ARGS, "--epochs", 1, "--taskid", 1, cwd=workspace)
    (model,) = (workspace / "models" / "tiny").glob("*_101.pt")
    tested = ran.stdout[ran.stdout.index("TEST ---") :]
    evaluate = (*ARGS, "--eval", "--load_path", model)
    again = call(text.main, *evaluate, cwd=workspace).stdout
    assert tested.splitlines()[:4] == again[again.index("TEST ---") :].splitlines()[:4]
    for other in (("--taskid", 0), ("--seed", 7)):
        assert tested.splitlines()[0] not in call(text.main, *evaluate, *other, cwd=workspace).stdout


@pytest.mark.parametrize("task, seed", list(enumerate([783435, 101, 202, 303, 404, 505, 606, 707, 808, 909])))
def test_taskid_picks_the_seed_and_seed_wins(task, seed):
    assert parse("--taskid", task).seed == seed
    assert parse("--taskid", task, "--seed", 5).seed == 5
    assert parse("--seed", 0, "--taskid", task).seed == 0


def test_taskid_wins_over_the_seed_of_a_config(workspace, monkeypatch):
    config = workspace / "config" / "config_tiny.py"
    config.write_text(config.read_text() + '\nparams["seed"] = 5\n')
    monkeypatch.chdir(workspace)
    assert [
        parse("--dataset", "tiny", *flags).seed for flags in ((), ("--taskid", 1), ("--taskid", 1, "--seed", 7))
    ] == [5, 101, 7]


def test_defaults():
    args = parse()
    assert {
        name: getattr(args, name)
        for name in (
            "momentum",
            "nsamples",
            "iw_nsamples",
            "warm_up",
            "kl_start",
            "aggressive",
            "jobid",
            "taskid",
            "inner_clip",
        )
    } == {
        "momentum": 0,
        "nsamples": 1,
        "iw_nsamples": 500,
        "warm_up": 10,
        "kl_start": 1.0,
        "aggressive": 0,
        "jobid": 0,
        "taskid": 0,
        "inner_clip": "joint",
    }


def test_the_seed_decides_the_weights_and_the_task_only_the_name(call, workspace):
    runs = {}
    for task, seed in [(0, 5), (3, 5), (0, 6)]:
        ran = call(text.main, *ARGS, "--epochs", 1, "--taskid", task, "--seed", seed, cwd=workspace)
        assert (ran.returncode, ran.stderr) == (0, "")
        run_id = f"tiny_aggressive0_kls1.00_warm10_0_{task}_{seed}"
        assert events(workspace, run_id)[0]["args"]["seed"] == seed
        runs[task, seed] = trained(workspace, run_id)["model"]["decoder.pred_linear.weight"]
    assert torch.equal(runs[0, 5], runs[3, 5])
    assert not torch.equal(runs[0, 5], runs[0, 6])


def test_flags_win_over_the_config(call, workspace):
    ran = call(
        text.main,
        *ARGS,
        "--nz",
        3,
        "--epochs",
        1,
        "--batch_size",
        2,
        "--train_limit",
        5,
        "--nsamples",
        2,
        cwd=workspace,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    saved = trained(workspace, PLAIN)
    assert saved["model"]["encoder.linear.weight"].shape == (6, 8)
    assert saved["args"]["nz"] == 3 and saved["args"]["batch_size"] == 2
    lines = (workspace / "datasets" / "tiny_data" / "tiny.train.txt").read_text().splitlines()[:5]
    assert saved["vocabulary"][4:] == list(dict.fromkeys(" ".join(lines).split()))
    (val,) = (e for e in events(workspace, PLAIN) if e["event"] == "val")
    lengths = [len(line.split()) for line in lines]
    assert val["iteration"] == sum(math.ceil(lengths.count(length) / 2) for length in set(lengths))


def test_inner_clip_and_bf16_run(call, workspace):
    ran = call(
        text.main,
        *ARGS,
        "--aggressive",
        1,
        "--epochs",
        1,
        "--train_limit",
        12,
        "--inner_clip",
        "encoder",
        "--precision",
        "bf16",
        cwd=workspace,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert re.fullmatch(run_pattern(words=True), ran.stdout)
    model = trained(workspace, "tiny_aggressive1_kls1.00_warm10_0_0_783435")["model"]
    assert {value.dtype for value in model.values()} == {torch.float32}


def test_labels_are_not_text(call, workspace):
    config = workspace / "config" / "config_tiny.py"
    config.write_text(TINY_CONFIG.replace('"nz": 2', '"nz": 2, "label": True'))
    for path in (workspace / "datasets" / "tiny_data").iterdir():
        path.write_text("".join(f"positive\t{line}\n" for line in path.read_text().splitlines()))
    ran = call(text.main, *ARGS, "--epochs", 1, cwd=workspace)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "positive" not in trained(workspace, PLAIN)["vocabulary"]


def test_a_known_data_set_needs_no_config_where_it_runs(call, tmp_path):
    """In a folder that is not the repository, the repository's configs are found; data are looked for here."""
    data = tmp_path / "datasets" / "ptb_data"
    data.mkdir(parents=True)
    for name in ("train", "valid", "test"):
        (data / f"ptb.{name}.txt").write_text("a b c\nb c\n")
    ran = call(
        text.main, "--dataset", "ptb", "--epochs", 1, "--enc_nh", 4, "--dec_nh", 4, "--iw_nsamples", 2, cwd=tmp_path
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert (tmp_path / "models" / "ptb" / "ptb_aggressive0_kls1.00_warm10_0_0_783435.pt").is_file()


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "args, names",
    [
        (["--dataset", "tiny", "--nope", "1"], ["--nope"]),
        (["--dataset", "tiny", "--aggress", "1"], ["--aggress"]),
        (["--dataset", "tiny", "stray"], ["stray"]),
        ([], ["--dataset"]),
        (["--dataset", "nope"], ["config_nope.py", "tiny"]),
        (["--dataset", "../tiny"], ["--dataset"]),
        (["--dataset", "tiny", "--eval"], ["--load_path"]),
        (["--dataset", "tiny", "--load_path", "m.pt"], ["--eval"]),
        (["--dataset", "tiny", "--eval", "--load_path", "missing.pt"], ["missing.pt"]),
        (["--dataset", "tiny", "--eval", "--load_path", "config"], ["config", "folder"]),
        (["--dataset", "tiny", "--eval", "--load_path", "config/config_tiny.py"], ["config/config_tiny.py"]),
        (["--dataset", "tiny", "--resume", "--overwrite"], ["--resume", "--overwrite"]),
        (["--dataset", "tiny", "--train_data", "elsewhere.txt"], ["elsewhere.txt", "prepare_data.py"]),
        (["--dataset", "tiny", "--committed_rate", "17"], ["--committed_rate", "nz = 2", "at most 16"]),
    ],
    ids=lambda value: " ".join(value) or "nothing",
)
def test_bad_commands(call, workspace, args, names):
    assert_refused(call(text.main, *args, cwd=workspace), *names)
    assert not (workspace / "models").exists() and not (workspace / "logs").exists()


@pytest.mark.parametrize(
    "flag, value",
    [
        ("--nz", "0"),
        ("--nz", "-1"),
        ("--nz", "2.5"),
        ("--nz", "two"),
        ("--epochs", "0"),
        ("--batch_size", "0"),
        ("--train_limit", "0"),
        ("--dec_dropout_in", "1"),
        ("--dec_dropout_out", "nan"),
        ("--enc_type", "gru"),
        ("--aggressive", "2"),
        ("--warm_up", "-1"),
        ("--kl_start", "1.1"),
        ("--kl_start", "nan"),
        ("--momentum", "1"),
        ("--taskid", "10"),
        ("--seed", "-1"),
        ("--seed", "x"),
        ("--seed", "99999999999999999999"),
        ("--nsamples", "0"),
        ("--iw_nsamples", "0"),
        ("--nz", "9999999999999"),
        ("--batch_size", "99999999999999999999"),
        ("--beta", "1e300"),
        ("--free_bits", "inf"),
        ("--iw_nsamples", "9999999999"),
        ("--iw_batch", "0"),
        ("--inner_clip", "decoder"),
        ("--save_every", "-1"),
        ("--precision", "float16"),
    ],
)
def test_bad_values_of_flags(call, workspace, flag, value):
    assert_refused(call(text.main, "--dataset", "tiny", flag, value, cwd=workspace), flag, value)


@pytest.mark.parametrize(
    "old, new, name",
    [
        ('"nz": 2', '"nz": 2, "nzz": 3', "nzz"),
        ('"nz": 2, ', "", "nz"),
        ('"nz": 2', '"nz": 0', "nz"),
        ('"nz": 2', '"nz": 2.5', "nz"),
        ('"nz": 2', '"nz": None', "nz"),
        ('"dec_dropout_in": 0.2', '"dec_dropout_in": 1.0', "dec_dropout_in"),
        ('"dec_dropout_in": 0.2', '"dec_dropout_in": "much"', "dec_dropout_in"),
        ('"enc_type": "lstm"', '"enc_type": "gru"', "enc_type"),
        ('"nz": 2', '"nz": 2, "label": "yes"', "label"),
        ('"train_data": "datasets/tiny_data/tiny.train.txt"', '"train_data": ""', "train_data"),
        ("params", "parameters", "params"),
        ("params =", "params", "SyntaxError"),
        ('"nz": 2', '"nz": nz', "NameError"),
    ],
)
def test_bad_configs(call, workspace, old, new, name):
    config = workspace / "config" / "config_tiny.py"
    config.write_text(TINY_CONFIG.replace(old, new))
    assert_refused(call(text.main, *ARGS, cwd=workspace), "config/config_tiny.py", name)


@pytest.mark.parametrize("name", ["train", "valid", "test"])
@pytest.mark.parametrize("content", [None, b"", b"\n\n", b"caf\xe9\n"], ids=["missing", "empty", "blank", "not UTF-8"])
def test_bad_data(call, workspace, name, content):
    path = workspace / "datasets" / "tiny_data" / f"tiny.{name}.txt"
    path.unlink() if content is None else path.write_bytes(content)
    assert_refused(call(text.main, *ARGS, cwd=workspace), f"datasets/tiny_data/tiny.{name}.txt")
    assert not (workspace / "models").exists() and not (workspace / "logs").exists()


def test_label_without_tab(call, workspace):
    (workspace / "config" / "config_tiny.py").write_text(TINY_CONFIG.replace('"nz": 2', '"nz": 2, "label": True'))
    (workspace / "datasets" / "tiny_data" / "tiny.train.txt").write_text("1\tgood\nbad\n")
    assert_refused(call(text.main, *ARGS, cwd=workspace), "datasets/tiny_data/tiny.train.txt", "line 2")


def test_bad_checkpoints(call, plain, workspace):
    whole = (plain[0] / "models" / "tiny" / f"{PLAIN}.pt").read_bytes()
    path = workspace / "bad.pt"
    for content in (whole[: len(whole) // 2], b"", b"no checkpoint"):
        path.write_bytes(content)
        assert_refused(call(text.main, *ARGS, "--eval", "--load_path", path, cwd=workspace), path)
    save_checkpoint(path, {"domain": "image", "model": {}, "args": {}})
    assert_refused(call(text.main, *ARGS, "--eval", "--load_path", path, cwd=workspace), path, "image")


def test_a_real_process_refuses_in_one_line_too(workspace):
    (workspace / "datasets" / "tiny_data" / "tiny.test.txt").unlink()
    assert_refused(run_script("text.py", *ARGS, cwd=workspace), "datasets/tiny_data/tiny.test.txt")


def test_a_folder_that_cannot_be_written(call, workspace):
    (workspace / "models").write_text("a file in the place of the folder")
    ran = call(text.main, *ARGS, cwd=workspace)
    assert ran.returncode == 2
    assert len(ran.stderr.splitlines()) == 1 and "models" in ran.stderr


def test_the_flags_of_the_likelihood_reach_it(call, plain, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "modules.evaluation.metrics.importance_weighted_nll", lambda model, split, *args: asked.append(args[:3]) or 1.0
    )
    evaluate(call, plain[0], "--iw_nsamples", 7, "--iw_batch", 9, "--seed", 4)
    assert asked == [(7, 9, 4)]


def tf32_allowed():
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


def test_a_gpu_would_compute_in_float32():
    allow_tf32(True)
    prepare_device()
    assert tf32_allowed() == (False, False)


def test_tf32_is_for_training_alone(call, workspace, monkeypatch):
    seen = {}
    for owner, name in ((Algorithm1, "gradients"), (VAE, "iw_nll"), (metrics, "posteriors")):

        def watched(*args, name=name, real=getattr(owner, name)):
            seen.setdefault(name, set()).add(tf32_allowed())
            return real(*args)

        monkeypatch.setattr(owner, name, watched)
    assert call(text.main, *ARGS, "--tf32", True, "--epochs", 1, cwd=workspace).returncode == 0
    assert seen == {"gradients": {(True, True)}, "iw_nll": {(False, False)}, "posteriors": {(False, False)}}
    prepare_device()


@pytest.mark.parametrize(
    "flags, remark",
    [
        (("--kl_start", 0.4, "--warm_up", 3), "note: --epochs 2: the KL weight will still be growing at the end, 0.8"),
        (("--warm_up", 3), "note: --warm_up does nothing without --kl_start below 1"),
        (("--warm_up", 10), "note: --warm_up does nothing without --kl_start below 1"),
        (
            ("--kl_start", 0, "--warm_up", 2, "--kl_cycles", 2, "--epochs", 5),
            "note: --epochs 5: the KL weight will still be growing at the end, 0.5",
        ),
        (("--kl_start", 1, "--warm_up", 3), ""),  # the published plain run
        (("--resume",), "there is no such run to resume; it starts\n"),
    ],
)
def test_what_a_run_cannot_mean_is_remarked_on(call, workspace, flags, remark):
    ran = call(text.main, *ARGS, *flags, cwd=workspace)
    assert ran.returncode == 0 and remark in ran.stderr and ran.stderr.count("\n") == bool(remark)


def test_the_documented_way_from_python(plain, monkeypatch):
    """The code of docs/commands.md, on the tiny set; the likelihood is also the mean of p(x|z) over the prior."""
    document = (ROOT / "docs" / "commands.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", document, re.DOTALL)
    code = code.replace('"synthetic"', '"tiny"').replace(
        "models/examples/synthetic_steady.pt", f"models/tiny/{PLAIN}.pt"
    )
    monkeypatch.chdir(plain[0])
    torch.manual_seed(0)
    names = {}
    exec(code, names)
    model, x, nll = (names[name] for name in ("model", "x", "nll"))
    assert names["mean"].shape == names["logvar"].shape == (len(x), names["s"].nz)
    z = torch.randn(1, 20_000, names["s"].nz).expand(len(x), -1, -1)
    with torch.no_grad():
        expected = math.log(20_000) - (-model.decoder.reconstruction(x, z).double()).logsumexp(dim=1)
    torch.testing.assert_close(nll.double(), expected, atol=0.05, rtol=0)
