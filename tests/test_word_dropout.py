"""`--word_dropout`: which words the decoder reads, its likelihood word by word, who reads with it, and who without."""

import copy

import pytest
import torch

import image
import text
from modules.checkpoint import load_checkpoint
from modules.domains.text_domain import TEXT, build_vae
from modules.methods import method_name
from modules.methods.word_dropout import UnreadWords
from tests.conftest import assert_refused

SIZES = {"nz": 2, "ni": 5, "enc_nh": 6, "dec_nh": 7, "dec_dropout_in": 0.0, "dec_dropout_out": 0.0, "batch_size": 4}
UNK = 3
X = torch.tensor([[1, 5, 6, 4, 7, 2], [1, 8, 8, 5, 4, 2], [1, 7, 4, 6, 5, 2]], dtype=torch.int32)  # [batch, time]


def model_with(share, **settings):
    """A model whose words matter, in training mode, with the same weights whatever the share."""
    torch.manual_seed(0)
    model = build_vae(TEXT.settings(**SIZES, **settings, word_dropout=share), range(9)).train()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return model


def nll(decoder, read, targets, z):
    """-log p of the targets [batch, time - 1] if these words are read, by one step of the decoder after another."""
    state, total = decoder.start(z), 0
    for words, target in zip(read.T, targets.T.long()):
        hidden, state = decoder.step(words, z, state)
        total = total - decoder.pred_linear(hidden).log_softmax(dim=1).gather(1, target.unsqueeze(1)).squeeze(1)
    return total


def test_each_word_but_the_first_is_replaced_with_that_probability():
    torch.manual_seed(1)
    words = torch.randint(4, 1000, (101, 400), dtype=torch.int32)
    noise = UnreadWords(0.25)
    read = noise(words)
    assert read.dtype == words.dtype and torch.equal(read[0], words[0])
    unread = read[1:] == UNK
    assert torch.equal(read[1:][~unread], words[1:][~unread])
    assert float(unread.float().mean()) == pytest.approx(0.25, abs=0.01)  # 4.6 standard deviations of 40,000 words
    for side in (0, 1):  # independent in time and over the batch
        assert float(unread.float().mean(dim=side).std()) < 0.06
    assert not torch.equal(read, noise(words)) and noise.eval()(words) is words


def test_one_reads_nothing_but_the_start():
    assert (UnreadWords(1.0)(X.T)[1:] == UNK).all() and not (UnreadWords(1e-9)(X.T) == UNK).any()


def test_the_likelihood_of_all_words_given_those_that_are_read():
    """The words that are predicted stay; all draws of z read the same words."""
    decoder, z = model_with(0.5).decoder, torch.randn(3, 2, 2)
    torch.manual_seed(2)
    found = decoder.reconstruction(X, z)
    torch.manual_seed(2)
    read = UnreadWords(0.5)(X.T[:-1]).T
    assert (read == UNK).any() and not (read[:, 1:] == UNK).all()
    for i in range(2):
        torch.testing.assert_close(found[:, i], nll(decoder, read, X[:, 1:], z[:, i]))
    torch.testing.assert_close(decoder.eval().reconstruction(X, z)[:, 0], nll(decoder, X[:, :-1], X[:, 1:], z[:, 0]))


def test_the_refinement_reads_every_word():
    """SA-VAE: the posterior is that of a model without word dropout, the reconstruction is not."""
    found = {}
    for share in (0.0, 1.0):
        model = model_with(share, model="savae", svi_steps=2)
        torch.manual_seed(3)
        mean, logvar = model.posterior(X)
        found[share] = torch.cat([mean, logvar]), model.decoder.reconstruction(X, torch.ones(3, 1, 2))
    assert torch.equal(found[0.0][0], found[1.0][0]) and not torch.allclose(found[0.0][1], found[1.0][1])


def test_a_model_without_it_is_what_it_was():
    with_it, without = model_with(0.5), model_with(0.0)
    assert with_it.state_dict().keys() == without.state_dict().keys()
    torch.manual_seed(4)
    twin, state = copy.deepcopy(without), torch.get_rng_state()
    without.decoder.reconstruction(X, torch.zeros(3, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)  # no draw
    assert not any(isinstance(module, UnreadWords) for module in twin.modules())


def test_inner_and_outer_steps_read_with_it_and_evaluation_without(call, workspace, monkeypatch):
    seen = {True: 0, False: 0}  # by whether words became unknown

    def forward(noise, words, real=UnreadWords.forward):
        read = real(noise, words)
        assert torch.equal(read, words) != noise.training
        seen[noise.training] += 1
        return read

    monkeypatch.setattr(UnreadWords, "forward", forward)
    flags = ("--aggressive", 1, "--word_dropout", 1, "--epochs", 1, "--iw_nsamples", 2)
    ran = call(text.main, "--dataset", "tiny", *flags, cwd=workspace)
    assert (ran.returncode, ran.stderr) == (0, "")
    state = "models/tiny/tiny_aggressive1_kls1.00_warm10_wdrop1_0_0_783435.resume.pt"
    progress = load_checkpoint(workspace / state, "text")["training"]["progress"]
    assert progress["encoder_steps"] > progress["iteration"] > 0
    assert seen[True] == progress["encoder_steps"] + progress["iteration"] and seen[False] > 0


def test_what_tables_call_it():
    assert method_name({"word_dropout": 0.25}) == "VAE, word dropout 0.25"
    assert method_name({"model": "lm", "word_dropout": 0.5}) == "LM, word dropout 0.5"
    assert method_name({"aggressive": 1, "word_dropout": 1.0, "bn_gamma": 0.6}) == (
        "aggressive, batch norm 0.6, word dropout 1"
    )


def test_images_have_no_words(call, image_workspace):
    assert_refused(
        call(image.main, "--dataset", "tinyimages", "--word_dropout", 0.25, cwd=image_workspace), "--word_dropout"
    )


@pytest.mark.parametrize("share", [-0.1, 1.1, "nan", "much"])
def test_shares_that_cannot_be(call, workspace, share):
    assert_refused(call(text.main, "--dataset", "tiny", "--word_dropout", share, cwd=workspace), "--word_dropout")
