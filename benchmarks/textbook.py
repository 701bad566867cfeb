"""The plain textbook text VAE that the benchmarks compare with: stock PyTorch, everything computed, nothing reused.

It is written as most tutorials would write it, from `torch.nn` parts alone, and shares no code with `modules`.
"""

import torch
import torch.nn.functional as F
from torch import nn


class TextbookELBO(nn.Module):
    """The ELBO and the importance-weighted likelihood of a model that offers `encode` and `reconstruction`."""

    def loss(self, x, kl_weight):
        """[batch] reconstruction + kl_weight * KL, in nats per sentence or image"""
        mean, logvar = self.encode(x)
        z = mean + torch.randn_like(mean) * (0.5 * logvar).exp()
        kl = 0.5 * (mean.pow(2) + logvar.exp() - logvar - 1).sum(-1)
        return self.reconstruction(x, z) + kl_weight * kl

    def iw_nll(self, x, nsamples, chunk=50):
        """Importance-weighted -log p(x) of one x [1, ...], encoding it anew for every chunk of samples."""
        weights = []
        for _ in range(0, nsamples, chunk):
            mean, logvar = self.encode(x)
            noise = torch.randn(chunk, mean.size(-1), device=mean.device)
            z = mean + noise * (0.5 * logvar).exp()
            log_ratio = -0.5 * (z.pow(2) - noise.pow(2) - logvar).sum(-1)
            weights.append(log_ratio - self.reconstruction(x.expand(chunk, *x.shape[1:]), z))
        weights = torch.cat(weights)
        return -(torch.logsumexp(weights, 0) - torch.log(torch.tensor(float(len(weights)), device=mean.device)))


class TextbookVAE(TextbookELBO):
    """LSTM encoder and decoder with the sizes and dropout of the project's text VAE."""

    def __init__(self, vocab, nz, ni, nh, dropout=0.5):
        super().__init__()
        self.enc_embed = nn.Embedding(vocab, ni)
        self.enc_lstm = nn.LSTM(ni, nh, batch_first=True)
        self.enc_linear = nn.Linear(nh, 2 * nz, bias=False)
        self.dec_embed = nn.Embedding(vocab, ni)
        self.dec_trans = nn.Linear(nz, nh, bias=False)
        self.dec_lstm = nn.LSTM(ni + nz, nh, batch_first=True)
        self.dec_pred = nn.Linear(nh, vocab, bias=False)
        self.dropout = nn.Dropout(dropout)

    def encoder_parameters(self):
        return [p for name, p in self.named_parameters() if name.startswith("enc_")]

    def encode(self, x):
        _, (last_hidden, _) = self.enc_lstm(self.enc_embed(x))
        return self.enc_linear(last_hidden[-1]).chunk(2, dim=-1)

    def reconstruction(self, x, z):
        """-log p(x|z), [batch]"""
        source, target = x[:, :-1], x[:, 1:]
        embedded = self.dropout(self.dec_embed(source))
        repeated = z.unsqueeze(1).expand(-1, source.size(1), -1)
        c0 = self.dec_trans(z).unsqueeze(0)
        hidden, _ = self.dec_lstm(torch.cat([embedded, repeated], dim=-1), (torch.tanh(c0), c0))
        logits = self.dec_pred(self.dropout(hidden))
        loss = F.cross_entropy(logits.reshape(-1, logits.size(-1)), target.reshape(-1), reduction="none")
        return loss.view(target.shape).sum(-1)


def textbook_step(model, optimiser, x, kl_weight=1.0, max_norm=5.0):
    """One step: loss, every gradient, the norm over all of them, update, and the loss read back with `.item()`."""
    for parameter in model.parameters():
        parameter.grad = None
    loss = model.loss(x, kl_weight)
    loss.mean().backward()
    nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    optimiser.step()
    return loss.sum().item()


def textbook_read(path):
    """Read one sentence a line: (lists of token ids, {word: id}), a list of words and a look-up for each word."""
    with open(path, encoding="utf-8") as file:
        sentences = [line.split() for line in file]
    ids = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3}
    for sentence in sentences:
        for word in sentence:
            if word not in ids:
                ids[word] = len(ids)
    corpus = []
    for sentence in sentences:
        tokens = [ids["<s>"]]
        for word in sentence:
            tokens.append(ids.get(word, ids["<unk>"]))
        tokens.append(ids["</s>"])
        corpus.append(tokens)
    return corpus, ids


class Hypothesis:
    """The beginning of a sentence: its words, its log-probability, and the state of the LSTM after it."""

    def __init__(self, words, log_p, state):
        self.words, self.log_p, self.state = words, log_p, state


@torch.no_grad()
def textbook_beam_search(model, z, beam_size, max_length, together=True):
    """The ids of the most probable sentence that a beam finds for one z [nz], without `<s>` and `</s>`.

    An ended hypothesis keeps its place in the beam; the search stops when none that goes on is better than the best of
    those. The hypotheses of a step go through the model together, or one after the other.
    """
    pad, bos, eos = 0, 1, 2
    c0 = model.dec_trans(z).view(1, 1, -1)
    live, ended = [Hypothesis([bos], 0.0, (torch.tanh(c0), c0))], []
    for _ in range(max_length):
        candidates = []
        for group in [live] if together else [[hypothesis] for hypothesis in live]:
            log_p, hidden, cell = textbook_next_words(model, z, group)
            log_p[:, [pad, bos]] = float("-inf")
            best, words = log_p.topk(min(beam_size, log_p.size(1)), dim=1)
            for i, hypothesis in enumerate(group):
                for score, word in zip(best[i].tolist(), words[i].tolist()):
                    candidates.append(
                        Hypothesis(
                            [*hypothesis.words, word],
                            hypothesis.log_p + score,
                            (hidden[:, i : i + 1], cell[:, i : i + 1]),
                        )
                    )
        candidates.sort(key=lambda hypothesis: hypothesis.log_p, reverse=True)
        live = []
        for hypothesis in candidates[: beam_size - len(ended)]:
            if hypothesis.log_p > float("-inf"):
                (ended if hypothesis.words[-1] == eos else live).append(hypothesis)
        if not live or (ended and max(h.log_p for h in ended) >= max(h.log_p for h in live)):
            break
    return [word for word in max(ended + live, key=lambda hypothesis: hypothesis.log_p).words[1:] if word != eos]


def textbook_next_words(model, z, hypotheses):
    """Log-probabilities of the next word [hypotheses, vocab], and the states after the last one."""
    last = torch.tensor([[hypothesis.words[-1]] for hypothesis in hypotheses], device=z.device)
    hidden = torch.cat([hypothesis.state[0] for hypothesis in hypotheses], dim=1)
    cell = torch.cat([hypothesis.state[1] for hypothesis in hypotheses], dim=1)
    source = torch.cat([model.dec_embed(last), z.expand(len(hypotheses), 1, -1)], dim=-1)
    output, (hidden, cell) = model.dec_lstm(source, (hidden, cell))
    return F.log_softmax(model.dec_pred(output[:, 0]), dim=-1), hidden, cell
