"""Passes side by side: in order, on their share of the threads, and nothing left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from amfast.optimize.parallel import side_by_side

CPU = torch.device("cpu")


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_results_come_in_the_items_order(four_threads: None) -> None:
    with side_by_side(CPU, 10) as run:
        for _ in range(3):
            assert run(lambda x: x * x, range(10)) == [x * x for x in range(10)]


@pytest.mark.parametrize(("passes", "workers", "each"), [(2, 2, 2), (3, 3, 1), (9, 4, 1)])
def test_the_threads_are_shared_out(
    four_threads: None, passes: int, workers: int, each: int
) -> None:
    barrier = threading.Barrier(workers, timeout=30)

    def meet(_: int) -> tuple[str, int]:
        barrier.wait()
        return threading.current_thread().name, torch.get_num_threads()

    with side_by_side(CPU, passes) as run:
        met = run(meet, range(workers))
    assert len({name for name, _ in met}) == workers
    assert {threads for _, threads in met} == {each}


def test_cores_that_are_given_take_a_thread_each() -> None:
    torch.set_num_threads(1)
    barrier = threading.Barrier(3, timeout=30)

    def meet(_: int) -> int:
        barrier.wait()
        return torch.get_num_threads()

    with side_by_side(CPU, 5, cores=3) as run:
        assert run(meet, range(3)) == [1, 1, 1]
    with side_by_side(CPU, 5, cores=1) as run:
        assert run(lambda _: threading.get_ident(), range(2)) == [threading.get_ident()] * 2


@pytest.mark.parametrize(("device", "passes"), [("cpu", 1), ("cuda", 8)])
def test_one_pass_or_an_accelerator_stays_in_this_thread(
    four_threads: None, device: str, passes: int
) -> None:
    with side_by_side(torch.device(device), passes) as run:
        here = run(lambda _: (threading.get_ident(), torch.get_num_threads()), range(passes))
    assert set(here) == {(threading.get_ident(), 4)}


def test_this_thread_and_new_ones_keep_their_threads(four_threads: None) -> None:
    with pytest.raises(ZeroDivisionError), side_by_side(CPU, 4) as run:
        run(lambda x: 1 / x, [1, 0, 1])
    assert torch.get_num_threads() == 4
    seen: list[int] = []
    fresh = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    fresh.start()
    fresh.join()
    assert seen == [4]
    assert not [t for t in threading.enumerate() if t.name.startswith("amfast-pass")]
