"""What a domain, text or images, is to the scripts: settings, data, model, recipe; and how its runs begin."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product

from modules import methods
from modules.checkpoint import load_model_file, load_weights
from modules.command import note, processes
from modules.data.corpus import Vocabulary
from modules.distributed import team_for
from modules.models.layers.precision import PRECISIONS
from modules.settings import (
    MOST,
    Group,
    Setting,
    Settings,
    csv_file,
    exactly,
    file_name,
    number,
    one_of,
    refuse_together,
    saved_settings,
    set_defaults,
    switch,
    whole,
)
from modules.training.recipe import RATES, Recipe, departures
from modules.training.records import Printer
from modules.training.run import read_in, test
from modules.training.scalars import summary_writer

SEEDS = (783435, 101, 202, 303, 404, 505, 606, 707, 808, 909)  # --taskid picks one

TRAINING = Group(
    "training",
    (
        Setting("aggressive", one_of(0, 1), "1: aggressive encoder training", 0),
        Setting("train_limit", whole(1), "read only this many training sentences or images", None),
        Setting("nsamples", whole(1), "draws of z per x in training", 1),
        Setting(
            "lr",
            number(f"(0, {MOST}]"),
            f"learning rate at the start (default: {RATES['sgd']:g}, or {RATES['adam']:g} with --optimizer adam)",
            None,
        ),
        Setting("optimizer", one_of("sgd", "adam"), "of the encoder and of the decoder", "sgd", also=("optim",)),
        Setting("momentum", number("[0, 1)"), "momentum of SGD", 0.0),
        Setting("clip_norm", number(f"(0, {MOST}]"), "bound on the L2 norm of all gradients", Recipe.clip_norm),
        Setting(
            "inner_clip",
            one_of("joint", "encoder"),
            "inner steps clip the norm over all gradients (published), or "
            "over the encoder's alone, which saves the decoder's",
            "joint",
            needs=("aggressive",),
        ),
        Setting(
            "precision",
            one_of(*PRECISIONS),
            "of the most expensive products in training; evaluation is always float32",
            "float32",
        ),
        Setting(
            "tf32",
            switch,
            "whether a GPU may round the factors of float32 products to TF32 in training; published "
            "figures are of cards without it",
            False,
        ),
        Setting("batch_size", whole(1), "sentences or images in a batch, at most"),
        Setting("epochs", whole(1), "epochs, at most", may_change=True),
        Setting("max_iterations", whole(1), "stop after that many outer iterations", None, may_change=True),
        Setting("test_nepoch", whole(1), "epochs between two evaluations on the test split", may_change=True),
        Setting("seed", whole(0, 2**63 - 1), "wins over --taskid", None),
        Setting("taskid", whole(0, len(SEEDS) - 1), f"picks the seed among {', '.join(map(str, SEEDS))}", 0),
        Setting("jobid", whole(0), "part of the run's name, to tell runs apart", 0),
        Setting("save_every", number(f"[0, {MOST}]"), "minutes between checkpoints in an epoch", 10.0, may_change=True),
        Setting("tensorboard", switch, "also write TensorBoard scalars, beside the log", False, may_change=True),
    ),
)
METHODS = Group("methods", methods.SETTINGS)
IW = Group(
    "importance-weighted NLL",
    (
        Setting("iw_nsamples", whole(1), "samples", 500, may_change=True),
        Setting(
            "iw_batch",
            whole(1),
            "pairs of an x and a z that the decoder evaluates at once; bounds the memory",
            2048,
            may_change=True,
        ),
    ),
)
ALONE = ("encode", "decode_from", "sample_from")  # the work of one process, with no likelihood in it
ORDERS = ("resume", "overwrite", "eval", *ALONE)  # of which a command is given one at most
RUNNING = Group(
    "an earlier run of this name",
    (
        Setting("resume", switch, "go on from its last checkpoint", False),
        Setting("overwrite", switch, "start it again, erasing its files", False),
    ),
    of_run=False,
)
EVALUATION = Group(
    "evaluation of a saved model",
    (
        Setting("eval", switch, "on the test split", False, needs=("load_path",)),
        Setting("load_path", file_name, "the model", None),
        Setting(
            "per_example",
            csv_file,
            "write the figures of each test sentence or image, in nats, into this .csv, in the order of the test file",
            None,
            needs=("eval",),
        ),
    ),
    of_run=False,
)


@dataclass(frozen=True)
class Domain:
    """A domain.

    name        "text" or "image"
    groups      the `Group`s of its settings
    run_name    format of a run's name, of the settings by name, the {weight} of the KL that it starts with, the
                {methods}' part, and the {departures} from the recipe
    decimals    of that weight, at least
    recipe      the constants of its published runs
    read_splits read_splits(s, device, names, vocabulary=None) -> ({name: split}, Vocabulary or None) for names among
                "train", "val" and "test"
    build       build(s, vocabulary, source) -> a model with the published initialisation; raises UserError, naming the
                `source` of the settings, if none can be made of them
    has_words   whether there is a vocabulary
    """

    name: str
    groups: tuple
    run_name: str
    decimals: int
    recipe: Recipe
    read_splits: Callable
    build: Callable
    has_words: bool = False

    def run_id(self, s):
        """The name of a run's files."""
        weight = max(f"{s.kl_start:.{self.decimals}f}", exactly(s.kl_start), key=len)  # never rounded
        parts = {"weight": weight, "methods": methods.tag(s), "departures": departures(self.recipe, s)}
        return self.run_name.format(**vars(s), **parts)

    def settings(self, **values):
        """Settings made in code: the defaults, and these values."""
        declared = {setting.name: setting for group in self.groups for setting in group.settings}
        return Settings(**{**set_defaults(declared), **values}, declared=declared, given=set(values))

    def read(self, s, device, names, vocabulary=None):
        """`read_splits`, of a data set that has a config."""
        s.need_config()
        return self.read_splits(s, device, names, vocabulary)

    def begin(self, s, device):
        """What a run begins with: (model, splits, what a saved model says of itself)."""
        s.need_config()
        methods.check(s)
        if s.tensorboard:
            summary_writer()
        splits, vocabulary = self.read_splits(s, device, ("train", "val", "test"))
        model = self.build(s, vocabulary, f"config/config_{s.dataset}.py").to(device)
        description = {
            "domain": self.name,
            "dataset": s.dataset,
            "args": s.record(),
            "data": {name: split.fingerprint for name, split in splits.items()},
            **({"vocabulary": vocabulary.words} if vocabulary else {}),
        }
        return model, splits, description

    def load(self, path, s, device, as_trained=("batch_size", "label")):
        """A saved model on the device, in evaluation mode: (model, Vocabulary or None, the settings it has with those
        of the command).

        A checkpoint of this project has its settings and vocabulary inside; besides those of the model, the settings
        `as_trained` are its own unless a flag says otherwise (`mi` mixes q(z) over the batch). Of a plain state dict,
        as the authors' code saves it, the settings are those of the dataset, the vocabulary that of its training file.
        """
        return self.made_of(load_model_file(path, self.name), path, s, device, as_trained)

    def made_of(self, content, path, s, device, as_trained):
        """`load`, of the `content` of the file `path`."""
        saved, vocabulary = saved_settings(content), None
        if "args" in content:
            s = s.as_trained(saved, path, as_trained)
            vocabulary = Vocabulary.of_file(content.get("vocabulary"), path) if self.has_words else None
        else:
            s.need_config()
            about = f"{path}: a plain state dict, {len(content['model'])} tensors; read with the config of {s.dataset}"
            if self.has_words:
                _, vocabulary = self.read(s, "cpu", ("train",))
                about += f" and the {len(vocabulary)} words of {s.train_data}"
            print(about)
        model = self.build(s, vocabulary, path)
        load_weights(model, content["model"], path)
        return model.to(device).eval(), vocabulary, s

    def evaluate(self, s, device):
        """Print what the model of --load_path comes to on the test split, as at the end of its run: under the noise of
        its seed, unless a flag gives another."""
        saved = load_model_file(s.load_path, self.name)
        model, vocabulary, s = self.made_of(saved, s.load_path, s, device, ("batch_size", "label", "seed"))
        splits, _ = self.read(s, device, ("test",), vocabulary)
        tested = splits["test"].fingerprint
        if saved.get("dataset") == s.dataset and saved.get("data", {}).get("test", tested) != tested:
            note(f"{s.load_path}: made when {s.dataset} had another test split; it may have been trained on this one")
        records = Printer(words=self.has_words)
        records.write("data", **read_in(splits, vocabulary and vocabulary.words))
        with team_for(model) as team:
            test(model, splits["test"], s, records, team, s.per_example)


