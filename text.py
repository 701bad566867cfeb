"""Train a text VAE, plain or with aggressive encoder training, evaluate it, and generate sentences from it.

    python prepare_data.py --dataset yahoo
    python text.py --dataset yahoo --aggressive 1 --warm_up 10 --kl_start 0.1
    python text.py --dataset yahoo --aggressive 1 --warm_up 10 --kl_start 0.1 --resume
    python text.py --dataset yahoo --eval --load_path models/yahoo/<id>.pt
    python text.py --dataset yahoo --decode_from models/yahoo/<id>.pt --decoding_strategy beam
    python text.py --dataset yahoo --decode_from models/yahoo/<id>.pt --decode_input sentences.txt

The run's settings come from config/config_<dataset>.py; every number and name there is a flag here.
"""

import torch

from modules import cli, text
from modules.generation import sentences as decoding
from modules.config import add_flags, load_config
from modules.command import Parser, run_command
from modules.training.recipe import TEXT
from modules.training.records import Printer


def main():
    args = parse_arguments()
    torch.manual_seed(args.seed)
    device = cli.prepare_device()
    if args.eval:
        evaluate(args, device)
    elif args.decode_from:
        decoding.decode(args, *text.load_model(args.decode_from, args, device))
    elif args.encode:
        decoding.encode(args, *text.load_model(args.load_path, args, device))
    else:
        train(args, device)


def train(args, device):
    """Train on the dataset of `args`, then test the best model."""
    config = load_config(args.dataset, text.KEYS, vars(args))
    model, splits, _, description = text.set_up(args, config, device)
    cli.train_and_test(cli.run_name(args), model, splits, TEXT, args, config, description)


def evaluate(args, device):
    """Print the test figures of a saved model; its vocabulary and sizes come from its file."""
    model, vocabulary, its_config = text.load_model(args.load_path, args, device)
    config = load_config(args.dataset, text.KEYS, cli.evaluated_as_trained(args, its_config))
    cli.test(model, text.load_split(config, "test", vocabulary, device), args, Printer())


def parse_arguments():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", required=True, help="synthetic, yahoo, yelp, ptb, or a name with a config")
    cli.add_shared_flags(parser)
    add_flags(parser, text.KEYS)
    decoding.add_flags(parser)
    args = parser.parse_args()
    cli.finish_arguments(parser, args, loads_model=args.eval or args.encode, generates=args.decode_from)
    decoding.check_flags(parser, args)
    return args


if __name__ == "__main__":
    run_command(main)
