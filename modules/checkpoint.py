"""The one checkpoint format: a dict of tensors and plain values, written atomically, never unpickled."""

import io
import pickle
import zipfile
from pathlib import Path

import torch

from modules.command import UserError
from modules.files import write_bytes

FORMAT = "lagging-vae checkpoint 1"


def save_checkpoint(path, content):
    """Write `content` (tensors, numbers, strings, lists, dicts) to `path`, atomically."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **content}, buffer)
    write_bytes(path, buffer.getbuffer())


def load_checkpoint(path, domain):
    """Read a checkpoint of `domain` ("text", "image") onto the CPU.

    Raises UserError, naming the file, if it is missing, truncated, no checkpoint of this project, of another domain,
    or needs unpickling of anything but tensors and plain values (which is never done).
    """
    return _checked(_load_safely(path), path, domain)


def _checked(content, path, domain):
    """`content` of a file, if it is a checkpoint of the domain; else raises UserError."""
    if not isinstance(content, dict) or content.get("format") != FORMAT or "domain" not in content:
        raise UserError(f"{path}: not a checkpoint of this project (expected format {FORMAT!r})")
    if not all(isinstance(content.get(name, {}), dict) for name in ("args", "config", "data", "metrics")):
        raise UserError(f"{path}: damaged; its settings, data or metrics are not what they should be")
    if content["domain"] != domain:
        raise UserError(f"{path}: a checkpoint of the {content['domain']} script, not of the {domain} script")
    return content


def load_model_file(path, domain):
    """`load_checkpoint`, or of a plain state dict, as the authors' code saves it, {"model": that}."""
    content = _load_safely(path)
    if _is_state_dict(content):
        return {"model": content}
    _checked(content, path, domain)
    if not isinstance(content.get("args"), dict) or not _is_state_dict(content.get("model")):
        raise UserError(f"{path}: damaged; a checkpoint of this project, but without a model and its settings in it")
    return content


def _is_state_dict(content):
    return (
        isinstance(content, dict)
        and bool(content)
        and all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items())
    )


def require_kind(name, value, like):
    """Raise ValueError or TypeError, by name, unless a saved value is of the kind of `like`, in its parts too."""
    if isinstance(like, dict):
        if value.keys() != like.keys():
            raise ValueError(f"{name} has other fields than {', '.join(map(str, like))}")
        for key in like:
            require_kind(f"{name}, {key}", value[key], like[key])
    elif type(value) is not type(like) and (type(value), type(like)) != (int, float):
        raise TypeError(f"{name} is {value!r}, not of the kind of {like!r}")
    elif type(like) is int and value < 0:
        raise ValueError(f"{name} is {value}")


def load_weights(model, weights, path):
    """Load a state dict; raises UserError that lists, after the file's name, what is missing, unexpected or misshapen.

    The constant `decoder.loss.weight` of the authors' text models is ignored, and batch norm's counters, which old
    files lack and nothing reads, may be missing.
    """
    expected = model.state_dict()
    counters = {name: value for name, value in expected.items() if name.endswith("num_batches_tracked")}
    weights = {name: value for name, value in {**counters, **weights}.items() if name != "decoder.loss.weight"}
    complaints = {
        "missing": [name for name in expected if name not in weights],
        "unexpected": [name for name in weights if name not in expected],
        "of another shape": [
            f"{name} {list(weights[name].shape)} instead of {list(value.shape)}"
            for name, value in expected.items()
            if name in weights and weights[name].shape != value.shape
        ],
    }
    if any(complaints.values()):
        raise UserError(
            f"{path}: these weights are not of this model; "
            + "; ".join(f"{what}: {_listed(names)}" for what, names in complaints.items() if names)
        )
    model.load_state_dict(weights)


def _listed(names, at_most=4):
    more = f" and {len(names) - at_most} more" if len(names) > at_most else ""
    return (
        ", ".join(name if name.isprintable() and len(name) <= 150 else f"{name[:50]!r}..." for name in names[:at_most])
        + more
    )


def _load_safely(path):
    """What is in a file of `torch.save`, on the CPU, or a UserError that says what is wrong with it."""
    if Path(path).exists() and not Path(path).is_file() and not Path(path).is_dir():
        raise UserError(f"{path}: a pipe or a device, not a checkpoint file")
    try:
        if zipfile.is_zipfile(path):  # torch does not look at the checksums
            with zipfile.ZipFile(path) as archive:
                broken = archive.testzip()
            if broken:
                raise ValueError(f"the checksum of {broken} is wrong")
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder; name the checkpoint file in it") from None
    except PermissionError:
        raise UserError(f"{path}: no permission to read this checkpoint") from None
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: not a checkpoint that can be read safely (it is no checkpoint at all, or holds "
            "objects other than tensors and plain values); nothing in it was run"
        ) from None
    except Exception as error:  # what torch makes of damaged bytes is of many types
        what = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: truncated or not a checkpoint ({what}); use another copy or train anew") from None
