"""What can be named in a setting or on the command line, and how other packages add to it.

A thing is registered by one line where it is written::

    @SEGMENTERS.register("slic")
    def slic(images, attributions, config, *, progress=False): ...

or, in another package, by an entry point of the group ``lvlmva_lite.segmenters``.
Nobody keeps a list.
"""

from __future__ import annotations

import importlib.util
import pkgutil
from importlib.metadata import EntryPoint, entry_points
from typing import Any


class RegistryError(ValueError):
    """A name that nobody registered or that cannot be loaded; the message says which there are."""


class Registry:
    """Name -> object, of one kind.

    Parameters
    ----------
    kind : what the objects are, for messages: "task"
    group : of the entry points by which other packages add theirs
    homes : modules that register this package's own, imported when a name is first asked for;
        of a package, every module in it that registers anything

    Examples
    --------
    >>> shapes = Registry("shape", "no.such.group")
    >>> @shapes.register("square")
    ... def square(side):
    ...     return side**2
    >>> shapes.get("square")(3)
    9
    >>> shapes.get("cube")
    Traceback (most recent call last):
    ...
    lvlmva_lite.registry.RegistryError: unknown shape 'cube'; choose one of: square
    """

    def __init__(self, kind: str, group: str, homes: tuple[str, ...] = ()) -> None:
        self.kind, self.group = kind, group
        self._homes, self._at_home = homes, not homes
        self._registered: dict[str, Any] = {}

    def register(self, name: str, thing: Any = None) -> Any:
        """Make ``thing`` known by a name; without ``thing``, a decorator.

        Raises
        ------
        RegistryError : the name is taken
        """
        if thing is None:
            return lambda decorated: self.register(name, decorated)
        if name in self._registered or name in self._foreign():
            raise RegistryError(f"there is a {self.kind} {name!r} already")
        self._registered[name] = thing
        return thing

    def names(self) -> tuple[str, ...]:
        """Every name: this package's, then those of other packages."""
        self._import_homes()
        return (*self._registered, *sorted({*self._foreign()} - {*self._registered}))

    def get(self, name: str) -> Any:
        """The object of a name.

        Raises
        ------
        RegistryError : nobody registered it, or its package cannot be loaded
        """
        self._import_homes()
        if name in self._registered:
            return self._registered[name]
        point = self._foreign().get(name)
        if point is None:
            raise RegistryError(f"unknown {self.kind} {name!r}; choose one of: {', '.join(self.names())}")
        try:
            return point.load()
        except Exception as error:
            raise RegistryError(
                f"the {self.kind} {name!r} ({point.value}) cannot be loaded: {error}"
            ) from error

    def _foreign(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)}

    def _import_homes(self) -> None:
        if self._at_home:
            return
        self._at_home = True
        for home in self._homes:
            module = importlib.import_module(home)
            for inner in pkgutil.iter_modules(getattr(module, "__path__", ()), f"{home}."):
                spec = importlib.util.find_spec(inner.name)
                if ".register(" in (spec.loader.get_source(inner.name) or ""):
                    importlib.import_module(inner.name)


TASKS = Registry("task", "lvlmva_lite.tasks", ("lvlmva_lite.tasks",))
"""Subclasses of :class:`tasks.Task`."""

METHODS = Registry("method", "lvlmva_lite.methods", ("lvlmva_lite.methods",))
"""Subclasses of :class:`methods.Method`."""

EXPLAINERS = Registry("explainer", "lvlmva_lite.explainers", ("lvlmva_lite.attribution",))
"""Functions with the signature of :func:`attribution.deeplift_shap`."""

SEGMENTERS = Registry("segmenter", "lvlmva_lite.segmenters", ("lvlmva_lite.segmenters",))
"""Functions (images, attributions, config, *, progress) -> ``Segments``."""

PENALTIES = Registry(
    "penalty", "lvlmva_lite.penalties", ("lvlmva_lite.alignment", "lvlmva_lite.contextual_decomposition")
)
"""Functions with the signature of :func:`alignment.rrr_penalty`."""

EXPERIMENTS = Registry("experiment", "lvlmva_lite.experiments", ("lvlmva_lite.experiments",))
"""Functions of a ``seed``, of real images also of their ``data_root``, that give rows of a table:
what ``lvlmva sweep`` runs for many seeds, and by the name of a recorded table."""

CRITICS = Registry("critic", "lvlmva_lite.critics", ("lvlmva_lite.critic",))
"""Functions of the ``CriticSettings`` that give a critic, or a critic and its judge; those of other
packages, and such as need no more: see :mod:`critic.providers` for the rest of this package's."""
