"""How each domain is trained: every constant of the published runs, once, with its unit."""

from dataclasses import dataclass, replace

from modules.settings import exactly

RATES = {"sgd": 1.0, "adam": 1e-3}  # learning rate of each optimiser, unless --lr says otherwise


@dataclass(frozen=True)
class Recipe:
    """The defaults are those of text; `IMAGE` and `TOY` say where they differ."""

    optimiser: str = "sgd"  # one for the encoder, one for the decoder
    lr: float = RATES["sgd"]
    encoder_optimiser: str | None = None  # if it is another than the decoder's ...
    encoder_lr: float | None = None  # ... and its rate, which decays as the decoder's does
    clip_norm: float = 5.0  # global L2 norm of the gradients
    inner_steps: int = 99  # encoder-only steps for one decoder update, at most
    inner_test_every: int = 15  # steps between two tests whether the inner loop still helps
    lr_decay: float = 0.5
    decay_patience: int = 2  # epochs without a better validation loss before the rate decays ...
    decay_from_epoch: int = 15  # ... counted from 0; no decay before this one
    max_decays: int = 5  # training stops after that many
    rebase_at_decay: bool = True  # whether the loss to beat becomes the current one at a decay
    mi_patience: int = 1  # epochs whose validation MI falls short of the best that end the phase
    mi_start: float = 0.0  # the MI "before" the first epoch, in nats


TEXT = Recipe()
IMAGE = Recipe(
    optimiser="adam",
    lr=RATES["adam"],
    inner_test_every=10,
    decay_patience=20,
    decay_from_epoch=0,
    rebase_at_decay=False,
    mi_patience=5,
)
TOY = Recipe(decay_from_epoch=0, mi_start=-1.0)


def adjusted(recipe, s):
    """The recipe with what the settings `s` of a run may choose: optimiser, learning rate, clipping."""
    return replace(recipe, optimiser=_optimiser(recipe, s), lr=s.lr, clip_norm=s.clip_norm)


def departures(recipe, s):
    """The part of a run's name that tells where its settings leave the recipe, unrounded: "" where they do not."""
    optimiser = _optimiser(recipe, s)
    parts = [optimiser] if optimiser != recipe.optimiser else []
    parts += [f"lr{exactly(s.lr)}"] if s.lr not in (None, RATES[optimiser]) else []
    parts += [f"clip{exactly(s.clip_norm)}"] if s.clip_norm != recipe.clip_norm else []
    return "".join(f"{part}_" for part in parts)


def _optimiser(recipe, s):
    """Its name; images have no choice."""
    return getattr(s, "optimizer", recipe.optimiser)
