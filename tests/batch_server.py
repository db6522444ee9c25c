"""A server on loopback that knows the batch endpoint of OpenAI's protocol, as its reference describes it."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler

from answering_server import critic_or_judge
from loopback import LoopbackServer, completion


class BatchServer(LoopbackServer):
    """Serves while the ``with`` block lasts.

    Parameters
    ----------
    reply : the answer to a question's body; a pair (status, text): an error
    looks : so many looks find a batch under way, then it is over
    status : in which a batch ends; "expired": with its first half answered
    lose : so many replies to the creation of a batch are lost on the way
    cut : so many files of answers break off in the middle

    Attributes
    ----------
    alone : bodies of questions that were asked one at a time
    files : str -> bytes
    created : list of dict, every batch
    """

    def __init__(self, reply=critic_or_judge, *, looks=2, status="completed", lose=0, cut=0) -> None:
        self.alone, self.files, self.created = [], {}, []
        self.looks, self.status, self._lose, self._cut = looks, status, lose, cut
        self._reply, self._lock = reply, threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                with server._lock:
                    if self.path.endswith("/files"):
                        boundary = re.search("boundary=(.*)", self.headers["content-type"])[1].strip('"')
                        parts = body.split(b"--" + boundary.encode())
                        (part,) = [part for part in parts if b"filename=" in part]
                        number = f"file-{len(server.files)}"
                        server.files[number] = part.partition(b"\r\n\r\n")[2][:-2]
                        self.say({"id": number, "object": "file", "bytes": 1, "created_at": 0,
                                  "filename": "q", "purpose": "batch", "status": "processed"})  # fmt: skip
                    elif self.path.endswith("/batches"):
                        asked = json.loads(body)
                        batch = {
                            "id": f"batch_{len(server.created)}", "object": "batch", "created_at": 0,
                            "status": "in_progress", "looks": 0, **asked,
                        }  # fmt: skip
                        server.created.append(batch)
                        if server._lose:
                            server._lose -= 1
                            self.close_connection = True
                        else:
                            self.say(batch)
                    else:
                        server.alone.append(json.loads(body))
                        status, reply = server.answer(json.loads(body))
                        self.say(reply, status)

            def do_GET(self):
                path = self.path.partition("?")[0]
                with server._lock:
                    if path.endswith("/batches"):
                        self.say({"object": "list", "data": server.created, "has_more": False})
                    elif path.endswith("/content"):
                        cut, server._cut = server._cut > 0, max(server._cut - 1, 0)
                        self.say(server.files[path.split("/")[-2]], share=0.5 if cut else 1.0)
                    else:
                        self.say(server.looked_at(path.rpartition("/")[2]))

            def say(self, what, status=200, share=1.0):
                data = what if isinstance(what, bytes) else json.dumps(what).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[: int(len(data) * share)])

        super().__init__(Handler)

    def questions(self, number: int) -> list[dict]:
        """What was asked in a batch."""
        lines = self.files[self.created[number]["input_file_id"]].splitlines()
        return [json.loads(line) for line in lines]

    def answer(self, body: dict) -> tuple[int, dict]:
        said = self._reply(body)
        if isinstance(said, tuple):
            return said[0], {"error": {"message": said[1]}}
        return 200, completion(body["model"], said)

    def looked_at(self, name: str) -> dict:
        batch = self.created[int(name.rpartition("_")[2])]
        batch["looks"] += 1
        if batch["looks"] <= self.looks or "output_file_id" in batch:
            return batch
        batch["status"] = self.status
        if self.status == "failed":
            batch["errors"] = {"object": "list", "data": [{"message": "no room for batches today"}]}
            return batch
        questions = self.questions(int(name.rpartition("_")[2]))
        if self.status == "expired":
            questions = questions[: len(questions) // 2]
        lines: dict[str, list[str]] = {"output_file_id": [], "error_file_id": []}
        for asked in reversed(questions):  # in no order that anybody may rely on
            status, body = self.answer(asked["body"])
            where = "output_file_id" if status == 200 else "error_file_id"
            response = {"status_code": status, "request_id": "r", "body": body}
            lines[where].append(
                json.dumps({"custom_id": asked["custom_id"], "response": response, "error": None})
            )
        for where, of in lines.items():
            if of:
                batch[where] = f"{name}-{where}"
                self.files[batch[where]] = "\n".join(of).encode()
        batch.setdefault("output_file_id", None)
        return batch
