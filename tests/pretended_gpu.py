"""A pretended GPU: CPU tensors that say they are on "cuda": what a GPU refuses is refused, its waits are counted.

Within `with PretendedGPU() as gpu`, every tensor made on "cuda", or moved there, is computed on the CPU under a mark
that its storage carries. Raises what CUDA raises for operands on two devices, a generator of the other device,
`numpy()` of a device tensor, a CPU tensor indexed by a device tensor, and what cuDNN's LSTM refuses; a copy to the host
that nobody waits for is refused, too. `gpu.waits` counts how often the host waits for the device, by the line of
`modules` and what waits. The device has random numbers of its own.

It cannot see: operations that have no CUDA kernel, what else cuDNN refuses, memory formats, sums in another order,
memory, where `torch.load` puts tensors without a `map_location`, waits in operations that `WAITS` lacks, and waits
that a full queue or an allocation costs.
"""

import sys
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

MODULES = str(Path(__file__).resolve().parent.parent / "modules")
CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
ATEN = torch.ops.aten
COPIES = {ATEN.copy_.default, ATEN._to_copy.default, ATEN.set_.source_Storage}
INDEXING = {
    ATEN.index.Tensor,
    ATEN._unsafe_index.Tensor,
    ATEN.index_put.default,
    ATEN.index_put_.default,
    ATEN._index_put_impl_.default,
}
FUSED = {ATEN._fused_adam_.default, ATEN._fused_sgd_.default}
WAITS = {
    ATEN._local_scalar_dense,
    ATEN.nonzero,
    ATEN.equal,
    ATEN.masked_select,
    ATEN._unique2,
    ATEN.bincount,
    ATEN.unique_dim,
    ATEN.unique_consecutive,
}
TO_NUMPY = {torch.Tensor.numpy, torch.Tensor.__array__}
TWO_DEVICES = "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"


def device_of(tensor):
    """Where a tensor says it is."""
    return getattr(tensor.untyped_storage(), "pretended", CPU)


def put(result, device):
    """Mark every tensor in `result` as one of the device, and return it."""
    for tensor in _tensors(result):
        tensor.untyped_storage().pretended = device
    return result


def _tensors(tree):
    if isinstance(tree, torch.Tensor):
        return [tree]
    if isinstance(tree, dict):
        tree = tree.values()
    elif not isinstance(tree, (list, tuple)):
        return []
    return [tensor for branch in tree for tensor in _tensors(branch)]


def _device(device):
    return CUDA if torch.device(device).type == "cuda" else CPU


def _check_generator(generator, named, tensors):
    """Raise unless a generator is of the device that a call names, or else that its tensors are on."""
    device = _device(named) if named is not None else CUDA if CUDA in map(device_of, tensors) else CPU
    if generator.device.type != device.type:
        raise RuntimeError(f"Expected a '{device.type}' device type for generator but found '{generator.device.type}'")


class _Generator(torch.Generator):
    """A generator that says it is on the device that it was made for."""

    def __new__(cls, device="cpu"):
        made = super().__new__(cls)
        made.pretended = _device(device)
        return made

    @property
    def device(self):
        return self.pretended


def _grouped(lists, with_indices=False):
    """What PyTorch's optimisers and clipping sort tensors by."""
    groups = torch._C._group_tensors_by_device_and_dtype(lists, with_indices)
    return {
        (device_of(next(filter(len, found))[0]), dtype): (found, which) for (_, dtype), (found, which) in groups.items()
    }


