"""Judges for tests: a rule that reads the very prompts, and a server that behaves as it is told."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson

from mingshi.evals.judge_checks import PLANTED
from mingshi.evals.judge_prompts import GRADES, Question, Reply

SHOWN = re.compile(r"<(text-[0-9a-f]{8})>\n(.*?)\n</\1>", re.DOTALL)
Rule = Callable[[str, str, str], str]  # request, what is shown first, what is shown second: what is said


def texts(question: Question) -> list[str]:
    """Request and answers as the judge is shown them."""
    return [found.group(2) for found in SHOWN.finditer(question.prompt)]


def knows(first: str, second: str) -> str | None:
    """The right verdict on a planted pair."""
    for _, good, bad in PLANTED:
        if {first, second} == {good, bad}:
            return "A" if first == good else "B"
    return None


def longer_wins(request: str, first: str, second: str) -> str:
    return "tie" if len(first) == len(second) else "A" if len(first) > len(second) else "B"


@dataclass
class Planted:
    """A judge that follows a rule, and counts what it is asked; with `text` the rule says the whole reply."""

    rule: Rule
    name: str = "planted"
    text: bool = False
    asked: list[Question] = field(default_factory=list)
    style: Any = "json"

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"backend": "planted", "model": self.name}

    def replies(self, questions: Sequence[Question]) -> Iterator[tuple[int, Reply]]:
        for place, question in reversed(list(enumerate(questions))):
            self.asked.append(question)
            request, *shown = texts(question)
            said = self.rule(request, *(shown if len(shown) == 2 else [shown[0], ""]))
            name = "grade" if question.words == GRADES else "verdict"
            value = int(said) if said.isdigit() else said
            text = said if self.text else orjson.dumps({name: value}).decode()
            yield place, Reply(text=text, tokens_in=10, tokens_out=2)


def completion(text: str, **usage: int) -> bytes:
    told: dict[str, Any] = {"choices": [{"message": {"role": "assistant", "content": text}}]}
    return orjson.dumps(told | ({"usage": usage} if usage else {}))


@dataclass
class Server:
    """What was asked of a local server, and how it behaves: `(handler, body, number of the request)`."""

    behave: Callable[[BaseHTTPRequestHandler, Any, int], None]
    address: str = ""
    requests: list[tuple[Mapping[str, str], Any]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    release: threading.Event = field(default_factory=threading.Event)  # set when the test is over: nobody hangs on


def send(handler: BaseHTTPRequestHandler, body: bytes, code: int = 200, **headers: str) -> None:
    handler.send_response(code)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


@contextmanager
def serving(behave: Callable[[BaseHTTPRequestHandler, Any, int], None]) -> Iterator[Server]:
    server = Server(behave)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = orjson.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with server.lock:
                server.requests.append((dict(self.headers), body))
                number = len(server.requests)
            with suppress(BrokenPipeError, ConnectionResetError):
                server.behave(self, body, number)

        def log_message(self, *words: Any) -> None:
            """Says nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    server.address = f"http://127.0.0.1:{http.server_address[1]}/v1"
    try:
        yield server
    finally:
        server.release.set()
        http.shutdown()
        http.server_close()
        thread.join()
