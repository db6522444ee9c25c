"""A well-behaved chat server on loopback, for what is not about faults: it counts and it answers.

As a critic it calls segment A spurious and the rest relevant; as a judge it
reads such sentences back.  ``reply`` replaces both.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

from loopback import LoopbackServer, completion


def critic_or_judge(body: dict) -> str:
    """The answer of a sensible model, read off the request alone."""
    said = body["messages"][1]["content"]
    if isinstance(said, list):
        names = re.search(r"segments of this image: ([A-Z, ]+)\.", said[0]["text"])[1].split(", ")
        return " ".join(f"Segment {n} is {'spurious' if n == 'A' else 'relevant'}." for n in names)
    names = re.search(r"segments to rule on: ([A-Z, ]+)\.", said)[1].split(", ")
    ruled = dict(re.findall(r"Segment ([A-Z]+) is (spurious|relevant)", said))
    return json.dumps({"verdicts": [{"segment": n, "verdict": ruled.get(n, "undecided")} for n in names]})


class AnsweringServer(LoopbackServer):
    """Serves while the ``with`` block lasts.

    Each answer takes ``seconds``.  After the first, answers wait until ``wait_for`` requests
    have been under way at one time, for ten seconds at most: a slow client has its chance.

    Attributes
    ----------
    url : str, for ``base_url``
    bodies : list of dict, every request's body
    busiest : int, most requests that were being answered at one time
    redirect : str, an address to send every caller on to; empty: none
    """

    def __init__(
        self,
        reply: Callable[[dict], object] = critic_or_judge,
        *,
        usage=(100, 20),
        seconds: float = 0.0,
        wait_for: int = 1,
    ) -> None:
        self.bodies: list[dict] = []
        self.redirect = ""
        self.busiest = self._busy = 0
        self._lock = threading.Condition()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"  # connections stay, as with real servers
            disable_nagle_algorithm = True

            def log_message(self, *_):
                pass

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with server._lock:
                    server.bodies.append(body)
                    server._busy += 1
                    server.busiest = max(server.busiest, server._busy)
                    server._lock.notify_all()
                    if len(server.bodies) > 1:
                        server._lock.wait_for(lambda: server.busiest >= wait_for, 10)
                time.sleep(seconds)
                answer = reply(body)
                status, answer = answer if isinstance(answer, tuple) else (200, answer)
                if status == 200:
                    answer = completion(body["model"], answer)
                    if usage:
                        answer["usage"] = dict(
                            zip(("prompt_tokens", "completion_tokens"), usage, strict=True)
                        )
                    else:
                        del answer["usage"]
                with server._lock:
                    server._busy -= 1
                data = json.dumps(answer).encode()
                try:
                    self.send_response(307 if server.redirect else status)
                    if server.redirect:
                        self.send_header("location", server.redirect)
                    self.send_header("content-type", "application/json")
                    self.send_header("content-length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:
                    pass  # the client was killed

        super().__init__(Handler)
