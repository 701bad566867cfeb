"""The inner loop of algorithm 1 on scripted losses: which batches it takes, when it stops, what it reads."""

import pytest

from modules.training.algorithm import optimise_encoder


class Loss:
    """A loss left on a device: sums lazily, and counts how often the host asks for its value."""

    reads = 0

    def __init__(self, value):
        self.value = value

    def __add__(self, other):
        return Loss(self.value + (other.value if isinstance(other, Loss) else other))

    __radd__ = __add__

    def __float__(self):
        Loss.reads += 1
        return float(self.value)

    item = __float__

    def _host_read(self, *_):
        raise AssertionError("read other than once a window")

    __bool__ = __lt__ = __gt__ = __le__ = __ge__ = __eq__ = __index__ = __int__ = _host_read
    __hash__ = None


def run(losses, units=None, max_steps=99, test_every=15):
    """The inner loop where step i has loss losses[i] on units[i] units: (steps said, steps taken, draws)."""
    taken, draws = [], []

    def step(batch):
        assert batch == len(taken)  # the current batch is number 0; then each one drawn, in order
        taken.append(batch)
        return Loss(losses[batch])

    def draw():
        draws.append(len(draws) + 1)
        return draws[-1]

    Loss.reads = 0
    steps = optimise_encoder(step, 0, draw, lambda batch: units[batch] if units else 1, max_steps, test_every)
    assert steps == len(taken)
    assert len(draws) == steps - 1  # none drawn in vain: it would cost a batch and shift the random numbers
    return steps


def windows(*averages, every=15):
    """Losses whose average over each window of `every` steps is as given, unevenly spread within it."""
    losses = []
    for average in averages:
        losses += [average + 0.5 * (-1) ** i for i in range(every - 1 if every % 2 else every)]
        losses += [average] * (every % 2)
    return losses


def test_goes_on_to_the_maximum_while_the_loss_falls():
    assert run([100.0 - i for i in range(99)]) == 99


@pytest.mark.parametrize(
    "averages, steps",
    [
        ((5, 6), 30),  # worse
        ((5, 5), 30),  # a tie is no better
        ((5, 4, 3, 3.5), 60),  # compared with the window before ...
        ((5, 4, 4.5, 1), 45),  # ... at once
        ((9, 8, 7, 6, 5, 4, 9), 99),  # the seventh window is cut short by the maximum: not tested
    ],
)
def test_stops_where_a_window_is_no_better_than_the_one_before(averages, steps):
    assert run(windows(*averages)) == steps


def test_one_bad_step_within_a_window_does_not_stop():
    losses = windows(9, 8, 7, 6, 5, 4, 3)
    losses[20] += 10.0  # its window's average rises by 2/3, still below 9
    assert run(losses) == 99


@pytest.mark.parametrize("first", [1.0, 1e9])
def test_never_stops_before_two_windows(first):
    assert run(windows(first, 1e10), test_every=15) == 30


def test_losses_compare_per_unit():
    """Sums rise from 20 to 30 while the loss per word falls from 2 to 1; the mean of ratios would rise as well."""
    losses = [2.0, 18.0] + [26.0, 4.0] + [100.0, 100.0]
    units = [1, 9] + [29, 1] + [1, 1]
    assert run(losses, units, test_every=2) == 6
    assert run(losses, test_every=2) == 4


@pytest.mark.parametrize(
    "max_steps, test_every, steps", [(1, 15, 1), (14, 15, 14), (30, 15, 30), (99, 10, 20), (7, 1, 2)]
)
def test_limits(max_steps, test_every, steps):
    """With constant losses: stops after two windows or at the maximum, whichever is first."""
    assert run([3.0] * 99, max_steps=max_steps, test_every=test_every) == steps


def test_reads_the_loss_once_a_window():
    """On a GPU each read waits for all that was queued: 99 steps may cost 6 reads, not 99."""
    run([100.0 - i for i in range(99)])
    assert Loss.reads == 6
