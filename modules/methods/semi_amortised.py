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

STEP_SIZE, MOMENTUM, CLIP_NORM = 1.0, 0.5, 5.0


class SemiAmortised(Method):
    """`--model savae`, with `--svi_steps`."""

    model = "savae"
    lone = "it clips a gradient over the whole batch at each of its steps"
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
        return SemiAmortisedVAE(encoder, decoder, s.svi_steps, s.batch_size)


class SemiAmortisedVAE(VAE):
    """A VAE whose posterior is the encoder's after `steps` steps of stochastic variational inference (SVI).

    With lambda = (mean, logvar), lambda_0 the encoder's, and L the negative ELBO at the KL weight in force,

        v_{k+1} = MOMENTUM v_k + clip(grad L(lambda_k)),   lambda_{k+1} = lambda_k - STEP_SIZE v_{k+1}.

    L is summed over the batch and divided by `batch_size`, that of the config, and its gradient is clipped to norm
    CLIP_NORM over the batch; so step size and bound are the published ones for a full batch, and a smaller batch does
    not take longer steps; a larger one is refined in parts of `batch_size`. SVI sees the decoder as evaluation does: no
    dropout, batch norm by its running statistics. The refined posterior is differentiable in the encoder's and in the
    decoder's parameters.
    """

    def __init__(self, encoder, decoder, steps, batch_size):
        super().__init__(encoder, decoder)
        self.steps = steps
        self.batch_size = batch_size

    def posterior(self, x, generator=None, kl_weight=1.0):
        """Mean and log-variance of the refined q(z|x), [batch, nz] both."""
        start = torch.cat(self.encoder(x), dim=1)
        refined = [
            self._refined(*part, generator, kl_weight)
            for part in zip(x.split(self.batch_size), start.split(self.batch_size))
        ]
        return torch.cat(refined).chunk(2, dim=1)

    def _refined(self, x, start, generator, kl_weight):
        """lambda of a batch after `steps` steps from `start`, [batch, 2 nz] both."""
        noise = torch.randn(
            (self.steps, len(start), start.size(1) // 2),
            dtype=start.dtype,
            generator=generator,
            device=generator.device if generator else start.device,
        ).to(start.device)
        return _Refinement.apply(_Problem(self, x, kl_weight), noise, start, *self.decoder.parameters())


class _Problem:
    """What SVI minimises for a batch x: its negative ELBO as a function of lambda [batch, 2 nz]."""

    def __init__(self, model, x, kl_weight):
        self.decoder, self.batch_size, self.x, self.kl_weight = model.decoder, model.batch_size, x, kl_weight

    def losses(self, x, lam, noise):
        """L of each row [batch], with z drawn by the noise [batch, nz]."""
        mean, logvar = lam.chunk(2, dim=1)
        z = mean + (0.5 * logvar).exp() * noise
        reconstruction = self.decoder.reconstruction(x, z.unsqueeze(1)).squeeze(1)
        return (reconstruction + self.kl_weight * kl_to_standard_normal(mean, logvar)) / self.batch_size

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
        length = direction.norm(dim=1, keepdim=True)
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
            velocity = MOMENTUM * velocity + _clip_scale(gradient) * gradient
            lam = lam - STEP_SIZE * velocity
        return lam

    @staticmethod
    @once_differentiable
    def backward(ctx, adjoint):
        wanted = [i for i, needed in enumerate(ctx.needs_input_grad[3:]) if needed]
        parameters = [ctx.parameters[i] for i in wanted]
        totals = [torch.zeros_like(parameter) for parameter in parameters]
        velocity_adjoint = torch.zeros_like(adjoint)
        for lam, eps, gradient in reversed(ctx.steps):
            velocity_adjoint = MOMENTUM * velocity_adjoint - STEP_SIZE * adjoint
            direction = _clip_adjoint(gradient, velocity_adjoint)
            of_lam, of_parameters = ctx.problem.second_derivatives(lam, eps, direction, parameters)
            adjoint = adjoint + of_lam
            for total, more in zip(totals, of_parameters):
                total += more
        found = dict(zip(wanted, totals))
        return None, None, adjoint, *(found.get(i) for i in range(len(ctx.parameters)))


def _clip_scale(gradient):
    """What brings the norm of a gradient down to CLIP_NORM, at most 1: a tensor, so that no device is waited for."""
    return (CLIP_NORM / gradient.norm()).clamp(max=1.0)


def _clip_adjoint(gradient, adjoint):
    """The derivative of clip(g) = g min(1, CLIP_NORM / |g|) at `gradient`, applied to `adjoint`."""
    norm = gradient.norm()
    unit = gradient / norm
    inside = adjoint - unit * (unit * adjoint).sum()
    return torch.where(norm > CLIP_NORM, inside * (CLIP_NORM / norm), adjoint)


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
