"""What tells data from other data of the same size."""

import hashlib

import numpy as np


def fingerprint(*arrays):
    """SHA-256 of the values of some arrays, as hexadecimal digits."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(memoryview(np.ascontiguousarray(array)).cast("B"))
    return digest.hexdigest()
