"""The text encoder and decoder against LSTM cells in float64, step by step, and against laws of probability."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from modules.data.corpus import Vocabulary
from modules.domains.text_domain import TEXT, build_vae
from modules.models.decoders.lstm_decoder import LSTMDecoder
from modules.models.encoders.lstm_encoder import LSTMEncoder
from modules.models.gaussian import reparameterize
from modules.models.layers.dropout import Dropout

VOCAB, NZ, NI, NH = 11, 3, 5, 7


def large_weights(module, seed=0):
    """Weights far from the published start, where a wrong model would look much like the right one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module


@pytest.fixture
def decoder():
    return large_weights(LSTMDecoder(VOCAB, NZ, NI, NH))


@pytest.fixture
def encoder():
    return large_weights(LSTMEncoder(VOCAB, NZ, NI, NH))


@pytest.fixture
def batch():
    """x [4, 6] with z [4, 3, NZ]: three draws of z per sentence."""
    torch.manual_seed(1)
    return torch.randint(VOCAB, (4, 6), dtype=torch.int32), torch.randn(4, 3, NZ)


def cell_like(lstm):
    """A `torch.nn.LSTMCell` in float64 with the weights of a one-layer `torch.nn.LSTM`."""
    cell = nn.LSTMCell(lstm.input_size, lstm.hidden_size).double()
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in lstm.state_dict().items()})
    return cell


def slow_reconstruction(decoder, sentence, z):
    """-log p(sentence | z) with one sentence, one z, one word at a time; and the double weights it was made with."""
    weights = {name: value.detach().double().requires_grad_() for name, value in decoder.named_parameters()}
    cell = cell_like(decoder.lstm)
    c = z.double() @ weights["trans_linear.weight"].T
    h = torch.tanh(c)
    total = torch.zeros((), dtype=torch.float64)
    for previous, word in itertools.pairwise(sentence.tolist()):
        step = torch.cat([weights["embed.weight"][previous], z.double()])
        h, c = cell(step, (h, c))
        total = total - F.log_softmax(weights["pred_linear.weight"] @ h, dim=0)[word]
    weights.update({f"lstm.{name}_l0": value for name, value in cell.named_parameters()})
    return total, weights


