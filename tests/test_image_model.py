"""The image encoder and decoder against plain convolutions in float64, and against laws of probability."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from benchmarks.textbook_image import TextbookImageVAE
from modules.domains.image_domain import IMAGE
from modules.models.decoders import pixelcnn
from modules.models.decoders.pixelcnn import MaskedConvolution, PixelCNNDecoder
from modules.models.encoders.resnet import ResNetEncoder
from modules.models.gaussian import reparameterize
from modules.models.vae import VAE
from modules.training.algorithm import Algorithm1
from modules.training.recipe import Recipe

NZ = 3
IMAGE_SIZE = [1, 28, 28]
KERNELS = [7, 7, 7, 7, 7, 5, 5, 5, 5, 3, 3, 3, 3]
ARCHITECTURES = [[3], [5, 3], [3, 5, 3], [7, 5, 3, 3], [5, 3, 5, 1, 3, 7]]


def random_weights(module, seed=0):
    """Weights and running statistics far from the start, where a wrong model would look much like the right one."""
    generator = torch.Generator().manual_seed(seed)
    state = module.state_dict()
    for name, value in state.items():
        if value.is_floating_point() and not name.endswith("mask"):
            value.copy_(torch.randn(value.shape, generator=generator) * 1.5 * (value.numel() / len(value)) ** -0.5)
            if value.dim() == 1 and not name.endswith("bias"):
                value.abs_().add_(0.3)
    module.load_state_dict(state)
    return module


def make_decoder(kernels, img_size=(1, 6, 5), channels=4, dtype=torch.float64):
    decoder = PixelCNNDecoder(NZ, list(img_size), kernels, [channels] * len(kernels), 2, train_dtype=dtype)
    return random_weights(decoder).double()


def make_batch(img_size=(1, 6, 5), batch=4, nsamples=2):
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(batch, *img_size, generator=generator, dtype=torch.float64).round()
    return x, torch.randn(batch, nsamples, NZ, generator=generator, dtype=torch.float64)


# ---------------------------------------------------------------------- a plain PixelCNN


class PlainPixelCNN:
    """The decoder, written out from its weights: whole masked kernels, one operation after the other."""

    def __init__(self, weights, kernels, img_size, training):
        self.weights, self.kernels, self.img_size, self.training = weights, kernels, img_size, training

    def reconstruction(self, x, z):
        draws = [x.repeat_interleave(z.size(1), dim=0), z.reshape(-1, z.size(-1))]
        logits = self.logits(*draws)
        log_p = draws[0] * F.logsigmoid(logits) + (1 - draws[0]) * F.logsigmoid(-logits)
        return -log_p.flatten(1).sum(1).view(z.shape[:2])

    def logits(self, x, z):
        planes = F.linear(z, self.weights["z_transform.0.weight"], self.weights["z_transform.0.bias"])
        seen = torch.cat([x, planes.view(len(x), -1, *self.img_size[1:])], dim=1)
        outputs = []
        for i, size in enumerate(self.kernels):
            if i > 2:
                seen = seen + self.block(f"main.0.direct_connects.{i - 3}", self.kernels[i - 2], outputs[i - 3])
            seen = self.block(f"main.0.main.{i}", size, seen) if i > 0 else self.first(size, seen)
            outputs.append(seen)
        if len(self.kernels) > 2:
            seen = seen + self.block(f"main.0.direct_connects.{len(self.kernels) - 3}", self.kernels[-2], outputs[-3])
        hidden = F.elu(self.norm("main.2", F.conv2d(seen, self.weights["main.1.weight"])))
        return F.conv2d(hidden, self.weights["main.4.weight"])

    def first(self, size, seen):
        return F.elu(self.norm("main.0.main.0.main.1", self.masked("main.0.main.0.main.0", size, seen, 1, "A")))

    def block(self, name, size, seen):
        hidden = F.elu(self.norm(f"{name}.main.1", F.conv2d(seen, self.weights[f"{name}.main.0.weight"])))
        hidden = self.masked(f"{name}.main.3", size, hidden, hidden.size(1), "B")
        hidden = F.elu(self.norm(f"{name}.main.4", hidden))
        return F.elu(seen + self.norm(f"{name}.main.7", F.conv2d(hidden, self.weights[f"{name}.main.6.weight"])))

    def masked(self, name, size, seen, masked_channels, kind):
        return plain_masked_convolution(seen, self.weights[f"{name}.weight"], size, masked_channels, kind)

    def norm(self, name, hidden):
        mean, var, scale, shift = (
            self.weights[f"{name}.{part}"].view(1, -1, 1, 1)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        if self.training:
            mean, var = hidden.mean((0, 2, 3), keepdim=True), hidden.var((0, 2, 3), correction=0, keepdim=True)
        return (hidden - mean) / (var + 1e-5).sqrt() * scale + shift


def plain_masked_convolution(x, weight, size, masked_channels, kind):
    """The whole kernel, times a mask made position by position."""
    mask = torch.ones_like(weight)
    for row, column in itertools.product(range(size), repeat=2):
        later = (row, column) > (size // 2, size // 2)
        if later or kind == "A" and (row, column) == (size // 2, size // 2):
            mask[:, :masked_channels, row, column] = 0
    return F.conv2d(x, weight * mask, padding=size // 2)


def plain_version(decoder, kernels, img_size=(1, 6, 5)):
    """The plain decoder with copies of the weights: (PlainPixelCNN, {name: weight that wants a gradient})."""
    parameters = {name: value.detach().clone().requires_grad_() for name, value in decoder.named_parameters()}
    weights = {**dict(decoder.named_buffers()), **parameters}
    return PlainPixelCNN(weights, kernels, img_size, decoder.training), parameters


# ---------------------------------------------------------------------- the decoder


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kernels", ARCHITECTURES, ids=str)
def test_the_decoder_is_the_plain_one(kernels, training, monkeypatch):
    """Likelihoods, and the gradients of every parameter and of z, of a sum that weighs images and draws unequally."""
    monkeypatch.setattr(pixelcnn, "CHUNK", 3)
    decoder = make_decoder(kernels).train(training)
    plain, parameters = plain_version(decoder, kernels)
    x, z = make_batch()
    results = []
    for model in (decoder, plain):
        draws = z.clone().requires_grad_()
        nll = model.reconstruction(x, draws)
        (nll * torch.arange(1.0, 9.0).view(4, 2)).sum().backward()
        results.append((nll.detach(), draws.grad))
    torch.testing.assert_close(*results)
    for name, parameter in decoder.named_parameters():
        torch.testing.assert_close(parameter.grad, parameters[name].grad)


@pytest.mark.parametrize("sees_centre", [False, True])
@pytest.mark.parametrize("size", [1, 3, 5, 7])
@pytest.mark.parametrize("height, width", [(1, 1), (2, 9), (8, 5)])
def test_masked_convolution_is_the_plain_one(size, sees_centre, height, width):
    layer = MaskedConvolution(4, 6, size, masked_channels=3, sees_centre=sees_centre).double()
    x = torch.randn(2, 4, height, width, dtype=torch.float64, requires_grad=True)
    got, expected = layer(x), plain_masked_convolution(x, layer.weight, size, 3, "B" if sees_centre else "A")
    torch.testing.assert_close(got, expected)
    upwards = torch.randn(expected.shape, dtype=torch.float64)
    for gradient, plain in zip(*(torch.autograd.grad(out, (x, layer.weight), upwards) for out in (got, expected))):
        torch.testing.assert_close(gradient, plain)


@pytest.mark.parametrize("kernels, reach", [([3], 1), ([3, 3], 2), ([3, 5, 3], 4), ([5, 3, 5, 3], 6)], ids=str)
def test_a_pixel_depends_on_all_pixels_before_it_within_reach_and_on_no_other(kernels, reach):
    size = (1, 9, 8)
    decoder = make_decoder(kernels, size).eval()
    x, z = make_batch(size, batch=1, nsamples=1)
    x.requires_grad_()
    logits = decoder.logits(x, z[0])
    for row, column in itertools.product(range(9), range(8)):
        (gradient,) = torch.autograd.grad(logits[0, 0, row, column], x, retain_graph=True)
        depends = gradient[0, 0] != 0
        assert not depends.flatten()[8 * row + column :].any()
        above = depends[max(0, row - reach) : row, max(0, column - reach) : column + 1]
        assert above.all() and depends[row, max(0, column - reach) : column].all()
        assert not depends[: max(0, row - reach)].any()


def test_likelihoods_of_all_images_sum_to_one():
    decoder = make_decoder([3, 3, 3, 3], (1, 3, 3), channels=8).eval()
    images = torch.tensor(list(itertools.product([0.0, 1.0], repeat=9)), dtype=torch.float64).view(512, 1, 3, 3)
    z = torch.randn(2, NZ, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    nll = decoder.reconstruction(images, z.expand(512, -1, -1)).detach()  # [images, draws of z]
    torch.testing.assert_close((-nll).exp().sum(dim=0), torch.ones(2, dtype=torch.float64))
    assert nll.std() > 0.1 and (nll[:, 0] - nll[:, 1]).abs().max() > 0.1  # neither uniform nor blind to z


def test_z_is_seen_at_every_pixel():
    decoder = make_decoder([3, 3]).eval()
    x, z = make_batch(batch=1, nsamples=1)
    z.requires_grad_()
    for logit in decoder.logits(x, z[0]).flatten():
        (gradient,) = torch.autograd.grad(logit, z, retain_graph=True)
        assert (gradient != 0).all()


def test_bf16_is_near_in_training_and_not_used_in_evaluation():
    torch.manual_seed(0)
    precise = PixelCNNDecoder(NZ, [1, 8, 8], [7, 5, 3, 3, 3], [16] * 5, 2)
    rough = PixelCNNDecoder(NZ, [1, 8, 8], [7, 5, 3, 3, 3], [16] * 5, 2, train_dtype=torch.bfloat16)
    rough.load_state_dict(precise.state_dict())
    x, z = (tensor.float() for tensor in make_batch((1, 8, 8), batch=8))
    results = []
    for decoder in (precise, rough):
        draws = z.clone().requires_grad_()
        nll = decoder.train().reconstruction(x, draws)
        nll.mean().backward()
        assert nll.dtype == torch.float32
        results.append((nll.detach(), draws.grad, *(p.grad for p in decoder.parameters())))
    torch.testing.assert_close(results[1][0], results[0][0], rtol=0.01, atol=0)
    for got, expected in zip(results[1], results[0]):
        assert got.dtype == torch.float32 and (got - expected).norm() < 0.1 * expected.norm()
    rough.load_state_dict(precise.state_dict())
    torch.testing.assert_close(rough.eval().reconstruction(x, z), precise.eval().reconstruction(x, z))


# ---------------------------------------------------------------------- sampling


@pytest.mark.parametrize("img_size", [(1, 6, 5), (1, 3, 8), (1, 1, 1)], ids=str)
@pytest.mark.parametrize("kernels", ARCHITECTURES, ids=str)
def test_samples_are_those_of_a_whole_pass_for_each_pixel(kernels, img_size):
    decoder = make_decoder(kernels, img_size).eval()
    textbook = TextbookImageVAE(NZ, *img_size[1:], [4], kernels, channels=4, planes=2).double().eval()
    textbook.decoder.load_state_dict(decoder.state_dict())
    z = make_batch(batch=7)[1][:, 0]
    images, probabilities = decoder.sample(z, torch.Generator().manual_seed(5))
    uniform = torch.rand(img_size[1] * img_size[2], 7, dtype=z.dtype, generator=torch.Generator().manual_seed(5))
    expected, expected_probabilities = textbook.sample(z, uniform)
    assert torch.equal(images, expected) and images.shape == (7, *img_size)
    torch.testing.assert_close(probabilities, expected_probabilities)
    log_p = torch.xlogy(images, probabilities) + torch.xlogy(1 - images, 1 - probabilities)
    torch.testing.assert_close(decoder.reconstruction(images, z.unsqueeze(1))[:, 0], -log_p.sum((1, 2, 3)))


def test_samples_follow_the_generator_and_show_progress():
    decoder, z, rows = make_decoder([3, 3]), torch.randn(30, NZ, dtype=torch.float64), []
    decoder.train()
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    first, again, other = (
        decoder.sample(
            z, torch.Generator().manual_seed(seed), lambda iterable: (rows.append(row) or row for row in iterable)
        )
        for seed in (1, 1, 2)
    )
    assert torch.equal(first[0], again[0]) and not torch.equal(first[0], other[0])
    assert rows == 3 * list(range(6))
    torch.testing.assert_close(decoder.state_dict(), before)  # batch norm as in evaluation, whatever the mode
    assert torch.equal(decoder.eval().sample(z, torch.Generator().manual_seed(1))[1], first[1])


# ---------------------------------------------------------------------- freezing


def encoder_step(inner_clip):
    """One inner step of a small model in float64: (model, its state before, its encoder's gradients)."""
    torch.manual_seed(0)
    encoder = random_weights(ResNetEncoder(NZ, [1, 6, 5], [4, 4]).double())
    model = VAE(encoder, make_decoder([3, 3, 3, 3])).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    recipe = Recipe(optimiser="adam", lr=1e-3, clip_norm=1e9)
    algorithm = Algorithm1(model, recipe, IMAGE.settings(inner_clip=inner_clip), recipe.lr)
    torch.manual_seed(1)
    with algorithm.only_encoder_gradients():
        algorithm.encoder_step(make_batch()[0], 0.7)
        frozen = [parameter.grad is None for parameter in model.decoder.parameters()]
    assert all(frozen) if inner_clip == "encoder" else not any(frozen)
    return model, before, {name: parameter.grad for name, parameter in model.encoder.named_parameters()}


def test_a_frozen_decoder_gives_the_encoder_the_same_gradients_and_keeps_its_weights():
    joint, before, joint_gradients = encoder_step("joint")
    frozen, _, gradients = encoder_step("encoder")
    torch.testing.assert_close(gradients, joint_gradients)
    torch.testing.assert_close(frozen.state_dict(), joint.state_dict())
    for name, value in frozen.state_dict().items():
        moved = not torch.equal(value, before[name])
        statistic = "running" in name or "tracked" in name
        assert moved == (statistic or name.startswith("encoder")), name


# ---------------------------------------------------------------------- the encoder


@pytest.mark.parametrize(
    "img_size, layers", [([1, 28, 28], [64, 64, 64]), ([1, 5, 17], [4, 6]), ([3, 8, 8], [5]), ([1, 1, 2], [2, 2])]
)
def test_the_encoder_takes_images_of_its_size(img_size, layers):
    encoder = ResNetEncoder(NZ, img_size, layers)
    mean, logvar = encoder(torch.rand(4, *img_size))
    assert mean.shape == logvar.shape == (4, NZ)
    z = reparameterize(*encoder(torch.rand(4, *img_size)), nsamples=5)
    assert z.shape == (4, 5, NZ)


@pytest.mark.parametrize("training", [True, False])
def test_the_encoder_is_the_plain_one(training):
    encoder = random_weights(ResNetEncoder(NZ, [1, 6, 5], [4, 6])).double().train(training)
    weights = {name: value.clone() for name, value in encoder.state_dict().items()}
    norm = PlainPixelCNN(weights, [], None, training).norm
    x = torch.randn(7, 1, 6, 5, dtype=torch.float64)
    hidden = x
    for block in ("main.0.main.0", "main.0.main.1"):
        inner = F.elu(norm(f"{block}.bn1", F.conv2d(hidden, weights[f"{block}.conv1.weight"], stride=2, padding=1)))
        inner = norm(f"{block}.bn2", F.conv2d(inner, weights[f"{block}.conv2.weight"], padding=1))
        side = F.conv2d(hidden, weights[f"{block}.downsample.0.weight"], stride=2)
        hidden = F.elu(inner + norm(f"{block}.downsample.1", side))
    features = F.elu(norm("main.2", F.conv2d(hidden, weights["main.1.weight"]))).flatten(1)
    expected = F.linear(features, weights["linear.weight"], weights["linear.bias"])
    torch.testing.assert_close(torch.cat(encoder(x), dim=1), expected)


# ---------------------------------------------------------------------- names, sizes, initialisation


def published():
    return (
        ResNetEncoder(32, IMAGE_SIZE, [64, 64, 64]),
        PixelCNNDecoder(32, IMAGE_SIZE, KERNELS, [64] * 13, latent_feature_map=4),
    )


def norm_shapes(name, channels):
    return {
        **{f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")},
        f"{name}.num_batches_tracked": (),
    }


def bottleneck_shapes(name, size):
    return {
        f"{name}.main.0.weight": (32, 64, 1, 1),
        **norm_shapes(f"{name}.main.1", 32),
        f"{name}.main.3.weight": (32, 32, size, size),
        f"{name}.main.3.mask": (32, 32, size, size),
        **norm_shapes(f"{name}.main.4", 32),
        f"{name}.main.6.weight": (64, 32, 1, 1),
        **norm_shapes(f"{name}.main.7", 64),
    }


def test_names_and_shapes_are_those_of_the_authors_files():
    encoder, decoder = published()
    expected = {
        "main.1.weight": (512, 64, 4, 4),
        **norm_shapes("main.2", 512),
        "linear.weight": (64, 512),
        "linear.bias": (64,),
    }
    for block, channels in (("main.0.main.0", 1), ("main.0.main.1", 64), ("main.0.main.2", 64)):
        expected |= {
            f"{block}.conv1.weight": (64, channels, 3, 3),
            **norm_shapes(f"{block}.bn1", 64),
            f"{block}.conv2.weight": (64, 64, 3, 3),
            **norm_shapes(f"{block}.bn2", 64),
            f"{block}.downsample.0.weight": (64, channels, 1, 1),
            **norm_shapes(f"{block}.downsample.1", 64),
        }
    assert {name: tuple(value.shape) for name, value in encoder.state_dict().items()} == expected

    expected = {
        "z_transform.0.weight": (3136, 32),
        "z_transform.0.bias": (3136,),
        "main.0.main.0.main.0.weight": (64, 5, 7, 7),
        "main.0.main.0.main.0.mask": (64, 5, 7, 7),
        **norm_shapes("main.0.main.0.main.1", 64),
        "main.1.weight": (64, 64, 1, 1),
        **norm_shapes("main.2", 64),
        "main.4.weight": (1, 64, 1, 1),
    }
    for i, size in enumerate([7, 7, 7, 7, 5, 5, 5, 5, 3, 3, 3, 3], start=1):
        expected |= bottleneck_shapes(f"main.0.main.{i}", size)
    for i, size in enumerate([7, 7, 7, 7, 5, 5, 5, 5, 3, 3, 3]):
        expected |= bottleneck_shapes(f"main.0.direct_connects.{i}", size)
    assert {name: tuple(value.shape) for name, value in decoder.state_dict().items()} == expected


def test_the_start_is_as_published():
    """Convolutions N(0, sqrt(2 / (k * k * out))) where not masked, linear maps Xavier-uniform, the rest 0 and 1."""
    torch.manual_seed(0)
    model = VAE(*published())
    masks = {
        name.removesuffix("mask") + "weight": mask.bool()
        for name, mask in model.named_buffers()
        if name.endswith("mask")
    }
    for name, value in model.named_parameters():
        if value.dim() == 4:
            expected = (2 / (value.size(2) * value.size(3) * value.size(0))) ** 0.5
            drawn = value[masks[name]] if name in masks else value
            assert float(drawn.detach().std()) == pytest.approx(expected, rel=5 * drawn.numel() ** -0.5), name
        elif value.dim() == 2:
            bound = (6 / sum(value.shape)) ** 0.5
            assert 0.98 * bound < value.abs().max() <= bound
        else:
            assert (value == (0 if name.endswith("bias") else 1)).all(), name


def test_weights_that_were_stored_unmasked_are_masked():
    stored = make_decoder([3, 5, 3])
    state = stored.state_dict()
    for name, mask in stored.named_buffers():
        if name.endswith("mask"):
            state[name.removesuffix("mask") + "weight"] += 5 * (1 - mask)
    loaded = make_decoder([3, 5, 3])
    loaded.load_state_dict(state)
    for name, mask in loaded.named_buffers():
        if name.endswith("mask"):
            weight = loaded.get_parameter(name.removesuffix("mask") + "weight")
            assert not weight[mask == 0].any() and weight[mask == 1].all()


def test_hidden_weights_stay_hidden_while_training():
    decoder = make_decoder([3, 5, 3]).train()
    optimiser = torch.optim.Adam(decoder.parameters(), lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        decoder.reconstruction(*make_batch()).mean().backward()
        optimiser.step()
    for name, mask in decoder.named_buffers():
        if name.endswith("mask"):
            assert not decoder.get_parameter(name.removesuffix("mask") + "weight")[mask == 0].any()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"dec_kernel_size": [3, 3, 3]}, "have 3 and 2"),
        ({"dec_kernel_size": [], "dec_layers": []}, "one layer at least"),
        ({"dec_kernel_size": [3, 4]}, "odd"),
        ({"dec_kernel_size": [-1, 3]}, "odd"),
        ({"dec_layers": [4, 6]}, "one even number"),
        ({"dec_layers": [3, 3]}, "one even number"),
        ({"dec_layers": [0, 0]}, "one even number"),
        ({"latent_feature_map": 0}, "latent_feature_map"),
        ({"img_size": [3, 8, 8]}, "img_size"),
        ({"img_size": [8, 8]}, "img_size"),
        ({"img_size": [1, 0, 8]}, "img_size"),
    ],
)
def test_a_decoder_that_cannot_be_is_refused_in_one_sentence(change, message):
    config = {"img_size": [1, 8, 8], "dec_kernel_size": [3, 3], "dec_layers": [4, 4], "latent_feature_map": 1, **change}
    with pytest.raises(ValueError, match=message):
        PixelCNNDecoder(NZ, **config)


@pytest.mark.parametrize("img_size, layers", [([1, 8, 8], []), ([1, 8, 8], [4, 0]), ([1, 0, 8], [4])])
def test_an_encoder_that_cannot_be_is_refused(img_size, layers):
    with pytest.raises(ValueError, match="image encoder"):
        ResNetEncoder(NZ, img_size, layers)
