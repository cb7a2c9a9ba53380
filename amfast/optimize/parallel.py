"""Passes side by side on the cores of a CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

_Result = TypeVar("_Result")
#: Calls a function on every item, in any order, and returns the results in the items' order.
Map = Callable[[Callable[[Any], _Result], Sequence[Any]], list[_Result]]


@contextmanager
def side_by_side(device: torch.device, passes: int, cores: int | None = None) -> Iterator[Map[Any]]:
    """How to run the passes of a step.

    One after another on an accelerator. On a CPU as many at once as it has cores, each on its
    share of torch's threads: passes never wait for each other, while threads inside one pass would
    wait at the end of every operator. ``cores`` says how many at once where torch's threads do not.
    """
    threads = torch.get_num_threads()
    workers = min(passes, cores or threads)
    if device.type != "cpu" or workers < 2:
        yield lambda function, items: [function(item) for item in items]
        return
    each = max(1, threads // workers)
    with ThreadPoolExecutor(workers, "amfast-pass", torch.set_num_threads, (each,)) as pool:
        try:
            yield lambda function, items: list(pool.map(function, items))
        finally:
            torch.set_num_threads(
                threads
            )  # what the workers set is also what new threads start with