def test_decoder_likelihood_is_that_of_a_loop_over_cells(decoder, batch):
    x, z = batch
    slow = torch.stack(
        [
            torch.stack([slow_reconstruction(decoder, sentence, draw)[0] for draw in draws])
            for sentence, draws in zip(x, z)
        ]
    ).detach()
    for mode in (decoder.train(), decoder.eval()):
        assert mode.reconstruction(x, z).shape == (4, 3)
        torch.testing.assert_close(mode.reconstruction(x, z).detach().double(), slow, rtol=1e-5, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(decoder.reconstruction(x, z).double(), slow, rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(decoder.double().reconstruction(x, z.double()), slow, rtol=1e-10, atol=1e-9)


def test_decoder_gradients_are_those_of_a_loop_over_cells(decoder, batch):
    """Every parameter and z, of a sum that weighs sentences and draws unequally."""
    x, z = batch
    scale = torch.arange(1.0, 13.0).view(4, 3)
    z.requires_grad_()
    (decoder.train().reconstruction(x, z) * scale).sum().backward()
    expected = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in decoder.named_parameters()}
    for b, s in itertools.product(range(4), range(3)):
        slow_z = z[b, s].detach().double().requires_grad_()
        total, weights = slow_reconstruction(decoder, x[b], slow_z)
        (total * scale[b, s]).backward()
        torch.testing.assert_close(z.grad[b, s].double(), slow_z.grad, rtol=1e-4, atol=1e-3)
        for name, value in weights.items():
            expected[name] += value.grad
    for name, value in decoder.named_parameters():
        torch.testing.assert_close(value.grad.double(), expected[name], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("trainable", ["embed", "trans_linear", "lstm", "pred_linear", "none"])
def test_gradients_do_not_depend_on_which_others_are_wanted(decoder, batch, trainable):
    """Frozen parameters get none, and z and the rest get the same: `--inner_clip encoder` freezes all of them."""
    x, z = batch
    z.requires_grad_()
    decoder.reconstruction(x, z).sum().backward()
    full, full_z = {name: value.grad.clone() for name, value in decoder.named_parameters()}, z.grad.clone()
    z.grad = None
    decoder.zero_grad()
    for name, parameter in decoder.named_parameters():
        parameter.requires_grad_(name.startswith(trainable))
    decoder.reconstruction(x, z).sum().backward()
    torch.testing.assert_close(z.grad, full_z)
    for name, parameter in decoder.named_parameters():
        if name.startswith(trainable):
            torch.testing.assert_close(parameter.grad, full[name])
        else:
            assert parameter.grad is None


def test_z_sets_the_first_state(batch):
    """c0 = W z, seen where the gates keep the cell and show it; h0 = tanh(c0), where they replace the cell by it."""
    decoder = LSTMDecoder(VOCAB, NZ, NI, NH).double()
    x, z = batch[0][:, :2], batch[1][:, :1].double()
    with torch.no_grad():
        for parameter in decoder.lstm.parameters():
            parameter.zero_()
        i, f, _, o = decoder.lstm.bias_ih_l0.view(4, NH)
        i.fill_(-1e3), f.fill_(1e3), o.fill_(1e3)
        decoder.trans_linear.weight.normal_()
        decoder.pred_linear.weight.normal_()
        c0 = z[:, 0] @ decoder.trans_linear.weight.T
        logits = torch.tanh(c0) @ decoder.pred_linear.weight.T
        expected = F.cross_entropy(logits, x[:, 1].long(), reduction="none")
        torch.testing.assert_close(decoder.reconstruction(x, z)[:, 0], expected)
        decoder.lstm.weight_hh_l0[2 * NH : 3 * NH] = torch.eye(NH)  # now the cell becomes tanh(h0), h0 = tanh(c0)
        i.fill_(1e3), f.fill_(-1e3)
        logits = torch.tanh(torch.tanh(torch.tanh(c0))) @ decoder.pred_linear.weight.T
        expected = F.cross_entropy(logits, x[:, 1].long(), reduction="none")
        torch.testing.assert_close(decoder.reconstruction(x, z)[:, 0], expected)


def test_the_probabilities_of_all_sentences_of_a_length_sum_to_one():
    vocab, length = 5, 4
    decoder = large_weights(LSTMDecoder(vocab, NZ, NI, NH)).eval()
    x = torch.tensor([[1, *words] for words in itertools.product(range(vocab), repeat=length)])
    z = torch.randn(1, 2, NZ).expand(len(x), -1, -1)
    with torch.no_grad():
        total = (-decoder.double().reconstruction(x, z.double())).exp().sum(dim=0)
    torch.testing.assert_close(total, torch.ones(2, dtype=torch.float64))


def test_encoder_is_a_loop_over_cells(encoder, batch):
    x, _ = batch
    cell = cell_like(encoder.lstm)
    for sentence, mean, logvar in zip(x, *encoder(x)):
        h = c = torch.zeros(NH, dtype=torch.float64)
        for word in sentence.tolist():  # <s> and </s> included
            h, c = cell(encoder.embed.weight[word].double(), (h, c))
        expected = encoder.linear.weight.double() @ h
        torch.testing.assert_close(mean.double(), expected[:NZ], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(logvar.double(), expected[NZ:], rtol=1e-5, atol=1e-5)


def test_the_encoder_draws_from_its_own_gaussian(encoder, batch):
    x, _ = batch
    mean, logvar = encoder(x)
    z = reparameterize(mean, logvar, 20_000, torch.Generator().manual_seed(0))
    assert z.shape == (4, 20_000, NZ)
    noise = (z - mean.unsqueeze(1)) * (-0.5 * logvar).exp().unsqueeze(1)
    flat = noise.transpose(1, 2).flatten(0, 1)
    assert (flat.mean(dim=1).abs() < 0.03).all()
    torch.testing.assert_close(torch.corrcoef(flat), torch.eye(4 * NZ), atol=0.04, rtol=0)
    torch.testing.assert_close(flat.var(dim=1), torch.ones(4 * NZ), atol=0.05, rtol=0)


CONFIG = {"nz": 32, "ni": 30, "enc_nh": 20, "dec_nh": 25, "dec_dropout_in": 0.5, "dec_dropout_out": 0.5}


def test_the_published_initialisation():
    torch.manual_seed(0)
    model = build_vae(TEXT.settings(**CONFIG), Vocabulary(["<pad>", "<s>", "</s>", "<unk>", *map(str, range(500))]))
    for name, parameter in model.named_parameters():
        bound = 0.1 if "embed" in name else 0.01
        values = parameter.detach().double()
        assert values.abs().max() <= bound * (1 + 1e-6), name
        assert values.abs().max() > 0.9 * bound, name
        assert abs(values.mean()) < 5 * bound / math.sqrt(3 * values.numel()), name
        assert float(values.std()) == pytest.approx(bound / math.sqrt(3), rel=0.2), name


def test_parameter_names_and_shapes_are_those_of_the_authors_files():
    model = build_vae(TEXT.settings(**CONFIG), Vocabulary())
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == {
        "encoder.embed.weight": (4, 30),
        "encoder.lstm.weight_ih_l0": (80, 30),
        "encoder.lstm.weight_hh_l0": (80, 20),
        "encoder.lstm.bias_ih_l0": (80,),
        "encoder.lstm.bias_hh_l0": (80,),
        "encoder.linear.weight": (64, 20),
        "decoder.embed.weight": (4, 30),
        "decoder.trans_linear.weight": (25, 32),
        "decoder.lstm.weight_ih_l0": (100, 62),
        "decoder.lstm.weight_hh_l0": (100, 25),
        "decoder.lstm.bias_ih_l0": (100,),
        "decoder.lstm.bias_hh_l0": (100,),
        "decoder.pred_linear.weight": (4, 25),
    }


@pytest.mark.parametrize("dropout_in, dropout_out", [(0.5, 0.0), (0.0, 0.5)])
def test_dropout_acts_in_training_only(batch, dropout_in, dropout_out):
    x, z = batch
    plain = large_weights(LSTMDecoder(VOCAB, NZ, NI, NH))
    decoder = LSTMDecoder(VOCAB, NZ, NI, NH, dropout_in, dropout_out)
    decoder.load_state_dict(plain.state_dict())
    decoder.train()
    assert not torch.equal(decoder.reconstruction(x, z), decoder.reconstruction(x, z))
    decoder.eval()
    assert torch.equal(decoder.reconstruction(x, z), plain.eval().reconstruction(x, z))


def test_each_dropout_of_the_config_has_its_place():
    config = {"nz": 2, "ni": 3, "enc_nh": 4, "dec_nh": 4, "dec_dropout_in": 0.1, "dec_dropout_out": 0.4}
    decoder = build_vae(TEXT.settings(**config), range(VOCAB)).decoder
    assert (decoder.dropout_in.p, decoder.dropout_out.p) == (0.1, 0.4)


def test_the_encoder_knows_no_dropout(encoder, batch):
    first, again = encoder.train()(batch[0]), encoder.train()(batch[0])
    assert all(map(torch.equal, first, again))


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5, 0.9])
def test_dropout_zeroes_at_its_rate_and_keeps_the_mean(p):
    torch.manual_seed(0)
    x = torch.full((333, 301), 2.0, requires_grad=True)
    y = Dropout(p)(x)
    kept, scale = y != 0, 65536 / (65536 - round(65536 * p))
    torch.testing.assert_close(y[kept], torch.full_like(y[kept], 2 * scale))
    assert float(kept.float().mean()) == pytest.approx(1 - p, abs=0.005)  # standard deviation: at most 0.0016
    for axis in (0, 1):  # rows and columns alike: no stripes
        assert (kept.float().mean(dim=axis) - (1 - p)).abs().max() < 0.2
    y.sum().backward()
    torch.testing.assert_close(x.grad, kept * scale)
    assert Dropout(p).eval()(x) is x
