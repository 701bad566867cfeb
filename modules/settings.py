"""Settings: each is declared once, as a `Setting`, and what is said or asked of it follows from there.

That is its flag, its key in a config file, its range, its help, its place in the record of a run, whether it may change
on a resume, and whether a saved model brings its own. A value comes from the default, then from
`config/config_<dataset>.py`, then from the command line; the later wins.
"""

import argparse
import re
import runpy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from modules.command import Parser, UserError, note

REPOSITORY = Path(__file__).resolve().parent.parent
REQUIRED = object()  # the default of a setting that the config or a flag must give
MOST = 10**9  # of anything that is counted
# Keys that configs of the code of He et al. (vae-lagging-encoder) and of Li et al. (vae-pretraining-encoder), or of
# work that grew out of it, may have: passed over, since something else decides here.
FOREIGN = {
    "log_niter": "how often is reported follows from the number of batches",
    "vocab_file": "the vocabulary is made of train_data",
    "cuda": "a GPU is used where there is one",
    "ais_K": "no annealed importance sampling is done",
    "ais_T": "no annealed importance sampling is done",
}


@dataclass(frozen=True)
class Setting:
    """One setting.

    kind        a function from text, or a config's value, to the value; raises ValueError saying what it must be
    default     None: not set, unless given
    model       whether it is part of the model: a saved model has its own, and a flag must not contradict it
    may_change  whether a resumed run may have another value than the one that it was started with
    also        other names of its flag, which are its names in older records, too
    needs       name of another setting, and perhaps the value that it must have, without which this one does nothing
    """

    name: str
    kind: Callable[[Any], Any]
    help: str
    default: Any = REQUIRED
    model: bool = False
    may_change: bool = False
    also: tuple = ()
    needs: tuple = ()

    def read(self, value):
        """The value, checked; raises ValueError, saying what it must be."""
        return None if value is None and self.default is None else self.kind(value)


@dataclass(frozen=True)
class Group:
    """Settings that stand under one title in the help. Those that are not `of_run` are orders to the command: no config
    gives them, and no record keeps them."""

    title: str
    settings: tuple
    of_run: bool = True


class NoConfig(UserError):
    """A data set has no config."""


class Settings(SimpleNamespace):
    """The values of some settings, by their names.

    `declared` are the `Setting`s of the run, {name: Setting}, `given` the names that stood on the command line;
    `parser` complains of flags that exclude each other, and `no_config` is the error of a data set without a config.
    """

    no_config = parser = None

    def record(self):
        """What a run keeps of its settings, as JSON takes it."""
        values = {name: getattr(self, name) for name in self.declared}
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}

    def refuse_others(self, saved, complaint, passed_over=lambda setting: setting.may_change):
        """Raise UserError(complaint(name, value in the record `saved`, value here)) of the first setting that differs.

        What only one of them knows is passed over.
        """
        ours = self.record()
        for name, setting in self.declared.items():
            for its_name in (name, *setting.also):
                if its_name in saved and saved[its_name] != ours[name] and not passed_over(setting):
                    raise UserError(complaint(name, saved[its_name], ours[name]))

    def need_config(self):
        """Raise UserError if there is no config of the data set."""
        if self.no_config:
            raise self.no_config

    def as_trained(self, saved, path, more):
        """These settings with what belongs to the model as in the record `saved` of the file `path`.

        So are the settings named in `more`, unless they were given. Raises UserError for a flag that contradicts the
        model, or a record that cannot be.
        """
        values = dict(vars(self))
        for name, setting in self.declared.items():
            if not setting.model and name not in more:
                continue
            its_own = checked(setting, saved.get(name, setting.default), path)
            if its_own is None and not setting.model:  # not recorded
                continue
            if name not in self.given:
                values[name] = its_own
            elif setting.model and values[name] != its_own:
                raise UserError(
                    f"--{name} {values[name]}: the model in {path} was made with {name} = {its_own}; leave the flag out"
                )
        return Settings(**values)


def saved_settings(content):
    """The record of the settings in a checkpoint or in the first event of a log; what earlier versions kept apart as
    their config completes it."""
    return {**content.get("args", {}), **content.get("config", {})}


