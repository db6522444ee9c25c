"""Headless Chromium, spoken to over a pipe (Chrome DevTools Protocol) with the standard library alone."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

KEY_CODES = {"Tab": 9, "Enter": 13, " ": 32, "ArrowRight": 39, "ArrowDown": 40}
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def executable() -> str | None:
    """Return the path of a Chromium or Chrome; the environment variable ``CHROMIUM`` names another."""
    return os.environ.get("CHROMIUM") or next(
        (path for name in NAMES if (path := shutil.which(name))), None
    )


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *words: object) -> None:
        """Say nothing of each request."""


class Site:
    """A folder served on this machine, as GitHub Pages would; a context manager."""

    def __init__(self, folder: Path) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))

    def __enter__(self) -> str:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_address[1]}/"

    def __exit__(self, *fault: object) -> None:
        self.server.shutdown()
        self.server.server_close()


class Browser:
    """One page of a headless Chromium; a context manager.

    After :meth:`open`, ``messages`` holds the errors of the page's console and the addresses that
    could not be loaded, and ``weight`` how many bytes came over the wire.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.messages: list[str] = []
        self.weight = 0

    def __enter__(self) -> Browser:
        self.folder = tempfile.mkdtemp(prefix="chromium-")
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        options = "--headless=new --no-sandbox --disable-gpu --hide-scrollbars --disable-dev-shm-usage"
        options += " --no-first-run --disable-background-networking --disable-extensions --mute-audio"
        # The protocol's pipe: the browser reads file 3 and writes file 4.
        shell = f'exec 3<&{theirs_in} 4>&{theirs_out}; exec "$0" "$@"'
        command = [self.path, *options.split(), f"--user-data-dir={self.folder}", "--remote-debugging-pipe"]
        self.process = subprocess.Popen(
            ["bash", "-c", shell, *command, "about:blank"],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._buffer, self._number, self._session = b"", 0, None
        self._done: set[str] = set()
        targets = self.send("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        attached = self.send("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.send("Network.setCacheDisabled", cacheDisabled=True)
        return self

    def __exit__(self, *fault: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self._in)
        os.close(self._out)
        shutil.rmtree(self.folder, ignore_errors=True)

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command of the protocol; return its result."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            command["sessionId"] = self._session
        message = json.dumps(command).encode() + b"\0"
        while message:
            message = message[os.write(self._out, message) :]
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            piece = os.read(self._in, 1 << 20)
            if not piece:
                raise RuntimeError(f"{self.path} ended")
            self._buffer += piece
        message, _, self._buffer = self._buffer.partition(b"\0")
        answer = json.loads(message)
        self._note(answer.get("method", ""), answer.get("params", {}))
        return answer

    def _note(self, event: str, about: dict[str, Any]) -> None:
        if event == "Runtime.exceptionThrown":
            details = about["exceptionDetails"]
            self.messages.append(details.get("exception", {}).get("description") or details["text"])
        elif event == "Runtime.consoleAPICalled" and about["type"] in ("error", "assert"):
            self.messages.append(" ".join(str(word.get("value", "")) for word in about["args"]))
        elif event == "Log.entryAdded" and about["entry"]["level"] == "error":
            self.messages.append(f"{about['entry']['text']} {about['entry'].get('url', '')}")
        elif event == "Network.loadingFinished":
            self.weight += int(about["encodedDataLength"])
        elif event == "Page.loadEventFired":
            self._done.add("load")

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression (a promise is awaited)."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"].get("exception", {}).get("description"))
        return answer["result"].get("value")

    def open(self, address: str, width: int = 1280, height: int = 800, dark: bool = False) -> None:
        """Load a page at a width in CSS pixels and wait until its scripts are through (at most 30 s)."""
        self.messages, self.weight, self._done = [], 0, set()
        self.send("Page.navigate", url="about:blank")
        self.resize(width, height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", media="", features=[scheme])
        self.messages, self.weight, self._done = [], 0, set()
        self.send("Page.navigate", url=address)
        end = time.monotonic() + 30
        while "load" not in self._done and time.monotonic() < end:
            self._read()
        quiet = "new Promise(done => (window.MathJax?.startup?.promise ?? Promise.resolve()).then(() =>"
        self.evaluate(quiet + " requestAnimationFrame(() => setTimeout(done, 200))))")

    def wait_for(self, expression: str, seconds: float = 90) -> Any:
        """Return the value of a JavaScript expression as soon as it is true.

        Raises
        ------
        TimeoutError : it was not in time; the message holds what the page says
        """
        end = time.monotonic() + seconds
        while not (value := self.evaluate(expression)):
            if time.monotonic() > end:
                text = self.evaluate("document.body.innerText")
                raise TimeoutError(f"never came: {expression}\n{text}\n{self.messages}")
            time.sleep(0.05)
        return value

    def click(self, element: str) -> None:
        """Click the middle of an element, a JavaScript expression, as soon as it can be clicked there."""
        middle = f"""(element => {{
          if (!element?.checkVisibility() || element.disabled) return null;
          element.scrollIntoView({{block: 'nearest'}});
          const {{x, y, width, height}} = element.getBoundingClientRect();
          const at = [x + width / 2, y + height / 2];
          return element.contains(document.elementFromPoint(...at)) ? at : null;
        }})({element})"""
        x, y = self.wait_for(middle)
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)

    def press(self, key: str) -> None:
        """Press a key, a letter or one of ``KEY_CODES``, where the cursor is, and let it go."""
        code = KEY_CODES.get(key) or ord(key.upper())
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        about = {"key": key, "windowsVirtualKeyCode": code}
        self.send("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **about)
        self.send("Input.dispatchKeyEvent", type="keyUp", **about)

    def resize(self, width: int, height: int = 800) -> None:
        """Lay the page out anew at a width in CSS pixels."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
            mobile=False,
        )  # fmt: skip

    def picture(self, file: Path, whole: bool = False) -> None:
        """Write what is seen, or the whole page, as PNG."""
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(shot["data"]))

    def printed(self, file: Path, **options: Any) -> None:
        """Write the page as it would be printed on A4; ``options`` of the protocol's ``Page.printToPDF``."""
        paper = {"printBackground": False, "paperWidth": 8.27, "paperHeight": 11.69}
        answer = self.send("Page.printToPDF", **paper | options)
        file.write_bytes(base64.b64decode(answer["data"]))
