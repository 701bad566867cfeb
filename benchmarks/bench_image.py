"""Time this project's image VAE against the plain textbook one of `benchmarks/textbook_image.py`, in turns.

    python benchmarks/bench_image.py                # the published architecture: some 4 minutes on two free CPU cores
    python benchmarks/bench_image.py --seconds 0    # two turns of everything

Images are made up. Both sides get the same weights, and losses, likelihoods and samples are compared before any timing.
Then all contestants take turns until `--seconds` are over, twice at least; the table gives the medians. A step is one
of the training loop's own, as in `bench_text.py`. The textbook computes in float32, with every gradient, in all.

"of peak" is the time that the step's necessary products would take at the rate that a large torch.mm reaches in the
same turns, over the time taken. Necessary are 2 FLOPs per weight that no mask hides and position for the forward pass,
and as many for the gradient of the inputs and of the weights each; with `--inner_clip encoder` without the decoder's
weights. In bf16, the decoder's products count at bf16's rate.

Of the textbook's sampling only the first `--passes` pixels are computed and timed; its table line is that times
pixels / passes.
"""

import argparse
import statistics
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.contest import (
    DEVICE,
    begin,
    compare,
    make_trainer,
    project_rows,
    seconds_per_step,
    textbook_runs,
)
from benchmarks.textbook import textbook_step
from benchmarks.textbook_image import TextbookImageVAE
from modules.data.images import ImageSplit
from modules.models.decoders.pixelcnn import PixelCNNDecoder
from modules.models.encoders.resnet import ResNetEncoder
from modules.models.layers.precision import PRECISIONS
from modules.models.vae import VAE
from modules.training.recipe import IMAGE

RECIPE = replace(IMAGE, lr=1e-6)  # all stay near the weights that they start with
NZ, ENC_LAYERS, KERNELS, CHANNELS, PLANES = 32, [64] * 3, [7] * 5 + [5] * 4 + [3] * 4, 64, 4  # as published
SIDE, BATCH, BATCHES = 28, 50, 4  # pixels, images, different batches
IW_IMAGES, IW_SAMPLES = 1, 100
INK = 0.15  # share of the pixels that are 1
SAMPLES = 400  # images, as image.py draws


class Images(ImageSplit):
    """Images of random ink, ready in batches that training can draw, too."""

    def __init__(self, count, batch_size):
        ink = torch.rand(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) < INK
        super().__init__(ink.float(), batch_size, DEVICE)

    def batch(self, order, i):
        return self._batches[order[i]]

    def random_batch(self, generator):
        return self._batches[int(torch.randint(self.num_batches, (), generator=generator))]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120, help="for the steps, once both sides are seen to agree")
    parser.add_argument("--passes", type=int, default=2, help="pixels of the textbook's sampling that are timed")
    args = parser.parse_args()
    begin()
    check_agreement()
    compare_training(args.seconds)
    compare_sampling(args.passes)


def compare_training(seconds):
    """Print the table of training steps and likelihood."""
    split, few = Images(BATCHES * BATCH, BATCH), Images(IW_IMAGES, 1)
    optimiser = partial(torch.optim.Adam, lr=RECIPE.lr)
    textbook = textbook_runs(
        textbook_model(), optimiser, RECIPE.clip_norm, list(split), torch.cat(list(few)), IW_SAMPLES
    )
    rows = project_rows(partial(project_trainer, split), flops, few, IW_SAMPLES)
    compare(f"published architecture, batch {BATCH} x {SIDE} x {SIDE}", textbook, rows, seconds)


def compare_sampling(passes):
    """Print the time that 400 images take."""
    model, textbook = project_model().eval(), textbook_model().eval()
    z, uniform = torch.randn(SAMPLES, NZ, device=DEVICE), torch.rand(SIDE * SIDE, SAMPLES, device=DEVICE)
    naive = (
        statistics.median(seconds_per_step(lambda count: textbook.sample(z, uniform, count), passes) for _ in range(2))
        * SIDE
        * SIDE
    )
    ours = statistics.median(seconds_per_step(lambda count: model.decoder.sample(z), 1) for _ in range(3))
    print(f"\n{'median seconds':42}{'textbook':>10}{'ours':>10}{'ratio':>8}")
    print(f"{f'sampling {SAMPLES} images':42}{naive:10.0f}{ours:10.2f}{naive / ours:8.0f}")


