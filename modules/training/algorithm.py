"""Algorithm 1 of the paper: aggressive training of the inference network."""

import math


def optimise_encoder(encoder_step, batch, draw_batch, units, max_steps, test_every):
    """The inner loop (lines 4 to 9 of algorithm 1): update phi alone until the ELBO stops improving.

    encoder_step(x)  one gradient step on the encoder's parameters phi; returns the loss summed over x as a tensor,
                     which is read only once every `test_every` steps, so that a GPU need not be waited for
    batch            the current batch, taken first; the next ones come from `draw_batch()`
    units(x)         words (or images) in x: losses are compared per unit

    Stops after `max_steps`, or when the average loss over `test_every` steps is no better than over those before.
    Returns the number of steps taken.
    """
    previous, total, count = math.inf, 0.0, 0
    for step in range(1, max_steps + 1):
        total = total + encoder_step(batch)
        count += units(batch)
        if step % test_every == 0:
            current = float(total) / count
            if not current < previous:
                return step
            previous, total, count = current, 0.0, 0
        if step < max_steps:
            batch = draw_batch()
    return max_steps
