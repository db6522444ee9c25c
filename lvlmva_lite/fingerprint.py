"""One short text that stands for many values: equal only where all of them are."""

from __future__ import annotations

import dataclasses
import dis
import hashlib
import pickle
import sys
from collections.abc import Iterator, Mapping
from functools import cache, partial
from pathlib import Path, PurePath
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType

import numpy as np

_PACKAGE = Path(__file__).parent
_CODE = (".py", ".md", ".txt", ".yaml", ".yml", ".json", ".jsonl", ".npz")


def fingerprint(*values: object) -> str:
    """SHA-256 (hex) over values: plain ones, tensors, dataclasses, containers, functions.

    A function of this package counts by its name (see
    :func:`package_fingerprint`), another by its code and by what it refers to.

    Raises
    ------
    TypeError : a value that has no content to be told by, such as an open file
    """
    return _Digest().of(values).hex()


@cache
def package_fingerprint(folder: str = "") -> str:
    """SHA-256 (hex) over the code, words, prompts and recorded answers in a folder of this package; results left out.

    Unlike a commit it tells two trees with uncommitted changes apart.
    """
    root = _PACKAGE / folder
    files = [
        (file.relative_to(root).as_posix(), file.read_bytes())
        for file in sorted(root.rglob("*"))
        if file.suffix in _CODE and file.is_file() and "results" not in file.relative_to(root).parts
    ]
    return fingerprint(files)


class _Digest:
    """Digests of values, each preceded by its kind and length, so that no two kinds read alike."""

    def __init__(self) -> None:
        self._under_way: set[int] = set()

    def of(self, value: object) -> bytes:
        parts = [part if isinstance(part, bytes) else self.of(part) for part in self._parts(value)]
        whole = hashlib.sha256()
        for part in parts:
            whole.update(len(part).to_bytes(8, "big"))
            whole.update(part)
        return whole.digest()

    def _parts(self, value: object) -> Iterator[object]:
        kind = type(value)
        yield f"{kind.__module__}.{kind.__qualname__}".encode()
        if value is None or isinstance(value, bool | int | float | complex):
            yield repr(value).encode()
        elif isinstance(value, str | PurePath):
            yield str(value).encode("utf-8", "surrogatepass")
        elif isinstance(value, bytes | bytearray):
            yield bytes(value)
        elif (torch := sys.modules.get("torch")) and isinstance(value, torch.Tensor):
            yield from self._parts(value.detach().cpu().numpy())
        elif isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
            yield f"{value.dtype.str} {value.shape}".encode()
            yield np.ascontiguousarray(value).tobytes()
        elif isinstance(value, list | tuple):
            yield from map(self.of, value)
        elif isinstance(value, set | frozenset):
            yield from sorted(map(self.of, value))
        elif isinstance(value, Mapping):
            yield from sorted(self.of(key) + self.of(item) for key, item in value.items())
        elif isinstance(value, ModuleType):
            yield value.__name__.encode()
            file = getattr(value, "__file__", None)
            yield Path(file).read_bytes() if file and Path(file).is_file() else b""
        elif isinstance(value, partial):
            yield from map(self.of, (value.func, value.args, value.keywords))
        elif isinstance(value, CodeType):
            yield from (value.co_code, self.of(value.co_consts), self.of(value.co_names))
        elif isinstance(value, BuiltinFunctionType):
            yield f"{value.__module__}.{value.__qualname__}".encode()
        elif isinstance(value, FunctionType | type):
            yield from self._definition(value)
        elif dataclasses.is_dataclass(value):
            for field in dataclasses.fields(value):
                yield field.name.encode()
                yield self.of(getattr(value, field.name))
        else:
            try:
                yield pickle.dumps(value)
            except Exception as error:
                raise TypeError(f"cannot tell one {kind.__qualname__} from another: {error}") from error

    def _definition(self, value: FunctionType | type) -> Iterator[object]:
        yield f"{value.__module__}.{value.__qualname__}".encode()
        # For what refers to itself the name is enough the second time.
        if _in_a_library(value.__module__) or id(value) in self._under_way:
            return
        self._under_way.add(id(value))
        if isinstance(value, type):
            yield self.of(
                {name: item for name, item in vars(value).items() if isinstance(item, FunctionType)}
            )
        else:
            read = sorted(set(_globals_of(value.__code__)) & set(value.__globals__))
            yield self.of([value.__code__, value.__defaults__, value.__kwdefaults__])
            yield self.of([cell.cell_contents for cell in value.__closure__ or ()])
            yield self.of([(name, value.__globals__[name]) for name in read])
        self._under_way.discard(id(value))


def _in_a_library(module_name: str) -> bool:
    """Whether code is told by its name: this package's, the standard library's, an installed one's."""
    top = module_name.partition(".")[0]
    if top == "__main__":
        return False
    file = getattr(sys.modules.get(module_name), "__file__", None)
    return top in (_PACKAGE.name, *sys.stdlib_module_names) or file is None or "site-packages" in file


def _globals_of(code: CodeType) -> Iterator[str]:
    """Names of the globals that a function reads, those of functions inside it too."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _globals_of(constant)
