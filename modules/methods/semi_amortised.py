"""Semi-amortised inference: each x refines what the encoder says by gradient steps of its own (Kim et al. 2018)."""

from contextlib import contextmanager

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from modules.command import UserError
from modules.methods.method import Method
from modules.models.gaussian import kl_to_standard_normal
from modules.models.vae import VAE
from modules.settings import Setting, whole

STEP_SIZE, MOMENTUM, CLIP_NORM = 1 / 32, 0.5, 28.0  # of one x; published: 1, 0.5 and 5, of the mean over 32 of them
GROWTH = 1.0  # of the gradient of an x on its way back through all steps, at most


class SemiAmortised(Method):
    """`--model savae`, with `--svi_steps`."""

    model = "savae"
    settings = (Setting("svi_steps", whole(1), "steps that refine the posterior of savae", 20, model=True),)

    def title(self, s):
        return "SA-VAE"

    def check(self, s):
        if "svi_steps" in s.given and not self.used(s):
            raise UserError("--svi_steps does nothing without --model savae")
        for flag in ("bn_gamma", "committed_rate", "free_bits", "steady"):
            if getattr(s, flag) and self.used(s):
                raise UserError(
                    f"--model savae and --{flag} exclude each other: it refines its posterior for the ELBO, "
                    "free of constraints"
                )

    def assemble(self, s, encoder, decoder):
        return SemiAmortisedVAE(encoder, decoder, s.svi_steps)


class SemiAmortisedVAE(VAE):
    """A VAE whose posterior is the encoder's after `steps` steps of stochastic variational inference (SVI).

    With lambda = (mean, logvar) of one x, lambda_0 the encoder's, and L its negative ELBO at the KL weight in force,

        v_{k+1} = MOMENTUM v_k + clip(grad L(lambda_k)),   lambda_{k+1} = lambda_k - STEP_SIZE v_{k+1},

    where clip brings the norm down to CLIP_NORM. SVI sees the decoder as evaluation does: no dropout, batch norm by its
    running statistics. Its own draws of z are new at each step in training; in evaluation they are always the same, so
    that q(z|x) is a function of x and what it says of x is not noise.

    The refined posterior is differentiable in the encoder's and in the decoder's parameters. Where steps overshoot,
    that derivative explodes (on the synthetic set to 1e9 within a hundred updates), so on its way back through a step
    the gradient of an x is scaled to be no longer than it was at the end: where SVI converges it shrinks in the end.
    """

    def __init__(self, encoder, decoder, steps):
        super().__init__(encoder, decoder)
        self.steps = steps

    def posterior(self, x, kl_weight=1.0):
        """Mean and log-variance of the refined q(z|x), [batch, nz] both."""
        start = torch.cat(self.encoder(x), dim=1)
        rows, nz = len(start), start.size(1) // 2
        if self.training:
            noise = torch.randn(self.steps, rows, nz, dtype=start.dtype, device=start.device)
        else:
            always = torch.Generator().manual_seed(0)
            noise = torch.randn(self.steps, 1, nz, dtype=start.dtype, generator=always).to(start.device)
        problem = _Problem(self.decoder, x, kl_weight)
        refined = _Refinement.apply(problem, noise.expand(-1, rows, -1), start, *self.decoder.parameters())
        return refined.chunk(2, dim=1)


