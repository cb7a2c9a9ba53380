"""What takes input, and a file as one kind of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from amfast.errors import AmfastError
from amfast.generators.protocol import GeneratorSpec
from amfast.text import printable
from tests.fuzz import mutations as bad
from tests.fuzz.guard import guarded

LABELS = ("ring", "star", "heart")
SPEC = GeneratorSpec("embedded", 64, 5, 12, (-0.9, 0.8), "00aa", LABELS)


@dataclass(frozen=True)
class Target:
    """Whatever takes input: ``use`` takes ``sound`` without a word."""

    name: str
    sound: Any
    inputs: st.SearchStrategy[Any]
    use: Callable[[Any], object]
    #: All that an input may touch.
    folder: Path
    may_import: bool = False

    def attempt(self, given: Any) -> bool:
        """Whether this is taken, rather than refused with a sentence.

        Everything else is raised: ``Breach``, ``Hang``, and whatever comes out of the reader.
        """
        try:
            with guarded(self.folder, may_import=self.may_import):
                self.use(given)
        except AmfastError as error:
            said = printable(str(error))
            assert said and said.encode(), "an error without a word"
            return False
        return True


def file_target(
    root: Path,
    name: str,
    file: str,
    sound: bytes,
    read: Callable[[Path], object],
    inputs: st.SearchStrategy[bytes] | None = None,
) -> Target:
    """``file`` in a folder of its own in ``root``, which ``read`` is given."""
    folder = root / name.replace(" ", "-").replace("/", "-")
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    if inputs is None:
        mutate = bad.bad_json if sound[:1] == b"{" else bad.bad_safetensors
        inputs = mutate(sound)

    def use(data: bytes) -> None:
        path.write_bytes(data)
        read(path)

    return Target(name, sound, inputs, use, folder)
