"""The training loop: which weights each kind of step moves and how far, decay, divergence, and data of any kind."""

import copy
import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal

from modules.checkpoint import load_checkpoint
from modules.command import UserError
from modules.data.corpus import TextSplit, read_corpus
from modules.domains.text_domain import TEXT, build_vae
from modules.evaluation import metrics
from modules.models.encoders.gaussian_encoder import GaussianEncoder
from modules.models.gaussian import reparameterize
from modules.models.vae import VAE
from modules.training import algorithm, loop
from modules.training.loop import Trainer
from modules.training.recipe import IMAGE
from modules.training.recipe import TEXT as TEXT_RECIPE
from modules.training.records import lines_of
from modules.training.run_files import RunFiles

SIZES = {"nz": 2, "ni": 4, "enc_nh": 5, "dec_nh": 6, "dec_dropout_in": 0.3, "dec_dropout_out": 0.3}
OPTIONS = {"aggressive": 1, "kl_start": 0.5, "warm_up": 1, "epochs": 2, "test_nepoch": 5, "seed": 1, "batch_size": 4}
FEW_STEPS = replace(TEXT_RECIPE, inner_steps=3, inner_test_every=2)


class ListRecords:
    """Records kept in lists."""

    def __init__(self, words=True):
        self.lines, self.events, self.words = [], [], words

    def write(self, event, **values):
        self.events.append({"event": event, **values})
        self.lines += lines_of(self.events[-1], self.words)

    def named(self, event):
        return [e for e in self.events if e["event"] == event]

    def positions(self):
        return [0, 0]


@pytest.fixture
def text_data(tmp_path):
    """Splits of sentences of several lengths, more batches than sentences / 4, and their vocabulary."""
    path = tmp_path / "corpus.txt"
    path.write_text("".join(" ".join("abcde"[(n * k) % 5] for k in range(1, n % 5 + 2)) + "\n" for n in range(22)))
    corpus, vocabulary = read_corpus(path)
    return {name: TextSplit(corpus, batch_size=4) for name in ("train", "val", "test")}, vocabulary


@pytest.fixture
def make_trainer(text_data, tmp_path):
    """`make_trainer(recipe, **options)`: a trainer of a tiny text VAE, its records in lists."""

    def make(recipe=FEW_STEPS, **options):
        splits, vocabulary = text_data
        torch.manual_seed(0)
        s = TEXT.settings(**{**SIZES, **OPTIONS, **options})
        model = build_vae(s, vocabulary)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.5)
        return Trainer(
            model.train(),
            splits,
            recipe,
            s,
            ListRecords(),
            RunFiles("tiny", "run", models=tmp_path),
            {"domain": "text", "dataset": "tiny"},
        )

    return make


def weights(module):
    """The weights as they are now: {name: tensor}."""
    return {name: value.detach().clone() for name, value in module.named_parameters()}


def moved(before, module):
    """Whether all weights have changed since (True), none (False), or some (raises)."""
    changed = {not torch.equal(before[name], value) for name, value in module.named_parameters()}
    (answer,) = changed
    return answer


def hand_gradients(model, x, weight):
    """The gradients of the mean loss under the random numbers that come next, which stay next."""
    twin, random_state = copy.deepcopy(model), torch.get_rng_state()
    mean, logvar = twin.encoder(x)
    z = reparameterize(mean, logvar)
    q = Independent(Normal(mean, (0.5 * logvar).exp()), 1)
    prior = Independent(Normal(torch.zeros_like(mean), 1.0), 1)
    kl = torch.distributions.kl_divergence(q, prior)
    loss = twin.decoder.reconstruction(x, z)[:, 0] + weight * kl
    loss.mean().backward()
    torch.set_rng_state(random_state)
    return {name: value.grad for name, value in twin.named_parameters()}, float(loss.detach().sum())


def norm(gradients, prefix=""):
    return math.sqrt(sum(float(g.double().square().sum()) for name, g in gradients.items() if name.startswith(prefix)))


