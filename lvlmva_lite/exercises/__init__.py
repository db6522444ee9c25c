"""What a reader may write: the arguments that a check draws, the function to be, and the usual wrong ones."""

from lvlmva_lite.exercises import (
    chapter_00,
    chapter_01,
    chapter_02,
    chapter_03,
    chapter_04,
    chapter_05,
    chapter_06,
    chapter_07,
    chapter_08,
    chapter_09,
    chapter_10,
    chapter_11,
    chapter_12,
    chapter_13,
    chapter_14,
    chapter_15,
    chapter_16,
)
from lvlmva_lite.exercises.exercise import Exercise

EXERCISES: dict[str, Exercise] = {
    name: exercise
    for chapter in (
        chapter_00,
        chapter_01,
        chapter_02,
        chapter_03,
        chapter_04,
        chapter_05,
        chapter_06,
        chapter_07,
        chapter_08,
        chapter_09,
        chapter_10,
        chapter_11,
        chapter_12,
        chapter_13,
        chapter_14,
        chapter_15,
        chapter_16,
    )
    for name, exercise in chapter.EXERCISES.items()
}
"""The functions that can be checked, by name."""
