"""The training loop, the same for text, images and the toy study: it never asks what the data are."""

import math
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property

import torch

from modules import methods
from modules.checkpoint import load_checkpoint, require_kind, save_checkpoint
from modules.command import Interrupted, UserError, progress
from modules.distributed import Team
from modules.evaluation import metrics
from modules.training.algorithm import Algorithm1
from modules.training.schedules import AggressivePhase, LearningRateDecay

REPORTS_PER_EPOCH = 10  # while aggressive and in the first epoch, when collapse happens
LATER_REPORTS_PER_EPOCH = 2


@dataclass
class Progress:
    """Where a run stands, in plain values: with weights, optimisers and random states, all that a resume needs."""

    phase: AggressivePhase
    decay: LearningRateDecay
    epoch: int = 0
    batch: int = 0  # outer iterations done in this epoch
    iteration: int = 0  # outer iterations done in all
    encoder_steps: int = 0  # inner steps done in all
    best_loss: float = math.inf  # `methods.validation_loss` of the saved best model, nats
    seconds: float = 0.0
    finished: bool = False
    tested: bool = False
    reported: dict = field(default_factory=lambda: {"reconstruction": 0.0, "kl": 0.0, "count": 0.0})

    @classmethod
    def from_dict(cls, saved):
        """What `dataclasses.asdict` made a dict of."""
        return cls(
            **{**saved, "phase": AggressivePhase(**saved["phase"]), "decay": LearningRateDecay(**saved["decay"])}
        )


class Observer:
    """What is told of each half-step of a training; this one does nothing with it."""

    def __call__(self, half, trainer):
        """half is "start" before the first iteration, then "encoder" when phi has moved (after the whole inner loop
        while aggressive) and "decoder" when theta has, by turns."""

    def resume(self, iteration):
        """Training goes on after that many outer iterations."""

    def files(self):
        """What earlier runs have left in the place of its files: {path: the record of their settings}."""
        return {}


