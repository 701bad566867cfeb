"""Commands with flags, configs and files that nobody should give them."""

import io
import os
import shutil

import numpy as np
import torch

from modules.domains.domain import EVALUATION, RUNNING
from modules.domains.image_domain import IMAGE
from modules.domains.text_domain import TEXT
from modules.generation import pictures, sentences
from tests.conftest import TINY_CONFIG, TINY_IMAGES_CONFIG, make_image_workspace, make_workspace
from tests.faults.flips import TOY
from tests.faults.processes import KINDS, assert_clear, run
from toy import SPACE

SECONDS = 10  # of a command; then it is asked to stop, which it must
# fmt: off
WORDS = ("", " ", "0", "-1", "1", "2", "3", "0.5", "1e-9", "nan", "inf", "-inf", "1e309", "9" * 30, "2147483648", "1,2",
         "8,8", "a/b", "../x", "a\nb", "é", "\udcff", "None", "True", "lm", "sgd", "beam", "x" * 300, "config", "%s")
VALUES = (None, True, -1, 0, 1, 2.5, float("nan"), float("inf"), 10**30, "", "x", "no/such", [], [0], [1, "a"], [3, 3],
          {}, b"x", object, 1j)
BROKEN_CONFIGS = ("", "params = 3", "params = {", "import sys; sys.exit()", "raise OSError(2, 'x')", "1 / 0", "\0",
                  "raise SystemExit('x')", "params = {1: 2}", "params = {'a\\nb': 2}", "# \xff", "raise BaseException")
CONFIGS = {"text": TINY_CONFIG, "image": TINY_IMAGES_CONFIG}
# fmt: on
PREPARE = (
    "--dataset",
    "--mirror",
    "--generate",
    "--text",
    "--images",
    "--name",
    "--overwrite",
    "--label",
    "--vocab_limit",
    "--deduplicate",
    "--invert",
    "--img_size",
)
REPRODUCE = (
    "--scale",
    "--tables",
    "--methods",
    "--seeds",
    "--runs",
    "--dry_run",
    "--slurm",
    "--report",
    "--logs",
    "--output",
)
PLOT = ("--aggressive", "--id", "--steps", "--axis", "--format", "--dpi", "--output", "--iter", "--mode", "--panels")


def array(value, kind="float32", shape=(3, 1, 7, 6)):
    """An array of one value."""
    return np.full(shape, value, dtype=kind)


def npz(*arrays, **named):
    """The bytes of an `.npz`."""
    stream = io.BytesIO()
    np.savez(stream, *arrays, **named)
    return stream.getvalue()


def pt(content):
    """The bytes of a file of `torch.save`."""
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


# fmt: off
TEXTS = (
    b"", b"\n", b"\n\n \n\t\n", "naïve café\n".encode("latin-1") * 5, "red\n".encode("utf-16"), b"red\0one two\n" * 9,
    b"\xef\xbb\xbfred one\n", b"red " * 5000, b"one\ttwo\tthree\nfour\n", "\u2028red\x85one\x0c\n".encode() * 3,
    b"<s> red </s>\n<s>\n</s> <pad>\n" * 4, b"<html>\n", b"[]\n", b"[" * 100000, b'{"event": "val"}\n',
    b'{"event": []}\n',
    b'{"event": "val", "epoch": 1e999, "kl": NaN, "mi": "x"}\n', b'{"event": "run", "args": 3}\n')
# fmt: on


def contents(rng):
    """What a file may hold."""
    return rng.choice((text_bytes, text_bytes, some_arrays, some_tensors))(rng)


def text_bytes(rng):
    """Text, or something like it."""
    return rng.choice((*TEXTS, rng.randbytes(rng.randint(1, 3000))))


def some_arrays(rng):
    """An `.npz` of images, or of something like them."""
    good, other = array(0.5), array(0.5, shape=rng.choice([(3, 1, 7), (0, 1, 7, 6), (3, 2, 7, 6), (3, 1, 6, 7), ()]))
    if rng.random() < 0.3:
        return npz(**dict.fromkeys(rng.choice((("x", "y"), ("train", "validation", "test"))), good))
    odd = other, array(float("nan")), array(7), array(1, "complex64"), array("a", "U3")
    return npz(good, rng.choice(odd), *[good] * rng.randint(0, 2))


