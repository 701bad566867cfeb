"""Kills, damaged files and bad inputs at random: nothing that was saved is lost, and nothing ends in a traceback.

    python tests/faults/torture.py                                              # a few of each, in a minute
    python tests/faults/torture.py --trials kill=300 flip=300 input=600 --seed 7
    python tests/faults/torture.py --trials input=1 --first 123 --seed 7        # one of them again

Prints its seed, each trial that fell short, and how the others ended; exit code 1 if any fell short. Each trial draws
from a generator of its own, and runs the real commands in processes forked after the imports (Linux or macOS).
"""

import argparse
import collections
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.faults import flips, inputs, kills

IN_MEMORY = "/dev/shm"  # where files need not wait for a disk
KINDS = {"kill": kills.Kills, "flip": flips.Flips, "input": inputs.Inputs}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--trials",
        nargs="+",
        type=counted,
        default=[("kill", 4), ("flip", 30), ("input", 60)],
        metavar="KIND=N",
        help="how many of kill, flip and input",
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--first", type=int, default=0, help="number of the first trial of each kind")
    args = parser.parse_args()
    sys.stdout.reconfigure(errors="backslashreplace")
    raise SystemExit(1 if run(dict(args.trials), args.seed, args.first) else 0)


def counted(text):
    """("kill", 300) of "kill=300"."""
    kind, _, number = text.partition("=")
    if kind not in KINDS:
        raise argparse.ArgumentTypeError(f"KIND is one of {', '.join(KINDS)}")
    return kind, int(number)


def run(trials, seed, first=0):
    """Run that many trials of each kind and print what became of them; returns how many fell short."""
    print(f"seed {seed}", flush=True)
    short = 0
    for kind, count in trials.items():
        ends = collections.Counter()
        with tempfile.TemporaryDirectory(dir=IN_MEMORY if os.path.isdir(IN_MEMORY) else None) as folder:
            try:
                ends.update(trial(kind, count, seed, first, Path(os.path.realpath(folder))))
            finally:  # stopped by Ctrl-C, it tells what was done
                told = ", ".join(f"{number} {end}" for end, number in ends.most_common())
                print(f"{kind}: {sum(ends.values())} trials: {told}", flush=True)
        short += ends["FELL SHORT"]
    return short


def trial(kind, count, seed, first, folder):
    """Yield how each trial of a kind ended, in a few words, "FELL SHORT" where it did; of kills, a word for each."""
    trials, done, number, started = KINDS[kind](folder), 0, first, time.monotonic()
    while done < count:
        work = folder / "trial"
        work.mkdir()
        try:
            ends = trials(random.Random(f"{seed} {kind} {number}"), work)
        except AssertionError as error:
            print(f"{kind} {number}: FELL SHORT: {error}", flush=True)
            ends = ["FELL SHORT"]
        shutil.rmtree(work)
        yield from ends
        done, number = done + len(ends), number + 1
        if done // 50 > (done - len(ends)) // 50:
            print(f"  {kind} {done} after {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
