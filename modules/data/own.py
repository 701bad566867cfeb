"""Data of one's own: what texts and images have in common on their way into `datasets/`, with a config beside them."""

import json
import runpy
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import FileLock

from modules.command import UserError
from modules.files import replacing, scratch_folder, write_bytes
from modules.settings import REPOSITORY, NoConfig, find_config

ONE_IN = 10  # sentences or images is for validation, and one for test
MOST_HELD_OUT = 10_000  # for each of the two, as Yahoo and Yelp have
SEED = 783435  # of the split and, of images, the binarisation


def place(name):
    """The folder of the data set `name`, from where commands run."""
    return Path("datasets", f"{name}_data")


def refuse_inside(name, sources):
    """Raise UserError if one of the files `sources` lies in the data set that would be replaced."""
    for source in sources:
        if Path(source).resolve().is_relative_to(place(name).resolve()):
            raise UserError(f"{source}: it lies in {place(name)}, which would be replaced; take another --name")


def refuse_taken(name, overwrite):
    """Raise UserError if the name has a data set or a config, unless these were made here and may be overwritten."""
    try:
        config = find_config(name)
    except NoConfig:
        config = None
    if config and not config.read_text("utf-8", errors="replace").startswith(f'"""{name}: '):
        raise UserError(f"--name {name}: {config} was not written by prepare_data.py; take another name")
    taken = [path for path in (place(name), config) if path and path.exists()]
    if taken and not overwrite:
        raise UserError(f"--name {name}: {taken[0]} is there already; take another name, or --overwrite it")


def held_out_size(count, path, what):
    """How many of `count` are held out for validation, and as many for test; UserError, naming `path`, if none can."""
    if count < ONE_IN:
        raise UserError(f"{path}: {count} {what} are too few to hold out validation and test; it takes {ONE_IN}")
    return min(count // ONE_IN, MOST_HELD_OUT)


def split(count, held_out):
    """Divide the numbers below `count` at random: sorted (train, validation, test), the last two `held_out` long."""
    test, validation, train = np.split(np.random.default_rng(SEED).permutation(count), [held_out, 2 * held_out])
    return np.sort(train), np.sort(validation), np.sort(test)


def published_params(model):
    """The params of a config of the repository, from which sizes are taken."""
    return runpy.run_path(str(REPOSITORY / "config" / f"config_{model}.py"))["params"]


def smallest_that_fits(sizes, amount):
    """The name of the first of `sizes`, (largest amount, name), that is meant for so much data."""
    return next(name for largest, name in sizes if amount <= largest)


def install(name, about, sizes, params, write, overwrite):
    """Put a data set and its config in place, both or none, and print what was done.

    about   what is in it, in words
    sizes   where the sizes in `params` come from, in words
    write   write(folder) makes the files of the data set in an empty folder
    Raises UserError if the name is taken and nothing may be overwritten.
    """
    target, config = place(name), Path("config", f"config_{name}.py")
    with FileLock(target.parent / ".lock"):
        refuse_taken(name, overwrite)
        with scratch_folder(target.parent) as scratch:
            fresh = scratch / target.name
            fresh.mkdir()
            write(fresh)
            text = config_text(f"{name}: {about}.\n\nSizes: {sizes}.", params).encode()
            before = config.read_bytes() if config.is_file() else text
            with exchanged(fresh, target, scratch / "old"), replacing(config) as temporary:
                temporary.write_bytes(text)
            if before != text:  # it may have been changed by hand
                write_bytes(f"{config}.old", before)
                print(f"{name}: what was in {config} is now in {config}.old")
    print(f"{name}: {target} ({about})")
    print(f"{name}: {config} (sizes: {sizes}; change there what you like)")
    script, rule = ("image.py", "") if "data_file" in params else ("text.py", " --steady --inner_clip encoder")
    command = f"{Path(sys.argv[0]).with_name(script)} --dataset {name} --aggressive 1{rule}"
    print(f"next: python {command} --warm_up 10 --kl_start 0.1", flush=True)


@contextmanager
def exchanged(fresh, target, old):
    """Give the folder `fresh` the name `target`, and what has it the name `old`; undone if this or the block fails."""
    try:
        if target.exists():
            target.rename(old)
        fresh.rename(target)
        yield
    except BaseException:
        if not fresh.exists():
            target.rename(fresh)
        if old.exists():
            old.rename(target)
        raise


def config_text(about, params):
    """A config file, laid out as the linter has it."""
    lines = [f'    "{key}": {json.dumps(value) if isinstance(value, str) else value},' for key, value in params.items()]
    return "\n".join([f'"""{about}\n"""', "", "params = {", *lines, "}", ""])