def some_tensors(rng):
    """A file of `torch.save` with images, a checkpoint, or something like them."""
    zeros = torch.zeros(3, 1, 7, 6)
    images = (
        zeros.clone().requires_grad_(),
        zeros.long(),
        zeros[:1],
        zeros[:1].expand(10**7, 1, 7, 6),
        zeros.to_sparse(),
    )
    if rng.random() < 0.5:
        return pt(rng.choice(([rng.choice(images)] * 3, {"a": 1}, [], zeros)))
    name = rng.choice(("nz", "model", "batch_size", "img_size"))
    checkpoint = {"format": "lagging-vae checkpoint 1", "domain": rng.choice(("text", "image", 3, None))}
    checkpoint["args"] = rng.choice(({name: rng.choice(VALUES[:17])}, {}, 3))
    words = rng.choice((None, [], 3, ["<pad>", 1], {}))
    return pt({**checkpoint, "model": rng.choice(({}, {"x": torch.zeros(2)})), "vocabulary": words})


def put(path, rng):
    """Put something where a file is expected."""
    path.unlink(missing_ok=True)
    way = rng.choice(("content",) * 12 + ("fifo", "folder", "nothing", "loop", "dangling", "full", "zero", "secret"))
    if way == "content":
        path.write_bytes(contents(rng))
    elif way == "fifo":
        os.mkfifo(path)
    elif way == "folder":
        path.mkdir()
    elif way == "secret":
        path.touch(mode=0)
    elif way != "nothing":
        path.symlink_to({"loop": path, "dangling": "no/such", "full": "/dev/full", "zero": "/dev/zero"}[way])


def config(content, rng):
    """A config with something else in it."""
    if rng.random() < 0.3:
        return rng.choice(BROKEN_CONFIGS)
    change = "\n".join(
        rng.choice((f"params[{key!r}] = {value!r}", f"params.pop({key!r}, 0)"))
        for key, value in zip(rng.choices(NAMES, k=2), rng.choices(VALUES, k=2))
    )
    return f"{content}\n{change}\n".replace("nan", "float('nan')").replace("= inf", "= float('inf')")


NAMES = sorted({setting.name for domain in (TEXT, IMAGE) for group in domain.groups for setting in group.settings})
FLAGS = {
    "text": (*TEXT.groups, RUNNING, EVALUATION, sentences.DECODING),
    "toy": (SPACE, *TEXT.groups, RUNNING),
    "image": (*IMAGE.groups, RUNNING, EVALUATION, pictures.DRAWING),
}
FLAGS = {script: [setting for group in groups for setting in group.settings] for script, groups in FLAGS.items()}


def may_be(setting, word):
    """Whether a setting may have this value."""
    try:
        setting.kind(word)
    except ValueError:
        return False
    return True


