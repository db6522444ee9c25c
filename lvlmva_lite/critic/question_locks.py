"""Which process asks which question, where several share a store: the others wait for its answer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lvlmva_lite.critic.answers import Request

try:
    import fcntl
except ImportError:  # Windows: two processes may pay for one question
    fcntl = None


class QuestionLocks:
    """A lock for each question, on one byte of a file of the store.

    Parameters
    ----------
    file : made if need be

    Raises
    ------
    OSError : it cannot be made
    """

    def __init__(self, file: Path) -> None:
        self._file: int | None = None
        if fcntl is not None:
            self._file = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    @contextmanager
    def lock(self, request: Request) -> Iterator[bool]:
        """Whether this process is the one to ask, as long as the ``with`` block lasts.

        Another process that locks the same request gets False.  A lock ends
        with its process, however that ends.  Where the file system knows no
        locks, everybody is the one to ask.
        """
        where = int(request.key[:15], 16)
        held = True
        try:
            if self._file is not None:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, where)
        except (BlockingIOError, PermissionError):
            held = False
        except OSError:
            pass
        try:
            yield held
        finally:
            if held and self._file is not None:
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, where)

    def close(self) -> None:
        """End every lock of this process."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
