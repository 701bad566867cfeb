"""Dataset configs: `config/config_<dataset>.py` holds a dict `params`; every key is also a command-line flag."""

import runpy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from modules.command import UserError

REQUIRED = object()
MOST = 10**9        # of anything that is counted
REPOSITORY = Path(__file__).resolve().parent.parent
NOT_OF_THE_MODEL = {"batch_size", "epochs", "test_nepoch", "train_data", "val_data", "test_data", "data_file", "label",
                    "vocab_limit"}      # keys that say on what, and for how long, it is trained


@dataclass(frozen=True)
class Key:
    """One key of a config: how a value is checked, what it means, and its default (none: the config must give it)."""

    check: Callable[[Any], Any]
    help: str
    default: Any = REQUIRED


def whole(low):
    """A checker for whole numbers from `low` to MOST, given as int or text."""
    def check(value):
        if isinstance(value, (bool, float)) or not low <= int(value) <= MOST:
            raise ValueError(f"must be a whole number of at least {low}, a billion at most, not {value!r}")
        return int(value)
    return _named(check, f"whole number from {low} to a billion")


def wholes(low):
    """A checker for lists of whole numbers of at least `low`, given as a list or as text with commas."""
    one = whole(low)

    def check(value):
        values = value.split(",") if isinstance(value, str) else value
        if not isinstance(values, (list, tuple)) or not values:
            raise ValueError(f"must be a list of whole numbers, not {value!r}")
        return [one(part) for part in values]
    return _named(check, f"whole numbers from {low} on with commas between them")


def number(low, high):
    """A checker for numbers above `low` and at most `high`."""
    def check(value):
        if isinstance(value, bool) or not low < float(value) <= high:
            raise ValueError(f"must be above {low} and at most {high}, not {value!r}")
        return float(value)
    return _named(check, f"number above {low} and at most {high}")


def fraction(value):
    """A number at least 0 and below 1."""
    if isinstance(value, bool) or not 0 <= float(value) < 1:
        raise ValueError(f"must be at least 0 and below 1, not {value!r}")
    return float(value)


def text(value):
    """A non-empty string."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"must be a non-empty string, not {value!r}")
    return value


def yes_no(value):
    """True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"must be True or False, not {value!r}")
    return value


def one_of(*choices):
    """A checker for one of a few names."""
    def check(value):
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}, not {value!r}")
        return value
    return _named(check, "|".join(choices))


def add_flags(parser, keys):
    """Give `parser` a flag for every config key that is a number or a name; what is not given stays None."""
    group = parser.add_argument_group("config keys (what is not given here, the config decides)")
    for name, key in keys.items():
        if key.check is not yes_no:
            told = "" if key.default in (REQUIRED, None) else f" (default, where the config is silent: {key.default})"
            group.add_argument(f"--{name}", type=key.check, help=key.help + told, metavar=name.upper())


def load_config(dataset, keys, overrides):
    """The config of `dataset`, checked against `keys`, with every override that is not None: a plain dict.

    `config/` is looked for in the current folder, then beside the project's modules. Raises UserError, naming the file
    and the key, for a missing file, an unknown or missing key, or a value that can't be.
    """
    path = _find(dataset)
    try:
        params = runpy.run_path(str(path)).get("params")
    except OSError:
        raise
    except Exception as error:
        raise UserError(f"{path}: cannot be run as Python ({type(error).__name__}: {error}); mend the file") from error
    return check_config(params, keys, overrides, path)


def check_config(params, keys, overrides, path):
    """`params`, as found in the file `path`, checked against `keys`, with every override that is not None."""
    if not isinstance(params, dict):
        raise UserError(f"{path}: it must define a dict named params")
    unknown = sorted(map(str, set(params) - set(keys)))
    if unknown:
        raise UserError(f"{path}: unknown key {unknown[0]!r}; the known keys are {', '.join(keys)}")
    config = {}
    for name, key in keys.items():
        value = overrides.get(name)
        if value is None:
            value = params.get(name, key.default)
        if value is REQUIRED:
            raise UserError(f"{path}: key {name!r} is missing ({key.help})")
        try:
            config[name] = None if value is None and key.default is None else key.check(value)
        except (TypeError, ValueError) as error:
            raise UserError(f"{path}: {name} {error}") from None
    return config


def check_model_flags(flags, config, path):
    """Raise UserError if a flag that was given asks for another model than the file `path`, of this config, holds."""
    for name, value in config.items():
        given = flags.get(name)
        if name not in NOT_OF_THE_MODEL and given is not None and given != value:
            raise UserError(f"--{name} {given}: the model in {path} was made with {name} = {value}; leave the flag out")


def _find(dataset):
    candidates = [Path("config"), REPOSITORY / "config"]
    for folder in candidates:
        path = folder / f"config_{dataset}.py"
        if path.is_file():
            return path
    known = sorted({p.stem.removeprefix("config_") for folder in candidates for p in folder.glob("config_*.py")})
    raise UserError(f"config/config_{dataset}.py: no such file; --dataset is one of {', '.join(known)}, "
                    "or a name whose config you write")


def _named(check, name):
    check.__name__ = name
    return check
