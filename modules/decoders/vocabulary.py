"""The product with the vocabulary matrix and the softmax over it, fused: the dearest part of a text VAE.

A plain implementation keeps logits, log-probabilities and their two gradients, each [tokens, vocab]. Here the
log-probabilities turn into the gradient in place, and the gradient with respect to the vocabulary matrix is computed
only where somebody wants it. Without gradients, rows go through in chunks, so that memory stays bounded.
"""

import torch
import torch.nn.functional as F

MAX_LOGITS = 32_000_000     # held at once where no gradient is wanted: 128 MB in float32


def token_nll(hidden, weight, targets, dtype=torch.float32):
    """-log softmax(weight @ hidden)[target] of every token, in nats.

    hidden [tokens, nh], weight [vocab, nh], targets [tokens] -> [tokens]. `dtype` is that of the products and the
    softmax; bfloat16 trades about three decimal digits for speed.
    """
    if torch.is_grad_enabled():
        return _TokenNLL.apply(hidden, weight, targets.unsqueeze(1), dtype)
    rows = max(1, MAX_LOGITS // len(weight))
    weight = weight.to(dtype)
    chunks = [_log_softmax(h.to(dtype), weight).gather(1, target.unsqueeze(1)).squeeze(1)
              for h, target in zip(hidden.split(rows), targets.split(rows))]
    return -(chunks[0] if len(chunks) == 1 else torch.cat(chunks)).to(hidden.dtype)


def _log_softmax(hidden, weight):
    return F.log_softmax(hidden @ weight.T, dim=1)


class _TokenNLL(torch.autograd.Function):
    """The gradient of -log p[target] with respect to the logits is p - onehot(target); both are made on the way up."""

    @staticmethod
    def forward(ctx, hidden, weight, targets, dtype):
        low_hidden, low_weight = hidden.to(dtype), weight.to(dtype)
        log_p = _log_softmax(low_hidden, low_weight)                                        # [tokens, vocab]
        nll = -log_p.gather(1, targets).squeeze(1).to(hidden.dtype)
        error = log_p.exp_().scatter_add_(1, targets, log_p.new_full(targets.shape, -1.0))  # p - onehot
        grad_hidden = error @ low_weight if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            low_hidden = error = None
        ctx.save_for_backward(grad_hidden, low_hidden, error)
        ctx.dtypes = hidden.dtype, weight.dtype
        return nll

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        grad_hidden, hidden, error = ctx.saved_tensors
        grad = grad.unsqueeze(1)
        grad_weight = None
        if error is not None:
            grad_weight = (error.T @ (hidden * grad.to(hidden.dtype))).to(ctx.dtypes[1])
        if grad_hidden is not None:
            grad_hidden = grad_hidden.to(ctx.dtypes[0]) * grad
        return grad_hidden, grad_weight, None, None
