"""The product with the vocabulary matrix and the softmax over it, fused: the most expensive part of a text VAE.

A plain implementation keeps logits, log-probabilities and their two gradients, each [tokens, vocab]. Here one such
tensor turns from logits to odds to the gradient in place, what is divided by the sum of the odds is narrower, and the
gradient with respect to the vocabulary matrix is computed only where somebody wants it. On one thread that saves 6
to 7% of a step at PTB size, 14 to 17% at toy size, 1 to 2% at Yahoo size (docs/speed.md).
"""

import torch

from modules.models.layers.chunks import rows_at_a_time

CHUNK = 512  # tokens at a time without gradients on the CPU: less memory, and half off the toy study's likelihood


def token_nll(hidden, weight, targets, dtype=torch.float32):
    """-log softmax(weight @ hidden)[target] of every token, in nats.

    hidden [tokens, nh], weight [vocab, nh], targets [tokens] -> [tokens]. `dtype` is that of the products and the
    softmax; bfloat16 trades about three decimal digits for speed.
    """
    targets = targets.unsqueeze(1)
    if torch.is_grad_enabled():
        return _TokenNLL.apply(hidden, weight, targets, dtype)
    low_weight = weight.to(dtype)
    chunk = rows_at_a_time(hidden.device, CHUNK, 8 * len(weight))
    parts = zip(hidden.split(chunk), targets.split(chunk))
    return torch.cat([_nll_and_odds(part, low_weight, target)[0] for part, target in parts])


def _nll_and_odds(hidden, weight, targets):
    """-log p of the targets [tokens, 1], as [tokens]; the odds of all words against the likeliest [tokens, vocab]; and
    their sum [tokens, 1]. p = odds / sum."""
    odds = hidden.to(weight.dtype) @ weight.T  # logits as yet
    odds -= odds.amax(dim=1, keepdim=True)
    log_odds = odds.gather(1, targets)
    total = odds.exp_().sum(dim=1, keepdim=True, dtype=hidden.dtype)
    return (total.log() - log_odds).squeeze(1), odds, total


class _TokenNLL(torch.autograd.Function):
    """The gradient of -log p[target] with respect to the logits is p - onehot(target), here (odds - total * onehot) /
    total; it is made on the way up."""

    @staticmethod
    def forward(ctx, hidden, weight, targets, dtype):
        low_weight = weight.to(dtype)
        nll, error, total = _nll_and_odds(hidden, low_weight, targets)
        error.scatter_add_(1, targets, -total.to(dtype))  # total * (p - onehot) [tokens, vocab]
        grad_hidden = error @ low_weight if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            hidden = error = None
        ctx.save_for_backward(grad_hidden, hidden, error, total)
        return nll

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        grad_hidden, hidden, error, total = ctx.saved_tensors
        grad, grad_weight = grad.unsqueeze(1) / total, None
        if error is not None:
            grad_weight = (error.T @ (hidden * grad).to(error.dtype)).to(hidden.dtype)
        if grad_hidden is not None:
            grad_hidden = grad_hidden * grad
        return grad_hidden, grad_weight, None, None
