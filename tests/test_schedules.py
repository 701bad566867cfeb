"""What changes over a run, on scripted figures: the KL weight, the end of the aggressive phase, the learning rate."""

import pytest

from modules.data.corpus import TextSplit, read_corpus
from modules.methods.annealing import annealed_weight
from modules.training.recipe import IMAGE, TEXT, TOY
from modules.training.schedules import AggressivePhase, LearningRateDecay


def weights(batches, start, warm_up, epochs):
    """The KL weights of a run, one list per epoch."""
    return [
        [annealed_weight(epoch * batches + i, batches, start, warm_up) for i in range(batches)]
        for epoch in range(epochs)
    ]


@pytest.mark.parametrize("batches, start, warm_up", [(7, 0.1, 3), (1, 0.1, 10), (13, 0.0, 1), (312, 0.1, 10)])
def test_kl_weight_grows_linearly_and_is_one_exactly_at_the_end_of_warm_up(batches, start, warm_up):
    run = sum(weights(batches, start, warm_up, warm_up + 2), [])
    end = warm_up * batches
    assert run[end - 1 :] == [1.0] * (2 * batches + 1)
    assert all(weight < 1 for weight in run[: end - 1])
    steps = [after - before for before, after in zip([start, *run], run[:end])]
    assert steps == pytest.approx([(1 - start) / end] * end)


def test_warm_up_lasts_its_epochs_where_batches_outnumber_sentences_over_batch_size(tmp_path):
    path = tmp_path / "lengths.txt"
    path.write_text("".join("w " * n + "\n" for n in range(1, 11)))  # ten lengths: ten batches, not 10 / 4
    split = TextSplit(read_corpus(path)[0], batch_size=4)
    assert split.num_batches == 10
    first, second, third = weights(split.num_batches, 0.1, 2, 3)
    assert first[-1] == pytest.approx(0.55)
    assert second[-2] < 1.0 and second[-1] == 1.0
    assert third == [1.0] * 10


@pytest.mark.parametrize("start", [0.1, 1.0])
def test_without_warm_up_the_weight_is_one_at_once(start):
    assert weights(3, start, 0, 1) == [[1.0] * 3]


def test_kl_start_one_stays_one():
    assert weights(5, 1.0, 10, 2) == [[1.0] * 5] * 2


def epochs_of_phase(mi, recipe):
    """How many epochs of scripted validation MI are aggressive; None if the phase outlives them."""
    phase = AggressivePhase(True, recipe.mi_start, recipe.mi_patience)
    for epoch, value in enumerate(mi, start=1):
        assert phase.active
        if not phase.update(value):
            assert not phase.active
            return epoch
    return None


@pytest.mark.parametrize(
    "mi, epochs",
    [
        ([0.1, 0.5, 1.2, 1.1, 3.0], 4),  # the first epoch below the one before
        ([0.1, 0.5, 0.5, 0.4], 4),  # an equal one is not below
        ([-0.01, 1.0], 1),  # 0 before the first
        ([0.0, 0.1, 0.2], None),
    ],
)
def test_text_ends_the_phase_at_the_first_fall(mi, epochs):
    assert epochs_of_phase(mi, TEXT) == epochs


@pytest.mark.parametrize("mi, epochs", [([-0.01, -0.02], 2), ([-1.1], 1), ([-1.0, 0.1, 0.0], 3)])
def test_toy_starts_from_minus_one(mi, epochs):
    assert epochs_of_phase(mi, TOY) == epochs


@pytest.mark.parametrize(
    "mi, epochs",
    [
        ([1.0, 0.9, 0.8, 0.7, 0.6, 0.5], 6),  # five in a row
        ([1.0, 0.9, 1.1, 1.0, 1.2, 1.1, 1.3, 1.2, 1.4, 1.3], 10),  # five in all, never two in a row
        ([1.0, 0.1, 0.2, 0.3, 0.4, 0.5], 6),  # rising again, yet below the best so far
        ([1.0, 0.9, 1.0, 0.9, 1.0, 0.9, 1.0, 0.9, 1.0], None),  # four, and equal to the best is not below
    ],
)
def test_images_end_the_phase_at_the_fifth_epoch_below_the_best(mi, epochs):
    assert epochs_of_phase(mi, IMAGE) == epochs


def decays(losses, **settings):
    """([epochs at which the rate decays], the schedule after them); stops as training does."""
    schedule = LearningRateDecay(
        **{"lr": 1.0, "factor": 0.5, "patience": 2, "from_epoch": 0, "max_decays": 5, "rebase": True, **settings}
    )
    epochs = []
    for epoch, loss in enumerate(losses):
        if schedule.update(epoch, loss):
            epochs.append(epoch)
        if schedule.exhausted:
            break
    return epochs, schedule


def test_rate_halves_after_patience_epochs_without_a_better_loss():
    epochs, schedule = decays([5, 6, 4, 6, 6, 3, 4])
    assert epochs == [4]
    assert schedule.lr == 0.5


def test_an_equal_loss_is_no_worse():
    assert decays([5, 5, 5, 5])[0] == []


@pytest.mark.parametrize("patience, epochs", [(1, [1, 2, 3, 4]), (2, [2, 4]), (3, [3]), (20, [])])
def test_patience(patience, epochs):
    assert decays([1, 2, 3, 4, 5], patience=patience)[0] == epochs


def test_no_decay_before_epoch_15_but_the_count_runs():
    assert decays([1] + [2] * 19, from_epoch=15)[0] == [15]
    assert decays([1] * 15 + [2, 2, 2], from_epoch=15)[0] == [16]


@pytest.mark.parametrize("rebase, epochs", [(True, [2, 6]), (False, [2, 4, 6])])
def test_what_is_to_beat_after_a_decay(rebase, epochs):
    """Losses between the best (1) and the one at the first decay (5) count as better only if that one is to beat."""
    assert decays([1, 5, 5, 4, 3, 4, 4], rebase=rebase)[0] == epochs


def test_training_is_over_after_five_decays():
    epochs, schedule = decays(range(100))
    assert epochs == [2, 4, 6, 8, 10]
    assert schedule.exhausted
    assert schedule.lr == 0.5**5


def test_the_published_settings():
    assert [(r.optimiser, r.lr) for r in (TEXT, IMAGE, TOY)] == [("sgd", 1.0), ("adam", 1e-3), ("sgd", 1.0)]
    assert {(r.clip_norm, r.lr_decay, r.max_decays) for r in (TEXT, IMAGE, TOY)} == {(5.0, 0.5, 5)}
    assert [(r.inner_steps, r.inner_test_every) for r in (TEXT, IMAGE, TOY)] == [(99, 15), (99, 10), (99, 15)]
    assert [r.decay_patience for r in (TEXT, IMAGE, TOY)] == [2, 20, 2]
    assert [r.rebase_at_decay for r in (TEXT, IMAGE, TOY)] == [True, False, True]
    assert [r.decay_from_epoch for r in (TEXT, IMAGE, TOY)] == [15, 0, 0]
