"""What the machine means when it fails a run: the disk is full, memory is full, a folder is not ours to write."""

import errno
import re
from collections.abc import Generator

from safetensors import SafetensorError

from training.errors import TrainingError

_DISK = re.compile(
    r"no space left|file too large|quota exceeded|PytorchStreamWriter failed|iostream error|unexpected pos \d+ vs", re.I
)
_MEMORY = re.compile("out of memory|can(?:no|')t allocate memory|bad_alloc|ALLOC_FAILED", re.I)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


def explain(error: BaseException) -> TrainingError | None:
    """The machine's fault behind an error as one that the user can mend, or None: then it is a bug.

    Libraries wrap the fault as they like: safetensors and tokenizers in exceptions of their own with the text of
    Rust's, torch in a RuntimeError, others in one raised while handling it. So the whole chain is looked through.
    """
    for link in _chain(error):
        if isinstance(link, OSError):
            if link.errno in _FULL:
                return _full(link.strerror)
            if link.errno in _DENIED and link.filename:
                said = (link.strerror or "permission denied").lower()
                return TrainingError(f"{link.filename}: {said}; give the command access to it, or choose another place")
        if isinstance(link, MemoryError) or link.__class__.__name__ == "OutOfMemoryError":
            return TrainingError("out of memory; lower max_batch_tokens or max_length")
        # tokenizers raises Exception itself
        if isinstance(link, OSError | RuntimeError | SafetensorError) or type(link) is Exception:
            text = str(link)
            if found := _DISK.search(text):
                return _full(found[0])
            if _MEMORY.search(text):
                return TrainingError("out of memory; lower max_batch_tokens or max_length")
    return None


def _full(said: str | None) -> TrainingError:
    return TrainingError(
        f"the disk is full, or a file may not grow ({(said or 'no room').lower()}); make room, and the same command "
        "goes on from the last saved state"
    )


def _chain(error: BaseException) -> Generator[BaseException, None, None]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__
