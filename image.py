"""Train an image VAE, plain or with aggressive encoder training, evaluate it, and draw images from it.

    python prepare_data.py --dataset omniglot
    python image.py --dataset omniglot --aggressive 1 --warm_up 10 --kl_start 0.1
    python image.py --dataset omniglot --eval --load_path models/omniglot/<id>.pt
    python image.py --dataset omniglot --sample_from models/omniglot/<id>.pt
    python image.py --dataset omniglot --sample_from models/omniglot/<id>.pt --reconstruct 50

The run's settings come from config/config_<dataset>.py; every key there is a flag here.
"""

import sys
from pathlib import Path

import torch
from tqdm import tqdm

from modules import cli, image, latent
from modules.config import add_flags, load_config
from modules.command import Parser, UserError, run_command
from modules.models.gaussian import interpolate
from modules.training.recipe import IMAGE
from modules.training.records import Printer

SAMPLE_COLUMNS = 20     # of the grid of samples from the prior
PART = 400              # images drawn together; bounds the memory
PAIR_COLUMNS = 5        # of the grid of originals, each beside its reconstruction


def main():
    args = parse_arguments()
    torch.manual_seed(args.seed)
    device = cli.prepare_device()
    if args.eval:
        evaluate(args, device)
    elif args.sample_from:
        draw(args, device)
    else:
        train(args, device)


def train(args, device):
    """Train on the dataset of `args`, then test the best model."""
    config = load_config(args.dataset, image.KEYS, vars(args))
    model, splits, description = image.set_up(args, config, device)
    cli.train_and_test(image.run_name(args), model, splits, IMAGE, args, config, description)


def evaluate(args, device):
    """Print the test figures of a saved model; its sizes come from its file."""
    model, its_config = image.load_model(args.load_path, args, device)
    cli.test(model, image.load_test_split(test_config(args, its_config), device), args, Printer())


def draw(args, device):
    """Draw from a saved model: from the prior, reconstructions of test images, or points between two of them."""
    model, config = image.load_model(args.sample_from, args, device)
    random = torch.Generator().manual_seed(args.seed)           # on the CPU: a seed means the same on every device
    if args.reconstruct:
        draw_reconstructions(args, model, test_config(args, config), random)
    elif args.interpolate:
        draw_interpolations(args, model, test_config(args, config), random)
    else:
        z = torch.randn(args.num_samples, latent.dimensions(config), generator=random)
        images, probabilities = sample(model, z, random)
        image.save_grid(images, SAMPLE_COLUMNS, grid_path(args, "sample"))
        image.save_grid(probabilities, SAMPLE_COLUMNS, grid_path(args, "probability"))


@torch.no_grad()
def draw_reconstructions(args, model, config, random):
    """Test images, each beside a sample of p(x|z) with z the mean of q(z|x)."""
    originals = first_test_images(args, config, args.reconstruct)
    images, _ = sample(model, model.posterior(originals.to(model.device), random)[0], random)
    pairs = torch.stack([originals, images.cpu()], dim=1).flatten(0, 1)
    image.save_grid(pairs, 2 * PAIR_COLUMNS, grid_path(args, "reconstruction"))


@torch.no_grad()
def draw_interpolations(args, model, config, random):
    """A row for each pair of test images: samples of p(x|z) with z on the line between their posterior means."""
    originals = first_test_images(args, config, 2 * args.interpolate)
    mean, _ = model.posterior(originals.to(model.device), random)
    images, _ = sample(model, interpolate(mean[::2], mean[1::2], args.steps), random)
    between = images.cpu().view(args.interpolate, args.steps, *images.shape[1:])
    rows = torch.cat([originals[::2].unsqueeze(1), between, originals[1::2].unsqueeze(1)], dim=1)
    image.save_grid(rows.flatten(0, 1), args.steps + 2, grid_path(args, "interpolation"))


def test_config(args, its_config):
    """The config of the dataset of `args`, with the image size of the model that it is used on."""
    config = load_config(args.dataset, image.KEYS, cli.evaluated_as_trained(args, its_config))
    return {**config, "img_size": its_config["img_size"]}


def first_test_images(args, config, count):
    """The first `count` test images, binary, [count, 1, height, width]; raises UserError if there are fewer."""
    split = image.load_test_split({**config, "batch_size": count}, "cpu")
    if split.size < count:
        raise UserError(f"{config['data_file']}: {split.size} test images, but {count} are needed")
    return next(iter(split))


def sample(model, z, random):
    """Images and probabilities from p(x|z), [n, 1, height, width] both, with a progress bar."""
    parts = [model.decoder.sample(part.to(model.device), random,
                                  lambda rows: tqdm(rows, desc="rows", leave=False, disable=not sys.stderr.isatty()))
             for part in z.split(PART)]
    return tuple(torch.cat(grids) for grids in zip(*parts))


def grid_path(args, kind):
    """Where a grid of images goes."""
    return Path("samples", f"{args.sample_from.stem}_{kind}.png")


def parse_arguments():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", required=True, help="omniglot, omniglot_small, or a name with a config")
    cli.add_shared_flags(parser)
    add_flags(parser, image.KEYS)
    group = parser.add_argument_group("drawing, into samples/")
    group.add_argument("--sample_from", type=Path, help="draw images from this saved model")
    group.add_argument("--num_samples", type=cli.COUNT, default=400, help="images from the prior")
    group.add_argument("--reconstruct", type=cli.COUNT, metavar="N", help="instead, N test images and reconstructions")
    group.add_argument("--interpolate", type=cli.COUNT, metavar="N", help="or lines between N pairs of test images")
    group.add_argument("--steps", type=cli.TWO_OR_MORE, default=9, help="points of such a line, its ends included")
    args = parser.parse_args()
    cli.finish_arguments(parser, args, loads_model=args.eval, generates=args.sample_from)
    if args.momentum:
        parser.error("--momentum is that of SGD; images are trained with Adam, which has its own")
    if args.eval and args.sample_from:
        parser.error("--eval and --sample_from exclude each other")
    if (args.reconstruct or args.interpolate) and not args.sample_from:
        parser.error("--reconstruct and --interpolate need the model of --sample_from")
    if args.reconstruct and args.interpolate:
        parser.error("--reconstruct and --interpolate exclude each other")
    return args


if __name__ == "__main__":
    run_command(main)