class Trainer:
    """Trains one VAE by algorithm 1, epoch after epoch, keeps records, and can stop and go on at any outer iteration.

    model        a `VAE`; its encoder and decoder have an optimiser each
    splits       {"train", "val", "test"}: splits as in `modules.data` (`order`, `batch`, `random_batch`, `units`)
    recipe       the constants of the domain (`modules.training.recipe`)
    s            the `Settings` of the run
    records      where events go (`modules.training.records.Records`)
    files        where the best model and the full state are kept (`modules.training.run_files.RunFiles`)
    description  what a saved model says of itself (domain, dataset, args, vocabulary), a dict
    observer     told of each half-step, as an `Observer` is
    team         the processes that train together; only the first writes checkpoints
    """

    def __init__(self, model, splits, recipe, s, records, files, description, observer=None, team=None):
        self.model, self.splits, self.recipe, self.s = model, splits, recipe, s
        self.records, self.files, self.description = records, files, description
        self.observer, self.team = observer or Observer(), team or Team()
        self.device = model.device
        self.generator = torch.Generator().manual_seed(s.seed)  # orders and inner-loop draws
        self.order = None
        self.progress = Progress(
            AggressivePhase(bool(s.aggressive), recipe.mi_start, recipe.mi_patience),
            LearningRateDecay(
                recipe.lr,
                recipe.lr_decay,
                recipe.decay_patience,
                recipe.decay_from_epoch,
                recipe.max_decays,
                recipe.rebase_at_decay,
            ),
        )
        self.algorithm = Algorithm1(model, recipe, s, recipe.lr, self.team)

    def fit(self):
        """Train to the end, from wherever `progress` stands; raises Interrupted after saving if asked to stop."""
        if self.progress.iteration == 0:
            self.observer("start", self)
            if self.s.aggressive and self.mi_says_little:
                self.records.write("mi_agg ends the phase", mi_ceiling=self.mi_ceiling)
        with _stop_requests(aloud=self.team.size == 1) as stop_requested:
            while not self.progress.finished:
                self._train_epoch(stop_requested)
                if self.progress.batch < self.splits["train"].num_batches:  # out of iterations within the epoch
                    self.save()
                    return
                self._end_epoch()
                if any(self.team.any_of_each(stop_requested())):
                    self._stop()

    @cached_property
    def mi_ceiling(self):
        """The most that `mi` of the validation split can be, whatever z says, in nats."""
        return metrics.mutual_information_ceiling(self.splits["val"])

    @property
    def mi_says_little(self):
        """Whether that is not even half of what full batches would allow."""
        return self.mi_ceiling <= math.log(self.s.batch_size) / 2

    @property
    def out_of_iterations(self):
        """Whether `max_iterations` has been reached."""
        return self.s.max_iterations is not None and self.progress.iteration >= self.s.max_iterations

    def kl_weight(self, iteration):
        """What multiplies the KL in outer iteration `iteration`."""
        return methods.kl_weight(self.s, iteration, self.splits["train"].num_batches)

    def outer_iteration(self, x):
        """`Algorithm1.outer_iteration` on a batch, and the account of it."""
        p = self.progress
        steps, reconstruction, kl = self.algorithm.outer_iteration(
            x,
            self.kl_weight(p.iteration),
            p.phase.active,
            self.splits["train"],
            self.generator,
            lambda: self.observer("encoder", self),
        )
        p.iteration += 1
        p.encoder_steps += steps
        p.reported["reconstruction"] += reconstruction
        p.reported["kl"] += kl
        p.reported["count"] += len(x)
        self.observer("decoder", self)

    # ------------------------------------------------------------------ epochs

    def _train_epoch(self, stop_requested):
        p, train = self.progress, self.splits["train"]
        self.model.train()
        if self.order is None:
            self.order = train.order(self.generator)
        last_save = time.monotonic()
        with progress(total=train.num_batches, initial=p.batch, desc=f"epoch {p.epoch}", unit="batch") as bar:
            while p.batch < train.num_batches and not self.out_of_iterations:
                started = time.monotonic()
                self.team.draw_noise_of(self.s.seed, p.iteration)
                x = train.batch(self.order, p.batch)
                self.outer_iteration(x)
                p.batch += 1
                if p.iteration % self._report_every() == 0:
                    self._report(p.seconds + time.monotonic() - started)
                p.seconds += time.monotonic() - started
                bar.update()
                due = time.monotonic() - last_save > 60 * self.s.save_every
                stop, due = self.team.any_of_each(stop_requested(), due)
                if stop and p.batch < train.num_batches:
                    self._stop()
                if due:
                    self.save()
                    last_save = time.monotonic()

    def _end_epoch(self):
        """Validation, the end of the aggressive phase, the best model, learning-rate decay, the checkpoint."""
        p, started = self.progress, time.monotonic()
        methods.after_epoch(self.s, self.model, self.splits["train"])
        val = metrics.evaluate(self.model, self.splits["val"], self.s.seed, self.team)
        was_aggressive, mi = p.phase.active, val.mi_agg if self.mi_says_little else val.mi
        self._check_finite(val.loss + val.mi + val.mi_agg)
        if was_aggressive:
            self.records.write("aggressive phase", epoch=p.epoch, best=p.phase.best, mi=mi)
            if not p.phase.update(mi):
                self.records.write("aggressive phase ends", epoch=p.epoch)
        self.records.write(
            "val",
            **val.as_dict(),
            epoch=p.epoch,
            iteration=p.iteration,
            kl_weight=self.kl_weight(p.iteration - 1),
            lr=p.decay.lr,
            aggressive=was_aggressive,
            encoder_steps=p.encoder_steps,
            seconds=round(p.seconds + time.monotonic() - started, 2),
        )
        self._keep_the_best(val)
        p.finished = p.decay.exhausted or p.epoch + 1 >= self.s.epochs
        if p.epoch % self.s.test_nepoch == 0 and not p.finished:
            test = metrics.evaluate(self.model, self.splits["test"], self.s.seed, self.team)
            self.records.write("test", **test.as_dict(), epoch=p.epoch)
        p.epoch, p.batch, self.order = p.epoch + 1, 0, None
        p.seconds += time.monotonic() - started
        self.save()

    def _keep_the_best(self, val):
        """Save the model if it is the best so far; else, if the learning rate decays now, go back to the best."""
        p, loss = self.progress, methods.validation_loss(self.s, val)
        decayed = p.decay.update(p.epoch, loss)
        if loss < p.best_loss:
            self.records.write("best", epoch=p.epoch, loss=loss)
            p.best_loss = loss
            best = {"model": self.model.state_dict(), "epoch": p.epoch, "metrics": val.as_dict()}
            self._write(self.files.model, best)
        elif decayed:
            self.records.write("decay", epoch=p.epoch, lr=p.decay.lr)
            self.model.load_state_dict(load_checkpoint(self.files.model, self.description["domain"])["model"])
            self.algorithm.start_optimisers(p.decay.lr)

    # ------------------------------------------------------------------ reports

    def _report_every(self):
        early = self.progress.phase.active or self.progress.epoch == 0
        return max(1, self.splits["train"].num_batches // (REPORTS_PER_EPOCH if early else LATER_REPORTS_PER_EPOCH))

    def _report(self, seconds):
        """One line on the outer iterations since the last report, with MI and AU of the validation split now."""
        p, reported = self.progress, self.progress.reported
        reconstruction, kl = (float(reported[name]) / reported["count"] for name in ("reconstruction", "kl"))
        self._check_finite(reconstruction + kl)
        mi, au = metrics.quick_look(self.model, self.splits["val"], self.s.seed)
        self._check_finite(mi)
        self.records.write(
            "report",
            epoch=p.epoch,
            iteration=p.iteration,
            loss=reconstruction + kl,
            reconstruction=reconstruction,
            kl=kl,
            mi=mi,
            active_units=au,
            encoder_steps=p.encoder_steps,
            seconds=round(seconds, 2),
        )
        reported.update(reconstruction=0.0, kl=0.0, count=0.0)

    def _check_finite(self, loss):
        if not math.isfinite(loss):
            raise UserError(
                f"training diverged: loss or mutual information became {loss} in epoch "
                f"{self.progress.epoch}; start again with a smaller --lr or --clip_norm, or another --seed"
            )

    # ------------------------------------------------------------------ checkpoints

    def save(self):
        """Write the full state, so that `resume` goes on exactly here."""
        reported = {name: float(value) for name, value in self.progress.reported.items()}
        content = {
            "model": self.model.state_dict(),
            "training": {
                "progress": {**asdict(self.progress), "reported": reported},
                "order": self.order,
                "encoder_optimiser": self.algorithm.encoder_optimiser.state_dict(),
                "decoder_optimiser": self.algorithm.decoder_optimiser.state_dict(),
                "generator": self.generator.get_state(),
                "rng": torch.get_rng_state(),
                "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
                "records": self.records.positions(),
            },
        }
        self._write(self.files.state, content)

    def _write(self, path, content):
        """Write a checkpoint, which all of the team can then read."""
        if self.team.first:
            save_checkpoint(path, {**self.description, **content})
        self.team.wait()

    def resume(self, content):
        """Take up the state that `save` wrote (`content`, as `load_checkpoint` returns it)."""
        try:
            self._take_up(content["training"], content["model"])
        except (AttributeError, KeyError, IndexError, RuntimeError, TypeError, ValueError) as error:
            what = " ".join(str(error).split())[:200]
            raise UserError(
                f"{self.files.state}: damaged ({type(error).__name__}: {what}); start again with --overwrite"
            ) from None
        self.observer.resume(self.progress.iteration)

    def _take_up(self, training, weights):
        require_kind("progress", training["progress"], asdict(self.progress))
        require_kind("records", dict(enumerate(training["records"])), dict.fromkeys(range(2), 0))
        order = self.splits["train"].order(torch.Generator())
        if training["order"] is not None and not torch.equal(training["order"].sort()[0], order.sort()[0]):
            raise ValueError("order is no order of the training data")
        self.model.load_state_dict(weights)
        self.progress = Progress.from_dict(training["progress"])
        self.progress.finished = self.progress.decay.exhausted or self.progress.epoch >= self.s.epochs
        self.progress.tested &= self.progress.finished
        self.algorithm.start_optimisers(self.progress.decay.lr)
        self.algorithm.encoder_optimiser.load_state_dict(training["encoder_optimiser"])
        self.algorithm.decoder_optimiser.load_state_dict(training["decoder_optimiser"])
        self.order = training["order"]
        self.generator.set_state(training["generator"])
        torch.set_rng_state(training["rng"])
        if training["cuda_rng"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(training["cuda_rng"], self.device)
        self.records.rewind(training["records"])

    def _stop(self):
        self.save()
        raise Interrupted(f"saved {self.files.state}; the same command with --resume goes on from here")


@contextmanager
def _stop_requests(aloud):
    """Within: the first Ctrl-C or SIGTERM only sets a flag, read by the yielded function; a second one stops."""
    received = []

    def handler(signum, frame):
        received.append(signum)
        if len(received) > 1:
            raise KeyboardInterrupt
        if aloud:
            print("\nstopping after this iteration; once more to stop at once", file=sys.stderr)

    previous = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, old in previous.items():
            signal.signal(number, old)
