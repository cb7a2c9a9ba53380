"""The command line and the configuration, from what they themselves say that they take."""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import matplotlib.font_manager  # noqa: F401  which looks for fonts once for every user
import typer
from hypothesis import strategies as st

from amfast.cli import app, main
from amfast.cluster import Spread
from amfast.config import RunConfig, SampleConfig, make_config, make_sample_config
from amfast.errors import AmfastError
from amfast.generators.family import FrozenGenerator
from amfast.runs.session import execute, prepare
from amfast.weights import store
from tests.fuzz.target import Target

#: What a user may have in a shell by mistake, or somebody else on purpose.
_WORDS = (
    *("", " ", ".", "-", "--", "0", "1", "2", "-1", "3.5", "1e400", "-inf", "nan", "9" * 30),
    *(str(2**31), str(2**63), "1000000", "٣", "all", "star", "0-2", "2-0", "11,0", "99", "cpu"),
    *("cuda:99", "meta", "prob=1e-999", "prob=..", "top-9999", "timm:", "timm:../x", "a" * 5000),
    *("@classes.txt", "@", "@run", "\x1b[2J", "\u202e", "\udcff", "a\0b", "[bold]", "--help"),
)
#: What lies in the folder, beside what does not.
_PATHS = (
    *("run", "run/embeddings.safetensors", "run/run.json", "run/trials/0001-00.safetensors"),
    *("run/summary.json", "classes.txt", "junk.txt", "folder", "no/where", "out", "out.svg"),
)
_CODES = {0, 1, 2, 3, 130}
#: Half of a command's inputs begin with what it takes, so that they get further; an option that
#: is given twice counts as the last one says.
_SOUND = {
    "amfast run": "--classes 0 --trials 1 --steps 2 --latents 2 --device cpu",
    "amfast report": "run --device cpu",
    "amfast sample": "run --count 2 --device cpu",
    "amfast diagnose": "--images 4 --device cpu",
    "amfast evaluate": "run --images-per-class 4 --pairs 2 --device cpu",
    "amfast rank": "run",
    "amfast plot": "run --figure steps --device cpu",
    "amfast reproduce": "collapse --steps 2 --latents 2 --images-per-class 4 --device cpu",
    "amfast export": "run --format npy --out exported",
    "amfast study make": "run --device cpu",
}
_ENOUGH = "enough is known"


def of_commands(root: Path) -> Iterator[Target]:
    """Every command with its options, and the configurations as a program gives them."""
    folder = root / "here"
    folder.mkdir()
    (folder / "folder").mkdir()
    (folder / "junk.txt").write_text("star\n\x1b[31mred\n")
    (folder / "classes.txt").write_text("star\n0-2\n")
    job = prepare(classes="star,hourglass", trials=1, steps=2, latents=2, device="cpu")
    execute(job, folder / "made").directory.path.rename(folder / "run")
    (folder / "made").rmdir()
    there = _contents(folder)
    for words, command in _commands((), typer.main.get_command(app)):

        def use(given: Sequence[str], words: tuple[str, ...] = words) -> None:
            try:
                _call([*words, *given], folder)
            finally:
                for path in _contents(folder) - there:
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

        name = " ".join(("amfast", *words))
        begun = _SOUND.get(name, "").split()
        yield Target(name, ["--help"], _arguments(command, begun), use, folder, may_import=True)
    made = root / "configurations"
    made.mkdir()
    for name, make, model in (
        ("make_config", make_config, RunConfig),
        ("make_sample_config", make_sample_config, SampleConfig),
    ):
        sound = {"classes": (0,)} if model is RunConfig else {}
        yield Target(name, sound, _values(sound, list(model.model_fields)),
                     lambda values, make=make: make(**values), made)  # fmt: skip


def _contents(folder: Path) -> set[Path]:
    return {*folder.iterdir(), *(folder / "run").iterdir()}


def _commands(words: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, inner in getattr(command, "commands", {}).items():
        yield from _commands((*words, name), inner)
    if not hasattr(command, "commands"):
        yield words, command


@st.composite
def _arguments(draw: st.DrawFn, command: Any, begun: list[str]) -> list[str]:
    """Some of a command's parameters; choices are taken from what its help says."""
    given = list(draw(st.sampled_from(([], begun))))
    options = [p for p in command.params if p.param_type_name == "option"]
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    for parameter in [] if given else arguments:
        count = draw(st.sampled_from((0, 1, 2) if parameter.nargs == -1 else (0, 1, 1, 1)))
        word = st.one_of(st.just("run"), _word(parameter))
        given += draw(st.lists(word, min_size=count, max_size=count))
    for parameter in draw(st.lists(st.sampled_from(options), max_size=4)):
        name = draw(st.sampled_from([*parameter.opts, *parameter.secondary_opts]))
        given += [name] if parameter.is_flag else [name, draw(_word(parameter))]
    return given


def _word(parameter: Any) -> st.SearchStrategy[str]:
    said = re.findall(r"[a-z][\w=.:-]*\w", getattr(parameter, "help", None) or "")
    # Random weights of a published size are sound input, and take gigabytes and seconds.
    said = [word for word in said if word != "random"]
    number = st.integers(-2, 12).map(str)
    return st.one_of(
        *[number] * (6 if isinstance(parameter.default, int | float) else 1),
        *[st.sampled_from(said)] * (3 if said else 0),
        st.sampled_from(_PATHS),
        st.sampled_from(_WORDS),
        st.text(st.characters(exclude_characters="/"), max_size=8),
    )


@contextmanager
def _within(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _call(words: list[str], folder: Path) -> None:
    """``amfast`` in this process and in ``folder``, up to the first image or the first worker."""
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", "strict")
    err = io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace")
    environment = {"HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    caches = ("AMFAST_HOME", "TORCHINDUCTOR_CACHE_DIR")
    environment |= {name: str(folder / "home") for name in caches}
    with (
        _within(folder),
        patch.dict(os.environ, environment),
        patch.object(FrozenGenerator, "pre_tanh", side_effect=AmfastError(_ENOUGH)),
        patch.object(Spread, "__call__", side_effect=AmfastError(_ENOUGH)),
        patch.object(store, "download", side_effect=AmfastError("there is no network")),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        code: object = 0
        try:
            main(words)
        except SystemExit as ended:
            code = ended.code or 0
    err.flush()
    said = err.buffer.getvalue().decode()  # type: ignore[attr-defined]
    assert code in _CODES and "Traceback" not in said, (code, said)
    if code and _ENOUGH not in said:
        raise AmfastError(said or str(code))


@st.composite
def _values(draw: st.DrawFn, sound: dict[str, Any], fields: list[str]) -> dict[str, Any]:
    """Keyword arguments of every type."""
    large = st.sampled_from((2**63, 2**64, -(2**70), 10**400))
    number = st.one_of(st.integers(), st.floats(), large)
    simple = st.one_of(number, st.none(), st.booleans(), st.sampled_from(_WORDS), st.binary())
    nested = st.recursive(simple, lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.tuples(inner, inner), st.dictionaries(st.text(), inner)
    ), max_leaves=4)  # fmt: skip
    names = st.one_of(st.sampled_from(fields), st.sampled_from(fields), st.text(max_size=5))
    return {**sound, **draw(st.dictionaries(names, nested, min_size=1, max_size=4))}
