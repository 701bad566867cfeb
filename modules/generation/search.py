"""Sentences from a text decoder: greedily, sampled, or by beam search, for many z at once.

Whatever the strategy, a sentence ends before `</s>` or after `max_length` words, and the words `vocabulary.never`
(`<pad>`, `<s>`) are not generated. The decoder must be in evaluation mode.
"""

import torch

HYPOTHESES = 2**13  # of beam search at once, at most: sentences times beam
LOGITS = 2**22  # computed at once, at most, for memory: a search takes a tenth less time without


@torch.no_grad()
def greedy(decoder, z, vocabulary, max_length):
    """The most probable word, step by step: z [n, nz] -> token ids [n, max_length], filled up with `</s>`."""
    return _word_by_word(decoder, z, vocabulary, max_length, lambda log_p, step, rows: log_p.argmax(dim=1))


@torch.no_grad()
def sample(decoder, z, vocabulary, max_length, generator=None, temperature=1.0, top_k=None, top_p=None):
    """Words drawn from the decoder's distribution: z [n, nz] -> token ids [n, max_length], filled up with `</s>`.

    The log-probabilities are divided by `temperature`; of each distribution only the `top_k` most probable words are
    kept, and of these the fewest that have `top_p` of the probability together (Holtzman et al. 2020). The random
    numbers come from the CPU `generator`, one a word, so that neither device nor batching changes what is drawn.
    """
    uniform = torch.rand(len(z), max_length, generator=generator).to(z.device)

    def choose(log_p, step, rows):
        p, words = _truncated((log_p / temperature).softmax(dim=1), top_k, top_p)
        cumulative = p.cumsum(dim=1)
        rank = torch.searchsorted(cumulative, uniform[rows, step].unsqueeze(1) * cumulative[:, -1:], right=True)
        rank.clamp_(max=p.size(1) - 1)
        return (rank if words is None else words.gather(1, rank)).squeeze(1)

    return _word_by_word(decoder, z, vocabulary, max_length, choose)


def _truncated(p, top_k, top_p):
    """p [n, vocab] without the words that are not kept, in falling order, and which words they are (None: all)."""
    if top_k is None and top_p is None:
        return p, None
    p, words = p.topk(min(top_k or p.size(1), p.size(1)), dim=1)
    if top_p is not None:
        before = p.cumsum(dim=1) - p  # probability of the more probable words
        p = p.masked_fill(before >= top_p * p.sum(dim=1, keepdim=True), 0.0)
    return p, words


def _word_by_word(decoder, z, vocabulary, max_length, choose):
    """Generate with `choose(log_p [block, vocab], step, rows) -> words [block]`; rows: which of the z these are."""
    result = torch.full((len(z), max_length), vocabulary.eos, device=z.device)
    rows = torch.arange(len(z), device=z.device)  # that go on
    words, state = torch.full_like(rows, vocabulary.bos), decoder.start(z)
    for step in range(max_length):
        hidden, state = decoder.step(words, z[rows], state)
        words = torch.cat([choose(log_p, step, rows[block]) for block, log_p in _blocks(decoder, hidden, vocabulary)])
        result[rows, step] = words
        going_on = (words != vocabulary.eos).nonzero().squeeze(1)
        if len(going_on) == 0:
            break
        rows, words, state = rows[going_on], words[going_on], _rows_of(state, going_on)
    return result


