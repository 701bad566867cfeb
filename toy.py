"""The posterior mean space: a text VAE with one latent dimension, and statistics to draw it from.

    python prepare_data.py --dataset synthetic
    python toy.py --aggressive 1 --plot_mode multiple --max_iterations 2000
    python toy.py --aggressive 1 --plot_mode single
    python plot_scripts/plot_multiple.py --aggressive 1 --iter 2000

Statistics go to plot_data/; the training is that of text.py, with the toy recipe.
"""

import dataclasses
import math

import torch

from modules import cli, text
from modules.config import add_flags, load_config
from modules.data.corpus import TextSplit, read_corpus
from modules.command import Parser, UserError, run_command
from modules.evaluation.posterior_space import Snapshots, Trajectory
from modules.training.recipe import TOY

MOST_POINTS = 100_000       # of the grid
SINGLE_ITERATIONS = 100     # the single mode's default: its figure shows the first twenty


def main():
    args = parse_arguments()
    torch.manual_seed(args.seed)
    config = load_config(args.dataset, text.KEYS, vars(args))
    if config["nz"] != 1:
        raise UserError(f"--nz {config['nz']}: the posterior mean space is drawn for one latent dimension")
    if config["model"] == "lm":
        raise UserError("--model lm: without a latent variable there is no posterior mean to draw")
    device = cli.prepare_device()
    model, splits, vocabulary, description = text.set_up(args, config, device)
    recipe = TOY if args.optim == "sgd" else dataclasses.replace(TOY, optimiser="adam", lr=1e-3)
    cli.train_and_test(f"toy_{args.plot_mode}_{cli.run_name(args)}", model, splits, recipe, args, config, description,
                       observer=build_observer(args, config, vocabulary, device), max_iterations=args.max_iterations)


def build_observer(args, config, vocabulary, device):
    """What records the first `num_plot` training sentences in the chosen mode."""
    corpus, _ = read_corpus(config["train_data"], vocabulary, config["label"], limit=args.num_plot)
    sentences = TextSplit(corpus, args.num_plot, device)
    grid = torch.arange(args.zmin, args.zmax, args.dz, device=device).unsqueeze(1)      # [points, 1]
    settings = {**cli.plain_arguments(args), "config": config}
    if args.plot_mode == "multiple":
        return Snapshots(sentences, grid, args.plot_niter, settings)
    return Trajectory(sentences, grid, settings)


def parse_arguments():
    parser = Parser(description=__doc__.splitlines()[0])
    toy = parser.add_argument_group("posterior mean space")
    toy.add_argument("--plot_mode", choices=("multiple", "single"), default="multiple",
                     help="multiple: the cloud every --plot_niter iterations; single: every half-step of a few points")
    toy.add_argument("--zmin", type=float, default=-20.0, help="where the grid of z begins")
    toy.add_argument("--zmax", type=float, default=20.0, help="where it ends")
    toy.add_argument("--dz", type=float, default=0.1, help="its step")
    toy.add_argument("--num_plot", type=cli.COUNT, help="sentences to follow (default: 500, or 50 in single mode)")
    toy.add_argument("--plot_niter", type=cli.COUNT, default=200, help="iterations between two clouds")
    toy.add_argument("--optim", choices=("sgd", "adam"), default="sgd", help="sgd: rate 1.0; adam: rate 1e-3")
    toy.add_argument("--max_iterations", type=cli.COUNT,
                     help=f"stop after that many outer iterations (default: none; single mode: {SINGLE_ITERATIONS})")
    parser.add_argument("--dataset", default="synthetic", help="a text data set with a config")
    cli.add_shared_flags(parser)
    add_flags(parser, text.KEYS)
    parser.set_defaults(nz=1)
    args = parser.parse_args()
    if args.eval or args.load_path:
        parser.error("--eval --load_path M: text.py evaluates the models of this study, too")
    cli.finish_arguments(parser, args, loads_model=False)
    if args.momentum and args.optim == "adam":
        parser.error("--momentum is that of SGD; --optim adam has its own")
    single = args.plot_mode == "single"
    args.num_plot = args.num_plot or (50 if single else 500)
    args.max_iterations = args.max_iterations or (SINGLE_ITERATIONS if single else None)
    if not (args.zmin < args.zmax < math.inf and 0 < args.dz < args.zmax - args.zmin < MOST_POINTS * args.dz):
        parser.error(f"no grid of 2 to {MOST_POINTS} points from --zmin {args.zmin} to --zmax {args.zmax} in steps of "
                     f"--dz {args.dz}")
    return args


if __name__ == "__main__":
    run_command(main)
