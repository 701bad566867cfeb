"""The training loop, the same for text, images and the toy study: it never asks what the data are."""

import math
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from tqdm import tqdm

from modules.evaluation import metrics
from modules.command import Interrupted, UserError
from modules.training.algorithm import optimise_encoder
from modules.training.checkpoint import load_checkpoint, save_checkpoint
from modules.training.schedules import AggressivePhase, LearningRateDecay, kl_penalty, kl_weight

REPORTS_PER_EPOCH = 10          # while aggressive and in the first epoch, when collapse happens
LATER_REPORTS_PER_EPOCH = 2


@dataclass
class Options:
    """What the command line decides about a run, beyond model and data."""

    aggressive: bool
    kl_start: float
    warm_up: int                # epochs
    epochs: int                 # at most
    test_nepoch: int            # epochs between two evaluations on the test split
    nsamples: int               # draws of z per x in training
    inner_clip: str             # "joint" (published): clip over all gradients; "encoder": over the encoder's alone
    momentum: float
    save_every: float           # minutes between two checkpoints within an epoch
    seed: int
    beta: float = 1.0           # multiplies the KL weight (Higgins et al. 2017)
    kl_cycles: int = 1          # times that the warm-up is gone through
    free_bits: float = 0.0      # nats of KL without a penalty ...
    free_bits_over: str = "dimension"       # ... for each dimension, or for their "sum"
    max_iterations: float = math.inf    # stop after that many outer iterations, even within an epoch


@dataclass
class Progress:
    """Where a run stands, in plain values: with weights, optimisers and random states, all that a resume needs."""

    phase: AggressivePhase
    decay: LearningRateDecay
    epoch: int = 0
    batch: int = 0                                  # outer iterations done in this epoch
    iteration: int = 0                              # outer iterations done in all
    encoder_steps: int = 0                          # inner steps done in all
    best_loss: float = math.inf                     # validation loss of the saved best model, nats (KL weight 1)
    seconds: float = 0.0
    finished: bool = False
    tested: bool = False
    reported: dict = field(default_factory=lambda: {"reconstruction": 0.0, "kl": 0.0, "count": 0})

    @classmethod
    def from_dict(cls, saved):
        """What `dataclasses.asdict` made a dict of."""
        return cls(**{**saved, "phase": AggressivePhase(**saved["phase"]),
                      "decay": LearningRateDecay(**saved["decay"])})


