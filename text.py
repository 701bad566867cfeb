"""Train a text VAE, plain or with aggressive encoder training, evaluate it, and generate sentences from it.

    python prepare_data.py --dataset yahoo
    python text.py --dataset yahoo --aggressive 1 --warm_up 10 --kl_start 0.1
    python text.py --dataset yahoo --aggressive 1 --warm_up 10 --kl_start 0.1 --resume
    python text.py --dataset yahoo --eval --load_path models/yahoo/<id>.pt
    python text.py --dataset yahoo --decode_from models/yahoo/<id>.pt --decoding_strategy beam

The run's settings come from config/config_<dataset>.py; `python text.py --dataset yahoo --help` shows them, each a
flag.
"""

import torch

from modules.command import run_command
from modules.domains.domain import EVALUATION, RUNNING, settle
from modules.domains.text_domain import TEXT
from modules.generation import sentences
from modules.settings import parse, refuse_together
from modules.training.run import prepare_device, train_and_test


def main():
    s = settle(parse((*TEXT.groups, RUNNING, EVALUATION, sentences.DECODING), __doc__))
    refuse_together(s, *sentences.ALTERNATIVES)
    torch.manual_seed(s.seed)
    device = prepare_device(s.tf32)
    if s.eval:
        TEXT.evaluate(s, device)
    elif s.decode_from:
        sentences.decode(*TEXT.load(s.decode_from, s, device))
    elif s.encode:
        sentences.encode(*TEXT.load(s.load_path, s, device))
    else:
        train_and_test(TEXT.run_id(s), TEXT.begin(s, device), s, TEXT.recipe)


if __name__ == "__main__":
    run_command(main)
