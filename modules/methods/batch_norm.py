"""Batch-normalised posterior means (Zhu et al. 2020)."""

import torch
from torch import nn

from modules.command import UserError
from modules.methods.method import Method
from modules.settings import Setting, exactly, number

EPSILON = 1e-12  # the usual 1e-5 would drown the variance of a text encoder's first means, and let them stay there


class BatchNormMean(nn.Module):
    """Batch normalisation of the posterior mean with a fixed scale gamma and a learned shift (Zhu et al. 2020).

    mean' = gamma * (mean - E[mean]) / sd[mean] + shift, expectations over the batch. As KL >= mean'^2 / 2 summed over
    the dimensions, and E[mean'^2] = gamma^2 + shift^2, a training batch's average KL is at least nz * gamma^2 / 2 nats.
    In evaluation the statistics of the training split stand in for those of the batch (`BatchNorm.after_epoch`); for a
    training batch of one, running averages do.
    """

    def __init__(self, nz, gamma):
        super().__init__()
        self.gamma = gamma
        self.norm = MeanNorm(nz, eps=EPSILON, affine=False)
        self.shift = nn.Parameter(torch.zeros(nz))

    def forward(self, mean, logvar):
        """mean, logvar: [batch, nz] -> the same, the mean normalised."""
        return self.gamma * self.norm(mean) + self.shift, logvar


class MeanNorm(nn.BatchNorm1d):
    """Batch normalisation that takes one mean by itself, too."""

    def forward(self, mean):
        """mean [batch, nz] -> the same shape."""
        if len(mean) == 1:
            return (mean - self.running_mean) * (self.running_var + self.eps).rsqrt()
        return super().forward(mean)


class BatchNorm(Method):
    """`--bn_gamma 0.6`."""

    settings = (
        Setting(
            "bn_gamma", number("(0, 100]"), "batch-normalise the posterior mean, with this scale", None, model=True
        ),
    )

    def tag(self, s):
        return f"bn{exactly(s.bn_gamma)}"

    def addition(self, s):
        return f", batch norm {exactly(s.bn_gamma)}"

    def check(self, s):
        if s.bn_gamma and s.batch_size == 1:
            raise UserError("--bn_gamma and --batch_size 1 exclude each other: one mean cannot be normalised")

    def constraint(self, s):
        return BatchNormMean(s.nz, s.bn_gamma)

    def after_epoch(self, s, model, split):
        """Put the mean and variance over the whole training split, by the encoder as it is now, in place of the running
        averages.

        Those are of the last few batches, in text each of one length, and of an encoder that moved meanwhile. With SGD
        at rate 1 their variance is off by as much as a factor of eight, and the KL of evaluation by thousands of nats.
        """
        norm = next(one.norm for one in model.encoder.constraints if isinstance(one, BatchNormMean))
        means, order = [], split.order(torch.Generator().manual_seed(s.seed))
        hook = norm.register_forward_pre_hook(lambda module, inputs: means.append(inputs[0].double()))
        devices = [model.device] if model.device.type == "cuda" else []
        with hook, torch.no_grad(), torch.random.fork_rng(devices):  # images are binarised anew; training's noise stays
            torch.manual_seed(s.seed)
            model.eval()
            for i in range(split.num_batches):
                model.encoder(split.batch(order, i))
            model.train()
        means = torch.cat(means)  # [examples, nz]
        norm.running_mean.copy_(means.mean(dim=0))
        norm.running_var.copy_(means.var(dim=0, correction=0))  # as training divides by
