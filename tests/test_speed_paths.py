"""Each path that was written for speed gives the numbers of the plain one, in float64. No test here asserts a time."""

import pytest
import torch
import torch.nn.functional as F
from torch.nn.utils import clip_grad_norm_

from benchmarks.bench_text import load_into_textbook, textbook_name
from benchmarks.textbook import TextbookVAE
from modules.domains.text_domain import TEXT
from modules.models.decoders.lstm_decoder import LSTMDecoder
from modules.models.encoders.lstm_encoder import LSTMEncoder
from modules.models.layers.chunks import rows_at_a_time
from modules.models.layers.dropout import Dropout
from modules.models.layers.vocabulary_softmax import CHUNK, token_nll
from modules.models.vae import VAE
from modules.training.algorithm import Algorithm1
from modules.training.recipe import TEXT as RECIPE
from modules.training.recipe import Recipe
from tests.pretended_gpu import PretendedGPU

VOCAB, NZ, NI, NH = 13, 3, 5, 7


def problem(tokens, scale=1.0):
    """hidden [tokens, NH], weight [VOCAB, NH] that want gradients, and targets [tokens]."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, NH, generator=generator, dtype=torch.float64)
    weight = scale * torch.randn(VOCAB, NH, generator=generator, dtype=torch.float64)
    targets = torch.randint(VOCAB, (tokens,), generator=generator)
    return hidden.requires_grad_(), weight.requires_grad_(), targets


def plain_nll(hidden, weight, targets):
    return F.cross_entropy(hidden @ weight.T, targets, reduction="none")


def assert_equal(got, expected):
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


# ---------------------------------------------------------------------- the vocabulary


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_token_nll_and_its_gradients_are_those_of_cross_entropy(scale):
    hidden, weight, targets = problem(20, scale)
    uneven = torch.linspace(-1.0, 2.0, 20, dtype=torch.float64)
    nll, plain = (
        function(hidden, weight, targets) for function in (lambda *x: token_nll(*x, dtype=torch.float64), plain_nll)
    )
    assert_equal(nll, plain)
    for got, expected in zip(
        torch.autograd.grad(nll, (hidden, weight), uneven), torch.autograd.grad(plain, (hidden, weight), uneven)
    ):
        assert_equal(got, expected)


@pytest.mark.parametrize("wanted", [0, 1])
def test_each_gradient_is_the_same_without_the_other(wanted):
    hidden, weight, targets = problem(20)
    both = torch.autograd.grad(token_nll(hidden, weight, targets, torch.float64).sum(), (hidden, weight))
    inputs = [tensor.detach().requires_grad_(i == wanted) for i, tensor in enumerate((hidden, weight))]
    (alone,) = torch.autograd.grad(token_nll(*inputs, targets, torch.float64).sum(), inputs[wanted])
    assert_equal(alone, both[wanted])


@pytest.mark.parametrize("tokens", [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 5])
def test_without_gradients_chunks_give_the_same(tokens):
    hidden, weight, targets = problem(tokens)
    with torch.no_grad():
        chunked = token_nll(hidden, weight, targets, torch.float64)
    assert_equal(chunked, plain_nll(hidden, weight, targets).detach())


def test_rows_at_a_time_by_the_memory_of_the_device():
    """A GPU with 8 GiB free and one more that PyTorch keeps unused, large rows, and the CPU."""
    with PretendedGPU():
        gpu = torch.device("cuda")
        assert rows_at_a_time(gpu, 512, row_bytes=1 << 20) == (8 + 2 - 1) * 1024 // 4
        assert rows_at_a_time(gpu, 512, row_bytes=1 << 30) == 512
        assert rows_at_a_time(torch.device("cpu"), 512, row_bytes=1) == 512


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits_stay_exact(dtype):
    """Logits of 10,000 and -10,000: -log p is 0, log 2 (two peaks alike), 10,000 or 20,000, with finite gradients."""
    logits = torch.tensor(
        [[1e4, -1e4, 0.0], [1e4, 1e4, 0.0], [1e4, -1e4, 0.0], [1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]], dtype=dtype
    )
    targets = torch.tensor([0, 1, 2, 1, 0])
    expected = torch.tensor([0.0, 2.0, 0.0, 0.0, 3.0], dtype=dtype).clamp_(min=1).log() + torch.tensor(
        [0.0, 0.0, 1e4, 2e4, 0.0], dtype=dtype
    )
    hidden, weight = logits.requires_grad_(), torch.eye(3, dtype=dtype, requires_grad=True)
    nll = token_nll(hidden, weight, targets, dtype)
    torch.testing.assert_close(nll, expected)
    with torch.no_grad():
        torch.testing.assert_close(token_nll(hidden, weight, targets, dtype), expected)
    gradients = torch.autograd.grad(nll.sum(), (hidden, weight))
    for got, plain in zip(gradients, torch.autograd.grad(plain_nll(hidden, weight, targets).sum(), (hidden, weight))):
        assert got.isfinite().all()
        torch.testing.assert_close(got, plain)


def test_bf16_is_near_and_not_biased_by_the_size_of_the_loss():
    """With nearly equal logits -log p is log(vocabulary) for every token: its rounding would not average out."""
    hidden, weight = 0.01 * torch.randn(50, 8, requires_grad=True), torch.randn(3000, 8, requires_grad=True)
    targets = torch.arange(50)
    nll = token_nll(hidden, weight, targets, torch.bfloat16)
    assert nll.dtype == torch.float32
    torch.testing.assert_close(nll, plain_nll(hidden, weight, targets), rtol=0, atol=0.01)
    for got, plain in zip(
        torch.autograd.grad(nll.sum(), (hidden, weight)),
        torch.autograd.grad(plain_nll(hidden, weight, targets).sum(), (hidden, weight)),
    ):
        assert got.dtype == torch.float32
        assert (got - plain).norm() < 0.02 * plain.norm()


# ---------------------------------------------------------------------- dropout


def test_dropout_near_one_still_drops():
    """Of 65,536 parts it keeps one at the least: none of the threshold's bits may overflow."""
    kept = Dropout(0.999999)(torch.ones(400, 500)) != 0
    assert float(kept.double().mean()) == pytest.approx(1 / 65536, abs=5e-5)


