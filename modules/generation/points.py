"""Points of the latent space in a file: `--encode` writes it, `--z` reads it."""

import numpy as np
import torch

from modules import methods
from modules.command import UserError
from modules.files import BAD_FILE, write_npz

FORMAT = "--z takes an .npz with an array mean [n, nz], such as --encode writes"


def need_latent_variable(s, path):
    """Raise UserError if the model of the file `path`, with settings `s`, has no latent variable."""
    if not methods.dimensions(s):
        raise UserError(f"{path}: a language model; without latent variable there is no posterior, and no point of it")


def write_posteriors(path, mean, logvar):
    """Write the means and log-variances of q(z|x), [n, nz] both, as an `.npz`, atomically, and say where."""
    write_npz(path, mean=mean.cpu().numpy(), logvar=logvar.cpu().numpy())
    print(f"wrote {path}: mean and logvar, {list(mean.shape)} each")


def read_points(path, nz):
    """The points `mean` of an `.npz`, float32 [n, nz]; its other arrays are passed over.

    Raises UserError, naming the file, unless there is a point and all are finite and have nz dimensions.
    """
    if not path.is_file():
        raise UserError(f"{path}: {'not a file' if path.exists() else 'no such file'}; {FORMAT}")
    try:
        arrays = np.load(path, allow_pickle=False)
        if isinstance(arrays, np.ndarray):
            raise UserError(f"{path}: one array, without a name (.npy); {FORMAT}")
        with arrays:
            mean = arrays["mean"]
    except BAD_FILE as error:
        raise UserError(f"{path}: no .npz with an array mean, or damaged ({error}); {FORMAT}") from None
    if mean.dtype.kind not in "biuf" or mean.ndim != 2 or len(mean) == 0:
        raise UserError(f"{path}: mean is an array {list(mean.shape)} of {mean.dtype}; {FORMAT}")
    if mean.shape[1] != nz:
        raise UserError(f"{path}: its points have {mean.shape[1]} dimensions, but the model's z has {nz}")
    with np.errstate(over="ignore"):  # told below
        points = torch.from_numpy(np.asarray(mean, dtype=np.float32, order="C"))
    if not points.isfinite().all():
        row = int((~points.isfinite()).any(dim=1).nonzero()[0])
        raise UserError(f"{path}: row {row} of mean is not finite in float32; mend or leave out the point")
    return points
