"""Train an image VAE, plain or with aggressive encoder training, evaluate it, and draw images from it.

    python prepare_data.py --dataset omniglot
    python image.py --dataset omniglot --aggressive 1 --warm_up 10 --kl_start 0.1
    python image.py --dataset omniglot --eval --load_path models/omniglot/<id>.pt
    python image.py --dataset omniglot --sample_from models/omniglot/<id>.pt
    python image.py --dataset omniglot --sample_from models/omniglot/<id>.pt --reconstruct 50

The run's settings come from config/config_<dataset>.py; `python image.py --dataset omniglot --help` shows them, each a
flag.
"""

import torch

from modules.command import run_command
from modules.domains.domain import EVALUATION, RUNNING, settle
from modules.domains.image_domain import IMAGE
from modules.generation import pictures
from modules.settings import parse, refuse_together
from modules.training.run import prepare_device, train_and_test


def main():
    s = settle(parse((*IMAGE.groups, RUNNING, EVALUATION, pictures.DRAWING), __doc__))
    refuse_together(s, *pictures.ALTERNATIVES)
    torch.manual_seed(s.seed)
    device = prepare_device(s.tf32)
    if s.eval:
        IMAGE.evaluate(s, device)
    elif s.sample_from:
        model, _, s = IMAGE.load(s.sample_from, s, device)
        pictures.draw(model, s)
    elif s.encode:
        model, _, s = IMAGE.load(s.load_path, s, device)
        pictures.encode(model, s)
    else:
        train_and_test(IMAGE.run_id(s), IMAGE.begin(s, device), s, IMAGE.recipe)


if __name__ == "__main__":
    run_command(main)
