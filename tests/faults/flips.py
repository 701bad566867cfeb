"""Saved files of which one bit is flipped, or the end is gone."""

import shutil

from modules.checkpoint import load_checkpoint
from modules.command import UserError
from modules.evaluation.space_statistics import read_statistics
from tests.faults.kills import workspace
from tests.faults.processes import KINDS, assert_clear, model_path, run, weights
from tests.test_resume import same

TOY = (
    "--aggressive",
    "1",
    "--dataset",
    "tiny",
    "--nz",
    "1",
    "--zmin",
    "-2",
    "--zmax",
    "2",
    "--num_plot",
    "5",
    "--max_iterations",
    "2",
    "--plot_niter",
    "2",
)
TOY = {"single": [*TOY[:-2], "--plot_mode", "single"], "multiple": [*TOY, "--plot_mode", "multiple"]}
READERS = {  # statistics: the command that draws it, and the dimensions of its means
    "single/aggressive1.npz": (("plot_single", "--steps", "1", "2", "--format", "png", "--dpi", "20"), 2),
    "multiple/aggressive1_iter2.npz": (("plot_multiple", "--iter", "2", "--format", "png", "--dpi", "20"), 1),
}


def damage(path, rng):
    """Flip one bit of a file, or cut it short; returns which, and where, in words."""
    content = bytearray(path.read_bytes())
    place = rng.randrange(len(content))
    if rng.random() < 0.2:
        path.write_bytes(content[:place])
        return f"{path.name} cut to {place} bytes"
    bit = rng.randrange(8)
    content[place] ^= 1 << bit
    path.write_bytes(content)
    return f"{path.name}, bit {bit} of byte {place} flipped"


def plain(content):
    """Statistics with lists for arrays."""
    return {name: value if name == "settings" else value.tolist() for name, value in content.items()}


class Flips:
    """A trial damages one saved file, and reads it: one clear line, or what was in it before."""

    def __init__(self, folder):
        self.places = []
        for kind in KINDS:
            place = workspace(kind, folder / kind.run_id)
            assert run(kind.script, [*kind.args, "--epochs", "1"], place).returncode == 0
            if kind.domain == "text":
                assert all(run("toy", args, place).returncode == 0 for args in TOY.values())
            gone_on = shutil.copytree(place, folder / f"{kind.run_id}.on")
            assert run(kind.script, [*kind.args, "--resume"], gone_on).returncode == 0
            self.places.append((kind, place))

    def __call__(self, rng, folder):
        kind, whole = rng.choice(self.places)
        place = shutil.copytree(whole, folder / "run", symlinks=True)
        trials = [self.model, self.state, self.log] + [self.statistics] * (kind.domain == "text")
        return [rng.choice(trials)(rng, kind, whole, place)]

    def model(self, rng, kind, whole, place):
        """A saved model that is evaluated."""
        path = model_path(place, kind)
        what = damage(path, rng)
        ran = run(kind.script, ["--dataset", kind.args[1], "--eval", "--load_path", path, "--iw_nsamples", "2"], place)
        assert_clear(ran, what)
        if ran.returncode:
            assert str(path) in ran.stderr, f"{what}: {ran.stderr}"
            return "refused in one line"
        assert same(*(load_checkpoint(model_path(folder, kind), kind.domain) for folder in (place, whole))), what
        return "read as it was"

    def state(self, rng, kind, whole, place):
        """A state that is taken up: the run ends as it would have."""
        what = damage(model_path(place, kind).with_suffix(".resume.pt"), rng)
        return self.resumed(what, kind, whole, place, ".resume.pt")

    def resumed(self, what, kind, whole, place, names):
        """A run taken up after damage: refused in one line with nothing lost, or as if there had been none."""
        best = model_path(place, kind).read_bytes()
        ran = run(kind.script, [*kind.args, "--resume"], place)
        assert_clear(ran, what)
        if ran.returncode:
            assert names in ran.stderr and model_path(place, kind).read_bytes() == best, f"{what}: {ran.stderr}"
            return "refused in one line"
        gone_on = whole.with_name(f"{kind.run_id}.on")
        assert same(weights(place, kind), weights(gone_on, kind)), f"{what}: other weights"
        return "read as it was"

    def log(self, rng, kind, whole, place):
        """A log: it has no checksum, so all that can be asked is clarity, and a resume that does not depend on it."""
        path = place / "logs" / kind.args[1] / f"{kind.run_id}{rng.choice(('.log', '.jsonl', '.jsonl'))}"
        what = damage(path, rng)
        if rng.random() < 0.3:
            return self.resumed(what, kind, whole, place, kind.run_id)
        reader = rng.choice(("table", "plot_epochs", "plot_runs")) if path.suffix == ".jsonl" else "plot_epochs"
        if path.suffix == ".log":
            path.with_suffix(".jsonl").unlink()
        more = [] if reader == "table" else ["--format", "png", "--dpi", "20"]
        ran = run(reader, [path, *more], place)
        assert_clear(ran, f"{reader}: {what}")
        return "refused in one line" if ran.returncode else "read: a log has no checksum"

    def statistics(self, rng, kind, whole, place):
        """Statistics of the toy study, which are drawn."""
        name = rng.choice(list(READERS))
        command, dimensions = READERS[name]
        what = damage(place / "plot_data" / name, rng)
        ran = run(command[0], command[1:], place)
        assert_clear(ran, what)
        if ran.returncode:
            assert name in ran.stderr, f"{what}: {ran.stderr}"
            return "refused in one line"
        try:
            found, before = (
                plain(read_statistics(folder / "plot_data" / name, dimensions)) for folder in (place, whole)
            )
        except UserError as error:
            raise AssertionError(f"{what}: drawn, but {error}") from None
        assert repr(found) == repr(before), f"{what}: other statistics"
        return "read as it was"
