"""How many threads compute: a setting, never a property of the machine.

A sum over many numbers is cut among threads, and another cut rounds otherwise in the last
place.  Training carries such differences on; on the knee phantoms one thread more moved a
worst-group accuracy by .107.  So the functions that do the work pin the number themselves.
An environment variable would have to be set before PyTorch is imported, by everybody.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import ModuleType
from typing import Any, TypeVar

import torch
from threadpoolctl import OpenBLASController, ThreadpoolController

_Result = TypeVar("_Result")


def as_configured(function: Callable[..., _Result]) -> Callable[..., _Result]:
    """Decorate what takes a ``Config``, or something with one: pinned to its ``threads``."""

    @wraps(function)
    def pinned(*arguments: Any, **named: Any) -> _Result:
        configs = (getattr(one, "config", one) for one in (*arguments, *named.values()))
        with threads(next((config.threads for config in configs if hasattr(config, "threads")), None)):
            return function(*arguments, **named)

    return pinned


class _Pinned:
    """What the process is pinned to: ``number``, 0 while it is not; and what was there before."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.number, self.holds = 0, 0
        self.torch_before, self.blas_before = 0, {}


_process = _Pinned()
_thread = threading.local()
_controller: ThreadpoolController | None = None
_n_modules = 0


@contextmanager
def threads(number: int | None = None) -> Iterator[None]:
    """Pin PyTorch, BLAS and OpenMP to ``number`` threads; give back what was there afterwards.

    A context manager, and with brackets a decorator: ``@threads()``.  Within another it costs
    next to nothing.  What is pinned is the process (and the OpenMP settings of the calling
    thread, which are its own); several threads may be inside at once.

    Parameters
    ----------
    number : int >= 1, or None for the number in force, 1 where none is

    Raises
    ------
    ValueError : ``number`` below 1
    RuntimeError : another thread of this process is at work with another number
    """
    if number is not None and number < 1:
        raise ValueError(f"the number of threads must be at least 1, got {number}")
    with _process.lock:
        holds, outer = getattr(_thread, "holds", 0), _process.number
        inner = number or outer or 1
        if _process.holds > holds and inner != outer:
            raise RuntimeError(
                f"another Python thread is at work with {outer} thread(s), so {inner} cannot be set here; "
                "use one number for both, or two processes"
            )
        if not _process.holds:
            _process.torch_before, _process.blas_before = torch.get_num_threads(), _get("blas")
        else:
            _pin_what_came_late()
        if not holds:
            _thread.openmp_before = _get("openmp")
            _put(dict.fromkeys(_thread.openmp_before, inner))
        if inner != outer:
            _set(inner)
        _thread.holds = holds + 1
        _process.holds += 1
    try:
        yield
    finally:
        with _process.lock:
            _thread.holds -= 1
            _process.holds -= 1
            if not _process.holds:
                _process.number = 0
                torch.set_num_threads(_process.torch_before)
                _put(_process.blas_before)
            elif inner != outer and outer:
                _set(outer)
            if not _thread.holds:
                _put(_thread.openmp_before)


def late_import(name: str) -> ModuleType:
    """Import what takes long when it is needed; within :class:`threads`, libraries that it brings are pinned too."""
    module = importlib.import_module(name)
    with _process.lock:
        if _process.holds:
            _pin_what_came_late()
    return module


def _pin_what_came_late() -> None:
    global _controller, _n_modules
    if len(sys.modules) == _n_modules:
        return
    known = {library.filepath for library in _libraries().lib_controllers}
    _controller, _n_modules = ThreadpoolController(), len(sys.modules)
    late = {api: {k: n for k, n in _get(api).items() if k not in known} for api in ("blas", "openmp")}
    _process.blas_before |= late["blas"]
    if getattr(_thread, "holds", 0):
        _thread.openmp_before |= late["openmp"]
    _put(dict.fromkeys(late["blas"] | late["openmp"], _process.number))


def _set(number: int) -> None:
    _process.number = number
    torch.set_num_threads(number)
    _put(dict.fromkeys(_get("blas") | _get("openmp"), number))


def _get(user_api: str) -> dict[str, int]:
    """File of each library of a kind ("blas" or "openmp") -> its number of threads."""
    return {
        library.filepath: library.num_threads
        for library in _libraries().lib_controllers
        if library.user_api == user_api
    }


def _put(numbers: dict[str, int]) -> None:
    # From 3.8 on threadpoolctl lets one Python thread alone set OpenBLAS and passes the others over
    # without a word; here the lock sees to it that they do not get in each other's way.
    anyone_may = getattr(OpenBLASController, "clear_controlling_thread", lambda force: None)
    anyone_may(force=True)
    for library in _libraries().lib_controllers:
        if library.filepath in numbers:
            library.set_num_threads(numbers[library.filepath])
    anyone_may(force=True)


def _libraries() -> ThreadpoolController:
    """The BLAS and OpenMP libraries loaded; looked up anew (10 ms) only after further imports."""
    global _controller, _n_modules
    if _controller is None or (not _process.holds and len(sys.modules) != _n_modules):
        _controller, _n_modules = ThreadpoolController(), len(sys.modules)
    return _controller
