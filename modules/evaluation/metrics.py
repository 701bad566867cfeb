"""What is reported of a model on a split (the columns of table 1 of the paper, and their companions).

Evaluation draws its noise from a generator of its own, seeded anew each time: measuring leaves training untouched, and
two epochs are compared under the same noise.
"""

import math
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import torch

from modules.distributed import Team
from modules.models.gaussian import (
    kl_to_standard_normal,
    largest_square,
    log_density,
    log_mixture_density,
    reparameterize,
)
from modules.models.layers.precision import full_float32

MOST_UNITS = 2**18  # words that a decoder evaluates at once, at most
ACTIVE_VARIANCE = 0.01  # a dimension is active if its posterior mean varies at least this much (Burda et al. 2016)


@dataclass
class Metrics:
    """Averages per sentence or image, in nats."""

    loss: float  # reconstruction + KL, the negative ELBO at KL weight 1
    reconstruction: float  # -log p(x|z), one sample of z
    kl: float  # KL(q(z|x) || p(z))
    mi: float  # I(x, z) with q(z) mixed over the batch, as published
    mi_agg: float  # the same with q(z) mixed over the whole split
    kl_agg: float  # KL(q(z) || p(z)) = kl - mi_agg
    active_units: int
    units: int  # predicted words, or images, in the split
    size: int  # sentences or images in the split

    def as_dict(self):
        return asdict(self)


def active_units(means):
    """Number of dimensions whose posterior mean has variance (n - 1 in the denominator) >= 0.01: means [n, nz]."""
    if len(means) < 2 or means.size(1) == 0:
        return 0
    return int((means.double().var(dim=0) >= ACTIVE_VARIANCE).sum())


def batch_mutual_information(mean, logvar, z, largest=None):
    """I(x, z) of one batch, with q(z) mixed over that batch: E[log q(z|x) - log q(z)] over one draw per x.

    This is E[KL(q(z|x) || p(z))] - KL(q(z) || p(z)) (Hoffman & Johnson 2016), log p(z) cancelled.
    mean, logvar, z: [batch, nz] -> a scalar tensor in nats, at most log(batch). `largest` is their `largest_square`
    where that has been read from the device already.
    """
    mixture = log_mixture_density(z, mean, logvar, largest=largest)
    return (log_density(z.double(), mean.double(), logvar.double()) - mixture).mean()


@torch.no_grad()
def posteriors(model, split, seed):
    """Encode a split once: lists of (mean, logvar, z) per batch, z one draw from q(z|x)."""
    generator = torch.Generator(model.device).manual_seed(seed)
    encoded = []
    for x in split:
        mean, logvar = model.posterior(x)
        encoded.append((mean, logvar, reparameterize(mean, logvar, 1, generator).squeeze(1)))
    return encoded


def mutual_information(encoded):
    """`batch_mutual_information`, batches averaged by size: a float in nats. A device is waited for twice in all."""
    largest = torch.stack([largest_square(z, mean, logvar) for mean, logvar, z in encoded]).tolist()
    total = sum(batch_mutual_information(*batch, bound) * len(batch[0]) for batch, bound in zip(encoded, largest))
    return float(total) / sum(len(mean) for mean, _, _ in encoded)


def mutual_information_ceiling(split):
    """The most that `mutual_information` of a split can be, in nats: log of the batch size, averaged over examples.

    Batches of text hold sentences of one length, so that of few sentences most batches are small.
    """
    return sum(len(x) * math.log(len(x)) for x in split) / split.size


def aggregate_mutual_information(encoded):
    """The same estimate with q(z) mixed over the whole split: a float in nats."""
    return float(batch_mutual_information(*(torch.cat(parts) for parts in zip(*encoded))))


def pass_over(name, values):
    """In place of `Examples`: the values of a batch, which nobody keeps."""
    return values


@torch.no_grad()
def evaluate(model, split, seed, team=None, keep=pass_over):
    """Every metric but the importance-weighted likelihood; encodes the split once, in evaluation mode.

    Of a `team` each process encodes the whole split, under the same noise, and decodes its share of it. `keep` is told
    the reconstruction and the KL of each example (`Examples`).
    """
    team = team or Team()

    def reconstruction_of(pair):
        x, (_, _, z) = pair
        return keep("reconstruction", model.decoder.reconstruction(x, z.unsqueeze(1)).double()).sum()

    with evaluation_mode(model):
        encoded = posteriors(model, split, seed)
        reconstruction = sum(team.share_out(zip(split, encoded), reconstruction_of))
        kl = sum(keep("kl", kl_to_standard_normal(mean, logvar).double()).sum() for mean, logvar, _ in encoded)
        reconstruction, kl = float(reconstruction) / split.size, float(kl) / split.size
        mi_agg = aggregate_mutual_information(encoded)
        return team.agreed(
            Metrics(
                loss=reconstruction + kl,
                reconstruction=reconstruction,
                kl=kl,
                mi=mutual_information(encoded),
                mi_agg=mi_agg,
                kl_agg=kl - mi_agg,
                active_units=active_units(torch.cat([mean for mean, _, _ in encoded])),
                units=sum(split.units(x) for x in split),
                size=split.size,
            )
        )


@torch.no_grad()
def quick_look(model, split, seed):
    """(mutual information, active units) from q(z|x) alone, for the reports during an epoch."""
    with evaluation_mode(model):
        encoded = posteriors(model, split, seed)
        return mutual_information(encoded), active_units(torch.cat([mean for mean, _, _ in encoded]))


@torch.no_grad()
def importance_weighted_nll(
    model, split, nsamples, max_rows, seed, progress=lambda batches: batches, team=None, keep=pass_over
):
    """Average importance-weighted -log p(x) over the split, in nats per sentence or image.

    `max_rows` bounds the pairs of an x and a z that the decoder sees at once, fewer where x is very long; `progress`
    wraps the batches. A `team` shares them out; who leaves a batch to another draws its noise all the same. `keep` is
    told the estimate of each example (`Examples`).
    """
    generator = torch.Generator(model.device).manual_seed(seed)

    def rows(x):
        return min(max_rows, max(1, MOST_UNITS // split.units(x[:1])))

    def nll_of(x):
        return keep("iw_nll", model.iw_nll(x, nsamples, rows(x), generator).double()).sum()

    def skip(x):
        list(model.iw_draws(x, nsamples, rows(x), generator))

    with evaluation_mode(model):
        return float(sum((team or Team()).share_out(progress(split), nll_of, skip))) / split.size


@contextmanager
def evaluation_mode(model):
    """Within: the model in evaluation mode, without TF32; afterwards in the mode that it was in."""
    was_training = model.training
    model.eval()
    try:
        with full_float32():
            yield
    finally:
        model.train(was_training)


def perplexity(nll, size, units):
    """exp of nats per predicted unit, from `nll` in nats per sentence, `size` sentences of `units` in all; infinite
    where that overflows."""
    try:
        return math.exp(nll * size / units)
    except OverflowError:
        return math.inf
