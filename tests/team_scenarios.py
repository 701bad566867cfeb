"""Trainings that are the same on any number of processes, for `test_distributed.py`, and a `torchrun` that starts fast.

python -m tests.team_scenarios FOLDER           every scenario; writes FOLDER/<processes>_<rank>.pt
python -m tests.team_scenarios text ARGUMENT... `text.py` on two processes
"""

import os
import signal
import sys
import traceback
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist

import text
from modules.checkpoint import load_checkpoint
from modules.command import Interrupted, run_command
from modules.data.corpus import TextSplit, read_corpus
from modules.data.images import ImageSplit, TrainingImages
from modules.distributed import team_for
from modules.domains import image_domain, text_domain
from modules.evaluation import metrics
from modules.models.layers.shared_batch_norm import share_batch_norm
from modules.training import loop
from modules.training.loop import Trainer
from modules.training.recipe import IMAGE, TEXT
from modules.training.run_files import RunFiles
from tests.conftest import images

TEXTS = {
    "enc_type": "lstm",
    "dec_type": "lstm",
    "nz": 2,
    "ni": 5,
    "enc_nh": 6,
    "dec_nh": 6,
    "dec_dropout_in": 0.0,
    "dec_dropout_out": 0.0,
    "batch_size": 4,
}
IMAGES = {
    "img_size": [1, 7, 6],
    "nz": 2,
    "enc_layers": [4],
    "dec_kernel_size": [3],
    "dec_layers": [4],
    "latent_feature_map": 2,
    "batch_size": 5,
}
RUN = {
    **{"aggressive": 1, "epochs": 2, "test_nepoch": 2, "seed": 3, "kl_start": 0.5, "warm_up": 1, "save_every": 0.0},
    "momentum": 0.0,  # of images, here trained by SGD, too
}
# The aggressive phase ends after the first of two epochs; its inner loops end by the test, or after four steps.
FEW = {"inner_steps": 4, "inner_test_every": 1, "mi_start": 9.0, "mi_patience": 1, "clip_norm": 1.0}
# Batch norm of two images at 1 x 1 leaves gradients that are rounding alone; Adam would make whole steps of them.
SCENARIOS = {
    "joint clip": ("text", {"dtype": torch.float32}),
    "encoder clip": ("text", {"inner_clip": "encoder", "momentum": 0.5}),
    "free bits, batch norm": ("text", {"free_bits": 0.05, "bn_gamma": 0.7, "nsamples": 2}),
    "images": ("image", {"inner_clip": "encoder"}),
    "pairs": ("text", {"batch_size": 2, "free_bits": 0.3, "free_bits_over": "sum"}),
    "semi-amortised": ("text", {"model": "savae", "svi_steps": 3, "inner_clip": "encoder"}),
    "pairs of images": ("image", {"batch_size": 2, "epochs": 1, "recipe": {"optimiser": "sgd", "lr": 0.05}}),
}
TEAMS = {
    2: ["joint clip", "encoder clip", "free bits, batch norm", "images", "semi-amortised"],
    3: ["pairs", "pairs of images"],
}


class Events:
    """Records kept in a list."""

    def __init__(self):
        self.events = []

    def write(self, event, **values):
        self.events.append({"event": event, **{name: value for name, value in values.items() if name != "seconds"}})

    def positions(self):
        return [0, 0]

    def rewind(self, positions):
        """They go on."""


def text_splits(folder, size):
    """18 sentences of five lengths, batches of one among them, and their vocabulary."""
    path = folder / "corpus.txt"
    if not path.exists():
        path.write_text("".join(" ".join("abcde"[(n * k) % 5] for k in range(1, n % 5 + 2)) + "\n" for n in range(18)))
    corpus, vocabulary = read_corpus(path)
    return {name: TextSplit(corpus, size) for name in ("train", "val", "test")}, vocabulary


def image_splits(size, dtype):
    """Binary images, which drawing a batch leaves as they are."""
    made = {
        name: images(count, seed).round().to(dtype)
        for seed, (name, count) in enumerate({"train": 11, "val": 6, "test": 5}.items())
    }
    return {name: (TrainingImages if name == "train" else ImageSplit)(its, size) for name, its in made.items()}


def noise_from_x(model):
    """Let z of the ELBO depend on x alone, and not on the process that has it; so, too, a refined posterior."""

    def elbo_terms(x, nsamples=1, kl_weight=1.0):
        was, model.training = model.training, False
        mean, logvar = model.posterior(x, kl_weight)
        model.training = was
        seen = x.flatten(1).to(mean.dtype) @ torch.arange(1, x[0].numel() + 1).to(mean.dtype)  # [rows]
        noise = 2 * torch.sin(seen.view(-1, 1, 1) + torch.arange(nsamples * mean.size(1)).view(1, nsamples, -1))
        z = mean.unsqueeze(1) + (0.5 * logvar).exp().unsqueeze(1) * noise
        kl = 0.5 * (mean.square() + logvar.expm1() - logvar)
        return model.decoder.reconstruction(x, z).mean(dim=1), kl

    model.elbo_terms = elbo_terms


