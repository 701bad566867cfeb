"""A run from its first checkpoint to the test of its best model, and where its files are."""

import json
import math
import os
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from modules import methods
from modules.checkpoint import load_checkpoint
from modules.command import Interrupted, UserError, note, progress
from modules.distributed import Team, team_for
from modules.evaluation import metrics, optimum
from modules.evaluation.examples import Examples
from modules.files import clear_leftovers, replacing
from modules.models.layers.precision import allow_tf32, bf16_is_slow
from modules.settings import saved_settings
from modules.training.loop import Observer, Trainer, state_path
from modules.training.memory import keep_freed_memory
from modules.training.recipe import adjusted
from modules.training.records import Printer, Records, environment
from modules.training.scalars import EVENT_FILES

LOGS = Path("logs")


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


def model_path(dataset, run_id):
    """Where a run keeps its best model."""
    return Path("models", dataset, f"{run_id}.pt")


def log_path(dataset, run_id, suffix=".jsonl", logs=LOGS):
    """Where a run keeps its records: for people a `.log`, for programs a `.jsonl`."""
    return Path(logs, dataset, f"{run_id}{suffix}")


def train_and_test(run_id, beginning, s, recipe, observer=None):
    """Train a model, or go on training it, then evaluate its best weights on the test split.

    `beginning` is what `Domain.begin` returns. Files are `models/<dataset>/<run_id>.pt` and
    `logs/<dataset>/<run_id>.{log,jsonl,png}`. `recipe` holds but for what the settings say; `observer` is the
    `Trainer`'s. With `--max_iterations` training may stop early, and is then not tested. Raises UserError if there are
    files of a run already and neither --resume nor --overwrite says what to do.
    """
    model, splits, description = beginning
    recipe, observer = methods.recipe(s, adjusted(recipe, s)), observer or Observer()
    best, words = model_path(s.dataset, run_id), splits["test"].unit == "word"
    if s.precision == "bf16" and bf16_is_slow(model.device):
        note(
            "--precision bf16: this processor has no instructions for it (avx512_bf16, amx_bf16), and is slower with "
            "it than without: 2.4 times at PTB size, 1.4 times with images, where that was measured"
        )
    with team_for(model) as team:
        starts = team.agreed(not (s.resume and state_path(best).exists()))
        if starts:
            methods.begin(s, model, description)
        with _held(best) if team.first else nullcontext():
            if team.first:
                _clear_the_way(best, starts, run_id, observer, s, description["domain"])
            saved = None if starts else _saved_state(best, description, s)
            if team.first and not starts:
                _refuse_statistics_of_others(observer.files(), s)
            logs = LOGS / s.dataset
            records = Records(logs, run_id, words, s.tensorboard) if team.first else Printer(words)
            trainer = Trainer(
                model, splits, recipe, s, records, best, description, observer if team.first else None, team
            )
            _train_from(trainer, saved, run_id)
            records.close()


def _clear_the_way(best, starts, run_id, observer, s, domain):
    """Remove leftovers of a write that was cut short, and what `_make_room` removes before a run `starts`."""
    for path in (best, state_path(best), log_path(s.dataset, run_id, ".png")):
        clear_leftovers(path)
    if starts:
        _make_room(run_id, observer, s, domain)
    if starts and s.resume:
        note(f"{state_path(best)}: there is no such run to resume; it starts")