@torch.no_grad()
def beam_search(decoder, z, vocabulary, max_length, beam_size):
    """The most probable sentence that a beam finds: z [n, nz] -> token ids [n, max_length], filled up with `</s>`.

    At each step the `beam_size` most probable continuations are kept; one that ends leaves the beam, narrower by one
    from then on, and the most probable of these is the result. A sentence that reaches the limit counts as ended there,
    with the probability of its words. The search for a z stops when no hypothesis can become better than the best that
    has ended.
    """
    parts = z.split(max(1, HYPOTHESES // beam_size))
    return torch.cat([_search(decoder, part, vocabulary, max_length, beam_size) for part in parts])


def _search(decoder, z, vocabulary, max_length, width):
    """`beam_search` for the z [n, nz] of one part; `rows` are those whose search goes on."""
    result = torch.full((len(z), max_length), vocabulary.eos, device=z.device)
    rows = torch.arange(len(z), device=z.device)
    best = z.new_full((len(z),), -torch.inf)  # log-probability of what has ended
    places = torch.full((len(z), 1), width, device=z.device)  # for hypotheses that have not ended
    score = z.new_full((len(z), width), -torch.inf)  # their log-probabilities, or that there is none
    score[:, 0] = 0.0
    sentences = torch.full((len(z), width, max_length), vocabulary.eos, device=z.device)
    words, owner, state = torch.full_like(rows, vocabulary.bos), rows, decoder.start(z)  # of all hypotheses in turn
    for step in range(max_length):
        hidden, state = decoder.step(words, z[owner], state)
        number = (score > -torch.inf).flatten().cumsum(dim=0).view(score.shape) - 1  # of a hypothesis among all
        score, parent, words = _continuations(decoder, hidden, score, vocabulary)  # [rows, width] each
        sentences = sentences.gather(1, parent.unsqueeze(2).expand(-1, -1, max_length))
        sentences[:, :, step] = words
        score = score.masked_fill(torch.arange(width, device=z.device) >= places, -torch.inf)
        ended = (score > -torch.inf) & ((words == vocabulary.eos) | (step == max_length - 1))
        top, which = score.masked_fill(~ended, -torch.inf).max(dim=1)
        better = (top > best).nonzero().squeeze(1)
        best[better], result[rows[better]] = top[better], sentences[better, which[better]]
        score, places = score.masked_fill(ended, -torch.inf), places - ended.sum(dim=1, keepdim=True)
        going_on = (score.amax(dim=1) > best).nonzero().squeeze(1)
        if len(going_on) == 0:
            break
        parents = number.gather(1, parent)
        rows, best, places, score, sentences, words, parents = (
            part[going_on] for part in (rows, best, places, score, sentences, words, parents)
        )
        alive = score > -torch.inf
        words, owner, state = words[alive], rows.unsqueeze(1).expand_as(alive)[alive], _rows_of(state, parents[alive])
    return result


def _continuations(decoder, hidden, score, vocabulary):
    """The most probable continuations of the hypotheses with log-probabilities `score` [rows, width], best first.

    hidden [hypotheses, dec_nh], of those whose score is not -inf, in turn -> log-probability, which hypothesis of its
    row is continued, and the word, [rows, width] each.
    """
    rows, width = score.shape
    choices = min(width, len(vocabulary))
    best = [log_p.topk(choices, dim=1) for _, log_p in _blocks(decoder, hidden, vocabulary)]
    alive = score > -torch.inf
    candidates = score.new_full((rows, width, choices), -torch.inf)
    candidates[alive] = score[alive].unsqueeze(1) + torch.cat([log_p for log_p, _ in best])
    words = torch.full(candidates.shape, vocabulary.eos, device=score.device)
    words[alive] = torch.cat([words for _, words in best])
    score, index = candidates.flatten(1).topk(width, dim=1)
    return score, index // choices, words.flatten(1).gather(1, index)


def _blocks(decoder, hidden, vocabulary):
    """Yield (which rows of hidden [n, dec_nh], log p of the next word [block, vocab]), -inf of `vocabulary.never`."""
    for block in torch.arange(len(hidden), device=hidden.device).split(max(1, LOGITS // len(vocabulary))):
        log_p = decoder.pred_linear(hidden[block]).log_softmax(dim=1)
        for word in vocabulary.never:  # a list of them all would be sent to the device
            log_p[:, word] = -torch.inf
        yield block, log_p


def _rows_of(state, rows):
    """The LSTM's state of some rows."""
    return tuple(part.index_select(1, rows) for part in state)