class Inputs:
    """A trial is one command; it must end well or in one line, and leave saved models as they were."""

    def __init__(self, folder):
        self.places = {}
        for script, make, kind in (("text", make_workspace, KINDS[0]), ("image", make_image_workspace, KINDS[2])):
            place = self.places[script] = make(folder / script)
            CONFIGS[script] = CONFIGS[script].replace("params = {", 'params = {"iw_nsamples": 2,')
            next((place / "config").iterdir()).write_text(CONFIGS[script])
            assert run(script, kind.args, place).returncode == 0
        for args in TOY.values():
            assert run("toy", args, self.places["text"]).returncode == 0

    def __call__(self, rng, folder):
        script = rng.choice(
            ("text",) * 6
            + ("image",) * 5
            + ("toy",) * 2
            + (
                "prepare_data",
                "reproduce",
                "table",
                "plot_epochs",
                "plot_runs",
                "plot_single",
                "plot_multiple",
                "animate",
            )
        )
        place = shutil.copytree(self.places["image" if script == "image" else "text"], folder / "place")
        args = self.training(script, place, rng) if script in FLAGS else self.other(script, place, rng)
        before = {path: path.read_bytes() for path in (place / "models").rglob("*.pt") if path.is_file()}
        ran = run(script, args, place, SECONDS)
        command = f"{script}.py {args!r} -> {ran.returncode}"
        assert_clear(ran, command)
        if ran.returncode == 2:
            assert all(path.read_bytes() == content for path, content in before.items()), f"{command}: a model is lost"
        return [f"ended in {ran.returncode}"]

    def training(self, script, place, rng):
        """Flags for a script that trains, after something has been put in the place of its files."""
        dataset, content = ("tinyimages", CONFIGS["image"]) if script == "image" else ("tiny", CONFIGS["text"])
        settings = rng.choices(FLAGS[script], k=rng.randint(0, 3))
        args = ["--dataset", rng.choice((dataset,) * 200 + WORDS)]
        if rng.random() < 0.25:
            path = rng.choice(
                [
                    path
                    for top in ("datasets", "models", "config")
                    for path in (place / top).rglob("*")
                    if path.is_file()
                ]
            )
            put(path, rng)
        if rng.random() < 0.15:
            (place / "config" / f"config_{dataset}.py").unlink(missing_ok=True)
            (place / "config" / f"config_{dataset}.py").write_text(config(content, rng), "latin-1")
        if rng.random() < 0.35:
            args += self.order(script, place, rng)
        for setting in settings:
            args += [f"--{setting.name}", *self.value(setting, rng)]
        return args + (["--jobid", "7"] if rng.random() < 0.7 else [])

    def order(self, script, place, rng):
        """What to do instead of training from the start."""
        model = rng.choice([*(place / "models").rglob("*.pt"), *(place / "datasets").rglob("*.*"), place])
        generate = {"text": "--decode_from", "image": "--sample_from"}.get(script, "--load_path")
        lines = rng.choice([*(place / "datasets").rglob("*.*"), place / "none"])
        return rng.choice(
            (
                ["--eval", "--load_path", model],
                [generate, model],
                [generate, model, "--num_samples", "3"],
                ["--resume"],
                ["--overwrite"],
                ["--decode_from", model, "--decode_input", lines],
                ["--encode", lines, "--load_path", model],
                [generate, model, "--reconstruct", "2"],
            )
        )

    def value(self, setting, rng):
        """A value for a setting as the command line has it, mostly one that it may have."""
        if rng.random() < 0.1:
            return [rng.choice(WORDS)] if rng.random() < 0.9 else []
        choices = [word for word in WORDS if may_be(setting, word)]
        choices += getattr(setting.kind, "choices", ())
        return [rng.choice(choices)] if choices and setting.name not in ("resume", "overwrite", "eval") else []

    def other(self, script, place, rng):
        """Arguments for a script that does not train."""
        flags = {"prepare_data": PREPARE, "reproduce": REPRODUCE}.get(script, PLOT)
        args = []
        if script == "prepare_data":
            (place / "mirror").mkdir()
            put(
                place / "mirror" / rng.choice(("ptb.train.txt", "synthetic_data.tar.gz", "chardata.mat", "SHA256SUMS")),
                rng,
            )
            mirror = rng.choice(("mirror", "mirror", "http://[", "http://127.0.0.1:1", *WORDS))
            own = rng.choice([place, *(place / "datasets").rglob("*.*"), *(place / "mirror").iterdir()])
            name = rng.choice(("own", "tiny", *WORDS))
            args = rng.choice((["--mirror", mirror], *(["--name", name, kind, own] for kind in ("--text", "--images"))))
        elif script == "reproduce":
            args = [rng.choice(("--dry_run", "--report"))]
        elif script in ("table", "plot_epochs", "plot_runs"):
            logs = sorted((place / "logs").rglob("*.*"))
            put(logs[0], rng)
            args = [rng.choice([*logs, *WORDS]) for _ in range(rng.randint(0, 2))]
        else:
            put(rng.choice(sorted((place / "plot_data").rglob("*.npz"))), rng)
        words = "0", "1", "2", "ptb", "png", "single", "multiple", *WORDS
        for flag in rng.choices(flags, k=rng.randint(0, 3)):
            args += [flag, *rng.choices(words, k=rng.randint(0, 2))]
        return args