@contextmanager
def _held(best):
    """Within: no other process can be at the run whose best model is `best`. Raises UserError if one is."""
    lock = best.with_suffix(".lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=0):
            try:
                yield
            finally:
                with suppress(OSError):  # a system that cannot remove a file that is open
                    lock.unlink()
    except Timeout:
        raise UserError(
            f"{lock}: another process is at this run; wait for it, or give this run another name with --jobid N"
        ) from None


def _train_from(trainer, saved, run_id):
    """Train from the state `saved` (None: from the start) to the end, test the best model, and draw the run."""
    s, records = trainer.s, trainer.records
    if saved is None:
        records.write("run", id=run_id, args=s.record(), **environment(trainer.team.size))
        records.write("data", **read_in(trainer.splits, trainer.description.get("vocabulary")))
        trainer.save()
    else:
        trainer.resume(saved)
        if trainer.progress.tested:
            log = log_path(s.dataset, run_id, ".log")
            print(f"{run_id} is finished: its figures stand in {log}; --eval evaluates it again")
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
    trainer.model.load_state_dict(load_checkpoint(trainer.model_path, domain)["model"])
    try:
        test(trainer.model, trainer.splits["test"], s, trainer.records, trainer.team)
    except KeyboardInterrupt:
        raise Interrupted("training is finished and saved; the same command with --resume tests it again") from None
    trainer.model.load_state_dict(load_checkpoint(trainer.state_path, domain)["model"])
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


def _saved_state(best, description, s):
    """The state to resume from; raises UserError if it is another run's."""
    path = state_path(best)
    saved = load_checkpoint(path, description["domain"])
    if not {"model", "training", "args"} <= saved.keys():
        raise UserError(f"{path}: a model, but not the state of a run to go on with; start again with --overwrite")
    s.refuse_others(
        saved_settings(saved),
        lambda name, its_own, ours: (
            f"{path}: the run was started with {name} = {its_own}, not {ours}; resume it with what it was started with"
        ),
    )
    if any(saved[name] != description.get(name) for name in ("data", "vocabulary") if name in saved):
        raise UserError(
            f"{path}: the data have changed since this run was started; put the old ones back, or start "
            "again with --overwrite or another --jobid"
        )
    return saved


def _refuse(path, state, log, s):
    """Raise the UserError for a run whose name is taken, by the file `path` among others."""
    if s.resume:
        raise UserError(f"{state}: the state to go on from is missing; put it back, or start again with --overwrite")
    s.refuse_others(
        _record_of(log),
        lambda name, its_own, ours: (
            f"{path}: a run of this name was made with {name} = {its_own}, this one has {ours}; "
            "--jobid N gives this one another name"
        ),
    )
    goes_on = "--resume goes on with it, " if state.exists() else ""
    raise UserError(
        f"{path}: this run has been made before; {goes_on}--overwrite starts it again, "
        "--jobid N gives this one another name"
    )


def _make_room(run_id, observer, s, domain):
    """Remove what an earlier run of this name left, with --overwrite or where nothing is lost by it; else raise
    UserError."""
    best, log = model_path(s.dataset, run_id), log_path(s.dataset, run_id)
    files = [best, state_path(best), log.with_suffix(".log"), log, log.with_suffix(".png")]
    scalars = log.with_suffix(".tensorboard")
    there, statistics = [path for path in files if path.exists()], observer.files()
    if there and not s.overwrite and (best.exists() or _has_trained(log, state_path(best), domain)):
        _refuse(there[0], state_path(best), log, s)
    _refuse_statistics_of_others(statistics, s)
    if statistics and not s.overwrite:
        raise UserError(
            f"{next(iter(statistics))}: statistics of an earlier run; --overwrite replaces them, or move them to "
            "another place first"
        )
    removed = [*there, *statistics, *scalars.glob(EVENT_FILES)]
    for folder in {path.parent for path in removed}:
        with replacing(folder / f"{run_id}.probe") as temporary:  # refused before anything is removed, not after
            temporary.touch()
        (folder / f"{run_id}.probe").unlink()
    for path in removed:
        path.unlink(missing_ok=True)
    with suppress(OSError):  # there is none, or something else lies in it
        scalars.rmdir()


def _refuse_statistics_of_others(statistics, s):
    """Raise UserError if one of an observer's files, {path: the record of its settings}, is of another run."""
    for path, saved in statistics.items():
        s.refuse_others(
            saved,
            lambda name, its_own, ours, path=path: (
                f"{path}: statistics of a run with {name} = {its_own}, not {ours}; move them to another place first"
            ),
        )


def _record_of(log):
    """The settings that the JSON lines of a run begin with, empty if there are none to be read."""
    with suppress(OSError, ValueError, AttributeError, StopIteration), open(log, encoding="utf-8") as lines:
        return saved_settings(json.loads(next(lines)))
    return {}


def _has_trained(log, state, domain):
    """Whether the JSON lines or the state of a run tell of any training; without, nothing is lost with them."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    if '"event": "report"' in text or '"event": "val"' in text:
        return True
    with suppress(UserError, KeyError, TypeError):  # no state, or none that can be gone on from
        return load_checkpoint(state, domain)["training"]["progress"]["iteration"] > 0
    return False
