"""The maps inside a network, by the names of the submodules that give them."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from itertools import chain

from torch import Tensor, nn

from amfast.errors import UsageError


@dataclass
class _Capture:
    """What one call of a network is to keep, and what it has kept so far."""

    wanted: Collection[str]
    #: Whether to leave the network once all of them are kept.
    stop: bool
    maps: dict[str, Tensor] = field(default_factory=dict)
    #: How often each map had been written to in place when it was kept.
    versions: dict[str, int] = field(default_factory=dict)


class _Complete(Exception):
    """Leaves a network whose last wanted layer has run."""


#: A context variable, because passes run side by side in threads and each has its own context.
_CAPTURE: ContextVar[_Capture] = ContextVar("amfast-capture")


class FeatureExtractor:
    """The outputs of some submodules of a network, in any number of threads at once.

    The submodules are hooked in a copy that shares the network's tensors: the network itself stays
    as it is, so that it may be compiled meanwhile.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str]) -> None:
        shared = {id(t): t for t in chain(network.parameters(), network.buffers())}
        self._network = copy.deepcopy(network, shared)
        for layer in layers:
            self._network.get_submodule(layer).register_forward_hook(partial(_keep, layer))

    def __call__(self, inputs: Tensor, layers: Sequence[str]) -> tuple[Tensor, ...]:
        """What ``layers`` give for ``inputs``; nothing runs once the last of them has.

        Errors are those of ``with_output``.
        """
        return self._run(inputs, layers, stop=True)[0]

    def with_output(
        self, inputs: Tensor, layers: Sequence[str]
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """The same, and what the whole network gives.

        Of a layer that runs several times, the first. Raises ``UsageError`` for a layer that does
        not run, gives no tensor, or whose map a later one overwrites.
        """
        return self._run(inputs, layers, stop=False)

    def _run(
        self, inputs: Tensor, layers: Sequence[str], *, stop: bool
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """The output is empty where the network stopped before it."""
        capture = _Capture(frozenset(layers), stop)
        output = inputs.new_empty(0)
        token = _CAPTURE.set(capture)
        try:
            with suppress(_Complete):
                output = self._network(inputs)
        finally:
            _CAPTURE.reset(token)
        for layer in layers:
            if layer not in capture.maps:
                raise UsageError(
                    f"the layer {layer!r} does not run in a forward pass; name another one"
                )
            kept = capture.versions.get(layer)
            if kept is not None and capture.maps[layer]._version != kept:
                raise UsageError(
                    f"what the layer {layer!r} gives is overwritten in place by what follows it; "
                    "name the layer that overwrites it"
                )
        return tuple(capture.maps[layer] for layer in layers), output


def check_layers(network: nn.Module, layers: Sequence[str]) -> None:
    """Raise ``UsageError`` unless all of these dotted names are submodules of the network's."""
    names = [name for name, _ in network.named_modules(remove_duplicate=False) if name]
    for layer in layers:
        if layer not in names:
            near = get_close_matches(layer, names, n=3)
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            raise UsageError(
                f"{type(network).__name__} has no submodule {layer!r}: {hint}named_modules() "
                "lists those there are"
            )


def _keep(layer: str, module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
    """The forward hook of ``layer``."""
    capture = _CAPTURE.get()
    if layer not in capture.wanted or layer in capture.maps:
        return
    if not isinstance(output, Tensor):
        raise UsageError(
            f"the layer {layer!r} gives a {type(output).__name__}, not a tensor; name another one"
        )
    if output.is_inference():  # nobody counts what is written to one in place
        output = output.clone()
    else:
        capture.versions[layer] = output._version
    capture.maps[layer] = output
    if capture.stop and len(capture.maps) == len(capture.wanted):
        raise _Complete