@pytest.mark.parametrize("inner_clip, clipped_over", [("joint", ""), ("encoder", "encoder.")])
@pytest.mark.parametrize("clip_norm", [0.5, 1e6])
def test_an_inner_step_moves_the_encoder_as_computed_by_hand(make_trainer, inner_clip, clipped_over, clip_norm):
    """One SGD step, scaled by clip / norm where the norm over the stated gradients exceeds the clip."""
    trainer = make_trainer(replace(FEW_STEPS, clip_norm=clip_norm, lr=0.7), inner_clip=inner_clip)
    model, x = trainer.model, trainer.splits["train"].batch([0], 0)
    gradients, loss = hand_gradients(model, x, 0.3)
    assert norm(gradients, "decoder.") > 0.2 * norm(gradients, "encoder.") > 0  # else both clips look alike
    before = weights(model)
    with trainer.algorithm.only_encoder_gradients():
        returned = trainer.algorithm.encoder_step(x, 0.3)
    assert isinstance(returned, torch.Tensor) and not returned.requires_grad
    assert float(returned) == pytest.approx(loss, rel=1e-5)
    scale = 0.7 * min(1.0, clip_norm / norm(gradients, clipped_over))
    for name, value in model.encoder.named_parameters():
        expected = before[f"encoder.{name}"] - scale * gradients[f"encoder.{name}"]
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6)
    assert all(torch.equal(before[f"decoder.{name}"], value) for name, value in model.decoder.named_parameters())


@pytest.mark.parametrize("joint", [False, True])
def test_an_outer_step_moves_decoder_or_both_as_computed_by_hand(make_trainer, joint):
    """The norm that clips is over all gradients in either case."""
    trainer = make_trainer(replace(FEW_STEPS, clip_norm=0.5))
    model, x = trainer.model, trainer.splits["train"].batch([0], 0)
    gradients, _ = hand_gradients(model, x, 1.0)
    before = weights(model)
    trainer.algorithm.decoder_step(x, 1.0, joint=joint)
    assert norm(gradients) > 0.5
    for name, value in model.named_parameters():
        step = 0.5 / norm(gradients) * gradients[name] if joint or name.startswith("decoder.") else 0
        torch.testing.assert_close(value, before[name] - step, rtol=1e-4, atol=1e-6)


@pytest.fixture
def watched_inner_loop(monkeypatch):
    """Records, for each inner loop, whether it moved encoder and decoder and what gradients it left in the decoder."""
    seen = []
    original = algorithm.optimise_encoder

    def watch(trainer):
        def optimise_encoder(encoder_step, batch, *args):
            before = weights(trainer.model.encoder), weights(trainer.model.decoder)

            def step(x):
                loss = encoder_step(x)
                gradients.append([p.grad is not None for p in trainer.model.decoder.parameters()])
                return loss

            gradients = []
            steps = original(step, batch, *args)
            middle = weights(trainer.model.encoder)
            seen.append(
                {
                    "batch": batch,
                    "encoder": moved(before[0], trainer.model.encoder),
                    "decoder": moved(before[1], trainer.model.decoder),
                    "encoder_after": middle,
                    "decoder_gradients": sum(gradients, []),
                    "steps": steps,
                }
            )
            return steps

        monkeypatch.setattr(algorithm, "optimise_encoder", optimise_encoder)
        return seen

    return watch


@pytest.mark.parametrize("inner_clip", ["joint", "encoder"])
def test_an_aggressive_iteration_is_encoder_steps_and_then_one_of_the_decoder(
    make_trainer, watched_inner_loop, inner_clip
):
    trainer = make_trainer(inner_clip=inner_clip)
    seen, model = watched_inner_loop(trainer), trainer.model
    x, decoder = trainer.splits["train"].batch([0], 0), weights(trainer.model.decoder)
    trainer.outer_iteration(x)
    (inner,) = seen
    assert inner["batch"] is x
    assert inner["encoder"] is True and inner["decoder"] is False
    assert inner["decoder_gradients"] and set(inner["decoder_gradients"]) == {inner_clip == "joint"}
    assert moved(inner["encoder_after"], model.encoder) is False  # the outer step leaves it alone
    assert moved(decoder, model.decoder) is True
    assert all(p.requires_grad for p in model.parameters())
    assert trainer.progress.encoder_steps == inner["steps"] == 3
    assert trainer.progress.iteration == 1


def test_the_inner_loop_takes_fresh_batches_at_the_kl_weight_in_force(make_trainer, monkeypatch):
    """Algorithm 1: the batch of the outer loop first, then others at random; losses are compared per word."""
    trainer = make_trainer(replace(FEW_STEPS, inner_steps=6, inner_test_every=7), warm_up=3)
    train, seen, counted = trainer.splits["train"], [], []
    monkeypatch.setattr(
        trainer.algorithm, "encoder_step", lambda x, weight: seen.append((x, weight)) or torch.zeros(())
    )
    monkeypatch.setattr(train, "units", lambda x: counted.append(x) or 1)
    x = train.batch([0], 0)
    trainer.outer_iteration(x)
    random = torch.Generator().manual_seed(OPTIONS["seed"])
    expected = [x] + [train.random_batch(random) for _ in range(5)]
    assert len({id(batch) for batch in expected}) > 2
    assert all(batch is wanted for (batch, _), wanted in zip(seen, expected, strict=True))
    assert {weight for _, weight in seen} == {trainer.kl_weight(0)} and 0.5 < trainer.kl_weight(0) < 1
    assert all(batch is wanted for batch, wanted in zip(counted, expected, strict=True))


