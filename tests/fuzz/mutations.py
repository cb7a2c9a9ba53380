"""How sound files become bad ones: bytes, JSON, safetensors' headers, archives and pickles."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from amfast.fingerprint import fingerprint
from tests.weights.test_files import PROGRAMS

#: JSON that a writer of ours never writes, as text: some is beyond what ``json.dumps`` gives.
_HOSTILE = (
    *("NaN", "Infinity", "-Infinity", "1e400", "-1e400", "9" * 5000, "-1", "-0", "0.5", "1e-400"),
    *(str(2**31), str(2**53), str(2**63), str(-(2**63)), str(2**64), str(2**70)),
    *("null", "true", "false", "[]", "{}", "[[]]", '[{"a": 1}]', '""', '"a"', '"0"', '"-1"'),
    *(r'"\ud800"', r'"\u0000"', r'"\u001b[2J"', r'"\u202e"', '"../../escaped"', '"/etc/passwd"'),
    *(f'"{"x" * 70_000}"', "[" * 100_000 + "]" * 100_000, '{"a":' * 9999 + "1" + "}" * 9999),
    *("[" * 900 + "]" * 900, "[" + "0," * 5000 + "0]", "", "}", "nul", "\xff"),
)
#: By number: a failing test prints what was drawn from.
HOSTILE = st.integers(0, len(_HOSTILE) - 1).map(lambda number: _HOSTILE[number])
_LENGTHS = (0, 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**60, 2**63 - 1, 2**63, 2**64 - 1)


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes flipped, cut, put in, moved, and read as lengths."""
    out = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(out)))
        end = min(len(out), at + draw(st.integers(0, 64)))
        kind = draw(st.sampled_from(("flip", "cut", "insert", "repeat", "remove", "length")))
        if kind == "flip" and at < len(out):
            out[at] ^= draw(st.integers(1, 255))
        elif kind == "cut":
            del out[at:]
        elif kind == "insert":
            out[at:end] = draw(st.binary(max_size=64))
        elif kind == "repeat":
            to = draw(st.integers(0, len(out)))
            out[to:to] = out[at:end] * draw(st.sampled_from((1, 2, 100)))
        elif kind == "remove":
            del out[at:end]
        elif kind == "length":
            width = draw(st.sampled_from((2, 4, 8)))
            order = draw(st.sampled_from(("little", "big")))
            value = draw(st.sampled_from(_LENGTHS)) % 2 ** (8 * width)
            out[at : at + width] = value.to_bytes(width, order)  # type: ignore[arg-type]
    return bytes(out)


class Raw(str):
    """JSON text that stands as it is."""


class Pair(list):  # type: ignore[type-arg]
    """A key of an object, and its value."""


class Pairs(list):  # type: ignore[type-arg]
    """An object, whose keys may repeat."""


def _open(value: Any) -> Any:
    if isinstance(value, dict):
        return Pairs(Pair([key, _open(inner)]) for key, inner in value.items())
    return [_open(inner) for inner in value] if isinstance(value, list) else value


def _text(value: Any) -> str:
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, Pair):
        return ":".join(map(_text, value))
    if isinstance(value, list):
        left, right = "{}" if isinstance(value, Pairs) else "[]"
        return left + ",".join(map(_text, value)) + right
    return json.dumps(value)


def _places(value: Any) -> list[tuple[list[Any], int]]:
    """Every list in a value, and an index of something in it."""
    found: list[tuple[list[Any], int]] = []
    if isinstance(value, list):
        for i, inner in enumerate(value):
            found += [(value, i), *_places(inner)]
    return found


def _is_nested(value: Any) -> bool:
    """A string that holds JSON, as the metadata of some files does."""
    return isinstance(value, str) and not isinstance(value, Raw) and value[:1] in ("[", "{")


@st.composite
def hostile_json(draw: st.DrawFn, value: Any, *, edits: int = 3) -> str:
    """A JSON value with parts of it replaced, dropped, repeated and swapped."""
    tree = [_open(value)]
    for _ in range(draw(st.integers(1, edits))):
        places = _places(tree)
        if not places:
            break
        holder, i = places[draw(st.integers(0, len(places) - 1))]
        old = holder[i]
        kind = draw(st.sampled_from(("replace", "replace", "drop", "repeat", "swap", "nest")))
        if kind == "drop":
            del holder[i]
        elif kind == "repeat":
            holder.append(old)
        elif kind == "swap":
            other, j = places[draw(st.integers(0, len(places) - 1))]
            holder[i] = Raw(_text(other[j]))
        elif kind == "nest" and _is_nested(old):
            holder[i] = draw(hostile_json(json.loads(old), edits=1))
        elif isinstance(old, Pair) and len(old) == 2:
            old[1] = Raw(draw(HOSTILE))
        else:
            holder[i] = Raw(draw(HOSTILE))
    return "".join(map(_text, tree))


