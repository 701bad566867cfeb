"""Batch norm over the rows of all processes that train a model together, on CPUs as on GPUs."""

import torch
import torch.nn.functional as F
from torch.nn.modules.batchnorm import _BatchNorm


class SharedBatchNorm(_BatchNorm):
    """`norm`, its parameters and running statistics, with the statistics of the whole batch in training.

    `team` (`modules.distributed.Team`) adds up over the processes, and knows how many rows the whole batch has
    and whether those here count. A batch of one number for each channel is normalised by the running statistics.
    """

    def __init__(self, norm, team):
        super().__init__(norm.num_features, norm.eps, norm.momentum, norm.affine)
        self._parameters, self._buffers, self.team = norm._parameters, norm._buffers, team
        self.train(norm.training)

    def forward(self, x):
        """x [rows, channels, ...] -> the same shape."""
        here = x.numel() // x.size(1)  # numbers for each channel
        count = here * self.team.batch // self.team.held if self.training else 0
        if count <= 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        wide = x.detach().to(self.running_mean.dtype)
        var, mean = torch.var_mean(wide, _others(x), correction=0)
        mean, var = mean.double(), var.double()
        sums = torch.cat([mean, var + mean.square()]) * (self.team.counted * here)
        mean, square = (self.team.total(sums) / count).chunk(2)
        var = (square - mean.square()).clamp_min(0)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.to(wide.dtype), self.momentum)
            self.running_var.lerp_((var * (count / (count - 1))).to(wide.dtype), self.momentum)
        return _Normalised.apply(
            x, self.weight, self.bias, mean.to(wide.dtype), var.to(wide.dtype), self.eps, count, self.team
        )


class _Normalised(torch.autograd.Function):
    """weight (x - mean) / sqrt(var + eps) + bias, where mean and var depend on the rows of all processes."""

    @staticmethod
    def forward(ctx, x, weight, bias, mean, var, eps, count, team):
        ctx.save_for_backward(x, weight, mean, (var + eps).rsqrt())
        ctx.count, ctx.team = count, team
        return F.batch_norm(x, mean, var, weight, bias, eps=eps)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        x, weight, mean, scale = ctx.saved_tensors
        shape = (1, -1, *[1] * (x.dim() - 2))
        normal = (x.to(mean.dtype) - mean.view(shape)) * scale.view(shape)
        wide = grad.to(mean.dtype)
        of_bias, of_weight = wide.sum(_others(x)), (wide * normal).sum(_others(x))
        means = ctx.team.total(torch.cat([of_bias, of_weight])) / ctx.count
        mean_grad, mean_product = (each.view(shape) for each in means.chunk(2))
        of_x = ctx.team.counted * (wide - mean_grad - normal * mean_product) * scale.view(shape)
        if weight is None:
            return of_x.to(x.dtype), *[None] * 7
        return (of_x * weight.view(shape)).to(x.dtype), of_weight, of_bias, *[None] * 5


def _others(x):
    """All dimensions but that of the channels."""
    return [0, *range(2, x.dim())]


def share_batch_norm(module, team):
    """Make all batch norms in the module those of the team."""
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            setattr(module, name, SharedBatchNorm(child, team))
        else:
            share_batch_norm(child, team)
