"""The one checkpoint format: a dict of tensors and plain values, written atomically, never unpickled."""

import pickle

import torch

from modules.errors import UserError
from modules.files import replacing

FORMAT = "lagging-vae checkpoint 1"


def save_checkpoint(path, content):
    """Write `content` (tensors, numbers, strings, lists, dicts) to `path`, atomically."""
    with replacing(path) as temporary:
        try:
            torch.save({"format": FORMAT, **content}, temporary)
        except RuntimeError as error:           # torch's own writer reports a full disk so
            raise OSError(str(error).splitlines()[0]) from error


def load_checkpoint(path, domain):
    """Read a checkpoint of `domain` ("text", "image") onto the CPU.

    Raises UserError, naming the file, if it is missing, truncated, no checkpoint of this project, of another domain,
    or needs unpickling of anything but tensors and plain values (which is never done).
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder; name the checkpoint file in it") from None
    except PermissionError:
        raise UserError(f"{path}: no permission to read this checkpoint") from None
    except pickle.UnpicklingError:
        raise UserError(f"{path}: not a checkpoint that can be read safely (it is no checkpoint at all, or holds "
                        "objects other than tensors and plain values); nothing in it was run") from None
    except Exception as error:      # what torch makes of damaged bytes is of many types
        what = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: truncated or not a checkpoint ({what}); use another copy or train anew") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT or "domain" not in content:
        raise UserError(f"{path}: not a checkpoint of this project (expected format {FORMAT!r})")
    if content["domain"] != domain:
        raise UserError(f"{path}: a checkpoint of the {content['domain']} script, not of the {domain} script")
    return content
