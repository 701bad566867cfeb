"""What tells data from other data of the same size."""

import hashlib

import torch


def fingerprint(tensors):
    """SHA-256 of the values of some tensors, one after the other, as hexadecimal digits."""
    values = torch.cat([tensor.flatten() for tensor in tensors]).cpu()  # one copy: a device is waited for once
    return hashlib.sha256(memoryview(values.numpy()).cast("B")).hexdigest()
