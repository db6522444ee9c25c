"""What a reader may write: the arguments that a check draws, the function to be, and the usual wrong ones.

One module a chapter, ``chapter_NN``; each is found by its name.
"""

from importlib import import_module
from pkgutil import iter_modules

from lvlmva_lite.exercises.exercise import Exercise

EXERCISES: dict[str, Exercise] = {
    name: exercise
    for module in iter_modules(__path__)
    if module.name.startswith("chapter_")
    for name, exercise in import_module(f"{__name__}.{module.name}").EXERCISES.items()
}
"""The functions that can be checked, by name."""
