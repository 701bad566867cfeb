"""How many rows of a product are worked on at a time where no gradient is wanted."""

import torch


def rows_at_a_time(device, cached, row_bytes):
    """`cached` rows on the CPU, whose cache they stay in; on a GPU as many as a quarter of its free memory holds.

    row_bytes  what one row takes, with its intermediate results
    """
    if device.type != "cuda":
        return cached
    free, _ = torch.cuda.mem_get_info(device)
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # PyTorch's own, but unused
    return max(cached, (free + kept) // (4 * row_bytes))