def make(kind, changes, folder, team):
    """A trainer of a tiny model; in float64 and with noise that x decides, unless the changes say otherwise."""
    own = {"dtype": torch.float64, "noise": noise_from_x, "recipe": {}}
    own.update((name, changes[name]) for name in own if name in changes)
    module, sizes, recipe = (text_domain, TEXTS, TEXT) if kind == "text" else (image_domain, IMAGES, IMAGE)
    domain = text_domain.TEXT if kind == "text" else image_domain.IMAGE
    s = domain.settings(**{**sizes, **RUN, **{name: value for name, value in changes.items() if name not in own}})
    splits, vocabulary = (
        text_splits(folder, s.batch_size) if kind == "text" else (image_splits(s.batch_size, own["dtype"]), None)
    )
    torch.manual_seed(0)
    model = module.build_vae(s, vocabulary).to(own["dtype"])
    for name, parameter in model.named_parameters():
        if kind == "text" and "constraints" not in name:
            torch.nn.init.normal_(parameter, std=0.4)
    model.decoder.train_dtype = own["dtype"]
    if team.size > 1:
        share_batch_norm(model, team)
    own["noise"](model)
    return Trainer(
        model.train(),
        splits,
        replace(recipe, **FEW, **own["recipe"]),
        s,
        Events(),
        RunFiles(f"{team.size}", "tiny", models=folder),
        {"domain": kind},
        team=team,
    )


def outcome(trainer):
    """What a finished run comes to: its events, its weights and running statistics, its figures."""
    test, team = trainer.splits["test"], trainer.team
    return {
        "events": trainer.records.events,
        "weights": trainer.model.state_dict(),
        "steps": trainer.progress.encoder_steps,
        "iw": metrics.importance_weighted_nll(trainer.model, test, 7, 9, 5, team=team),
    }


def train(name, folder, team):
    """The outcome of a scenario."""
    trainer = make(*SCENARIOS[name], folder, team)
    trainer.fit()
    return outcome(trainer)


def train_interrupted(kind, folder, team, stop_at=None):
    """The outcome of a run with dropout and noise of its own, which one process's signal stops after an iteration, and
    which a trainer that knows nothing of the first takes up again."""
    changes = {
        "epochs": 1,
        "noise": lambda model: None,
        "dtype": torch.float32,
        **({"dec_dropout_in": 0.4, "dec_dropout_out": 0.4, "word_dropout": 0.4} if kind == "text" else {}),
    }
    trainer = make(kind, changes, folder, team)
    if stop_at:
        received = loop._stop_requests

        class Stops:
            def __init__(self, aloud):
                self.aloud = aloud

            def __enter__(self):
                return lambda: team.rank == team.size - 1 and trainer.progress.iteration >= stop_at

            def __exit__(self, *error):
                return False

        loop._stop_requests = Stops
        with suppress(Interrupted):
            trainer.fit()
        loop._stop_requests = received
        assert trainer.progress.iteration == stop_at
        trainer = make(kind, changes, folder, team)
        trainer.resume(load_checkpoint(trainer.files.state, kind))
    trainer.fit()
    return outcome(trainer)


def run_scenarios(folder):
    """What each process of a team does."""
    with team_for(SimpleNamespace(device=torch.device("cpu"), named_children=lambda: [])) as team:
        found = {name: train(name, folder, team) for name in TEAMS[team.size]}
        if team.size == 2:
            for kind in ("text", "image"):
                found[f"{kind}, undisturbed"] = train_interrupted(kind, folder, team)
                found[f"{kind}, interrupted"] = train_interrupted(kind, folder, team, stop_at=1)
        torch.save(found, folder / f"{team.size}_{team.rank}.pt")


def _end_after(work):
    """Call `work` and end this fork, which has no business with the threads of what it was forked from."""
    code = 1
    try:
        work()
        code = 0
    except SystemExit as stop:
        code = stop.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def start_together(size, work):
    """Call `work` in forks of this process, as `torchrun` starts them; if one fails, the others are told to end.

    Returns whether all did well.
    """
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    os.environ.update(
        WORLD_SIZE=str(size), MASTER_ADDR="localhost", MASTER_PORT=str(store.port), TORCHELASTIC_USE_AGENT_STORE="True"
    )
    ranks = []
    for rank in range(size):
        ranks.append(os.fork())
        if ranks[-1] == 0:
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
            _end_after(work)
    well = True
    while ranks:
        ended, status = os.wait()
        ranks.remove(ended)
        if status and well:
            well = False
            for other in ranks:
                os.kill(other, signal.SIGTERM)
    return well


def run_text():
    """`text.py` with the arguments after "text"."""
    del sys.argv[1]
    run_command(text.main)


def main():
    torch.set_num_threads(1)
    if sys.argv[1] == "text":
        sys.exit(not start_together(2, run_text))
    sys.exit(not all([start_together(size, lambda: run_scenarios(Path(sys.argv[1]))) for size in TEAMS]))


if __name__ == "__main__":
    main()
