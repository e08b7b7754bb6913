"""What a network can compute with in place of a tensor of images."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def _operator(func: Callable[..., Any]) -> Callable[..., Any]:
    """A method that computes one of torch's functions."""
    return lambda *args: type(args[0]).compute(func, args, {})


class StandIn:
    """Takes part in torch's functions, in the methods of tensors and in operators; `compute` says what comes of it."""

    @classmethod
    def compute(cls, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of one of torch's functions, of arguments among which are stand-ins."""
        raise NotImplementedError

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return cls.compute(func, args, kwargs or {})

    def __getattr__(self, name: str) -> Any:
        """A method of tensors, such as `flatten`, or a property."""
        if not callable(method := getattr(Tensor, name)):
            return self.compute(method.__get__, (self,), {})
        return lambda *args, **kwargs: self.compute(method, (self, *args), kwargs)

    __add__ = __radd__ = _operator(torch.add)
    __sub__, __rsub__ = _operator(torch.sub), _operator(torch.rsub)
    __mul__ = __rmul__ = _operator(torch.mul)
    __truediv__, __rtruediv__ = _operator(torch.div), _operator(Tensor.__rtruediv__)
    __neg__, __abs__, __getitem__ = _operator(torch.neg), _operator(torch.abs), _operator(Tensor.__getitem__)
    __pow__, __rpow__ = _operator(torch.pow), _operator(Tensor.__rpow__)
    __matmul__, __rmatmul__ = _operator(torch.matmul), _operator(Tensor.__rmatmul__)
    __lt__, __le__, __gt__, __ge__ = map(_operator, (torch.lt, torch.le, torch.gt, torch.ge))
    __eq__, __ne__ = map(_operator, (torch.eq, torch.ne))
    __hash__ = object.__hash__