def test_reports_are_averages_over_what_came_since_the_last_one(make_trainer, monkeypatch):
    """Per sentence, whatever the size of the batches; here with a model that stands still."""
    trainer = make_trainer(replace(FEW_STEPS, lr=0.0), aggressive=False, epochs=1)
    seen, elbo_terms = [], trainer.model.elbo_terms

    def watch(x, *args):
        reconstruction, kl = elbo_terms(x, *args)
        seen.append((len(x), float(reconstruction.detach().sum()), float(kl.detach().sum())))
        return reconstruction, kl

    monkeypatch.setattr(trainer.model, "elbo_terms", watch)
    trainer.fit()
    reports, start = trainer.records.named("report"), 0
    assert len(reports) > 2
    for report in reports:
        sizes, reconstruction, kl = zip(*seen[start : report["iteration"]])
        assert report["reconstruction"] == pytest.approx(sum(reconstruction) / sum(sizes), rel=1e-5)
        assert report["kl"] == pytest.approx(sum(kl) / sum(sizes), rel=1e-5)
        start = report["iteration"]


def test_without_aggression_each_iteration_is_one_joint_step(make_trainer, watched_inner_loop):
    trainer = make_trainer(aggressive=False)
    seen, before = watched_inner_loop(trainer), weights(trainer.model)
    trainer.outer_iteration(trainer.splits["train"].batch([0], 0))
    assert moved(before, trainer.model) is True
    trainer.fit()
    assert seen == [] and trainer.progress.encoder_steps == 0
    assert "STOP BURNING" not in trainer.records.lines


def script_validation(monkeypatch, trainer, reconstructions, mi=None, kl=None):
    """Let the validations of a run find these figures, epoch by epoch; the loss is reconstruction and kl (else 0)."""
    figures = iter(zip(reconstructions, mi or [1.0] * len(reconstructions), kl or [0.0] * len(reconstructions)))

    def evaluate(model, split, seed, team=None):
        found, information, rate = next(figures) if split is trainer.splits["val"] else (9.9, 9.9, 9.9)
        return metrics.Metrics(
            loss=found + rate,
            reconstruction=found,
            kl=rate,
            mi=information,
            mi_agg=0.0,
            kl_agg=0.0,
            active_units=1,
            units=10,
            size=2,
        )

    monkeypatch.setattr(loop.metrics, "evaluate", evaluate)


def test_after_the_aggressive_phase_training_is_joint(make_trainer, watched_inner_loop, monkeypatch):
    trainer = make_trainer(epochs=5)
    seen = watched_inner_loop(trainer)
    script_validation(monkeypatch, trainer, [5.0, 4.9, 4.8, 4.7, 4.6], [0.5, 0.6, 0.1, 0.2, 0.1])
    trainer.fit()
    assert len(seen) == 3 * trainer.splits["train"].num_batches
    assert [line for line in trainer.records.lines if line.startswith(("pre mi", "STOP"))] == [
        "pre mi:0.0000. cur mi:0.5000",
        "pre mi:0.5000. cur mi:0.6000",
        "pre mi:0.6000. cur mi:0.1000",
        "STOP BURNING",
    ]


def test_the_kl_weight_reaches_one_at_the_end_of_warm_up(make_trainer):
    trainer = make_trainer(aggressive=False, warm_up=2, kl_start=0.1, epochs=4)
    assert trainer.splits["train"].num_batches > math.ceil(trainer.splits["train"].size / 4)
    trainer.fit()
    assert [e["kl_weight"] for e in trainer.records.named("val")] == [pytest.approx(0.55), 1.0, 1.0, 1.0]
    assert [line for line in trainer.records.lines if line.startswith("kl weight")] == [
        "kl weight 0.5500",
        "kl weight 1.0000",
        "kl weight 1.0000",
        "kl weight 1.0000",
    ]


