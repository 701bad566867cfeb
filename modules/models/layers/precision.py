"""The number formats of `--precision`."""

import torch

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16}