def bad_json(data: bytes) -> st.SearchStrategy[bytes]:
    """Of a file of JSON."""
    value = json.loads(data)
    return st.one_of(
        hostile_json(value).map(lambda text: text.encode("utf-8", "surrogatepass")),
        hostile_json(value).map(lambda text: text.encode("utf-8", "surrogatepass")),
        damaged(data),
        HOSTILE.map(str.encode),
        st.binary(max_size=64),
    )


def split_safetensors(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The header and the tensors' bytes."""
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def join_safetensors(header: str, rest: bytes) -> bytes:
    text = header.encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + rest


def bad_safetensors(data: bytes) -> st.SearchStrategy[bytes]:
    """Of a safetensors file: its bytes, its header, its metadata, its tensors under a new seal."""
    header, rest = split_safetensors(data)
    return st.one_of(
        damaged(data),
        hostile_json(header).map(lambda text: join_safetensors(text, rest)),
        _of_metadata(header, rest),
        _resealed(data),
        st.binary(max_size=64),
    )


@st.composite
def _of_metadata(draw: st.DrawFn, header: dict[str, Any], rest: bytes) -> bytes:
    """The tensors are as they were, so a checksum over them still fits."""
    sound = header.get("__metadata__", {})
    metadata = dict(sound)
    for name in draw(st.lists(st.sampled_from(sorted(sound) or ["norm_eps"]), min_size=1)):
        old = sound.get(name, "")
        values = [HOSTILE, st.text(max_size=20), st.just("²"), st.just("1" * 5000)]
        if _is_nested(old):
            values += [hostile_json(json.loads(old))] * 3
        metadata[name] = draw(st.one_of(values))
    return join_safetensors(json.dumps({**header, "__metadata__": metadata}), rest)


_SHAPES = st.lists(st.sampled_from((0, 1, 2, 3, 5, 8)), max_size=3)
_DTYPES = st.sampled_from(
    (
        *(torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int8),
        *(torch.bool, torch.uint8, torch.float8_e4m3fn, torch.complex64),
    )
)
_FILLS = st.sampled_from((0.0, 1.0, -1.0, 3e38, float("nan"), float("inf"), 2.0**62, -(2.0**62)))


@st.composite
def _tensor(draw: st.DrawFn, like: Tensor) -> Tensor:
    """One of another shape, type or content; a whole number where those are."""
    kind = draw(st.sampled_from(("fill", "fill", "one", "shape", "type", "cut")))
    if kind == "shape":
        return torch.ones(draw(_SHAPES), dtype=like.dtype)
    if kind == "type":
        return torch.ones(like.shape, dtype=draw(_DTYPES))
    if kind == "cut" and like.dim():
        return like[: draw(st.integers(0, len(like)))].contiguous()
    if like.is_floating_point() or like.is_complex():
        number = torch.tensor(draw(_FILLS)).to(like.dtype)  # infinite where it is too large
    elif like.dtype == torch.int64:
        whole = draw(st.sampled_from((-1, 0, 1, 7, 10**6, 2**31, 2**62, -(2**63))))
        number = torch.tensor(whole)
    else:
        number = torch.tensor(draw(st.integers(0, 1)))
    changed = like.clone()
    if kind == "one" and like.numel():
        changed.view(-1)[draw(st.integers(0, like.numel() - 1))] = number
    else:
        changed.fill_(number)
    return changed


@st.composite
def _resealed(draw: st.DrawFn, data: bytes) -> bytes:
    """Tensors that are not as they should be, under a checksum that says they are."""
    from safetensors.torch import load, save

    header, _ = split_safetensors(data)
    metadata = dict(header.get("__metadata__", {}))
    tensors = load(data)
    for name in draw(st.lists(st.sampled_from(sorted(tensors)), min_size=1, max_size=3)):
        kind = draw(st.sampled_from(("change", "change", "change", "drop", "add")))
        if kind == "drop":
            tensors.pop(name, None)
        elif kind == "add":
            tensors[draw(st.sampled_from(("", "x", name + ".0", "blocks.9.0.conv1.weight")))] = (
                torch.ones(draw(_SHAPES))
            )
        elif name in tensors:
            tensors[name] = draw(_tensor(tensors[name]))
    if "checksum" in metadata:
        metadata["checksum"] = fingerprint(tensors)
    return save(tensors, metadata or None)


@st.composite
def _program(draw: st.DrawFn) -> bytes:
    """A pickle that would write a file, start a program or import a module."""
    code = PROGRAMS[draw(st.sampled_from(sorted(PROGRAMS)))].replace(b"{}", b"escaped")
    return draw(st.one_of(st.just(code), damaged(code)))


#: Of views that say they have up to 2 ** 60 numbers and take no more room in a file than one.
_SIZES = ((), (0,), (1,), (3, 3), (2**20,), (2**31,), (2**40,), (0, 2**60), (2**30, 2**30))


@st.composite
def _state(draw: st.DrawFn, state: dict[str, Tensor]) -> Any:
    """What ``torch.save`` can be given: state_dicts, and things that look like them."""
    changed: dict[Any, Any] = dict(state)
    kind = draw(st.sampled_from(("views", "types", "kinds", "nested", "names")))
    name = draw(st.sampled_from(sorted(state)))
    if kind == "views":
        changed[name] = torch.ones(()).expand(draw(st.sampled_from(_SIZES)))
    elif kind == "types":
        changed[name] = draw(_tensor(state[name]))
    elif kind == "kinds":
        few = torch.eye(3)
        tensors = few.to_sparse(), few.to_sparse_csr(), few.to("meta"), few.cfloat().conj()
        others = None, 1, "text", [few], (few,), {"a": few}, nn.Parameter(few), torch.float32
        changed[name] = draw(st.sampled_from((*tensors, *others)))
    elif kind == "names":
        bad = draw(st.one_of(st.integers(), st.text(max_size=9), st.booleans(), st.none()))
        changed[bad] = changed.pop(name)
    else:
        for key in draw(st.lists(st.sampled_from(("state_dict", "model", "a")), max_size=9)):
            changed = {key: changed}
    return changed


def pickled(value: Any, legacy: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


@st.composite
def _rezipped(draw: st.DrawFn, data: bytes) -> bytes:
    """An archive with one of its files changed, and its own checksums in order."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as sound, zipfile.ZipFile(out, "w") as copy:
        names = sound.namelist()
        pickles = [name for name in names if name.endswith(".pkl")]
        bad = draw(st.sampled_from(pickles * 3 + names))
        for name in names:
            content = sound.read(name)
            if name == bad:
                content = draw(st.one_of(damaged(content), damaged(content), _program()))
            copy.writestr(name, content)
    return out.getvalue()


def bad_pickle(state: dict[str, Tensor], *, legacy: bool) -> st.SearchStrategy[bytes]:
    """Of a file of ``torch.save``: an archive, or the bare pickles of before 2020."""
    data = pickled(state, legacy)
    changed = _state(state).map(lambda value: pickled(value, legacy))
    within = damaged(data) if legacy else _rezipped(data)
    return st.one_of(damaged(data), within, within, changed, _program(), st.binary(max_size=64))


def zipped(data: bytes, name: str) -> bytes:
    """A zip with one packed file in it."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return whole.getvalue()


def bad_member(data: bytes, name: str) -> st.SearchStrategy[bytes]:
    """Of such a zip."""
    whole = zipped(data, name)
    return st.one_of(damaged(whole), _rezipped(whole))


def bad_text(data: bytes) -> st.SearchStrategy[bytes]:
    """Of a file of lines."""
    parts = st.sampled_from(
        (
            *("star", "0-3", "3-0", "99999999", "9" * 30, "all", "@it.txt", "../x", "#", ",", " "),
            *("\n", "\r\n", "\x00", "\x1b[2J", "\ufeff", "imagenet-50", "1-", "-1", "1e3", "٣"),
        )
    )
    drawn = st.lists(st.one_of(parts, st.text(max_size=5)), max_size=20).map("".join)
    return st.one_of(
        damaged(data),
        drawn.map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.binary(max_size=64),
    )


def sealed(text: str, seal: Callable[[dict[str, Any]], dict[str, Any]]) -> bytes:
    """JSON whose checksums are put right where it is still JSON of that form."""
    try:
        return json.dumps(seal(json.loads(text))).encode("utf-8", "surrogatepass")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return text.encode("utf-8", "surrogatepass")
