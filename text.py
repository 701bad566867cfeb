"""Train a text VAE, plain or with aggressive encoder training, and evaluate it.

    python prepare_data.py --dataset yahoo
    python text.py --dataset yahoo --aggressive 1 --warm_up 10 --kl_start 0.1
    python text.py --dataset yahoo --aggressive 1 --warm_up 10 --kl_start 0.1 --resume
    python text.py --dataset yahoo --eval --load_path models/yahoo/<id>.pt

The run's settings come from config/config_<dataset>.py; every key there is a flag here.
"""

import torch

from modules import cli, text
from modules.config import add_flags, load_config
from modules.errors import Parser, run_command
from modules.training.checkpoint import load_checkpoint
from modules.training.recipe import TEXT
from modules.training.records import Printer


def main():
    args = parse_arguments()
    torch.manual_seed(args.seed)
    if args.eval:
        evaluate(args)
    else:
        train(args)


def train(args):
    """Train on the dataset of `args`, then test the best model."""
    config = load_config(args.dataset, text.KEYS, vars(args))
    model, splits, _, description = text.set_up(args, config, cli.device())
    cli.train_and_test(cli.run_name(args), model, splits, TEXT, args, config, description)


def evaluate(args):
    """Print the test figures of a saved model; its vocabulary and sizes come from its file."""
    content = load_checkpoint(args.load_path, "text")
    config = load_config(args.dataset, text.KEYS, vars(args))
    device = cli.device()
    model, vocabulary = text.model_from_checkpoint(content)
    cli.test(model.to(device), text.load_split(config, "test", vocabulary, device), args, Printer())


def parse_arguments():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", required=True, help="synthetic, yahoo, yelp, ptb, or a name with a config")
    cli.add_shared_flags(parser)
    add_flags(parser, text.KEYS)
    return cli.finish_arguments(parser, parser.parse_args())


if __name__ == "__main__":
    run_command(main)
