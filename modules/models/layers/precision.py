"""The number formats of `--precision` and `--tf32`."""

from contextlib import contextmanager

import torch

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16}


def allow_tf32(allowed):
    """Whether a GPU may compute float32 products, convolutions and LSTMs with 10 bits of each factor's 23."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed


@contextmanager
def full_float32():
    """Within: no TF32."""
    allowed = torch.backends.cudnn.allow_tf32
    allow_tf32(False)
    try:
        yield
    finally:
        allow_tf32(allowed)