def parse(groups, description, argv=None, dataset=None, preferred=None):
    """The `Settings` of a command line, whose `--dataset` (by default `dataset`) names the config.

    `preferred` are values that win over the config, but not over a flag. The help shows the values that a run would
    have. Raises UserError for a bad config; ends the command on a bad flag, as argparse does.
    """
    argv = sys.argv[1:] if argv is None else argv
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--dataset", nargs="?")
    named = early.parse_known_args(argv)[0].dataset or dataset
    declared, orders = (
        {setting.name: setting for group in groups if group.of_run == of_run for setting in group.settings}
        for of_run in (True, False)
    )
    try:
        values, no_config = read_config(named, declared) if named else set_defaults(declared), None
    except NoConfig as error:  # generating from a model that brings its settings needs none
        values, no_config = set_defaults(declared), error
    values = {**set_defaults(orders), **values, **(preferred or {})}
    parser = command_parser(groups, description, dataset, values)
    given = vars(parser.parse_args(argv))
    for key, setting in declared.items():
        if key not in values and key not in given and not no_config:
            raise UserError(f"{find_config(named)}: key {key!r} is missing ({setting.help}); --{key} gives it, too")
    values.update(given)
    refuse_idle(parser, {**declared, **orders}, given, values)
    return Settings(
        **values,
        declared={"dataset": Setting("dataset", plain_name, ""), **declared},
        given=set(given),
        parser=parser,
        no_config=no_config,
    )


def set_defaults(declared):
    """The defaults of the settings that have one, {name: default}."""
    return {name: setting.default for name, setting in declared.items() if setting.default is not REQUIRED}


def command_parser(groups, description, dataset, values):
    """A parser with a flag for each setting, its help naming the value that it has without the flag."""
    parser = Parser(description=description.partition("\n")[0])
    parser.add_argument(
        "--dataset",
        type=plain_name,
        default=dataset or argparse.SUPPRESS,
        required=dataset is None,
        help="a name NAME with a config/config_NAME.py, which gives the settings that no flag gives",
    )
    for group in groups:
        titled = parser.add_argument_group(group.title)
        for setting in group.settings:
            names = (f"--{name}" for name in (setting.name, *setting.also))
            titled.add_argument(*names, **flag(setting, values.get(setting.name, setting.default)))
    return parser


def refuse_idle(parser, settings, given, values):
    """End the command if a flag was given that does nothing without another."""
    for name in (name for name in given if name in settings):
        other, *wanted = settings[name].needs or (None,)
        if other and given[name] is not False and not (values[other] in wanted if wanted else values[other]):
            parser.error(f"--{name} does nothing without --{other}{f' {wanted[0]}' if wanted else ''}")


def refuse_together(s, *alternatives):
    """End the command if two flags of one of the `alternatives`, tuples of names, were given."""
    for names in alternatives:
        given = [name for name in names if name in s.given and getattr(s, name)]
        if len(given) > 1:
            s.parser.error(f"--{given[0]} and --{given[1]} exclude each other")


def flag(setting, default):
    """The arguments with which argparse takes a setting, its help naming the default."""
    told = "" if default is REQUIRED or default is None else f" (default: {written(default)})"
    return {
        "type": setting.kind,
        "default": argparse.SUPPRESS,
        "help": (setting.help + told).replace("%", "%%"),
        "metavar": "|".join(setting.kind.choices) if hasattr(setting.kind, "choices") else setting.name.upper(),
        **({"nargs": "?", "const": True} if setting.kind is switch else {}),  # alone, a flag says True
    }


def written(value):
    """A value as a flag takes it."""
    return ",".join(map(str, value)) if isinstance(value, list) else value


def exactly(number):
    """A number as names and titles have it: every digit, but no ".0" at the end."""
    return str(float(number)).removesuffix(".0")


# ---------------------------------------------------------------- configs


def read_config(dataset, declared):
    """The values of `declared` settings in the config of `dataset`, checked, or their defaults: a dict of what is set.

    `config/` is looked for in the current folder, then beside the project's modules. A note names keys that are
    `FOREIGN`. Raises UserError, naming the file and the key, for a missing file, an unknown key, or a value that can't
    be.
    """
    path = find_config(dataset)
    try:
        params = runpy.run_path(str(path)).get("params")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a config may even end the program
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{path}: cannot be run as Python ({what}); mend the file") from error
    if not isinstance(params, dict):
        raise UserError(f"{path}: it must define a dict named params")
    foreign = [key for key in FOREIGN if key in params and key not in declared]
    unknown = sorted(map(str, set(params) - set(declared) - set(foreign)))
    if unknown:
        near = get_close_matches(unknown[0], declared, n=1)
        guess = f"did you mean {near[0]!r}? " if near else ""
        raise UserError(f"{path}: unknown key {unknown[0]!r}; {guess}the known keys are {', '.join(declared)}")
    if foreign:
        note(f"{path}: passed over {', '.join(f'{key} ({FOREIGN[key]})' for key in foreign)}")
    values = {name: params.get(name, setting.default) for name, setting in declared.items()}
    return {name: checked(declared[name], value, path) for name, value in values.items() if value is not REQUIRED}


