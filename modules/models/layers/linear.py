"""The map of z into a decoder."""

import warnings

from torch import nn


def linear(nz, out, bias=True):
    """A linear map [n, nz] -> [n, out]; with nz = 0, where there is nothing to initialise, without a warning of it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")
        return nn.Linear(nz, out, bias=bias)
