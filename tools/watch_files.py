"""Note which files and folders a kernel reads, and which programs it starts; the kernel runs this first.

A line of JSON each goes to the file that ``LVLMVA_WATCH`` names: ["read", path], ["wrote", path],
["listed", folder] or ["started", command].
"""

import json
import os
import sys

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn")


def watch(record: str) -> None:
    """Write to ``record`` from now on, in this process and those forked from it."""
    seen: set[tuple[str, str]] = set()

    def note(kind: str, what: str) -> None:
        if (kind, what) in seen or what == record:
            return
        seen.add((kind, what))
        # Opened each time: a forked process closes what was open before it starts another program.
        file = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, json.dumps([kind, what]).encode() + b"\n")
        os.close(file)

    def hook(event: str, arguments: tuple) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, str | bytes | os.PathLike):
                note("wrote" if (flags or 0) & WRITES else "read", os.path.abspath(os.fsdecode(path)))
        elif event in ("os.listdir", "os.scandir"):
            if not isinstance(arguments[0], int):
                note("listed", os.path.abspath(os.fsdecode(arguments[0] or ".")))
        elif event in STARTS:
            note("started", " ".join(map(str, arguments[:2])))

    sys.addaudithook(hook)


watch(os.environ["LVLMVA_WATCH"])
