"""Several threads' writes in one transaction: sixteen answers that arrive together wait for the disk once."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass


@dataclass
class _Write:
    execute: Callable[[], object]
    done: bool = False
    result: object = None
    error: sqlite3.Error | None = None


class GroupCommit:
    """Puts writes on disk, those that wait for their turn together.

    Parameters
    ----------
    turn : lock of the database; whoever has it writes for all who wait
    transaction : begins one and commits it, or rolls it back after an error
    """

    def __init__(
        self, turn: AbstractContextManager, transaction: Callable[[], AbstractContextManager]
    ) -> None:
        self._turn, self._transaction = turn, transaction
        self._waiting: deque[_Write] = deque()

    def __call__(self, execute: Callable[[], object]) -> object:
        """What a function that writes returns, once that is on disk.

        Raises
        ------
        sqlite3.Error : that of this write; those of others are raised where they belong
        """
        own = _Write(execute)
        self._waiting.append(own)
        with self._turn:
            if not own.done:
                writes = []
                while self._waiting:
                    writes.append(self._waiting.popleft())
                self._write(writes)
        if own.error is not None:
            raise own.error
        return own.result

    def _write(self, writes: list[_Write]) -> None:
        try:
            with self._transaction():
                results = [write.execute() for write in writes]
        except sqlite3.Error as error:
            if len(writes) > 1:
                for write in writes:  # one that fails is to spoil no other
                    self._write([write])
            else:
                writes[0].error, writes[0].done = error, True
            return
        except BaseException:
            self._waiting.extendleft(reversed(writes))  # interrupted; whoever comes next writes them
            raise
        for write, result in zip(writes, results, strict=True):
            write.result, write.done = result, True
