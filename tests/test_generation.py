"""Generation against exhaustive enumeration, a plain beam search, and the model's own probabilities, in float64."""

import itertools
import math

import pytest
import torch

from benchmarks.bench_text import load_into_textbook
from benchmarks.textbook import TextbookVAE, textbook_beam_search
from modules.data.corpus import BOS, EOS, PAD, UNK, Vocabulary
from modules.generation import search
from modules.models.decoders.lstm_decoder import LSTMDecoder
from modules.models.encoders.lstm_encoder import LSTMEncoder
from modules.models.vae import VAE

NZ, NI, NH = 2, 3, 4


def make_model(words, seed=7, scale=2.0):
    """(Vocabulary of so many words beside the special ones, VAE whose weights make z and every word matter)"""
    vocabulary = Vocabulary([PAD, BOS, EOS, UNK, *(f"w{i}" for i in range(words))])
    size = len(vocabulary)
    model = VAE(LSTMEncoder(size, NZ, NI, NH), LSTMDecoder(size, NZ, NI, NH, 0.5, 0.5)).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return vocabulary, model


def make_z(n, seed=1):
    return torch.randn(n, NZ, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def words_of(tokens, vocabulary):
    """The ids of each generated sentence [n, max_length], up to `</s>`."""
    return [list(itertools.takewhile(lambda word: word != vocabulary.eos, row)) for row in tokens.tolist()]


def log_p(model, vocabulary, z, words, ended):
    """log p of a sentence, word by word from the training code; with `</s>` at its end only if `ended`."""
    sentence = [vocabulary.bos, *words] + [vocabulary.eos] * ended
    with torch.no_grad():
        return -float(model.decoder.reconstruction(torch.tensor([sentence]), z.view(1, 1, -1)))


def next_word_p(model, vocabulary, z, words):
    """The model's distribution of the word after `words`, from the training code, without `<pad>` and `<s>`."""
    p = torch.tensor(
        [
            math.exp(
                log_p(model, vocabulary, z, [*words, word], ended=False)
                - (log_p(model, vocabulary, z, words, ended=False) if words else 0.0)
            )
            for word in range(len(vocabulary))
        ],
        dtype=torch.float64,
    )
    p[[vocabulary.pad, vocabulary.bos]] = 0
    return p / p.sum()


def every_sentence(vocabulary, max_length):
    """Yield (words, whether it ends with `</s>`): all that can be generated."""
    choices = [vocabulary.unk, *range(4, len(vocabulary))]
    for length in range(max_length + 1):
        for words in itertools.product(choices, repeat=length):
            yield list(words), length < max_length


# ---------------------------------------------------------------------- beam search


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("words, max_length", [(0, 5), (1, 4), (2, 3), (2, 1)])
def test_a_beam_as_wide_as_the_space_finds_the_most_probable_sentence(words, max_length, seed):
    vocabulary, model = make_model(words, seed)
    z = make_z(3, seed)
    space = (words + 2) ** max_length
    found = words_of(search.beam_search(model.decoder, z, vocabulary, max_length, space), vocabulary)
    for row, sentence in zip(z, found):
        best, _ = max(every_sentence(vocabulary, max_length), key=lambda s: log_p(model, vocabulary, row, *s))
        assert sentence == best


@pytest.mark.parametrize("seed", range(4))
def test_width_one_is_greedy(seed):
    vocabulary, model = make_model(9, seed)
    z = make_z(40, seed)
    assert torch.equal(
        search.beam_search(model.decoder, z, vocabulary, 12, 1), search.greedy(model.decoder, z, vocabulary, 12)
    )


def test_greedy_takes_the_most_probable_word_each_time():
    vocabulary, model = make_model(4, seed=1)
    z = make_z(20)
    found = words_of(search.greedy(model.decoder, z, vocabulary, 5), vocabulary)
    assert len(set(map(len, found))) > 1
    for row, sentence in zip(z, found):
        expected = []
        while len(expected) < 5 and (word := int(next_word_p(model, vocabulary, row, expected).argmax())) != 2:
            expected.append(word)
        assert sentence == expected


@pytest.mark.parametrize("width", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_the_plain_beam_search_finds_the_same(width, scale):
    """With 20, the beam is wider than the vocabulary."""
    vocabulary, model = make_model(6, seed=1, scale=scale)
    textbook = TextbookVAE(len(vocabulary), NZ, NI, NH).double().eval()
    load_into_textbook(textbook, model)
    z = make_z(40)
    found = words_of(search.beam_search(model.decoder, z, vocabulary, 8, width), vocabulary)
    for together in (True, False):
        assert found == [textbook_beam_search(textbook, row, width, 8, together) for row in z]
    assert len(set(map(len, found))) > 2


def test_a_wider_beam_can_find_better_sentences():
    vocabulary, model = make_model(6, seed=1)
    z = make_z(40)
    scores = []
    for width in (1, 5):
        found = words_of(search.beam_search(model.decoder, z, vocabulary, 8, width), vocabulary)
        scores.append(sum(log_p(model, vocabulary, row, words, len(words) < 8) for row, words in zip(z, found)))
    assert scores[1] > scores[0] + 1


# ---------------------------------------------------------------------- batches

STRATEGIES = {
    "greedy": search.greedy,
    "beam 2": lambda *args: search.beam_search(*args, 2),
    "beam 5": lambda *args: search.beam_search(*args, 5),
    "sample": lambda *args: search.sample(*args, torch.Generator().manual_seed(5)),
    "sample of few": lambda *args: search.sample(*args, torch.Generator().manual_seed(5), 0.8, 4, 0.9),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_small_parts_give_the_same(monkeypatch, name):
    vocabulary, model = make_model(9)
    args = (model.decoder, make_z(50), vocabulary, 10)
    whole = STRATEGIES[name](*args)
    lengths = [len(words) for words in words_of(whole, vocabulary)]
    assert len(set(lengths)) > 3
    monkeypatch.setattr(search, "HYPOTHESES", 7)
    monkeypatch.setattr(search, "LOGITS", 40)
    assert torch.equal(STRATEGIES[name](*args), whole)


@pytest.mark.parametrize("name", ["greedy", "beam 2", "beam 5"])
def test_one_by_one_gives_the_same(name):
    vocabulary, model = make_model(9)
    z = make_z(50)
    one_by_one = [STRATEGIES[name](model.decoder, row.unsqueeze(0), vocabulary, 10) for row in z]
    assert torch.equal(torch.cat(one_by_one), STRATEGIES[name](model.decoder, z, vocabulary, 10))


@pytest.mark.parametrize("parts", [1, 7, 49])
def test_one_generator_draws_the_same_whatever_the_batches(parts):
    vocabulary, model = make_model(9)
    z = make_z(50)
    whole = STRATEGIES["sample"](model.decoder, z, vocabulary, 10)
    random = torch.Generator().manual_seed(5)
    drawn = [search.sample(model.decoder, part, vocabulary, 10, random) for part in z.split(parts)]
    assert torch.equal(torch.cat(drawn), whole)
    assert not torch.equal(search.sample(model.decoder, z, vocabulary, 10, random), whole)


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("max_length", [1, 2, 9])
def test_the_limit_and_the_words_that_are_never_generated(name, max_length):
    """The model itself prefers `<pad>` and `<s>` here, and hardly ever ends a sentence."""
    vocabulary, model = make_model(5)
    with torch.no_grad():
        hidden = torch.ones(NH, dtype=torch.float64)
        model.decoder.lstm.weight_ih_l0.zero_()
        model.decoder.lstm.weight_hh_l0.zero_()  # the same gates always: the same sign of hidden
        model.decoder.lstm.bias_ih_l0.fill_(5.0)
        model.decoder.pred_linear.weight[[vocabulary.pad, vocabulary.bos]] = 9 * hidden
        model.decoder.pred_linear.weight[vocabulary.eos] = -9 * hidden
        model.decoder.trans_linear.weight.zero_()
    result = STRATEGIES[name](model.decoder, make_z(30), vocabulary, max_length)
    assert result.shape == (30, max_length)
    assert not {vocabulary.pad, vocabulary.bos} & set(result.flatten().tolist())
    assert {len(words) for words in words_of(result, vocabulary)} == {max_length}


@pytest.mark.parametrize("name", STRATEGIES)
def test_unk_is_generated_unless_it_is_left_out(name):
    """The model likes it better than any other word."""
    vocabulary, model = make_model(5)
    with torch.no_grad():
        model.decoder.lstm.bias_ih_l0.fill_(5.0)
        model.decoder.pred_linear.weight[vocabulary.unk] = 4.0
    args = model.decoder, make_z(30)
    assert vocabulary.unk in STRATEGIES[name](*args, vocabulary, 6)
    assert vocabulary.unk not in STRATEGIES[name](*args, vocabulary.without_unk(), 6)


@pytest.mark.parametrize("seed", [0, 2, 8])
def test_without_unk_the_widest_beam_finds_the_most_probable_of_the_other_sentences(seed):
    """The model likes a word best that becomes `<unk>` here."""
    vocabulary, model = make_model(2, seed)
    with torch.no_grad():
        for weight in (model.decoder.embed.weight, model.decoder.pred_linear.weight):
            weight[[vocabulary.unk, 4]] = weight[[4, vocabulary.unk]]
    z, found = make_z(5, seed), []
    for known in (vocabulary.without_unk(), vocabulary):
        found.append(words_of(search.beam_search(model.decoder, z, known, 3, 4**3), vocabulary))
    others = [each for each in every_sentence(vocabulary, 3) if vocabulary.unk not in each[0]]
    best = [max(others, key=lambda each: log_p(model, vocabulary, row, *each))[0] for row in z]
    assert found[0] == best and found[1] != best


def test_without_unk_greedy_takes_the_most_probable_other_word():
    vocabulary, model = make_model(4, seed=1)
    z = make_z(20)
    for row, sentence in zip(z, words_of(search.greedy(model.decoder, z, vocabulary.without_unk(), 5), vocabulary)):
        expected = []
        while len(expected) < 5:
            p = next_word_p(model, vocabulary, row, expected)
            p[vocabulary.unk] = 0
            if (word := int(p.argmax())) == vocabulary.eos:
                break
            expected.append(word)
        assert sentence == expected


@pytest.mark.parametrize("name", STRATEGIES)
def test_after_the_end_there_is_nothing_but_the_end(name):
    vocabulary, model = make_model(9)
    result = STRATEGIES[name](model.decoder, make_z(50), vocabulary, 10)
    ends = (result == vocabulary.eos).int()
    assert torch.equal(ends.cummax(dim=1).values, ends)


@pytest.mark.parametrize("name", STRATEGIES)
def test_no_z_gives_no_sentence(name):
    vocabulary, model = make_model(9)
    assert STRATEGIES[name](model.decoder, make_z(0), vocabulary, 10).shape == (0, 10)


# ---------------------------------------------------------------------- sampling

DRAWS = 20_000


def chi_square_is_small(counts, p, draws=DRAWS):
    """Whether counts fit the probabilities: impossible ones are never drawn, the others within some 5 deviations."""
    possible = p > 0
    assert counts[~possible].sum() == 0
    degrees = int(possible.sum()) - 1
    statistic = ((counts - draws * p).square() / (draws * p))[possible].sum()
    return statistic < degrees + 5 * math.sqrt(2 * max(degrees, 1)) + 5


def first_words(model, vocabulary, z, **options):
    drawn = search.sample(
        model.decoder, z.expand(DRAWS, -1), vocabulary, 1, torch.Generator().manual_seed(3), **options
    )
    return drawn.flatten().bincount(minlength=len(vocabulary)).double()


def test_sentences_are_as_frequent_as_the_model_says():
    vocabulary, model = make_model(1, seed=2, scale=1.0)
    z = make_z(1)
    drawn = search.sample(model.decoder, z.expand(DRAWS, -1), vocabulary, 3, torch.Generator().manual_seed(4))
    found = [tuple(words) for words in words_of(drawn, vocabulary)]
    sentences = [tuple(words) for words, _ in every_sentence(vocabulary, 3)]
    p = []
    for words in sentences:
        steps = [next_word_p(model, vocabulary, z[0], list(words[:i])) for i in range(len(words) + 1)]
        p.append(
            math.prod(float(steps[i][word]) for i, word in enumerate(words))
            * (float(steps[-1][vocabulary.eos]) if len(words) < 3 else 1.0)
        )
    p = torch.tensor(p, dtype=torch.float64)
    assert float(p.sum()) == pytest.approx(1.0)
    counts = torch.tensor([found.count(words) for words in sentences], dtype=torch.float64)
    assert counts.sum() == DRAWS and (counts > 0).sum() > 5
    assert chi_square_is_small(counts, p)


def test_without_unk_the_other_words_share_its_probability():
    vocabulary, model = make_model(6, seed=2, scale=1.0)
    z = make_z(1)
    p = next_word_p(model, vocabulary, z[0], [])
    assert p[vocabulary.unk] > 0.01
    p[vocabulary.unk] = 0
    assert chi_square_is_small(first_words(model, vocabulary.without_unk(), z), p / p.sum())


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_temperature(temperature):
    vocabulary, model = make_model(6, seed=2, scale=1.0)
    z = make_z(1)
    p = next_word_p(model, vocabulary, z[0], []).pow(1 / temperature)
    assert chi_square_is_small(first_words(model, vocabulary, z, temperature=temperature), p / p.sum())


@pytest.mark.parametrize(
    "top_k, top_p, temperature",
    [
        (1, None, 1.0),
        (3, None, 1.0),
        (100, None, 1.0),
        (None, 1e-9, 1.0),
        (None, 0.6, 1.0),
        (None, 0.9, 2.0),
        (None, 1.0, 1.0),
        (4, 0.7, 1.5),
    ],
)
def test_truncation(top_k, top_p, temperature):
    """Of these both, the k most probable are kept first; the share that top_p asks for is of what they have."""
    vocabulary, model = make_model(6, seed=2, scale=1.0)
    z = make_z(1)
    p = next_word_p(model, vocabulary, z[0], []).pow(1 / temperature)
    order = p.argsort(descending=True).tolist()[:top_k]
    kept, total = [], float(p[order].sum())
    for word in order:
        if top_p is not None and float(p[kept].sum()) >= top_p * total:
            break
        kept.append(word)
    expected = torch.zeros_like(p)
    expected[kept] = p[kept] / p[kept].sum()
    assert chi_square_is_small(
        first_words(model, vocabulary, z, top_k=top_k, top_p=top_p, temperature=temperature), expected
    )


def test_the_most_probable_word_alone_is_greedy():
    vocabulary, model = make_model(9)
    z = make_z(30)
    greedy = search.greedy(model.decoder, z, vocabulary, 10)
    random = torch.Generator().manual_seed(0)
    for options in ({"top_k": 1}, {"top_p": 1e-9}, {"temperature": 1e-6}):
        assert torch.equal(search.sample(model.decoder, z, vocabulary, 10, random, **options), greedy)
