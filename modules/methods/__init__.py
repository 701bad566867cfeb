"""The methods of the comparison, a file each (`docs/methods.md`: how to add one), and what they come to together."""

import math
from types import SimpleNamespace

from torch import nn

from modules.methods.annealing import Annealing
from modules.methods.batch_norm import BatchNorm
from modules.methods.beta import Beta
from modules.methods.committed_rate import CommittedRate
from modules.methods.encoder_initialisation import EncoderInitialisation
from modules.methods.free_bits import FreeBits
from modules.methods.language_model import LanguageModel
from modules.methods.semi_amortised import SemiAmortised
from modules.methods.steady import Steady
from modules.methods.word_dropout import WordDropout
from modules.models.vae import VAE
from modules.settings import Setting, one_of

METHODS = (
    Annealing(),
    LanguageModel(),
    SemiAmortised(),
    Beta(),
    FreeBits(),
    BatchNorm(),
    CommittedRate(),
    EncoderInitialisation(),
    WordDropout(),
    Steady(),
)  # in the order of their parts of a run's name, and of a table's additions

MODEL = Setting(
    "model",
    one_of("vae", *(method.model for method in METHODS if method.model)),
    "lm: the decoder alone, without z; savae: semi-amortised",
    "vae",
    model=True,
)
SETTINGS = (MODEL, *(setting for method in METHODS for setting in method.settings))


def used(s):
    """The methods that a run with settings `s` makes use of."""
    return [method for method in METHODS if method.used(s)]


def check(s):
    """Raise UserError for settings that exclude each other."""
    for method in METHODS:
        method.check(s)


def kl_weight(s, iteration, batches_per_epoch):
    """What multiplies the KL in outer iteration `iteration`, the first being 0."""
    return math.prod((method.kl_weight(s, iteration, batches_per_epoch) for method in used(s)), start=1.0)


def kl_penalty(s, kl):
    """What the KL weight multiplies, from the KL of each dimension [batch, nz]: [batch], in nats."""
    for method in used(s):
        kl = method.kl_penalty(s, kl)
    return kl.sum(dim=1)


def validation_loss(s, metrics):
    """What decides which model is the best: the negative ELBO at KL weight 1, unless a method says otherwise."""
    losses = [method.validation_loss(s, metrics) for method in used(s)]
    return next((loss for loss in losses if loss is not None), metrics.loss)


def recipe(s, recipe):
    """The constants of training as the methods want them."""
    for method in used(s):
        recipe = method.recipe(s, recipe)
    return recipe


def dimensions(s):
    """Dimensions of z: `nz`, or 0 for a model without it."""
    return 0 if s.model == LanguageModel.model else s.nz


def constraints(s):
    """The modules that an encoder is to apply to its mean and log-variance."""
    modules = [method.constraint(s) for method in used(s)]
    return [module for module in modules if module is not None]


def word_noise(s):
    """The module that a text decoder applies to the words which it reads in training; empty where there is none."""
    modules = [method.word_noise(s) for method in used(s)]
    return nn.Sequential(*(module for module in modules if module is not None))


def assemble(s, encoder, decoder):
    """The model that a run trains, made of its two networks."""
    models = [method.assemble(s, encoder, decoder) for method in used(s)]
    return next((model for model in models if model is not None), None) or VAE(encoder, decoder)


def begin(s, model, description):
    """Change the model as the methods want it before training begins."""
    for method in used(s):
        method.begin(s, model, description)


def after_epoch(s, model, split):
    """Change the model as the methods want it after an epoch over the training split, before it is evaluated."""
    for method in used(s):
        method.after_epoch(s, model, split)


def tag(s):
    """The part of a run's name that tells its methods."""
    return "".join(f"{part}_" for part in (method.tag(s) for method in used(s)) if part)


def method_name(record):
    """What tables and legends call the method of a run, after the record of its settings; older ones may lack some."""
    known = {"aggressive": 0, **{setting.name: setting.default for setting in SETTINGS}}
    s = SimpleNamespace(**{**known, **{name: value for name, value in record.items() if value is not None}})
    title = ", ".join(filter(None, (method.title(s) for method in used(s)))) or "VAE"
    if s.aggressive:
        title = "aggressive" if title == "VAE" else f"aggressive {title}"  # alone, the paper's name
    return title + "".join(method.addition(s) for method in used(s))
