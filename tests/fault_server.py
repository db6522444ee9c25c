"""A scripted chat server on loopback that misbehaves: one fault for each request, in order.

After its script it answers well, as ``answering_server.critic_or_judge`` does.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from answering_server import critic_or_judge
from loopback import LoopbackServer, completion


@dataclass(frozen=True)
class Fault:
    """What happens to one request.

    Attributes
    ----------
    status, headers : of the reply; a status other than 200 carries ``text`` as its error
    text : what the model says; None: a good answer
    body : in place of the whole reply, plain values or text
    message : fields added to the model's message, such as "refusal"
    finish_reason : of the answer
    seconds : pause before the first byte
    usage : in place of the usual 100 tokens in and 20 out
    choice : fields added to the answer's choice, such as "error"
    reply : fields of the whole reply that are added or replaced, such as "model"
    drip : seconds between single blanks that come before the body, ten of them
    cut_body : send only so much of the body; with ``close`` the connection is
        dropped in the middle, else the reply is whole as HTTP and the JSON is not
    close : drop the connection
    """

    status: int = 200
    headers: dict = field(default_factory=dict)
    text: str | None = None
    body: object = None
    message: dict = field(default_factory=dict)
    finish_reason: str = "stop"
    choice: dict = field(default_factory=dict)
    usage: dict | None = None
    reply: dict = field(default_factory=dict)
    drip: float = 0.0
    seconds: float = 0.0
    cut_body: float = 1.0
    close: bool = False


def too_many(**headers: str) -> Fault:
    return Fault(429, {name.replace("_", "-"): value for name, value in headers.items()}, "slow down")


BROKEN = Fault(500, {}, "something broke")
SLOW = Fault(seconds=1.5)
DROPPED = Fault(cut_body=0.5, close=True)
DROPPED_AT_ONCE = Fault(cut_body=0.0, close=True)
TRUNCATED = Fault(cut_body=0.5)
REFUSAL = Fault(text="", message={"content": None, "refusal": "I will not look at this."})
FILTERED = Fault(text="", finish_reason="content_filter")
EMPTY = Fault(text="")


def says(text: str) -> Fault:
    return Fault(text=text)


class FaultServer(LoopbackServer):
    """Serves while the ``with`` block lasts.

    Parameters
    ----------
    script : faults of the first requests, in the order in which they arrive
    good : the answer to a request's body, once the script is over

    Attributes
    ----------
    url : str, for ``base_url``
    bodies : list of dict, every request's body
    keys, paths : lists of str, every request's Authorization header and path
    """

    def __init__(self, *script: Fault, good: Callable[[dict], str] = critic_or_judge) -> None:
        self.bodies: list[dict] = []
        self.keys: list[str] = []
        self.paths: list[str] = []
        self._script, self._lock = list(script), threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self):
                server.paths.append(self.path)
                data = self.rfile.read(int(self.headers["content-length"]))
                body = json.loads(data) if data.startswith(b"{") else {"model": ""}
                with server._lock:
                    server.bodies.append(body)
                    server.keys.append(self.headers["authorization"])
                    fault = server._script.pop(0) if server._script else Fault()
                text = good(body) if fault.text is None else fault.text
                try:
                    self._reply(fault, text, body["model"])
                except OSError:
                    self.close_connection = True  # the client did not wait

            def _reply(self, fault: Fault, text: str, model: str) -> None:
                if fault.status == 200:
                    message = {"role": "assistant", "content": text, **fault.message}
                    reply = completion(model, message, finish_reason=fault.finish_reason, **fault.choice)
                    if fault.usage is not None:
                        reply["usage"] = fault.usage
                    reply |= fault.reply
                else:
                    reply = {"error": {"message": text, "type": "fault", "code": None}}
                reply = reply if fault.body is None else fault.body
                data = (reply if isinstance(reply, str) else json.dumps(reply)).encode()
                kept = data[: int(len(data) * fault.cut_body)]
                time.sleep(fault.seconds)
                if not (fault.close and not kept):
                    self.send_response(fault.status)
                    self.send_header("content-type", "application/json")
                    blanks = 10 if fault.drip else 0
                    self.send_header("content-length", str(blanks + len(data if fault.close else kept)))
                    for name, value in fault.headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    for _ in range(blanks):
                        self.wfile.write(b" ")
                        self.wfile.flush()
                        time.sleep(fault.drip)
                    self.wfile.write(kept)
                    self.wfile.flush()
                if fault.close:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)

        super().__init__(Handler)

    @property
    def requests(self) -> int:
        """How many requests have arrived."""
        return len(self.bodies)
