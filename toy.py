"""The posterior mean space: a text VAE with one latent dimension, and statistics to draw it from.

    python prepare_data.py --dataset synthetic
    python toy.py --aggressive 1 --plot_mode multiple --max_iterations 2000
    python toy.py --aggressive 1 --plot_mode single
    python plot_scripts/plot_multiple.py --aggressive 1 --iter 2000

Statistics go to plot_data/; the training is that of text.py, with the toy recipe.
"""

import torch

from modules.command import UserError, note, run_command
from modules.data.corpus import OneBatch, TextSplit, Vocabulary, read_corpus
from modules.domains.domain import RUNNING, settle
from modules.domains.text_domain import TEXT
from modules.evaluation.posterior_space import Snapshots, Trajectory
from modules.settings import Group, Setting, number, one_of, parse, whole
from modules.training.recipe import TOY
from modules.training.run import prepare_device, train_and_test

MOST_POINTS = 100_000  # of the grid
NUM_PLOT = {"multiple": 500, "single": 50}
MAX_ITERATIONS = {"multiple": None, "single": 100}  # the figure of the single mode shows the first twenty

SPACE = Group(
    "posterior mean space",
    (
        Setting(
            "plot_mode",
            one_of("multiple", "single"),
            "multiple: the cloud every --plot_niter iterations; single: every half-step of a few points, for "
            f"{MAX_ITERATIONS['single']} iterations unless --max_iterations says otherwise",
            "multiple",
        ),
        Setting("zmin", number("(-inf, inf)"), "where the grid of z begins", -20.0),
        Setting("zmax", number("(-inf, inf)"), "where it ends", 20.0),
        Setting("dz", number("(-inf, inf)"), "its step", 0.1),
        Setting(
            "num_plot",
            whole(1),
            f"sentences to follow (default: {NUM_PLOT['multiple']}, or {NUM_PLOT['single']} in single mode)",
            None,
        ),
        Setting("plot_niter", whole(1), "iterations between two clouds", 200, needs=("plot_mode", "multiple")),
    ),
)


def main():
    s = check(settle(parse((SPACE, *TEXT.groups, RUNNING), __doc__, dataset="synthetic", preferred={"nz": 1})))
    torch.manual_seed(s.seed)
    device = prepare_device(s.tf32)
    beginning = TEXT.begin(s, device)
    observer = observe(s, beginning, device)
    train_and_test(f"toy_{s.plot_mode}_{TEXT.run_id(s)}", beginning, s, TOY, observer)


def observe(s, beginning, device):
    """What records `num_plot` training sentences in the chosen mode: the first ones, or in the single mode the first of
    one length.

    The single mode follows one batch and trains on it alone, in inner and outer steps, as the published figure 3 does.
    """
    _, splits, description = beginning
    vocabulary = Vocabulary(description["vocabulary"])
    grid = torch.arange(s.zmin, s.zmax, s.dz, device=device).unsqueeze(1)  # [points, 1]
    limit = s.train_limit
    if s.plot_mode == "multiple":
        limit = min(s.num_plot, s.train_limit or s.num_plot)
    corpus, _ = read_corpus(s.train_data, vocabulary, s.label, limit, longest=s.max_train_length)
    if s.plot_mode == "multiple":
        return Snapshots(TextSplit(corpus, s.num_plot, device), grid, s.plot_niter, s.record())
    splits["train"] = OneBatch(corpus, s.num_plot, splits["train"].num_batches, device)
    if splits["train"].size < s.num_plot:
        note(f"--num_plot {s.num_plot}: follows the {splits['train'].size} that there are of one length")
    return Trajectory(splits["train"], grid, s.record())


def check(s):
    """Settle what the mode decides, and refuse what this study cannot do."""
    s.num_plot = s.num_plot or NUM_PLOT[s.plot_mode]
    s.max_iterations = s.max_iterations or MAX_ITERATIONS[s.plot_mode]
    if not (s.zmin < s.zmax and 0 < s.dz < s.zmax - s.zmin < MOST_POINTS * s.dz):
        s.parser.error(
            f"no grid of 2 to {MOST_POINTS} points from --zmin {s.zmin} to --zmax {s.zmax} in steps of --dz {s.dz}"
        )
    if s.nz != 1:
        raise UserError(f"--nz {s.nz}: the posterior mean space is drawn for one latent dimension")
    if s.model == "lm":
        raise UserError("--model lm: without a latent variable there is no posterior mean to draw")
    return s


if __name__ == "__main__":
    run_command(main)