class PretendedGPU(TorchFunctionMode):
    """Sees the calls of functions: which device they name, and moves between the two."""

    def __init__(self):
        self.waits = Counter()
        self.generator = torch.Generator()
        self.making = None  # the device on which a function is asked to make a tensor

    def __enter__(self):
        self.stack = ExitStack()
        for name, value in {
            "torch.cuda.is_available": lambda: True,
            "torch.cuda.device_count": lambda: 1,
            "torch.cuda.set_device": lambda device: None,
            "torch.cuda.get_device_name": lambda: "pretended",
            "torch.cuda.synchronize": lambda: self.wait("synchronize"),
            "torch.cuda.mem_get_info": lambda device: (8 << 30, 16 << 30),
            "torch.cuda.memory_reserved": lambda device: 2 << 30,
            "torch.cuda.memory_allocated": lambda device: 1 << 30,
            "torch.cuda.manual_seed_all": self.generator.manual_seed,
            "torch.cuda.get_rng_state": lambda device: self.generator.get_state(),
            "torch.cuda.set_rng_state": lambda state, device: self.generator.set_state(state),
            "torch.Generator": _Generator,
            "torch.backends.cudnn.is_acceptable": lambda tensor: False,
            "torch.nn.utils.clip_grad._group_tensors_by_device_and_dtype": _grouped,
        }.items():
            self.stack.enter_context(mock.patch(name, value))
        self.stack.enter_context(_Operations(self))
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.stack.close()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if function == torch.Tensor.device.__get__:
            return device_of(args[0])
        if function == torch.Tensor.is_cuda.__get__:
            return device_of(args[0]) == CUDA
        if function in TO_NUMPY and device_of(args[0]) == CUDA:
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
        if function is torch.Tensor.tolist and device_of(args[0]) == CUDA:
            self.wait("tolist")
        if function in (torch.Tensor.cpu, torch.Tensor.cuda):
            return self._move(args[0], CPU if function is torch.Tensor.cpu else CUDA)
        if function is torch.Tensor.to:
            return self._to(*args, **kwargs)
        if function is torch.lstm:
            _check_lstm(*args)
        if kwargs.get("generator") is not None:  # here, as operations get another object for the same generator
            _check_generator(kwargs["generator"], kwargs.get("device"), _tensors(args))
        if kwargs.get("device") is not None:
            return self._make(function, args, kwargs)
        return function(*args, **kwargs)

    def _make(self, function, args, kwargs):
        """A call that names a device."""
        device = _device(kwargs.pop("device"))
        if function is torch.as_tensor and isinstance(args[0], torch.Tensor):
            return self._to(args[0], device, kwargs.get("dtype"))
        if function in (torch.tensor, torch.as_tensor) and device == CUDA:
            self.wait("upload")
        before, self.making = self.making, device
        try:
            return put(function(*args, **kwargs, device="cpu"), device)
        finally:
            self.making = before

    def _to(self, tensor, *args, **kwargs):
        """`tensor.to(...)`, of a device, a type, both, or another tensor's."""
        if args and isinstance(args[0], torch.Tensor):
            device, dtype = device_of(args[0]), args[0].dtype
        else:
            kwargs.pop("copy", None)
            device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
        if device is not None:
            tensor = self._move(tensor, _device(device), kwargs.get("non_blocking", False))
        return tensor if dtype is None else torch.Tensor.to(tensor, dtype)

    def _move(self, tensor, device, non_blocking=False):
        if device_of(tensor) == device:
            return tensor
        if device == CPU and non_blocking:
            raise RuntimeError("a copy to the host that nobody waits for: it may be read before it has arrived")
        if not non_blocking:
            self.wait("to host" if device == CPU else "to device")
        with torch._C.DisableTorchFunction():
            return _Move.apply(tensor, device)

    def wait(self, what):
        """Count a wait of the host, for the line of `modules` that is at work."""
        frame = sys._getframe()
        while frame.f_back and not frame.f_code.co_filename.startswith(MODULES):
            frame = frame.f_back
        self.waits[f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {what}"] += 1

    @contextmanager
    def own_random_numbers(self):
        """Within: what PyTorch draws without a generator comes from the device's own."""
        host = torch.default_generator.get_state()
        torch.default_generator.set_state(self.generator.get_state())
        try:
            yield
        finally:
            self.generator.set_state(torch.default_generator.get_state())
            torch.default_generator.set_state(host)


def _check_lstm(x, state, weights, has_biases, layers, dropout, train, *more):
    """What cuDNN refuses."""
    if device_of(x) == CPU:
        return
    if not all(part.is_contiguous() for part in state):
        raise RuntimeError("rnn: hx is not contiguous")
    if not train and torch.is_grad_enabled() and any(part.requires_grad for part in (x, *state, *weights)):
        raise RuntimeError("cudnn RNN backward can only be called in training mode")


class _Move(torch.autograd.Function):
    """A copy on another device, whose gradient goes back."""

    @staticmethod
    def forward(ctx, tensor, device):
        ctx.device = device_of(tensor)
        return put(tensor.clone(), device)

    @staticmethod
    def backward(ctx, grad):
        return put(grad.clone(), ctx.device), None


class _Operations(TorchDispatchMode):
    """Sees what every operation is given, those of the backward pass too."""

    def __init__(self, gpu):
        self.gpu = gpu
        super().__init__()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = _tensors((args, kwargs))
        scalars_mix = function not in FUSED  # a number on the CPU may meet device tensors
        devices = {
            device_of(tensor) for tensor in tensors if tensor.dim() or not scalars_mix or device_of(tensor) == CUDA
        }
        device = CUDA if CUDA in devices else CPU if tensors else self.gpu.making or CPU
        if CUDA in devices:
            self._check(function, args, devices)
        if function is ATEN.copy_.default:
            device = device_of(args[0])
        if device == CUDA and kwargs.get("generator") is None and torch.Tag.nondeterministic_seeded in function.tags:
            with self.gpu.own_random_numbers():
                return put(function(*args, **kwargs), device)
        result = function(*args, **kwargs)
        return put(result, device) if device == CUDA else result

    def _check(self, function, args, devices):
        """Raise for what a GPU refuses, and count the waits, of an operation with a device tensor."""
        if function.overloadpacket in WAITS:
            self.gpu.wait(function.overloadpacket.__name__)
        if function in INDEXING:
            self._check_indices(args[0], _tensors(args[1]))
            devices = {device_of(tensor) for tensor in _tensors((args[0], args[2:])) if tensor.dim()}
        if function is ATEN.copy_.default and len(devices) == 2:
            self.gpu.wait("copy_")
        if len(devices) == 2 and function not in COPIES:
            raise RuntimeError(f"{TWO_DEVICES} ({function})")

    def _check_indices(self, indexed, indices):
        if device_of(indexed) == CPU:
            raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
        if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
            self.gpu.wait("mask as index")
        if any(device_of(index) == CPU for index in indices):
            self.gpu.wait("index from host")