def settle(s):
    """Settle what several settings decide together: seed and learning rate. Ends the command if settings contradict
    each other."""
    if "taskid" in s.given and "seed" not in s.given:  # it picks the seed, whatever the config has
        s.seed = None
        s.given.add("seed")
    s.seed = SEEDS[s.taskid] if s.seed is None else s.seed
    s.lr = RATES[s.optimizer] if s.lr is None else s.lr
    if getattr(s, "momentum", 0) and s.optimizer == "adam":
        s.parser.error("--momentum is that of SGD; --optimizer adam has its own")
    refuse_together(s, ORDERS, *product(("iw_nsamples", "iw_batch"), ALONE))
    if getattr(s, "load_path", None) and not (s.eval or s.encode):
        s.parser.error("--load_path names the model of --eval or --encode; neither goes without the other")
    for name in (*ALONE, "per_example"):
        if processes() > 1 and getattr(s, name, None):
            s.parser.error(f"--{name} is the work of one process; start it without torchrun")
    return s


def changed(group, **changes):
    """The group with some of its settings changed: {name: what is otherwise, by the fields of `Setting`}, or left out:
    {name: None}."""
    kept = ((setting, changes.get(setting.name, {})) for setting in group.settings)
    return replace(group, settings=tuple(replace(setting, **change) for setting, change in kept if change is not None))
