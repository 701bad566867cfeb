"""How a command ends when its input is bad: one clear line on standard error, exit code 2, no traceback."""

import argparse
import sys


class UserError(Exception):
    """Something that the user can mend. The message names the file or flag and the mend, on one line."""


class Interrupted(Exception):
    """The user (Ctrl-C) or the system (SIGTERM) asked to stop; the message says how to go on."""


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Help that names the defaults there are, without "(default: None)" where a config or another flag decides."""

    def _get_help_string(self, action):
        unset = action.default is None or action.default is False
        return action.help if unset else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An argument parser that never guesses an abbreviated flag and complains in one line."""

    def __init__(self, **kwargs):
        super().__init__(allow_abbrev=False, formatter_class=_Help, **kwargs)

    def error(self, message):
        print(f"{self.prog}: error: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def run_command(main):
    """Call `main()` as a command: exit code 0, 130 if interrupted, 2 on bad input or a lack of memory or disk."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        raise SystemExit(2) from None
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        print("error: out of memory; smaller --batch_size, --iw_batch, --max_length or --num_samples take less",
              file=sys.stderr)
        raise SystemExit(2) from None
    except (KeyboardInterrupt, Interrupted) as stop:
        print(f"interrupted{': ' + str(stop) if str(stop) else ''}", file=sys.stderr)
        raise SystemExit(130) from None
