"""What tells data from other data of the same size."""

import hashlib


def fingerprint(tensors):
    """SHA-256 of the values of some tensors, one after the other, as hexadecimal digits."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(memoryview(tensor.cpu().contiguous().numpy()).cast("B"))
    return digest.hexdigest()
