"""How many operators a function hands to the device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

#: Operators that are not views by their schema and yet leave the device nothing to do.
_NO_WORK = ("aten::_unsafe_view", "aten::empty", "aten::new_empty")


class _Count(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.name().split(".")[0]
        if not func.is_view and not name.startswith(_NO_WORK):
            self.calls[name] += 1
        return func(*args, **(kwargs or {}))


def count_dispatched(function: Callable[[], object]) -> Counter[str]:
    """Calls that reach a backend while ``function`` runs, by operator, aten's and amfast's alike.

    They are seen below autograd and autocast. Views and bare allocations, which give a device no
    work, are left out. A backward is seen where autograd runs it in the calling thread: on the CPU
    and on meta tensors, not on CUDA.
    """
    with _Count() as count:
        function()
    return count.calls
