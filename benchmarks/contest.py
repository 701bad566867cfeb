"""What the benchmarks share: the steps of the textbook's model and of this project's, taken in turns, in one table."""

import re
import resource
import statistics
import sys
import time
from collections import namedtuple
from functools import partial
from pathlib import Path

import torch

from benchmarks.textbook import textbook_step
from modules.domains.text_domain import TEXT
from modules.evaluation.metrics import evaluation_mode, importance_weighted_nll
from modules.models.layers.precision import allow_tf32
from modules.training.algorithm import optimise_encoder
from modules.training.loop import Trainer

TURN = 0.1  # seconds that one contestant computes before the next has its turn, at least one step
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # CUDA_VISIBLE_DEVICES= hides a GPU
PEAK_SIZE = 2048  # of the square matrices whose product gives the rate "of peak"
IW_ROWS = 2048  # pairs of an x and a z at once, as the commands' default

# One line of the table: what is timed against which textbook contestant; its FLOPs (those always in float32, the rest).
Row = namedtuple("Row", "name baseline precision flops run")


# ---------------------------------------------------------------------- turns


def compare(title, textbook, rows, seconds):
    """Let both sides take turns and print the medians, with the project's share of the rate of a large product."""
    peaks = {"float32": partial(square_product, torch.float32), "bf16": partial(square_product, torch.bfloat16)}
    times = take_turns({**textbook, **peaks, **{row.name: row.run for row in rows}}, seconds)
    rates = {precision: 2 * PEAK_SIZE**3 / times[precision] for precision in peaks}
    print(f"\n{title}; torch.mm reaches {rates['float32'] / 1e9:.0f} GFLOP/s, in bf16 {rates['bf16'] / 1e9:.0f}")
    print(f"{'median ms':42}{'textbook':>10}{'ours':>10}{'ratio':>8}{'of peak':>9}")
    for row in rows:
        always_float32, rest = row.flops
        ideal = always_float32 / rates["float32"] + rest / rates[row.precision]
        plain, ours = times[row.baseline], times[row.name]
        print(f"{row.name:42}{1e3 * plain:10.2f}{1e3 * ours:10.2f}{plain / ours:8.2f}{ideal / ours:9.0%}")


def take_turns(contestants, seconds, clock=time.perf_counter, typical=statistics.median):
    """Typical seconds of one step of each: {name: run}, where run(count) takes `count` steps -> {name: seconds}."""
    warm = {name: min(seconds_per_step(run, 1, clock) for _ in range(2)) for name, run in contestants.items()}
    counts = {name: max(1, round(TURN / warm[name])) for name in contestants}
    times = {name: [] for name in contestants}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or min(map(len, times.values())) < 2:
        for name, run in contestants.items():
            times[name].append(seconds_per_step(run, counts[name], clock))
    return {name: typical(values) for name, values in times.items()}


def begin(*more):
    """Switch TF32 off for both sides, and print what the figures depend on, in one line."""
    allow_tf32(False)
    card = torch.cuda.get_device_name() if DEVICE.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, {card}", *more, sep=", ")


def wait():
    """Let a GPU finish what it was asked for."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def seconds_per_step(run, count, clock=time.perf_counter):
    wait()
    start = clock()
    run(count)
    wait()
    return (clock() - start) / count


def fair_clock():
    """What takes the time: with one thread the processor's time, in which what other programs do matters little."""
    return time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def square_product(dtype, count):
    a, b = torch.ones(2, PEAK_SIZE, PEAK_SIZE, dtype=dtype, device=DEVICE)
    for _ in range(count):
        a @ b


def peak_memory():
    """Bytes of this process at its peak so far. What `resource` says of a child begins with its parent's peak, so on
    Linux the kernel's own file is read."""
    try:
        status = Path("/proc/self/status").read_text()
    except FileNotFoundError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak
    return 1024 * int(re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)[1])


# ---------------------------------------------------------------------- the textbook's side


def textbook_runs(model, optimiser, clip_norm, batches, few, iw_samples):
    """What the textbook does: {contestant: run}, where run(count) takes `count` steps; `few` are for the likelihood."""
    outer, inner = optimiser(model.parameters()), optimiser(model.encoder_parameters())

    def steps(optimiser, count):
        for i in range(count):
            textbook_step(model.train(), optimiser, batches[i % len(batches)], 1.0, clip_norm)

    @torch.no_grad()
    def likelihood(count):
        with evaluation_mode(model):
            for _ in range(count):
                for x in few.split(1):
                    model.iw_nll(x, iw_samples)

    return {"outer": partial(steps, outer), "inner": partial(steps, inner), "iw": likelihood}


# ---------------------------------------------------------------------- this project's side


def project_rows(new_trainer, flops, few, iw_samples):
    """What this project does: the lines of the table.

    new_trainer(inner_clip, precision) makes a trainer; flops(encoder_passes, decoder_passes, count) gives the FLOPs of
    a batch, or of `count` sentences or images, as `Row` wants them: 1 pass = forward, 2 or 3 = with gradients.
    """
    rows = []
    for precision in ("float32", "bf16"):
        trainer = new_trainer("joint", precision)
        rows.append(Row(f"outer step, {precision}", "outer", precision, flops(3, 3), partial(outer_steps, trainer)))
    for precision in ("float32", "bf16"):
        for clip, decoder_passes in (("joint", 3), ("encoder", 2)):
            rows.append(
                Row(
                    f"inner step, --inner_clip {clip}, {precision}",
                    "inner",
                    precision,
                    flops(3, decoder_passes),
                    partial(inner_steps, new_trainer(clip, precision)),
                )
            )
    both = [sum(parts) for parts in zip(flops(1, 0, few.size), flops(0, 1, few.size * iw_samples))]
    rows.append(
        Row(
            f"IW-NLL of {few.size}, {iw_samples} samples",
            "iw",
            "float32",
            both,
            partial(likelihood, trainer.model, few, iw_samples),
        )
    )
    return rows


def make_trainer(model, split, recipe, inner_clip):
    """A `Trainer` of `model` that keeps no records."""
    s = TEXT.settings(inner_clip=inner_clip, warm_up=0, seed=0)  # of images, too
    return Trainer(model.train(), {"train": split}, recipe, s, records=None, files=None, description={})


def outer_steps(trainer, count):
    split = trainer.splits["train"]
    for i in range(count):
        trainer.outer_iteration(split.batch(range(split.num_batches), i % split.num_batches))


def inner_steps(trainer, count):
    split = trainer.splits["train"]
    with trainer.algorithm.only_encoder_gradients():
        optimise_encoder(
            lambda x: trainer.algorithm.encoder_step(x, 1.0),
            split.batch([0], 0),
            lambda: split.random_batch(trainer.generator),
            split.units,
            count,
            count,
        )


def likelihood(model, few, iw_samples, count):
    for _ in range(count):
        importance_weighted_nll(model, few, iw_samples, IW_ROWS, seed=0)
