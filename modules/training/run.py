"""A run from its first checkpoint to the test of its best model."""

import math
import os
from contextlib import nullcontext

import torch

from modules import methods
from modules.checkpoint import load_checkpoint
from modules.command import Interrupted, UserError, note, progress
from modules.distributed import Team, team_for
from modules.evaluation import metrics, optimum
from modules.evaluation.examples import Examples
from modules.models.layers.precision import allow_tf32, bf16_is_slow
from modules.training import earlier_run
from modules.training.loop import Observer, Trainer
from modules.training.memory import keep_freed_memory
from modules.training.recipe import adjusted
from modules.training.records import Printer, Records, environment
from modules.training.run_files import RunFiles


def prepare_device(tf32=False):
    """The GPU when there is one (of several processes each has its own), else the CPU, made not to give freed memory
    back.

    Without `tf32` a GPU's float32 has all of its bits: the published figures are of cards that had no TF32.
    """
    allow_tf32(tf32)
    if torch.cuda.is_available():
        mine, there = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
        if mine >= there:
            raise UserError(
                f"more processes than the {there} GPUs of this machine; --nproc_per_node {there}, or "
                "CUDA_VISIBLE_DEVICES= in front of the command for its CPUs"
            )
        torch.cuda.set_device(mine)
        return torch.device("cuda")
    if tf32:
        note("--tf32 True does nothing here: there is no GPU")
    keep_freed_memory()
    return torch.device("cpu")


def train_and_test(run_id, beginning, s, recipe, observer=None):
    """Train a model, or go on training it, then evaluate its best weights on the test split.

    `beginning` is what `Domain.begin` returns. Files are `models/<dataset>/<run_id>.pt` and
    `logs/<dataset>/<run_id>.{log,jsonl,png}`. `recipe` has the constants that no setting overrides; `observer` is the
    `Trainer`'s. With `--max_iterations` training may stop early, and is then not tested. Raises UserError if there are
    files of a run already and neither --resume nor --overwrite says what to do.
    """
    model, splits, description = beginning
    recipe, observer = methods.recipe(s, adjusted(recipe, s)), observer or Observer()
    files, words = RunFiles(s.dataset, run_id), splits["test"].unit == "word"
    if s.precision == "bf16" and bf16_is_slow(model.device):
        note(
            "--precision bf16: this processor has no instructions for it (avx512_bf16, amx_bf16), and is slower with "
            "it than without: 2.4 times at PTB size, 1.4 times with images, where that was measured"
        )
    with team_for(model) as team:
        starts = team.agreed(not (s.resume and files.state.exists()))
        if starts:
            methods.begin(s, model, description)
        with files.held() if team.first else nullcontext():
            if team.first:
                earlier_run.clear_leftovers_of(files)
            else:
                observer = Observer()  # the first process has all there is to observe
            saved = None if starts else earlier_run.saved_state(files, observer.files(), description, s)
            if team.first and starts:
                earlier_run.make_way(files, observer.files(), description, s)
            records = Records(files, words, s.tensorboard) if team.first else Printer(words)
            trainer = Trainer(model, splits, recipe, s, records, files, description, observer, team)
            _train_from(trainer, saved)
            records.close()


def _train_from(trainer, saved):
    """Train from the state `saved` (None: from the start) to the end, test the best model, and draw the run."""
    s, records, files = trainer.s, trainer.records, trainer.files
    if saved is None:
        records.write("run", id=files.run_id, args=s.record(), **environment(trainer.team.size))
        records.write("data", **read_in(trainer.splits, trainer.description.get("vocabulary")))
        trainer.save()
    else:
        trainer.resume(saved)
        if trainer.progress.tested:
            print(f"{files.run_id} is finished: its figures stand in {files.log('.log')}; --eval evaluates it again")
            records.draw(again=False)  # it may have been killed before it drew, or be of an earlier version
            return
        records.write("resume", iteration=trainer.progress.iteration, args=s.record(), **environment(trainer.team.size))
    trainer.fit()
    if trainer.progress.finished:
        _test_the_best(trainer, s)
    else:
        print(f"stopped after {trainer.progress.iteration} iterations; --resume with more of them goes on from here")
    records.draw()


def read_in(splits, vocabulary=None):
    """The event that tells what was read: {"splits": {name: what it holds}, "vocabulary": its size or None}; what looks
    wrong is remarked on."""
    told = {name: split.about() for name, split in splits.items()}
    for name, its in told.items():
        if its.get("unk", 0) > 0.5:
            note(f"{its['unk']:.0%} of the words of the {name} split are <unk>: is it text of that vocabulary?")
        if its.get("sentences", 2) == 1:
            note(f"the {name} split is one single line; sentences stand on lines of their own")
    return {"splits": told, "vocabulary": vocabulary and len(vocabulary)}


def _test_the_best(trainer, s):
    """Test the best model, and leave the state as that of the last, which the optimisers' state belongs to."""
    domain = trainer.description["domain"]
    trainer.model.load_state_dict(load_checkpoint(trainer.files.model, domain)["model"])
    try:
        test(trainer.model, trainer.splits["test"], s, trainer.records, trainer.team)
    except KeyboardInterrupt:
        raise Interrupted("training is finished and saved; the same command with --resume tests it again") from None
    trainer.model.load_state_dict(load_checkpoint(trainer.files.state, domain)["model"])
    trainer.progress.tested = True
    trainer.save()


def test(model, split, s, records, team=None, per_example=None):
    """Write the TEST lines of a model: one-sample figures, the importance-weighted NLL, and the optimum if known.

    The figures of each example go into the CSV file `per_example`, if it has a name.
    """
    team, examples = team or Team(), Examples() if per_example else metrics.pass_over
    measured = metrics.evaluate(model, split, s.seed, team, examples)
    records.write("test", **measured.as_dict(), final=True)
    nll = metrics.importance_weighted_nll(
        model,
        split,
        s.iw_nsamples,
        s.iw_batch,
        s.seed,
        lambda batches: progress(batches, total=split.num_batches, desc="iw nll"),
        team,
        examples,
    )
    if not math.isfinite(nll):
        raise UserError(
            f"the importance-weighted NLL is {nll}: the posteriors are too narrow, or too far from the "
            "prior, for float32; train with a gentler setting"
        )
    ppl = metrics.perplexity(nll, measured.size, measured.units)
    records.write(
        "iw", nll=nll, ppl=ppl if split.unit == "word" and math.isfinite(ppl) else None, nsamples=s.iw_nsamples
    )
    best = optimum.KNOWN.get(split.fingerprint)
    if best:
        records.write("optimum", **best.compare(nll, measured.mi_agg))
    if per_example:
        examples.write(per_example, split)