def flops(encoder_passes, decoder_passes, count=BATCH):
    """FLOPs in (the encoder, the decoder) for `count` images: 1 pass = forward, 2 or 3 = with gradients."""
    model = project_model().eval()
    with FlopCounterMode(display=False) as counter:
        model.encoder(torch.zeros(count, 1, SIDE, SIDE, device=DEVICE))
    kernels = [
        getattr(layer, "mask", layer.weight).count_nonzero()
        for layer in model.decoder.main.modules()
        if isinstance(layer, torch.nn.Conv2d)
    ]
    decoder = 2 * count * (SIDE * SIDE * int(sum(kernels)) + model.decoder.z_transform[0].weight.numel())
    return counter.get_total_flops() * encoder_passes, decoder * decoder_passes


# ---------------------------------------------------------------------- the same problem for both


def project_model(precision="float32", side=SIDE):
    """The image VAE of the published sizes, which starts with the same weights at every call."""
    torch.manual_seed(0)
    img_size = [1, side, side]
    encoder = ResNetEncoder(NZ, img_size, ENC_LAYERS)
    decoder = PixelCNNDecoder(NZ, img_size, KERNELS, [CHANNELS] * len(KERNELS), PLANES, PRECISIONS[precision])
    return VAE(encoder, decoder).to(DEVICE)


def project_trainer(split, inner_clip, precision, recipe=RECIPE):
    return make_trainer(project_model(precision), split, recipe, inner_clip)


def textbook_model(side=SIDE):
    """The textbook's model, with the weights of `project_model`."""
    model = TextbookImageVAE(NZ, side, side, ENC_LAYERS, KERNELS, CHANNELS, PLANES).to(DEVICE)
    model.load_state_dict(project_model(side=side).state_dict())
    return model


def check_agreement():
    """Assert that both sides see the same losses over a few inner steps, the same likelihoods and the same samples."""
    x = next(iter(Images(8, 8)))
    for precision, tolerance, most in (("float32", 1e-4, 3), ("bf16", 1e-2, 1)):
        for clip, steps in (("joint", most), ("encoder", 1)):
            textbook = textbook_model()
            optimiser = torch.optim.Adam(textbook.encoder_parameters(), lr=IMAGE.lr)
            trainer = project_trainer(None, clip, precision, IMAGE)
            for seed in range(steps):
                torch.manual_seed(seed)
                expected = textbook_step(textbook, optimiser, x, 1.0, IMAGE.clip_norm)
                torch.manual_seed(seed)
                with trainer.algorithm.only_encoder_gradients():
                    loss = float(trainer.algorithm.encoder_step(x, 1.0))
                assert abs(loss - expected) <= tolerance * expected, (precision, clip, seed, loss, expected)
    check_evaluation(x)


@torch.no_grad()
def check_evaluation(x):
    """Assert that likelihoods given z are the same, and samples of small images."""
    z = torch.randn(len(x), NZ, device=DEVICE)
    torch.testing.assert_close(
        project_model().eval().decoder.reconstruction(x, z.unsqueeze(1)).squeeze(1),
        textbook_model().eval().reconstruction(x, z),
        rtol=1e-5,
        atol=1e-3,
    )
    uniform = torch.rand(64, len(z), generator=torch.Generator().manual_seed(1)).to(DEVICE)
    images, probabilities = project_model(side=8).eval().decoder.sample(z, torch.Generator().manual_seed(1))
    expected, expected_probabilities = textbook_model(side=8).eval().sample(z, uniform)
    assert torch.equal(images, expected)
    torch.testing.assert_close(probabilities, expected_probabilities, rtol=0, atol=1e-5)


if __name__ == "__main__":
    main()
