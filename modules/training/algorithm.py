"""Algorithm 1 of the paper: aggressive training of the inference network.

theta are the decoder's parameters, phi the encoder's. Where the encoder lags behind the model's true posterior, phi is
optimised alone before each update of theta.
"""

import math
from contextlib import contextmanager

import torch
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from modules import methods
from modules.distributed import Team


class Algorithm1:
    """Algorithm 1 for one batch: the inner loop of encoder steps, then the step of the decoder.

    The loop over batches and epochs is in `modules.training.loop`.

    recipe    the constants of the domain (`modules.training.recipe`)
    s         the `Settings` of the run: nsamples, inner_clip, momentum, and those of its methods
    lr        learning rate
    team      the processes that compute the gradients together, each those of its rows
    """

    def __init__(self, model, recipe, s, lr, team=None):
        self.model, self.recipe, self.s, self.team = model, recipe, s, team or Team()
        self.phi, self.theta = list(model.encoder.parameters()), list(model.decoder.parameters())
        self.both = [*self.phi, *self.theta]
        self.start_optimisers(lr)

    def start_optimisers(self, lr):
        """An optimiser for phi and one for theta, both as new; lr is the decoder's rate."""
        r = self.recipe
        encoder_lr = lr if r.encoder_lr is None else r.encoder_lr * lr / r.lr
        self.encoder_optimiser = self._optimiser(r.encoder_optimiser or r.optimiser, self.phi, encoder_lr)
        self.decoder_optimiser = self._optimiser(r.optimiser, self.theta, lr)

    def _optimiser(self, name, parameters, lr):
        if name == "adam":
            return torch.optim.Adam(parameters, lr=lr, fused=True)
        return torch.optim.SGD(parameters, lr=lr, momentum=self.s.momentum, fused=True)

    def outer_iteration(self, x, weight, aggressive, train, generator, phi_moved=lambda: None):
        """Lines 3 to 11 on the batch x: while aggressive, phi to its best and then theta; else both in one step.

        weight is that of the KL; the inner loop draws its batches from the split `train` by `generator`. phi_moved() is
        called when phi has moved and theta not yet. Returns (encoder-only steps taken, reconstruction and KL of the
        step on theta, summed over the batch).
        """
        steps = 0
        if aggressive:
            with self.only_encoder_gradients():
                steps = optimise_encoder(
                    lambda batch: self.encoder_step(batch, weight),
                    x,
                    lambda: train.random_batch(generator),
                    train.units,
                    self.recipe.inner_steps,
                    self.recipe.inner_test_every,
                )
            phi_moved()
        return steps, *self.decoder_step(x, weight, joint=not aggressive, phi_moved=phi_moved)

    def encoder_step(self, x, weight):
        """Lines 5 to 8: one step on phi alone; returns the loss summed over the batch, left on the device."""
        loss, _, _ = self.gradients(x, weight)
        self._clip(self.phi, self.phi if self.s.inner_clip == "encoder" else self.both)
        self.encoder_optimiser.step()
        return loss

    def decoder_step(self, x, weight, joint, phi_moved=lambda: None):
        """Lines 10 and 11: one step on theta, or with `joint` on theta and phi; returns reconstruction and KL, summed
        over the batch."""
        _, reconstruction, kl = self.gradients(x, weight)
        self._clip(self.both, self.both)
        if joint:
            self.encoder_optimiser.step()
            phi_moved()
        self.decoder_optimiser.step()
        return reconstruction, kl

    def gradients(self, x, weight):
        """Leave in `.grad` the gradients of the batch's mean loss, whoever of the team has which rows.

        Returns sums over the batch: of the loss, reconstruction + weight * penalty on the KL (equation 1 at weight 1),
        of the reconstruction and of the KL.
        """
        for parameter in self.both:
            parameter.grad = None
        rows, share = self.team.rows(x)
        reconstruction, kl = self.model.elbo_terms(rows, self.s.nsamples, weight)  # [rows], [rows, nz]
        penalty = self.team.of_batch(lambda kl: methods.kl_penalty(self.s, kl), kl)
        loss = torch.add(reconstruction, penalty, alpha=weight)
        (share * loss).sum().backward()
        return self.team.add_up(self.both, loss, reconstruction, kl)

    def _clip(self, parameters, measured):
        """Scale the gradients of `parameters` as if to bring the norm over all of `measured` down to the bound."""
        norm = get_total_norm([p.grad for p in measured if p.grad is not None])
        clip_grads_with_norm_(parameters, self.recipe.clip_norm, norm)

    @contextmanager
    def only_encoder_gradients(self):
        """Within: no gradient for theta if `--inner_clip encoder` says that nobody reads it.

        The running statistics of the decoder's batch norm, which evaluation uses, follow the encoder in either case.
        """
        self.model.decoder.requires_grad_(self.s.inner_clip != "encoder")
        try:
            yield
        finally:
            self.model.decoder.requires_grad_(True)


def optimise_encoder(encoder_step, batch, draw_batch, units, max_steps, test_every):
    """The inner loop (lines 4 to 9): update phi alone until the ELBO stops improving.

    encoder_step(x)  one gradient step on phi; returns the loss summed over x as a tensor, which is read only once every
                     `test_every` steps, so that a GPU need not be waited for
    batch            the current batch, taken first; the next ones come from `draw_batch()`
    units(x)         words (or images) in x: losses are compared per unit

    Stops after `max_steps`, or when the average loss over `test_every` steps is no better than over those before.
    Returns the number of steps taken.
    """
    previous, total, count = math.inf, 0.0, 0
    for step in range(1, max_steps + 1):
        total = total + encoder_step(batch)
        count += units(batch)
        if step % test_every == 0:
            current = float(total) / count
            if not current < previous:
                return step
            previous, total, count = current, 0.0, 0
        if step < max_steps:
            batch = draw_batch()
    return max_steps
