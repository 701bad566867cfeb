"""How each domain is trained: every constant of the published runs, once, with its unit."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """The defaults are those of text; `IMAGE` and `TOY` say where they differ."""

    optimiser: str = "sgd"  # one for the encoder, one for the decoder
    lr: float = 1.0
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
    lr=1e-3,
    inner_test_every=10,
    decay_patience=20,
    decay_from_epoch=0,
    rebase_at_decay=False,
    mi_patience=5,
)
TOY = Recipe(decay_from_epoch=0, mi_start=-1.0)
