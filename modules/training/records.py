"""What a run leaves behind to be read: a text log for people and notebooks, JSON lines for programs."""

import json
import platform
import subprocess
import sys
from pathlib import Path

import numpy
import torch
from tqdm import tqdm

from modules.config import REPOSITORY
from modules.command import UserError, os_complaint


class Printer:
    """Records that are only printed."""

    def write(self, line, **event):
        """Print `line`, if any; `event` is for programs and goes nowhere."""
        if line is not None:
            tqdm.write(line, file=sys.stdout)
            sys.stdout.flush()


class Records(Printer):
    """`<id>.log` and `<id>.jsonl` in one folder, both only ever appended to.

    A resumed run first goes back to where the files stood when its checkpoint was written: what came after is
    computed, and written, again.
    """

    def __init__(self, folder, run_id):
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.paths = [folder / f"{run_id}.log", folder / f"{run_id}.jsonl"]
        self._files = [open(path, "a", encoding="utf-8") for path in self.paths]

    def write(self, line, **event):
        """Print and log `line` (None: nothing for people), and append the event, if any, as one JSON object."""
        super().write(line)
        if line is not None:
            self._append(0, line)
        if event:
            self._append(1, json.dumps(event))

    def positions(self):
        """Sizes of the two files in bytes, for a checkpoint."""
        return [file.tell() for file in self._files]

    def rewind(self, positions):
        """Forget what was written after these positions; a file that is shorter stays as it is."""
        for file, path, position in zip(self._files, self.paths, positions):
            if position < path.stat().st_size:
                file.truncate(position)
            file.seek(0, 2)

    def close(self):
        """Close both files."""
        for file in self._files:
            file.close()

    def _append(self, which, line):
        try:
            print(line, file=self._files[which], flush=True)
        except OSError as error:
            raise UserError(f"cannot write {os_complaint(error, self.paths[which])}; then go on with "
                            "--resume") from error


def environment():
    """Versions and the git commit that a run's figures depend on."""
    return {"python": platform.python_version(), "torch": torch.__version__, "numpy": numpy.__version__,
            "platform": platform.platform(), "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "git_commit": _git_commit()}


def _git_commit():
    try:
        answer = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
                                cwd=REPOSITORY, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None