def test_the_loss_is_reported_at_weight_one_and_trained_at_the_kl_weight(make_trainer):
    """`avg_loss` is reconstruction + KL, whatever weight the gradient gave the KL."""
    trainer = make_trainer(aggressive=False, warm_up=10, kl_start=0.0)
    trainer.fit()
    for event in trainer.records.named("report") + trainer.records.named("val"):
        assert event["loss"] == pytest.approx(event["reconstruction"] + event["kl"])
        assert event["kl"] > 0


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_at_a_decay_the_best_weights_return_with_fresh_optimisers(make_trainer, monkeypatch, optimiser):
    recipe = replace(FEW_STEPS, optimiser=optimiser, lr=0.01, decay_patience=2, decay_from_epoch=0, max_decays=1)
    trainer = make_trainer(recipe, aggressive=False, epochs=99, momentum=0.9)
    script_validation(monkeypatch, trainer, [5.0, 4.0, 4.1, 4.2])
    trainer.fit()
    assert [(e["epoch"], e["lr"]) for e in trainer.records.named("decay")] == [(3, 0.005)]
    assert "new lr: 0.005000" in trainer.records.lines
    best = load_checkpoint(trainer.files.model, "text")
    assert best["epoch"] == 1 and best["metrics"]["loss"] == 4.0
    assert all(torch.equal(best["model"][name], value) for name, value in trainer.model.state_dict().items())
    saved = load_checkpoint(trainer.files.state, "text")
    assert all(torch.equal(saved["model"][name], value) for name, value in best["model"].items())
    for name, live in (
        ("encoder", trainer.algorithm.encoder_optimiser),
        ("decoder", trainer.algorithm.decoder_optimiser),
    ):
        assert len(live.state) == 0 and saved["training"][f"{name}_optimiser"]["state"] == {}
        (group,) = live.param_groups
        assert group["lr"] == 0.005
        assert group.get("betas", (0.9, 0.999)) == (0.9, 0.999)
        assert group.get("momentum", 0.9) == 0.9
        owned = dict(trainer.model.named_parameters())
        assert [id(p) for p in group["params"]] == [id(p) for key, p in owned.items() if key.startswith(name)]


def test_optimisers_have_state_between_decays(make_trainer):
    """So that an empty state after a decay means something."""
    trainer = make_trainer(replace(FEW_STEPS, optimiser="adam"), aggressive=False, epochs=1)
    trainer.fit()
    assert len(trainer.algorithm.encoder_optimiser.state) > 0 and len(trainer.algorithm.decoder_optimiser.state) > 0


def test_training_ends_at_the_last_decay(make_trainer, monkeypatch):
    recipe = replace(FEW_STEPS, decay_patience=1, decay_from_epoch=0, max_decays=3)
    trainer = make_trainer(recipe, aggressive=False, epochs=99)
    script_validation(monkeypatch, trainer, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    trainer.fit()
    assert [e["epoch"] for e in trainer.records.named("decay")] == [1, 2, 3]
    assert trainer.progress.epoch == 4 and trainer.progress.decay.lr == 0.125
    assert [e["lr"] for e in trainer.records.named("val")] == [1.0, 1.0, 0.5, 0.25]


def test_the_seconds_of_training_are_added_up_and_the_test_split_is_looked_at_now_and_then(make_trainer, monkeypatch):
    ticks = itertools.count(100)
    monkeypatch.setattr("time.monotonic", lambda: float(next(ticks)))
    trainer = make_trainer(aggressive=False, epochs=5, test_nepoch=2)
    trainer.fit()
    seconds = [0.0, *(e["seconds"] for e in trainer.records.named("val"))]
    assert all(before < after for before, after in itertools.pairwise(seconds))
    assert seconds[-1] <= trainer.progress.seconds < next(ticks) - 100
    assert [e["epoch"] for e in trainer.records.named("test")] == [0, 2]  # the last epoch's is the run's own


def test_each_epoch_takes_every_batch_once_in_a_new_order(make_trainer, monkeypatch):
    trainer = make_trainer(aggressive=False, epochs=3)
    seen = []
    monkeypatch.setattr(
        trainer.algorithm, "outer_iteration", lambda x, *_: seen.append(x) or (0, torch.zeros(()), torch.zeros(()))
    )
    monkeypatch.setattr(trainer, "_report", lambda seconds: None)
    trainer.fit()
    train = trainer.splits["train"]
    names = [next(i for i, batch in enumerate(train) if batch is x) for x in seen]
    epochs = [names[i : i + train.num_batches] for i in range(0, len(names), train.num_batches)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(train.num_batches))] * 3
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_a_validation_loss_that_is_no_number_ends_the_run(make_trainer, monkeypatch):
    trainer = make_trainer(aggressive=False)
    script_validation(monkeypatch, trainer, [5.0, math.nan])
    with pytest.raises(UserError, match="diverged.*nan in epoch 1"):
        trainer.fit()
    assert load_checkpoint(trainer.files.model, "text")["epoch"] == 0


