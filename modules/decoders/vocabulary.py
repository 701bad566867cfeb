"""The product with the vocabulary matrix and the softmax over it, fused: the dearest part of a text VAE.

A plain implementation keeps logits, log-probabilities and their two gradients, each [tokens, vocab]. Here one such
tensor turns from logits to probabilities to the gradient in place, and the gradient with respect to the vocabulary
matrix is computed only where somebody wants it.
"""

import torch

CHUNK = 512     # tokens at a time where no gradient is wanted: their logits stay in the processor's cache


def token_nll(hidden, weight, targets, dtype=torch.float32):
    """-log softmax(weight @ hidden)[target] of every token, in nats.

    hidden [tokens, nh], weight [vocab, nh], targets [tokens] -> [tokens]. `dtype` is that of the products and the
    softmax; bfloat16 trades about three decimal digits for speed.
    """
    targets = targets.unsqueeze(1)
    if torch.is_grad_enabled():
        return _TokenNLL.apply(hidden, weight, targets, dtype)
    low_weight = weight.to(dtype)
    return torch.cat([_nll_and_p(part, low_weight, target)[0]
                      for part, target in zip(hidden.split(CHUNK), targets.split(CHUNK))])


def _nll_and_p(hidden, weight, targets):
    """-log p of the targets [tokens, 1], as [tokens], and p, the softmax of the logits [tokens, vocab]."""
    logits = hidden.to(weight.dtype) @ weight.T
    below_peak = logits.amax(dim=1) - logits.gather(1, targets).squeeze(1)
    p = torch.softmax(logits, dim=1, out=logits)                                # in place
    return below_peak - p.amax(dim=1).to(hidden.dtype).log(), p                 # max p = 1 / sum(exp(logits - peak))


class _TokenNLL(torch.autograd.Function):
    """The gradient of -log p[target] with respect to the logits is p - onehot(target); both are made on the way up."""

    @staticmethod
    def forward(ctx, hidden, weight, targets, dtype):
        low_weight = weight.to(dtype)
        nll, error = _nll_and_p(hidden, low_weight, targets)
        error.scatter_(1, targets, -1, reduce="add")                # p - onehot [tokens, vocab]
        grad_hidden = error @ low_weight if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            hidden = error = None
        ctx.save_for_backward(grad_hidden, hidden, error)
        return nll

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        grad_hidden, hidden, error = ctx.saved_tensors
        grad, grad_weight = grad.unsqueeze(1), None
        if error is not None:
            grad_weight = (error.T @ (hidden * grad).to(error.dtype)).to(hidden.dtype)
        if grad_hidden is not None:
            grad_hidden = grad_hidden * grad
        return grad_hidden, grad_weight, None, None
