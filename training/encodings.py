"""Bytes to lines: which encoding a file is in, and what becomes of bytes that are not UTF-8."""

import re
from collections.abc import Iterator
from pathlib import Path

from training.errors import DataError
from training.formats import Encoding

_SIGNATURES = {
    b"\xff\xfe": "UTF-16 or UTF-32 text; re-save it as UTF-8",
    b"\xfe\xff": "UTF-16 text; re-save it as UTF-8",
    b"\x00\x00\xfe\xff": "UTF-32 text; re-save it as UTF-8",
    b"PK\x03\x04": "a zip archive or Excel workbook; export the rows as CSV",
    b"\x1f\x8b": "gzip-compressed; unpack it first",
    b"PAR1": "a Parquet file; export the rows as JSONL or CSV",
}
# Bytes that are not UTF-8 are decoded to these surrogates, which no valid UTF-8 decodes to.
UNDECODED = re.compile("[\udc80-\udcff]")
# What each of them is in Windows-1252; five bytes are nothing there and stay.
_WINDOWS = {0xDC00 + byte: char for byte in range(128, 256) if (char := bytes([byte]).decode("cp1252", "ignore"))}


def find_encoding(path: Path | str) -> Encoding:
    """Tell UTF-8, UTF-16 and UTF-32 apart by the file's first bytes, and Windows-1252 by any byte that is not UTF-8.

    Raises:
        DataError: the file cannot be opened, or is not text.
    """
    path = Path(path)
    head = _head(path)
    if head.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "utf-32"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if head.count(0) * 4 > len(head) and not any(map(head.startswith, _SIGNATURES)):
        return "utf-16-le" if head[1::2].count(0) > head[::2].count(0) else "utf-16-be"
    if kind := _binary(head):
        raise DataError(f"the file is {kind}", path)
    return "windows-1252" if any(UNDECODED.search(line) for line in read_lines(path)) else "utf-8"


def has_mark(path: Path) -> bool:
    """Whether a file begins with the byte order mark of UTF-8."""
    return _head(path).startswith(b"\xef\xbb\xbf")


def refuse_binary(path: Path, encoding: Encoding) -> None:
    """Refuse a file that is no text in this encoding.

    Raises:
        DataError: says what the file is.
    """
    if encoding in ("utf-8", "windows-1252") and (kind := _binary(_head(path))):
        raise DataError(f"the file is {kind}", path)


def read_lines(path: Path, encoding: Encoding = "utf-8") -> Iterator[str]:
    """Give the lines of a file with their line ends; a byte that is not UTF-8 becomes a low surrogate."""
    plain = encoding in ("utf-8", "windows-1252")
    codec, errors = ("utf-8-sig", "surrogateescape") if plain else (encoding, "replace")
    try:
        with path.open(encoding=codec, errors=errors, newline="") as file:
            yield from file
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError | ValueError) -> DataError:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return DataError(f"cannot be read ({reason}); expected a data file", path)


def mended_lines(path: Path, encoding: Encoding) -> Iterator[str]:
    """Give the lines of a file, with what `mend` makes of them."""
    return (mend(line, encoding)[0] for line in read_lines(path, encoding))


def mend(text: str, encoding: Encoding) -> tuple[str, int]:
    """Read the bytes that are not UTF-8 as Windows-1252, where that is wanted; gives their number too."""
    if encoding != "windows-1252" or text.isascii() or not (found := UNDECODED.findall(text)):
        return text, 0
    return text.translate(_WINDOWS), len(found)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4096)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _binary(head: bytes) -> str:
    """What a file with these first bytes is, if not UTF-8 text."""
    kind = next((kind for start, kind in _SIGNATURES.items() if head.startswith(start)), "")
    return _SIGNATURES[b"\xff\xfe"] if not kind and head.count(0) * 4 > len(head) else kind
