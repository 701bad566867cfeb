"""Where the files of a run are."""

from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from modules.command import UserError

LOGS, MODELS = Path("logs"), Path("models")  # in the folder that a command is run in


@dataclass(frozen=True)
class RunFiles:
    """The files of a run, which its data set and its name tell apart."""

    dataset: str
    run_id: str
    logs: Path = LOGS
    models: Path = MODELS

    @property
    def model(self):
        """The best model."""
        return Path(self.models, self.dataset, f"{self.run_id}.pt")

    @property
    def state(self):
        """The full state of training, to go on from."""
        return self.model.with_suffix(".resume.pt")

    def log(self, suffix=".jsonl"):
        """A file in the folder of logs, by its suffix: `.jsonl` for programs, `.log` for people, `.png`, and the folder
        `.tensorboard`."""
        return Path(self.logs, self.dataset, f"{self.run_id}{suffix}")

    @contextmanager
    def held(self):
        """Within: no other process can be at this run. Raises UserError if one is."""
        lock = self.model.with_suffix(".lock")
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(lock, timeout=0):
                try:
                    yield
                finally:
                    with suppress(OSError):  # a system that cannot remove a file that is open
                        lock.unlink()
        except Timeout:
            raise UserError(
                f"{lock}: another process is at this run; wait for it, or give this run another name with --jobid N"
            ) from None