def checked(setting, value, path):
    """A value that stood in the file `path`; raises UserError, naming both."""
    if value is REQUIRED:
        raise UserError(f"{path}: {setting.name} is missing")
    try:
        return setting.read(value)
    except ValueError as error:
        raise UserError(f"{path}: {setting.name} {error}") from None


def find_config(dataset):
    """The config file of a data set; raises NoConfig, which lists those there are."""
    folders = [Path("config"), REPOSITORY / "config"]
    for folder in folders:
        path = folder / f"config_{dataset}.py"
        if path.is_file():
            return path
    known = sorted({path.stem.removeprefix("config_") for folder in folders for path in folder.glob("config_*.py")})
    raise NoConfig(
        f"config/config_{dataset}.py: no such file; --dataset is one of {', '.join(known)}, "
        "or a name whose config you write, or have `prepare_data.py --text` or `--images` write"
    )


# ---------------------------------------------------------------- kinds of values


class Impossible(ValueError, argparse.ArgumentTypeError):
    """A value that cannot be; the message says what it must be, and argparse shows it as it is."""


def kind(what, convert):
    """A reader of values: what `convert` makes of one; where that raises ValueError or TypeError, "must be `what`"."""

    def read(value):
        try:
            return convert(value)
        except (TypeError, ValueError, OverflowError):
            raise Impossible(f"must be {what}, not {value!r}") from None

    return read


def refuse_unless(condition):
    """Raise a ValueError unless the condition holds; `kind` words it."""
    if not condition:
        raise ValueError


def whole(low, high=MOST):
    """Whole numbers from `low` to `high`."""

    def convert(value):
        refuse_unless(not isinstance(value, (bool, float)) and low <= int(value) <= high)
        return int(value)

    return kind(f"a whole number from {low} to {'a billion' if high == MOST else high}", convert)


def wholes(low):
    """Lists of whole numbers from `low` on, as a list or as text with commas."""
    one = whole(low)

    def convert(value):
        values = value.split(",") if isinstance(value, str) else value
        refuse_unless(isinstance(values, (list, tuple)) and values)
        return [one(part) for part in values]

    return kind(f"whole numbers from {low} on, as a list or with commas between them", convert)


def number(interval):
    """Numbers in an interval, written as "[0, 1)" or "(0, 100]"."""
    low, high = map(float, interval[1:-1].split(","))

    def convert(value):
        refuse_unless(not isinstance(value, bool))
        value = float(value)
        refuse_unless(
            low < value < high or (value == low and interval[0] == "[") or (value == high and interval[-1] == "]")
        )
        return value

    return kind(f"a number in {interval}", convert)


def one_of(*choices):
    """One of a few names, or of a few whole numbers."""
    by_name = {str(choice): choice for choice in choices}

    def convert(value):
        refuse_unless(not isinstance(value, bool) and str(value) in by_name)
        return by_name[str(value)]

    read = kind(f"one of {', '.join(by_name)}", convert)
    read.choices = tuple(by_name)
    return read


def _file_name(value):
    refuse_unless(isinstance(value, (str, Path)) and str(value))
    return Path(value)


def _csv_file(value):
    refuse_unless(_file_name(value).suffix == ".csv")
    return Path(value)


def _switch(value):
    refuse_unless(str(value) in ("True", "False"))
    return str(value) == "True"


def _plain_name(value):
    refuse_unless(isinstance(value, str) and re.fullmatch(r"\w[\w.-]*", value))
    return value


plain_name = kind("a name of letters, digits, _, . and -", _plain_name)
file_name = kind("the name of a file", _file_name)
csv_file = kind("the name of a file that ends with .csv", _csv_file)
switch = kind("True or False", _switch)
switch.choices = ("True", "False")