def test_dropout_follows_the_seed_and_its_gradient_the_mask():
    layer, x = Dropout(0.5), torch.randn(30, 7, dtype=torch.float64, requires_grad=True)
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(layer(x))
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])
    (gradient,) = torch.autograd.grad(results[0].sum(), x)
    assert_equal(gradient * x, results[0])


def test_dropout_at_zero_and_in_evaluation_is_the_identity():
    x = torch.randn(5, 3)
    assert Dropout(0.0)(x) is x
    assert Dropout(0.5).eval()(x) is x


# ---------------------------------------------------------------------- the whole model


@pytest.fixture
def models():
    """(this project's VAE, the textbook's with the same weights), float64, without dropout."""
    torch.manual_seed(0)
    model = VAE(LSTMEncoder(VOCAB, NZ, NI, NH), LSTMDecoder(VOCAB, NZ, NI, NH, train_dtype=torch.float64)).double()
    textbook = TextbookVAE(VOCAB, NZ, NI, NH, dropout=0.0).double()
    load_into_textbook(textbook, model)
    return model, textbook


@pytest.fixture
def x():
    return torch.randint(VOCAB, (4, 6), generator=torch.Generator().manual_seed(1))


def test_encoder_and_decoder_are_those_built_from_nn(models, x):
    model, textbook = models
    for got, expected in zip(model.encoder(x), textbook.encode(x)):
        assert_equal(got, expected)
    z = torch.randn(4, 3, NZ, dtype=torch.float64)
    expected = torch.stack([textbook.reconstruction(x, draw) for draw in z.unbind(1)], dim=1)
    assert_equal(model.decoder.reconstruction(x, z), expected)
    with torch.no_grad():
        assert_equal(model.eval().decoder.reconstruction(x, z), expected)


@pytest.mark.parametrize("kl_weight", [0.0, 0.3, 1.0])
def test_elbo_gradients_are_the_textbooks(models, x, kl_weight):
    model, textbook = models
    torch.manual_seed(2)
    reconstruction, kl = model.elbo_terms(x.int())
    kl = kl.sum(dim=1)
    (reconstruction + kl_weight * kl).mean().backward()
    torch.manual_seed(2)
    loss = textbook.loss(x, kl_weight)
    loss.mean().backward()
    assert_equal(reconstruction + kl_weight * kl, loss)
    expected = dict(textbook.named_parameters())
    for name, parameter in model.named_parameters():
        assert_equal(parameter.grad, expected[textbook_name(name)].grad)


def algorithm_of(model, inner_clip, clip_norm):
    return Algorithm1(model, Recipe(clip_norm=clip_norm), TEXT.settings(inner_clip=inner_clip), RECIPE.lr)


@pytest.mark.parametrize("clip_norm", [0.01, 1000.0])
@pytest.mark.parametrize("inner_clip", ["joint", "encoder"])
def test_an_inner_step_is_the_plain_one(models, x, inner_clip, clip_norm):
    """Same encoder as after loss, backward, clip_grad_norm_ and SGD on the textbook; the decoder does not move."""
    model, textbook = models
    algorithm = algorithm_of(model, inner_clip, clip_norm)
    torch.manual_seed(3)
    with algorithm.only_encoder_gradients():
        algorithm.encoder_step(x, 0.7)
        assert inner_clip == "joint" or all(parameter.grad is None for parameter in model.decoder.parameters())
    torch.manual_seed(3)
    textbook.loss(x, 0.7).mean().backward()
    clip_grad_norm_(textbook.parameters() if inner_clip == "joint" else textbook.encoder_parameters(), clip_norm)
    torch.optim.SGD(textbook.encoder_parameters(), lr=RECIPE.lr).step()
    expected = textbook.state_dict()
    for name, value in model.state_dict().items():
        assert_equal(value, expected[textbook_name(name)])


def test_after_an_inner_loop_the_decoder_wants_gradients_again(models, x):
    algorithm = algorithm_of(models[0], "encoder", RECIPE.clip_norm)
    with algorithm.only_encoder_gradients():
        algorithm.encoder_step(x, 1.0)
    algorithm.decoder_step(x, 1.0, joint=False)
    assert all(parameter.grad is not None for parameter in algorithm.both)
