"""``python -m lvlmva_lite.cli``, as ``lvlmva``."""

from lvlmva_lite.cli import main

main()