def test_divergence_ends_with_a_clear_line(make_trainer):
    trainer = make_trainer(replace(FEW_STEPS, lr=math.inf), aggressive=False)
    with pytest.raises(UserError, match="diverged") as error:
        trainer.fit()
    assert "nan" in str(error.value) and "\n" not in str(error.value)
    assert not trainer.files.model.exists()  # weights that are no numbers never become the best


# ---------------------------------------------------------------------- data that are no text


class Points:
    """A split of points in the plane x = (z, -z) + noise: the loop may ask for no more than these methods."""

    unit = "point"
    scale = torch.tensor([[1.0, -1.0]])

    def __init__(self, n, seed, batch_size=50):
        generator = torch.Generator().manual_seed(seed)
        z = torch.randn(n, 1, generator=generator)
        self.points = z @ self.scale + 0.5 * torch.randn(n, 2, generator=generator)
        self.size, self.batch_size, self.num_batches = n, batch_size, n // batch_size

    def __iter__(self):
        return iter(self.points.split(self.batch_size))

    def order(self, generator):
        return torch.randperm(self.size, generator=generator)

    def batch(self, order, i):
        return self.points[order[i * self.batch_size : (i + 1) * self.batch_size]]

    def random_batch(self, generator):
        return self.points[torch.randint(self.size, (self.batch_size,), generator=generator)]

    @staticmethod
    def units(batch):
        return len(batch)

    @classmethod
    def exact_nll(cls, x):
        covariance = cls.scale.T @ cls.scale + 0.25 * torch.eye(2)
        return -float(MultivariateNormal(torch.zeros(2), covariance).log_prob(x).mean())


class LinearEncoder(GaussianEncoder):
    def __init__(self):
        super().__init__()
        self.mean = nn.Linear(2, 1)
        self.logvar = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        mean = self.mean(x)
        return mean, self.logvar.expand_as(mean)


class LinearDecoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean = nn.Linear(1, 2)
        self.logvar = nn.Parameter(torch.zeros(1))

    def reconstruction(self, x, z):
        return -Normal(self.mean(z), (0.5 * self.logvar).exp()).log_prob(x.unsqueeze(1)).sum(dim=-1)


@pytest.mark.parametrize("sizes, little", [((4, 4, 1), False), ((4, 1), False), ((2, 1, 1), True), ((1, 1), True)])
def test_mi_decides_where_its_batches_allow_more_than_half_of_log_batch_size(make_trainer, tmp_path, sizes, little):
    """Batches of four at most, each of sentences of another length."""
    (tmp_path / "val.txt").write_text("".join(size * (length * "a " + "\n") for length, size in enumerate(sizes, 1)))
    trainer = make_trainer()
    trainer.splits["val"] = TextSplit(read_corpus(tmp_path / "val.txt")[0], batch_size=4)
    assert [len(x) for x in trainer.splits["val"]] == list(sizes)
    assert trainer.mi_says_little == little


@pytest.mark.parametrize("aggressive, inner_clip", [(True, "joint"), (True, "encoder"), (False, "joint")])
def test_the_loop_fits_whatever_has_an_encoder_a_decoder_and_a_split(tmp_path, aggressive, inner_clip):
    """A linear VAE on Gaussian points, with Adam as for images: the ELBO comes to the exact log-likelihood."""
    torch.manual_seed(0)
    splits = {"train": Points(500, 0), "val": Points(300, 1), "test": Points(300, 2)}
    recipe = replace(IMAGE, lr=0.05, inner_steps=10, inner_test_every=5)
    trainer = Trainer(
        VAE(LinearEncoder(), LinearDecoder()),
        splits,
        recipe,
        TEXT.settings(**{**OPTIONS, "aggressive": aggressive, "inner_clip": inner_clip, "epochs": 12}),
        ListRecords(words=False),
        RunFiles("points", "run", models=tmp_path),
        {"domain": "points"},
    )
    trainer.fit()
    first, *_, last = trainer.records.named("val")
    exact = Points.exact_nll(splits["val"].points)
    assert exact - 0.05 < last["loss"] < exact + 0.1 < first["loss"]
    assert last["kl"] == pytest.approx(0.5 * math.log(9), abs=0.25)  # I(x, z) = log(1 + 2 / 0.25) / 2
    assert (trainer.progress.encoder_steps > 0) == aggressive
    assert not any("ppl" in line for line in trainer.records.lines)
    assert load_checkpoint(trainer.files.model, "points")["metrics"]["loss"] == trainer.progress.best_loss
    assert trainer.progress.best_loss == min(e["loss"] for e in trainer.records.named("val"))
