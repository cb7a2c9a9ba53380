"""One file from the first source that gives it: resumed where it was cut, and checked."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pooch
import requests

from amfast.errors import WeightsError
from amfast.runs.files import reason, write_json
from amfast.text import parse_json
from amfast.weights.catalogue import RemoteFile

_CHUNK = 2**14  # what is lost of a chunk when the connection is cut within it
_WEB_PAGE = (b"<!doctype html", b"<html")


@dataclass(frozen=True)
class Transfer:
    """How far a file is: bytes that are here, and in all where the server says so."""

    file: str
    source: str
    done: int
    total: int | None


@dataclass(frozen=True)
class Patience:
    """Seconds without a byte before a source counts as silent; how often each is tried."""

    timeout: float = 30.0
    attempts: int = 4
    #: Seconds before the second attempt; twice as long before each later one.
    pause: float = 1.0


PATIENCE = Patience()


class _Cut(Exception):
    """It may work when tried again."""


class _Refused(Exception):
    """This source will not give the file."""


def download(
    file: RemoteFile,
    part: Path,
    *,
    expected: str | None,
    patience: Patience,
    advice: str,
    on_progress: Callable[[Transfer], None],
) -> tuple[str, str]:
    """Bring ``file`` to the path ``part`` and return its SHA-256 and its source.

    ``part`` may hold what an earlier call left of it; a small file beside it says of which source
    and version. ``expected`` are the first digits of the SHA-256, or all of them. Raises
    ``WeightsError`` where no source gives the file, with ``advice`` and keeping what arrived if it
    can be resumed, and where there is no room for it, keeping nothing.
    """
    said: list[str] = []
    for url in file.sources:
        try:
            _bring(file, url, part, patience, on_progress)
            return _checked(part, expected), url
        except _Refused as error:
            said.append(f"{url} {error}")
    raise WeightsError(f"cannot fetch {file.name}: {'; '.join(said)}; {advice}")


def discard(part: Path) -> None:
    """Remove an unfinished download."""
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def _note(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _checked(part: Path, expected: str | None) -> str:
    found: str = pooch.file_hash(str(part))
    if expected is not None and not found.startswith(expected):
        discard(part)
        raise _Refused(f"gave a file whose SHA-256 is {found}, expected {expected}")
    return found


def _bring(
    file: RemoteFile,
    url: str,
    part: Path,
    patience: Patience,
    on_progress: Callable[[Transfer], None],
) -> None:
    for attempt in range(patience.attempts):
        if attempt:
            time.sleep(patience.pause * 2 ** (attempt - 1))
        try:
            return _transfer(file, url, part, patience.timeout, on_progress)
        except requests.RequestException as error:
            failure = _shown(error, patience.timeout)
        except _Cut as error:
            failure = str(error)
    raise _Refused(f"{failure} ({patience.attempts} attempts)")


def _shown(error: requests.RequestException, timeout: float) -> str:
    """A few words; the library's own hold a URL, a pool and two exceptions."""
    if isinstance(error, requests.Timeout) or "timed out" in str(error):
        return f"sent nothing for {timeout:g} seconds"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "cut the connection"
    if isinstance(error, requests.exceptions.SSLError):
        return "cannot prove over TLS who it is"
    if isinstance(error, requests.ConnectionError):
        return "cannot be reached"
    return f"failed: {error}"


def _transfer(
    file: RemoteFile,
    url: str,
    part: Path,
    timeout: float,
    on_progress: Callable[[Transfer], None],
) -> None:
    """One request, for what ``part`` lacks where the server can tell that it is the same file."""
    here, version, total = _unfinished(part, url)
    if here and here == total:
        return
    headers = {"Accept-Encoding": "identity", "User-Agent": "amfast"}
    if here:
        headers |= {"Range": f"bytes={here}-", "If-Range": version}
    with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
        here = _continues_at(response, here, part)
        length = response.headers.get("Content-Length", "")
        total = here + int(length) if length.isdigit() else None
        chunks = response.iter_content(_CHUNK)
        first = next(chunks, b"")
        _refuse_web_page(response, first if not here else b"")
        _check_room(part, here, total)
        note = {"source": url, "version": _version(response), "total": total}
        write_json(_note(part), note)
        done = here
        try:
            with part.open("ab" if here else "wb") as out:
                for chunk in chain([first], chunks):
                    out.write(chunk)
                    done += len(chunk)
                    on_progress(Transfer(file.name, url, done, total))
        except requests.RequestException:  # they are OSErrors as well
            raise
        except OSError as error:
            discard(part)
            raise WeightsError(f"cannot write {part}: {reason(error)}") from None


def _unfinished(part: Path, url: str) -> tuple[int, str, int | None]:
    """Bytes of ``url`` that are here, the version they are of, and how many there are in all."""
    try:
        note = parse_json(_note(part).read_bytes())
        size = part.stat().st_size
    except (OSError, ValueError):  # there is none, or the machine stopped as it was written
        return 0, "", None
    if not isinstance(note, dict) or note.get("source") != url:
        return 0, "", None
    version, total = note.get("version"), note.get("total")
    if isinstance(version, str) and version and isinstance(total, int | None):
        return size, version, total
    return 0, "", None


def _continues_at(response: requests.Response, asked: int, part: Path) -> int:
    """Where in the file the answer begins; raises for an answer that is no part of it."""
    code = response.status_code
    if code == requests.codes.ok:
        return 0  # it knows no ranges, or has another version by now
    if code == requests.codes.partial_content and asked:
        if response.headers.get("Content-Range", "").startswith(f"bytes {asked}-"):
            return asked
        discard(part)
        raise _Cut("answered with another part of the file than was asked for")
    if code == requests.codes.requested_range_not_satisfiable:
        discard(part)
    if code in (408, 416, 429) or code >= 500:
        raise _Cut(f"answered {code} {response.reason}")
    raise _Refused(f"answered {code} {response.reason}")


def _version(response: requests.Response) -> str:
    """By what If-Range can ask for the same file again; empty where the server gives nothing."""
    tag = response.headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")


def _refuse_web_page(response: requests.Response, start: bytes) -> None:
    kind = response.headers.get("Content-Type", "")
    if kind.startswith("text/html") or start.lstrip().lower().startswith(_WEB_PAGE):
        raise _Refused(
            "answered with a web page instead of the file, as Google Drive does for a file that "
            "too many have asked for: try again in a day, or open the address in a browser"
        )


def _check_room(part: Path, here: int, total: int | None) -> None:
    free, wanted = shutil.disk_usage(part.parent).free, (total or 0) - here
    if wanted > free:
        discard(part)
        raise WeightsError(
            f"no space left for {part}: {wanted / 1e6:.1f} MB are wanted and {free / 1e6:.1f} MB "
            "are free; make room, or name another place in AMFAST_HOME"
        )
