"""The number formats of `--precision` and `--tf32`."""

from contextlib import contextmanager

import torch

X86 = ("x86_64", "AMD64", "i386", "i686")
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


def bf16_is_slow(device):
    """Whether products in bf16 take longer there than in float32: on an x86 processor without instructions for them.

    Of other processors and devices nothing is claimed.
    """
    can = torch.cpu.get_capabilities() if device.type == "cpu" and hasattr(torch.cpu, "get_capabilities") else {}
    return can.get("architecture") in X86 and not (can.get("avx512_bf16") or can.get("amx_bf16"))
