"""A GPU that is not there: tensors that say they are on ``cuda:0`` and are computed on the CPU.

What a real one does silently is an error here. No operation may have tensors of two devices, and in a ``step`` none
may make the host wait for the device: none that needs values to go on, no copy to the host, and none from it unless
from pinned memory and without blocking.

PyTorch's own FakeTensorMode keeps no values, which building a trainer needs, and lets a copy to the host pass.
"""

from collections import deque
from contextlib import ExitStack, contextmanager
from importlib import import_module

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_iter, tree_map_only

from targetwise.training import trainer

DEVICE = torch.device("cuda", 0)
CPU = torch.device("cpu")

aten = torch.ops.aten

#: What a tensor is copied with from one device to another; everything else must have its tensors on one.
COPIES = (aten._to_copy.default, aten.copy_.default)

#: Only the device knows the result, or how long it is.
DEPENDENT = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)


class MixedDevicesError(Exception):
    """An operation was given tensors of two devices."""


class WaitingError(Exception):
    """A step would have waited for the device."""


class OnDevice(Tensor):
    """A tensor that says it is on the device; its ``value`` is on the CPU."""

    @staticmethod
    def __new__(cls, value):
        wrapper = Tensor._make_wrapper_subclass(
            cls, value.shape, strides=value.stride(), dtype=value.dtype, device=DEVICE
        )
        wrapper.value = value
        return wrapper

    def __tensor_flatten__(self):  # with it Module.to exchanges parameters instead of writing into them
        return ["value"], None

    @staticmethod
    def __tensor_unflatten__(inner, _, size, stride):
        return OnDevice(inner["value"])

    def __repr__(self):
        return f"OnDevice({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} on a pretended device that was left")


class Device(TorchDispatchMode):
    """While it is entered, there is a device ``cuda:0``."""

    def __init__(self):
        super().__init__()
        self.steps = 0

    @contextmanager
    def step(self):
        """Forbid to wait for the device."""
        self.steps += 1
        try:
            yield
        finally:
            self.steps -= 1

    def synchronize(self, *_):
        """Stand for ``torch.cuda.synchronize``."""
        if self.steps:
            raise WaitingError("torch.cuda.synchronize")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if torch.is_inference_mode_enabled():  # then what consists of other operations arrives whole
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        tensors = [each for each in tree_iter((args, kwargs)) if isinstance(each, Tensor)]
        mine = [each for each in tensors if isinstance(each, OnDevice)]
        target = torch.device(kwargs.get("device") or (DEVICE if mine else CPU))
        self._judge(func, tensors, mine, target, [*args, kwargs.get("non_blocking")])
        if func is aten._fused_sdp_choice.default and mine:
            return 0  # arithmetic that every device has; its other kernels are of one device only
        on_cpu = {"device": CPU, "pin_memory": False}
        kwargs.update({name: value for name, value in on_cpu.items() if kwargs.get(name) is not None})
        inner_args, inner_kwargs = tree_map_only(OnDevice, lambda each: each.value, (args, kwargs))
        with unset_fake_temporarily():
            result = func(*inner_args, **inner_kwargs)
        if target == CPU:
            return result
        # A view of a tensor that was made outside of inference mode is not one of inference mode.
        infers = torch.is_inference_mode_enabled() and not (func.is_view and not mine[0].is_inference())
        with torch.inference_mode(infers):
            result = tree_map_only(Tensor, OnDevice, result)
        return return_and_correct_aliasing(func, args, kwargs, result) if mine else result

    def _judge(self, func, tensors, mine, target, arguments):
        if not mine and target == CPU:
            return
        if func in COPIES:
            source, destination = arguments[0], target
            if func is aten.copy_.default:
                source, destination = arguments[1], arguments[0].device
            returns_at_once = getattr(source, "is_in_pinned_memory", False) and any(
                each is True for each in arguments
            )
            if self.steps and source.device != destination and not (destination == DEVICE and returns_at_once):
                raise WaitingError(f"a copy from {source.device} to {destination}")
        elif len(mine) not in (0, len(tensors)):
            raise MixedDevicesError(f"{func} of tensors on {', '.join(str(each.device) for each in tensors)}")
        elif self.steps and _asks(func, arguments):
            raise WaitingError(f"{func} reads from the device")


def _asks(func, arguments):
    """Return whether an operation must know values before it returns, as indexing by a mask must."""
    if func.overloadpacket in (aten.index, aten.index_put, aten.index_put_):
        return any(each is not None and each.dtype in (torch.bool, torch.uint8) for each in arguments[1])
    return any(tag in func.tags for tag in DEPENDENT)


@contextmanager
def pretended(monkeypatch):
    """Pretend that there is a GPU."""
    device = Device()

    def pin_memory(tensor):
        copy = tensor.clone()
        copy.is_in_pinned_memory = True
        return copy

    with ExitStack() as stack:
        patched = stack.enter_context(monkeypatch.context())
        patched.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        patched.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
        patched.setattr(torch.cuda, "get_device_name", lambda *_: "a pretended device")
        patched.setattr(torch.cuda, "is_available", lambda: False)  # the same where there is a GPU
        for module in map(import_module, ("torch.optim.optimizer", "torch.utils._foreach_utils")):
            patched.setattr(module, "_foreach_supported_types", [*module._foreach_supported_types, OnDevice])
        patched.setattr(trainer, "replayed", lambda step, device: step)  # test_replay.py
        patched.setattr(torch.cuda, "synchronize", device.synchronize)
        patched.setattr(Tensor, "pin_memory", pin_memory)
        patched.setattr(Tensor, "backward", backward)
        stack.enter_context(FakeTensorMode())  # PyTorch looks for no driver then
        stack.enter_context(device)
        yield device


@torch.no_grad()
def backward(loss):
    """Do what ``loss.backward()`` does, by the same formulas: PyTorch's engine asks the driver for its streams."""
    waiting, seen = {}, [loss.grad_fn]
    for node in seen:
        for following, _ in node.next_functions:
            if following is not None:
                if following not in waiting:
                    seen.append(following)
                waiting[following] = waiting.get(following, 0) + 1
    gradients = {loss.grad_fn: {0: torch.ones_like(loss)}}
    ready = deque([loss.grad_fn])
    while ready:
        node = ready.popleft()
        given = gradients.pop(node, {})
        function = node if callable(node) else node.apply
        outputs = function(*(given.get(index) for index in range(len(node._input_metadata))))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        for (following, index), gradient in zip(node.next_functions, outputs, strict=True):
            if following is None:
                continue
            if gradient is not None:
                form = following._input_metadata[index]
                gradient = gradient.sum_to_size(form.shape).to(form.dtype)
                sums = gradients.setdefault(following, {})
                sums[index] = sums[index] + gradient if index in sums else gradient
            waiting[following] -= 1
            if not waiting[following]:
                ready.append(following)
