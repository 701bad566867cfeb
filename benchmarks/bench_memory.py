"""Time training steps with and without `keep_freed_memory`, each in processes of their own, in turns.

    python benchmarks/bench_memory.py               # about 4 minutes on two free CPU cores

Sizes are those of `bench_text.py` and `bench_image.py`, which measure without it.
Page faults are those of the system that need no disk: a page of memory mapped and zeroed.
"""

import argparse
import multiprocessing
import resource
import statistics
import sys
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import bench_image, bench_text
from benchmarks.contest import fair_clock, outer_steps, peak_memory, seconds_per_step
from modules.data.corpus import TextSplit
from modules.training.memory import keep_freed_memory

TURNS = 3  # processes of each way
STEPS = {"toy": 500, "ptb": 30, "yahoo": 3, "image": 6}  # timed in each, after two that are not


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{'outer step':14}{'':28}{'default':>10}{'kept':>10}{'ratio':>8}")
    context = multiprocessing.get_context("spawn")
    for domain in STEPS:
        costs = {False: [], True: []}
        for _ in range(TURNS):
            for kept in costs:
                with context.Pool(1) as pool:
                    costs[kept].append(pool.apply(cost_of_steps, (domain, kept)))
        for name, default, kept in zip(
            ("median ms", "page faults", "peak of memory, MiB"),
            *(map(statistics.median, zip(*costs[kept])) for kept in costs),
        ):
            print(f"{domain:14}{name:28}{default:10.1f}{kept:10.1f}{default / max(kept, 1):8.2f}")


def cost_of_steps(domain, kept):
    """(median milliseconds of a step, page faults of a step, MiB at the peak of this process)"""
    if kept:
        keep_freed_memory()
    step = partial(outer_steps, trainer_of(domain))
    step(2)
    faults, times = page_faults(), []
    for _ in range(STEPS[domain]):
        times.append(seconds_per_step(step, 1, fair_clock()))
    return 1e3 * statistics.median(times), (page_faults() - faults) / len(times), peak_memory() / 2**20


def trainer_of(domain):
    if domain == "image":
        return bench_image.project_trainer(bench_image.Images(bench_image.BATCH, bench_image.BATCH), "joint", "float32")
    size = bench_text.SIZES[domain]
    split = TextSplit(bench_text.made_up_corpus(size, size.batch), size.batch)
    return bench_text.project_trainer(size, split, "joint", "float32", bench_text.DROPOUT)


def page_faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


if __name__ == "__main__":
    main()
