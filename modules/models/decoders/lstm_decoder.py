"""The text decoder: an LSTM that sees z at every step (paper, section 5.1 and appendix)."""

import torch
from torch import nn

from modules.models.layers.dropout import Dropout
from modules.models.layers.linear import linear
from modules.models.layers.vocabulary_softmax import token_nll


class LSTMDecoder(nn.Module):
    """p(x|z): own embedding with dropout, z concatenated at every step, LSTM, dropout, linear map to the vocabulary.

    The initial cell is c0 = W z, the initial hidden state tanh(c0); with nz = 0, as a language model, both are 0.
    Parameter names `embed`, `trans_linear`, `lstm`, `pred_linear` are those of the authors' files. `train_dtype` is the
    precision of the product with the vocabulary while training; evaluation always uses the parameters' own.
    `word_noise` is a module that changes the words read in training, [time, batch] both, the first of them `<s>`; what
    is predicted stays.
    """

    def __init__(
        self, vocab_size, nz, ni, dec_nh, dropout_in=0.0, dropout_out=0.0, train_dtype=torch.float32, word_noise=None
    ):
        super().__init__()
        self.word_noise = word_noise or nn.Identity()
        self.embed = nn.Embedding(vocab_size, ni)
        self.dropout_in = Dropout(dropout_in)
        self.trans_linear = linear(nz, dec_nh, bias=False)
        self.lstm = nn.LSTM(ni + nz, dec_nh)
        self.dropout_out = Dropout(dropout_out)
        self.pred_linear = nn.Linear(dec_nh, vocab_size, bias=False)
        self.train_dtype = train_dtype

    def reconstruction(self, x, z):
        """-log p(x|z) in nats per sentence.

        x: token ids [batch, time], all of one length; z: [batch, nsamples, nz] -> [batch, nsamples].
        Every token but the first (`<s>`) is predicted.
        """
        batch, nsamples, _ = z.shape
        tokens = x.T  # [time, batch]
        embedded = self.dropout_in(self.embed(self.word_noise(tokens[:-1])))  # [time - 1, batch, ni]
        targets = tokens[1:].long()  # [time - 1, batch]
        if nsamples > 1:
            embedded, targets = (each.repeat_interleave(nsamples, dim=1) for each in (embedded, targets))
        steps, z = len(targets), z.flatten(0, 1)  # z [batch * nsamples, nz]
        source = torch.cat([embedded, z.expand(steps, -1, -1)], dim=2)  # [time - 1, batch * nsamples, ni + nz]
        hidden, _ = self.lstm(source, self.start(z))
        hidden = self.dropout_out(hidden).flatten(0, 1)  # [(time-1) * batch * nsamples, dec_nh]
        dtype = self.train_dtype if self.training else hidden.dtype
        nll = token_nll(hidden, self.pred_linear.weight, targets.flatten(), dtype)
        return nll.view(steps, batch, nsamples).sum(dim=0)

    def start(self, z):
        """The LSTM's state before the first word: z [n, nz] -> (h0, c0), [1, n, dec_nh] both."""
        cell = self.trans_linear(z).unsqueeze(0)
        return cell.tanh(), cell

    def step(self, tokens, z, state):
        """One word further: tokens [n], z [n, nz], state -> what `pred_linear` takes [n, dec_nh], and the new state."""
        hidden, state = self.lstm(torch.cat([self.embed(tokens), z], dim=1).unsqueeze(0), state)
        return hidden.squeeze(0), state
