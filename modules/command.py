"""How a command ends when its input is bad: one clear line on standard error, exit code 2, no traceback."""

import argparse
import errno
import os
import sys

from tqdm import tqdm

# What PyTorch and oneDNN say where an allocation fails; torch.OutOfMemoryError, a RuntimeError, says the second.
OUT_OF_MEMORY = (
    "DefaultCPUAllocator: ",
    "out of memory. Tried to allocate",
    "could not create a primitive",
    "could not create a memory",
    "std::bad_alloc",
)
MENDS = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there",
    errno.EACCES: "get permission for it, or name another place",
    errno.EPERM: "get permission for it, or name another place",
    errno.EROFS: "it cannot be written to; name another place",
    errno.ENOTDIR: "a file stands where a folder is needed; move it",
    errno.EEXIST: "it is in the way; move it",
    errno.EPIPE: "what reads the output has ended; let it read to the end",
    errno.EISDIR: "it is a folder; name a file",
}


class UserError(Exception):
    """Something that the user can mend. The message names the file or flag and the mend, on one line."""


class Interrupted(Exception):
    """The user (Ctrl-C) or the system (SIGTERM) asked to stop; the message says how to go on."""


def os_complaint(error, path=None):
    """An OSError in one line: the file, what the system says of it, and the mend where one is known."""
    where, mend = path or error.filename, MENDS.get(error.errno)
    return f"{f'{where}: ' if where else ''}{error.strerror or error}{f'; {mend}' if mend else ''}"


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Help that names the defaults there are, without "(default: None)" where a config or another flag decides."""

    def _get_help_string(self, action):
        unset = action.default is None or action.default is False
        return action.help if unset else super()._get_help_string(action)


def one_line(text):
    """A text without its line breaks: a file's name, or a flag's value, may hold some."""
    return " ".join(text.splitlines())


def processes():
    """How many processes `torchrun` has started for this command; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1)) if "RANK" in os.environ else 1


def first_process():
    """Whether this one speaks for them."""
    return processes() == 1 or int(os.environ["RANK"]) == 0


def note(text):
    """A remark on standard error, which stops nothing."""
    if first_process():
        print(f"note: {text}", file=sys.stderr, flush=True)


def progress(items=None, **words):
    """A progress bar over `items`, which the first process shows where a person reads standard error."""
    return tqdm(items, leave=False, disable=not (first_process() and sys.stderr.isatty()), **words)


def last_words(text):
    """Print why the command ends; of several processes only the one that first has a reason does."""
    if processes() > 1:
        from modules.distributed import has_the_word

        if not has_the_word():
            return
    print(one_line(text), file=sys.stderr, flush=True)


class Parser(argparse.ArgumentParser):
    """An argument parser that never guesses an abbreviated flag and complains in one line."""

    def __init__(self, **kwargs):
        super().__init__(allow_abbrev=False, formatter_class=_Help, **kwargs)

    def error(self, message):
        last_words(f"{self.prog}: error: {message} (see {self.prog} --help)")
        raise SystemExit(2)


def run_command(main):
    """Call `main()` as a command: exit code 0, 130 if interrupted, 2 on bad input or a lack of memory or disk."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal's encoding does not know
    if not first_process():
        sys.stdout = open(os.devnull, "w", encoding="utf-8")
    try:
        main()
    except UserError as error:
        last_words(f"error: {error}")
        raise SystemExit(2) from None
    except OSError as error:
        last_words(f"error: {os_complaint(error)}")
        raise SystemExit(2) from None
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY)):
            raise
        last_words(
            "error: out of memory; smaller sizes take less: of the model, --batch_size, --iw_batch, "
            "--max_length, --num_samples"
        )
        raise SystemExit(2) from None
    except (KeyboardInterrupt, Interrupted) as stop:
        last_words(f"interrupted{': ' + str(stop) if str(stop) else ''}")
        raise SystemExit(130) from None
