"""ELU by `exp2` on the CPU. On one thread it saves next to nothing of an image model's step (docs/speed.md)."""

import math

import torch
import torch.nn.functional as F
from torch import nn

LOG2_E = 1 / math.log(2)
PIECE = 2**17  # numbers for each thread at a time: they and what is made of them stay in its cache


class ELU(nn.Module):
    """x where x > 0, else exp(x) - 1 (Clevert et al. 2016), in place: what it is given is overwritten."""

    def forward(self, x):
        return _ELU.apply(x) if x.device.type == "cpu" else F.elu(x, inplace=True)


def elu_(x):
    """ELU by `exp2` in place of the `expm1` in PyTorch's own.

    As exp(x) - 1 >= x everywhere, the larger of x and exp(min(x, 0)) - 1 is ELU(x). Half precision is widened: on the
    CPU that is faster, too.
    """
    for part in x.split(max(1, PIECE * torch.get_num_threads() * len(x) // x.numel())):
        wide = part.to(torch.promote_types(part.dtype, torch.float32))
        below = torch.mul(wide, LOG2_E).clamp_(max=0).exp2_().sub_(1)
        part.copy_(torch.maximum(wide, below, out=below))
    return x


class _ELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.mark_dirty(x)
        ctx.save_for_backward(elu_(x))
        return x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        (y,) = ctx.saved_tensors
        return torch.ops.aten.elu_backward(grad, 1, 1, 1, True, y)  # from the result: 1 where y > 0, else y + 1
