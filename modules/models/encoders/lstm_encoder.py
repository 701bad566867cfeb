"""The text encoder (section 2 of the paper's appendix: a one-layer LSTM whose last hidden state gives q(z|x))."""

from torch import nn

from modules.models.encoders.gaussian_encoder import GaussianEncoder


class LSTMEncoder(GaussianEncoder):
    """Embedding (`ni`) -> one-layer LSTM (`enc_nh`) -> linear map without bias to mean and log-variance (`nz`).

    Parameter names `embed`, `lstm`, `linear` are those of the authors' files.
    """

    def __init__(self, vocab_size, nz, ni, enc_nh, constraints=()):
        super().__init__(constraints)
        self.embed = nn.Embedding(vocab_size, ni)
        self.lstm = nn.LSTM(ni, enc_nh)
        self.linear = nn.Linear(enc_nh, 2 * nz, bias=False)

    def gaussian(self, x):
        """x: token ids [batch, time], `<s>` and `</s>` included -> mean, logvar, both [batch, nz]."""
        embedded = self.embed(x.T)  # [time, batch, ni]
        start = embedded.new_zeros(1, len(x), self.lstm.hidden_size)
        _, (last_hidden, _) = self.lstm(embedded, (start, start))  # last_hidden [1, batch, enc_nh]
        return self.linear(last_hidden.squeeze(0)).chunk(2, dim=-1)
