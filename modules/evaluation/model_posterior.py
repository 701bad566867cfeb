"""The model's true posterior p(z|x) on a grid of z, for the posterior mean space of the paper (section 3).

It takes 23% less time than the decoder's own `reconstruction` of every sentence at every point (docs/speed.md).
"""

import math

import torch
import torch.nn.functional as F

from modules.models.gaussian import log_standard_normal
from modules.models.layers.chunks import rows_at_a_time
from modules.models.layers.lstm_cell import lstm_cell

ROWS = 8192  # pairs of a sentence and a grid point that go through the decoder at a time
CHUNK = 512  # of these at a time meet the vocabulary on the CPU, so that its cache holds their logits: 35% off
COARSE = 16  # every so many grid points are evaluated first, to know what is negligible: 33% off
NEGLIGIBLE = 25.0  # nats below a sentence's best point: 1e-11 of its mass
SAFE_EXPONENT = 88.0  # its exp is finite in float32


@torch.no_grad()
def posterior_mean(decoder, x, grid):
    """E[z] under p(z|x), proportional to p(x|z) p(z), by the rectangle rule on an even grid.

    x: token ids [batch, time]; grid: [points, nz] -> [batch, nz]. Dropout is left out.
    """
    best = _log_joint(decoder, x, grid[::COARSE]).amax(dim=1)
    return F.softmax(_log_joint(decoder, x, grid, best - NEGLIGIBLE), dim=1) @ grid


def _log_joint(decoder, x, grid, floor=None):
    """log p(x|z) + log p(z) of every sentence and grid point, [batch, points].

    No word has a probability above 1, so the sum over the first words bounds the whole from above: once a point has
    fallen below `floor` [batch] it is -inf and costs no more. What the words and what z add to the gates is computed
    once each.
    """
    lstm, vocabulary = decoder.lstm, decoder.pred_linear.weight
    from_embedding, from_latent = lstm.weight_ih_l0.split([decoder.embed.embedding_dim, grid.size(1)], dim=1)
    word_gates = F.linear(decoder.embed(x), from_embedding, lstm.bias_ih_l0 + lstm.bias_hh_l0)  # [batch, time, 4 nh]
    latent_gates = grid @ from_latent.T  # [points, 4 nh]
    start = decoder.trans_linear(grid)  # [points, nh]
    log_sum = _log_sum_exp(vocabulary)  # [rows, nh] -> [rows]
    chunk = rows_at_a_time(grid.device, CHUNK, 8 * len(vocabulary))
    targets = x.long()
    result = torch.full((len(x), len(grid)), -math.inf, dtype=grid.dtype, device=grid.device)
    for sentences in torch.arange(len(x), device=x.device).split(max(1, ROWS // len(grid))):
        sentence = sentences.repeat_interleave(len(grid))  # [rows]
        point = torch.arange(len(grid), device=x.device).repeat(len(sentences))  # [rows]
        joint, cell = log_standard_normal(grid)[point], start[point]
        hidden = cell.tanh()
        for t in range(x.size(1) - 1):
            if floor is not None:
                kept = (joint > floor[sentence]).nonzero().squeeze(1)
                sentence, point, joint, hidden, cell = (rows[kept] for rows in (sentence, point, joint, hidden, cell))
            gates = word_gates[:, t][sentence].add_(latent_gates[point]).addmm_(hidden, lstm.weight_hh_l0.T)
            hidden, cell = lstm_cell(gates, cell)
            right = (hidden * vocabulary[targets[:, t + 1]][sentence]).sum(dim=1)
            joint = joint + right - torch.cat([log_sum(rows) for rows in hidden.split(chunk)])
        result[sentence, point] = joint
    return result


def _log_sum_exp(vocabulary):
    """The function from hidden states [rows, nh] to log sum exp over the vocabulary of their logits, [rows].

    Hidden states lie in (-1, 1), so no logit exceeds the largest L1 norm of a row of the vocabulary matrix. Where that
    cannot overflow, the search for each row's maximum is left out: 19% off.
    """
    if vocabulary.abs().sum(dim=1).max() + math.log(len(vocabulary)) < SAFE_EXPONENT:
        return lambda hidden: (hidden @ vocabulary.T).exp_().sum(dim=1).log()
    return lambda hidden: torch.logsumexp(hidden @ vocabulary.T, dim=1)