class _Problem:
    """What SVI minimises for each x of a batch: its negative ELBO as a function of lambda [batch, 2 nz]."""

    def __init__(self, decoder, x, kl_weight):
        self.decoder, self.x, self.kl_weight = decoder, x, kl_weight

    def losses(self, x, lam, noise):
        """L of each row [batch], with z drawn by the noise [batch, nz]."""
        mean, logvar = lam.chunk(2, dim=1)
        z = mean + (0.5 * logvar).exp() * noise
        reconstruction = self.decoder.reconstruction(x, z.unsqueeze(1)).squeeze(1)
        return reconstruction + self.kl_weight * kl_to_standard_normal(mean, logvar)

    def gradient(self, lam, noise):
        """The gradient of L with respect to lambda [batch, 2 nz]."""
        with torch.enable_grad(), _as_evaluated(self.decoder), _frozen(self.decoder):
            lam = lam.detach().requires_grad_()
            return torch.autograd.grad(self.losses(self.x, lam, noise).sum(), lam)[0]

    def second_derivatives(self, lam, noise, direction, parameters):
        """Gradients of <direction, grad L(lambda)>, with respect to lambda [batch, 2 nz] and to each parameter.

        By central differences of gradients along the direction (Kim et al. use one-sided ones; fused LSTMs have no
        second derivative), each row moved by the cube root of the precision, where truncation and rounding balance.
        """
        radius = torch.finfo(lam.dtype).eps ** (1 / 3)
        length = _length(direction)
        move = radius * direction / length.clamp_min(torch.finfo(lam.dtype).tiny)
        share = (length / (2 * radius)).squeeze(1)
        with torch.enable_grad(), _as_evaluated(self.decoder):
            moved = torch.cat([lam + move, lam - move]).requires_grad_()
            losses = self.losses(torch.cat([self.x, self.x]), moved, torch.cat([noise, noise]))
            of_lam, *of_parameters = torch.autograd.grad(losses, (moved, *parameters), torch.cat([share, -share]))
        return sum(of_lam.chunk(2)), of_parameters


class _Refinement(torch.autograd.Function):
    """SVI and its gradient, step by step backwards (Kim et al. 2018, algorithms 1 and 2)."""

    @staticmethod
    def forward(ctx, problem, noise, start, *parameters):
        ctx.problem, ctx.parameters, ctx.steps = problem, parameters, []
        lam, velocity = start, torch.zeros_like(start)
        for eps in noise:
            gradient = problem.gradient(lam, eps)
            ctx.steps.append((lam, eps, gradient))
            velocity = MOMENTUM * velocity + _clip(gradient, CLIP_NORM)
            lam = lam - STEP_SIZE * velocity
        return lam

    @staticmethod
    @once_differentiable
    def backward(ctx, adjoint):
        wanted = [i for i, needed in enumerate(ctx.needs_input_grad[3:]) if needed]
        parameters = [ctx.parameters[i] for i in wanted]
        totals = [torch.zeros_like(parameter) for parameter in parameters]
        velocity_adjoint, bound = torch.zeros_like(adjoint), GROWTH * _length(adjoint)
        for lam, eps, gradient in reversed(ctx.steps):
            velocity_adjoint = MOMENTUM * velocity_adjoint - STEP_SIZE * adjoint
            direction = _clip_adjoint(gradient, velocity_adjoint)
            of_lam, of_parameters = ctx.problem.second_derivatives(lam, eps, direction, parameters)
            adjoint = _clip(adjoint + of_lam, bound)
            for total, more in zip(totals, of_parameters):
                total += more
        found = dict(zip(wanted, totals))
        return None, None, adjoint, *(found.get(i) for i in range(len(ctx.parameters)))


def _length(rows):
    """The norm of each row, [batch, 1]."""
    return rows.norm(dim=1, keepdim=True)


def _clip(rows, bound):
    """Each row scaled down to the length `bound`, if it is longer."""
    return rows * (bound / _length(rows).clamp_min(torch.finfo(rows.dtype).tiny)).clamp(max=1.0)


def _clip_adjoint(gradient, adjoint):
    """The derivative of clip(g) = g min(1, CLIP_NORM / |g|) at each row of `gradient`, applied to `adjoint`."""
    length = _length(gradient)
    unit = gradient / length
    inside = adjoint - unit * (unit * adjoint).sum(dim=1, keepdim=True)
    return torch.where(length > CLIP_NORM, inside * (CLIP_NORM / length), adjoint)


@contextmanager
def _as_evaluated(decoder):
    """Within: evaluation mode, but for LSTMs, which cuDNN differentiates in training mode only."""
    was_training = {module: module.training for module in decoder.modules()}
    for module in was_training:
        module.training = isinstance(module, nn.RNNBase)
    try:
        yield
    finally:
        for module, mode in was_training.items():
            module.training = mode


@contextmanager
def _frozen(decoder):
    """Within: no gradient for the decoder's parameters, 6% off a step at PTB size."""
    wanted = [parameter for parameter in decoder.parameters() if parameter.requires_grad]
    for parameter in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)