class Trainer:
    """Trains one VAE with algorithm 1 of the paper, keeps records, and can stop and go on at any outer iteration.

    model        a `VAE`; its encoder and decoder have an optimiser each
    splits       {"train", "val", "test"}: splits as in `modules.data` (`order`, `batch`, `random_batch`, `units`)
    recipe       the constants of the domain (`modules.training.recipe`)
    options      what the command line decides (`Options`)
    records      where lines and events go (`modules.training.records.Records`)
    model_path   where the best model is kept; the full state lies beside it as `<id>.resume.pt`
    description  what a saved model says of itself (domain, dataset, config, vocabulary, args), a dict
    observer     called as observer(half, trainer): half is "start" before the first iteration, then "encoder" when phi
                 has moved (after the whole inner loop while aggressive) and "decoder" when theta has, by turns
    """

    def __init__(self, model, splits, recipe, options, records, model_path, description, observer=None):
        self.model, self.splits, self.recipe, self.options = model, splits, recipe, options
        self.records, self.description = records, description
        self.observer = observer or (lambda half, trainer: None)
        self.model_path = Path(model_path)
        self.state_path = state_path(model_path)
        self.device = model.device
        self.parameters = list(model.parameters())
        self.encoder_parameters = list(model.encoder.parameters())
        self.generator = torch.Generator().manual_seed(options.seed)       # orders and inner-loop draws
        self.order = None
        self.progress = Progress(
            AggressivePhase(bool(options.aggressive), recipe.mi_start, recipe.mi_patience),
            LearningRateDecay(recipe.lr, recipe.lr_decay, recipe.decay_patience, recipe.decay_from_epoch,
                              recipe.max_decays, recipe.rebase_at_decay))
        self._start_optimisers()

    # ------------------------------------------------------------------ the algorithm

    def fit(self):
        """Train to the end, from wherever `progress` stands; raises Interrupted after saving if asked to stop."""
        if self.progress.iteration == 0:
            self.observer("start", self)
        with _stop_requests() as stop_requested:
            while not self.progress.finished:
                self._train_epoch(stop_requested)
                if self.out_of_iterations:
                    self.save()
                    return
                self._end_epoch()
                if stop_requested():
                    self._stop()

    @property
    def out_of_iterations(self):
        """Whether `max_iterations` has been reached."""
        return self.progress.iteration >= self.options.max_iterations

    def outer_iteration(self, x):
        """Algorithm 1, one pass of its outer loop: while aggressive, phi to its best and then theta; else both."""
        p = self.progress
        weight = self.kl_weight(p.iteration)
        if p.phase.active:
            with self._only_encoder_gradients():
                p.encoder_steps += optimise_encoder(
                    lambda batch: self.encoder_step(batch, weight), x,
                    lambda: self.splits["train"].random_batch(self.generator), self.splits["train"].units,
                    self.recipe.inner_steps, self.recipe.inner_test_every)
            self.observer("encoder", self)
        self.decoder_step(x, weight, joint=not p.phase.active)
        p.iteration += 1
        self.observer("decoder", self)

    def kl_weight(self, iteration):
        """What multiplies the KL in outer iteration `iteration`."""
        options = self.options
        return options.beta * kl_weight(iteration, self.splits["train"].num_batches, options.kl_start, options.warm_up,
                                        options.kl_cycles)

    def encoder_step(self, x, weight):
        """One step on phi alone; returns the loss summed over the batch, left on the device."""
        loss, _, _ = self._gradients(x, weight)
        self._clip(self.encoder_parameters, self.parameters if self.options.inner_clip == "joint"
                   else self.encoder_parameters)
        self.encoder_optimiser.step()
        return loss.sum()

    def decoder_step(self, x, weight, joint):
        """One step on theta, or with `joint` on theta and phi."""
        _, reconstruction, kl = self._gradients(x, weight)
        self._clip(self.parameters, self.parameters)
        if joint:
            self.encoder_optimiser.step()
            self.observer("encoder", self)
        self.decoder_optimiser.step()
        reported = self.progress.reported
        reported["reconstruction"] += reconstruction.sum()
        reported["kl"] += kl.sum()
        reported["count"] += len(x)

    def _gradients(self, x, weight):
        """Leave in `.grad` the gradients of the batch's mean loss.

        Returns the loss, reconstruction + weight * penalty on the KL, and the reconstruction, [batch] both, and the KL
        [batch, nz].
        """
        for parameter in self.parameters:
            parameter.grad = None
        reconstruction, kl = self.model.elbo_terms(x, self.options.nsamples, weight)
        penalty = kl_penalty(kl, self.options.free_bits, self.options.free_bits_over)
        loss = torch.add(reconstruction, penalty, alpha=weight)
        loss.mean().backward()
        return loss.detach(), reconstruction.detach(), kl.detach()

    def _clip(self, parameters, measured):
        """Scale the gradients of `parameters` as if to bring the norm over all of `measured` down to the bound."""
        norm = get_total_norm([p.grad for p in measured if p.grad is not None])
        clip_grads_with_norm_(parameters, self.recipe.clip_norm, norm)

    @contextmanager
    def _only_encoder_gradients(self):
        """Within: no gradient for the decoder's parameters if `--inner_clip encoder` says that nobody reads them.

        The running statistics of its batch norm, which evaluation uses, follow the encoder in either case.
        """
        frozen = self.options.inner_clip == "encoder"
        self.model.decoder.requires_grad_(not frozen)
        try:
            yield
        finally:
            self.model.decoder.requires_grad_(True)

    def _start_optimisers(self):
        self.encoder_optimiser = self._optimiser(self.encoder_parameters)
        self.decoder_optimiser = self._optimiser(self.model.decoder.parameters())

    def _optimiser(self, parameters):
        if self.recipe.optimiser == "adam":
            return torch.optim.Adam(parameters, lr=self.progress.decay.lr, fused=True)
        return torch.optim.SGD(parameters, lr=self.progress.decay.lr, momentum=self.options.momentum, fused=True)

    # ------------------------------------------------------------------ epochs

    def _train_epoch(self, stop_requested):
        p, train = self.progress, self.splits["train"]
        self.model.train()
        if self.order is None:
            self.order = train.order(self.generator)
        last_save = time.monotonic()
        bar = tqdm(total=train.num_batches, initial=p.batch, desc=f"epoch {p.epoch}", unit="batch", leave=False,
                   disable=not sys.stderr.isatty())
        with bar:
            while p.batch < train.num_batches and not self.out_of_iterations:
                started = time.monotonic()
                x = train.batch(self.order, p.batch)
                self.outer_iteration(x)
                p.batch += 1
                if p.iteration % self._report_every() == 0:
                    self._report(p.seconds + time.monotonic() - started)
                p.seconds += time.monotonic() - started
                bar.update()
                if stop_requested() and p.batch < train.num_batches:
                    self._stop()
                if time.monotonic() - last_save > 60 * self.options.save_every:
                    self.save()
                    last_save = time.monotonic()

    def _end_epoch(self):
        """Validation, the end of the aggressive phase, the best model, learning-rate decay, the checkpoint."""
        p, started = self.progress, time.monotonic()
        val = metrics.evaluate(self.model, self.splits["val"], self.options.seed)
        was_aggressive = p.phase.active
        if was_aggressive:
            self.records.write(f"pre mi:{p.phase.best:.4f}. cur mi:{val.mi:.4f}")
            if not p.phase.update(val.mi):
                self.records.write("STOP BURNING", event="aggressive phase ends", epoch=p.epoch)
        weight = self.kl_weight(p.iteration - 1)
        self.records.write(f"kl weight {weight:.4f}")
        self._check_finite(val.loss)
        self.record_metrics("val", val, epoch=p.epoch, iteration=p.iteration, kl_weight=weight, lr=p.decay.lr,
                            aggressive=was_aggressive, encoder_steps=p.encoder_steps,
                            seconds=round(p.seconds + time.monotonic() - started, 2))
        loss = val.loss if self.options.beta > 0 else val.reconstruction        # of an autoencoder
        decayed = p.decay.update(p.epoch, loss)
        if loss < p.best_loss:
            self.records.write("update best loss", event="best", epoch=p.epoch, loss=loss)
            p.best_loss = loss
            self._save_best(val)
        elif decayed:
            self.records.write(f"new lr: {p.decay.lr:f}", event="decay", epoch=p.epoch, lr=p.decay.lr)
            self.model.load_state_dict(load_checkpoint(self.model_path, self.description["domain"])["model"])
            self._start_optimisers()
        p.finished = p.decay.exhausted or p.epoch + 1 >= self.options.epochs
        if p.epoch % self.options.test_nepoch == 0 and not p.finished:
            self.record_metrics("test", metrics.evaluate(self.model, self.splits["test"], self.options.seed),
                                epoch=p.epoch)
        p.epoch, p.batch, self.order = p.epoch + 1, 0, None
        p.seconds += time.monotonic() - started
        self.save()

    # ------------------------------------------------------------------ reports

    def _report_every(self):
        early = self.progress.phase.active or self.progress.epoch == 0
        return max(1, self.splits["train"].num_batches // (REPORTS_PER_EPOCH if early else LATER_REPORTS_PER_EPOCH))

    def _report(self, seconds):
        """One line on the outer iterations since the last report, with MI and AU of the validation split now."""
        p, reported = self.progress, self.progress.reported
        reconstruction, kl = (float(reported[name]) / reported["count"] for name in ("reconstruction", "kl"))
        self._check_finite(reconstruction + kl)
        mi, au = metrics.quick_look(self.model, self.splits["val"], self.options.seed)
        self.records.write(
            f"epoch: {p.epoch}, iter: {p.iteration}, avg_loss: {reconstruction + kl:.4f}, kl: {kl:.4f}, mi: {mi:.4f}, "
            f"recon: {reconstruction:.4f},au {au}, time elapsed {seconds:.2f}s",
            event="report", epoch=p.epoch, iteration=p.iteration, loss=reconstruction + kl,
            reconstruction=reconstruction, kl=kl, mi=mi, active_units=au, encoder_steps=p.encoder_steps,
            seconds=round(seconds, 2))
        reported.update(reconstruction=0.0, kl=0.0, count=0)

    def record_metrics(self, split, measured, **more):
        """The VAL or TEST lines of a split's `Metrics`, and one event with all of them."""
        record_metrics(self.records, split, measured, words=self.splits[split].unit == "word", **more)

    def _check_finite(self, loss):
        if not math.isfinite(loss):
            raise UserError(f"the loss became {loss} in epoch {self.progress.epoch}: training diverged; "
                            "start again with another --seed or a gentler setting")

    # ------------------------------------------------------------------ checkpoints

    def save(self):
        """Write the full state, so that `resume` goes on exactly here."""
        reported = {name: float(value) for name, value in self.progress.reported.items()}
        content = {
            **self.description, "model": self.model.state_dict(),
            "training": {
                "progress": {**asdict(self.progress), "reported": reported}, "order": self.order,
                "encoder_optimiser": self.encoder_optimiser.state_dict(),
                "decoder_optimiser": self.decoder_optimiser.state_dict(),
                "generator": self.generator.get_state(), "rng": torch.get_rng_state(),
                "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
                "records": self.records.positions()}}
        save_checkpoint(self.state_path, content)

    def resume(self, content):
        """Take up the state that `save` wrote (`content`, as `load_checkpoint` returns it)."""
        training = content["training"]
        self.model.load_state_dict(content["model"])
        self.progress = Progress.from_dict(training["progress"])
        self.progress.finished = self.progress.decay.exhausted or self.progress.epoch >= self.options.epochs
        self.progress.tested &= self.progress.finished
        self._start_optimisers()
        self.encoder_optimiser.load_state_dict(training["encoder_optimiser"])
        self.decoder_optimiser.load_state_dict(training["decoder_optimiser"])
        self.order = training["order"]
        self.generator.set_state(training["generator"])
        torch.set_rng_state(training["rng"])
        if training["cuda_rng"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(training["cuda_rng"], self.device)
        self.records.rewind(training["records"])

    def _save_best(self, val):
        save_checkpoint(self.model_path, {**self.description, "model": self.model.state_dict(),
                                          "epoch": self.progress.epoch, "metrics": val.as_dict()})

    def _stop(self):
        self.save()
        raise Interrupted(f"saved {self.state_path}; the same command with --resume goes on from here")


def state_path(model_path):
    """Where the full training state lies for a model kept at `model_path`."""
    return Path(model_path).with_suffix(".resume.pt")


def record_metrics(records, split, measured, words, **more):
    """Write `VAL --- ...` or `TEST --- ...`, the aggregate figures and the active units, and one event with all."""
    line = (f"{split.upper()} --- avg_loss: {measured.loss:.4f}, kl: {measured.kl:.4f}, mi: {measured.mi:.4f}, "
            f"recon: {measured.reconstruction:.4f}, nll: {measured.loss:.4f}")
    if words:
        line += f", ppl: {metrics.perplexity(measured.loss, measured):.4f}"
    records.write(line)
    mi_agg, kl_agg = (round(value, 4) + 0.0 for value in (measured.mi_agg, measured.kl_agg))    # + 0.0: no "-0.0000"
    records.write(f"mi_agg: {mi_agg:.4f}, kl_agg: {kl_agg:.4f}")
    records.write(f"{measured.active_units} active units", event=split, **measured.as_dict(), **more)


@contextmanager
def _stop_requests():
    """Within: the first Ctrl-C or SIGTERM only sets a flag, read by the yielded function; a second one stops."""
    received = []

    def handler(signum, frame):
        received.append(signum)
        if len(received) > 1:
            raise KeyboardInterrupt
        print("\nstopping after this iteration; once more to stop at once", file=sys.stderr)

    previous = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, old in previous.items():
            signal.signal(number, old)
