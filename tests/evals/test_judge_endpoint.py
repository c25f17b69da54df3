"""A judge over HTTP, before a server that fails, lies, drips, hangs and points elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from judges import Server, completion, send, serving

from mingshi.errors import ModelError, RecipeError
from mingshi.evals import judge_endpoint
from mingshi.evals.judge import Bench
from mingshi.evals.judge_cache import JudgeCache
from mingshi.evals.judge_endpoint import EndpointJudge, checked_address, key_for
from mingshi.evals.judge_prompts import Question, Reply, pair_question

KEY = "planted-key-0123456789"
VERDICT = completion('{"verdict": "A"}', prompt_tokens=7, completion_tokens=3)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


def questions(count: int) -> list[Question]:
    return [pair_question(f"Question {number}?", "one", "two", style="json") for number in range(count)]


def asked(server: Server, count: int = 1, **settings: Any) -> list[Reply]:
    """Replies in the order of the questions."""
    usual = EndpointJudge(address=checked_address(server.address), model="m", timeout=5.0, attempts=3, pause=0.001)
    found = dict(replace(usual, **settings).replies(questions(count)))
    return [found[place] for place in range(count)]


def test_a_question_is_sent_as_chat_completions_want_it_and_the_tokens_are_counted() -> None:
    with serving(lambda handler, body, number: send(handler, VERDICT)) as server:
        (reply,) = asked(server, key=KEY)
    assert reply == Reply(text='{"verdict": "A"}', tokens_in=7, tokens_out=3)
    ((headers, body),) = server.requests
    assert headers["Authorization"] == f"Bearer {KEY}" and headers["Content-Type"] == "application/json"
    assert body["model"] == "m" and body["temperature"] == 0.0 and body["max_tokens"] == 512
    assert body["messages"] == [{"role": "user", "content": questions(1)[0].prompt}]


def test_without_a_key_none_is_sent() -> None:
    with serving(lambda handler, body, number: send(handler, completion("A"))) as server:
        (reply,) = asked(server)
    assert "Authorization" not in server.requests[0][0] and reply.tokens_in is None


@pytest.mark.parametrize("code", [408, 429, 500, 503])
def test_what_may_pass_is_asked_again(code: int) -> None:
    def behave(handler: BaseHTTPRequestHandler, body: Any, number: int) -> None:
        send(handler, b"busy", code) if number < 3 else send(handler, VERDICT)

    with serving(behave) as server:
        assert asked(server)[0].text == '{"verdict": "A"}' and len(server.requests) == 3


def test_a_server_may_say_how_long_to_wait_and_no_pause_is_endless() -> None:
    judge = EndpointJudge(address="http://127.0.0.1/", model="m", pause=1.0)
    assert [0.5 * 2**n <= judge._pause(n + 1, None) <= 2**n for n in range(4)] == [True] * 4
    assert judge._pause(1, 7.0) == 7.0 and judge._pause(1, 1e6) == judge_endpoint.LONGEST_PAUSE
    assert [judge_endpoint._seconds(told) for told in ("3", "0.5", "soon", "-1", None)] == [3.0, 0.5, None, None, None]


def test_a_server_that_never_answers_the_first_question_is_an_error() -> None:
    with (
        serving(lambda handler, body, number: send(handler, b"", 500)) as server,
        pytest.raises(ModelError, match=r"does not answer \(http_500\)"),
    ):
        asked(server, 5)
    assert len(server.requests) == 3


def test_a_failure_amid_answers_is_a_failure_of_that_question_alone() -> None:
    def behave(handler: BaseHTTPRequestHandler, body: Any, number: int) -> None:
        second = "Question 1?" in body["messages"][0]["content"]
        send(handler, b"no", 503) if second else send(handler, VERDICT)

    with serving(behave) as server:
        found = asked(server, 4)
    assert [reply.problem for reply in found] == ["", "http_503", "", ""]


def test_a_server_that_stops_answering_is_not_asked_for_ever() -> None:
    def behave(handler: BaseHTTPRequestHandler, body: Any, number: int) -> None:
        send(handler, VERDICT) if number == 1 else send(handler, b"", 502)

    with serving(behave) as server, pytest.raises(ModelError, match="has stopped answering"):
        asked(server, 100, attempts=1, parallel=2)
    assert len(server.requests) < 20


def hang(handler: BaseHTTPRequestHandler, server: Server) -> None:
    server.release.wait(10)


def drip(handler: BaseHTTPRequestHandler, server: Server) -> None:
    """A byte now and then, so that no single read takes long."""
    handler.send_response(200)
    handler.end_headers()
    while not server.release.wait(0.05):
        handler.wfile.write(b" ")
        handler.wfile.flush()


@pytest.mark.parametrize("way", [hang, drip])
def test_a_server_that_hangs_costs_no_more_than_the_timeout(way: Any) -> None:
    def behave(handler: BaseHTTPRequestHandler, body: Any, number: int) -> None:
        send(handler, VERDICT) if number == 1 else way(handler, server)

    began = time.monotonic()
    with serving(behave) as server:
        found = asked(server, 2, timeout=0.3, attempts=1)
    assert found[1].problem == "timeout" and time.monotonic() - began < 5


def cut(handler: BaseHTTPRequestHandler) -> None:
    """Promises more than comes."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"{")


RUBBISH: Sequence[tuple[Any, str]] = (
    (lambda handler: send(handler, b"<html>welcome</html>"), "bad_reply"),
    (lambda handler: send(handler, b""), "bad_reply"),
    (lambda handler: send(handler, b"\xff\xfe\x00"), "bad_reply"),
    (lambda handler: send(handler, b"[1, 2]"), "bad_reply"),
    (lambda handler: send(handler, b'{"choices": []}'), "bad_reply"),
    (lambda handler: send(handler, b'{"choices": [{"message": {"content": null}}]}'), "bad_reply"),
    (lambda handler: send(handler, b"[" * 100_000), "bad_reply"),
    (lambda handler: send(handler, b"{}" + b" " * 3000), "too_large"),
    (lambda handler: send(handler, b"too long", 400), "http_400"),
    (lambda handler: handler.wfile.write(b"this is no HTTP\r\n\r\n"), "unreachable"),
    (cut, "unreachable"),
)


@pytest.mark.parametrize(("say", "problem"), RUBBISH)
def test_rubbish_is_a_failure_with_a_name(say: Any, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_endpoint, "LARGEST_REPLY", 2000 if problem == "too_large" else 200_000)

    def behave(handler: BaseHTTPRequestHandler, body: Any, number: int) -> None:
        send(handler, VERDICT) if number == 1 else say(handler)

    with serving(behave) as server:
        found = asked(server, 2, attempts=1)
    assert found[1].problem == problem and not found[1].text


@pytest.mark.parametrize("usage", [{"prompt_tokens": -1}, {"prompt_tokens": "9"}, {"prompt_tokens": True}, [], None])
def test_tokens_that_cannot_be_are_not_counted(usage: Any) -> None:
    import orjson

    told = orjson.dumps({"choices": [{"message": {"content": "A"}}], "usage": usage})
    with serving(lambda handler, body, number: send(handler, told)) as server:
        (reply,) = asked(server)
    assert reply.tokens_in is None and reply.tokens_out is None


@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_a_redirect_is_refused_and_nobody_else_gets_the_key(code: int) -> None:
    with (
        serving(lambda handler, body, number: send(handler, VERDICT)) as other,
        serving(lambda handler, body, number: send(handler, b"", code, Location=other.address)) as server,
        pytest.raises(ModelError, match="redirects"),
    ):
        asked(server, key=KEY)
    assert len(server.requests) == 1 and other.requests == []


@pytest.mark.parametrize(
    ("code", "says"), [(401, "refuses the key"), (403, "refuses the key"), (404, "no such address")]
)
def test_a_refusal_ends_it_at_once_and_does_not_show_the_key(code: int, says: str) -> None:
    with (
        serving(lambda handler, body, number: send(handler, KEY.encode(), code)) as server,
        pytest.raises(ModelError, match=says) as refused,
    ):
        asked(server, 20, key=KEY)
    assert len(server.requests) == 1 and KEY not in str(refused.value)


def test_no_more_questions_are_on_their_way_than_allowed() -> None:
    lock, busy, seen = threading.Lock(), [0], []

    def behave(handler: BaseHTTPRequestHandler, body: Any, number: int) -> None:
        with lock:
            busy[0] += 1
            seen.append(busy[0])
        time.sleep(0.02)
        with lock:
            busy[0] -= 1  # before the answer: whoever has it may ask the next
        send(handler, VERDICT)

    with serving(behave) as server:
        found = asked(server, 24, parallel=3)
    assert all(reply.text for reply in found) and 1 < max(seen) <= 3


def test_nobody_there_is_an_error() -> None:
    with serving(lambda handler, body, number: send(handler, VERDICT)) as server:
        pass
    with pytest.raises(ModelError, match=r"does not answer \(unreachable\)"):
        asked(server)


def files(folder: Path) -> Iterator[bytes]:
    return (path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_key_is_in_no_file_even_where_the_server_sends_it_back(tmp_path: Path) -> None:
    def behave(handler: BaseHTTPRequestHandler, body: Any, number: int) -> None:
        said = handler.headers["Authorization"].removeprefix("Bearer ")
        send(handler, completion(f'{{"reason": "your key is {said}", "verdict": "A"}}'))

    with serving(behave) as server:
        judge = EndpointJudge(address=checked_address(server.address), model="m", key=KEY)
        verdicts = Bench(judge, cache=JudgeCache(judge.identity, tmp_path)).ask(questions(3))
    kept = list(files(tmp_path))
    assert [verdict.word for verdict in verdicts] == ["A"] * 3 and len(kept) == 1
    assert KEY.encode() not in kept[0] and b"[redacted]" in kept[0]
    assert KEY not in repr(judge) and KEY not in str(judge.identity) and KEY not in str(verdicts)


@pytest.mark.parametrize(
    ("address", "whole"),
    [
        ("https://host/v1", "https://host/v1/chat/completions"),
        ("https://host:8000/v1/", "https://host:8000/v1/chat/completions"),
        ("http://localhost:11434/v1/chat/completions", "http://localhost:11434/v1/chat/completions"),
    ],
)
def test_an_address_may_be_the_base_or_the_whole(address: str, whole: str) -> None:
    assert checked_address(address) == whole


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/passwd",
        "ftp://host/v1",
        "host/v1",
        "https://",
        "https://user:hunter2@host/v1",
        "https://host/v1?key=hunter2",
        "https://host/v1#hunter2",
        "https://host:port/v1",
        "https://host/v1\r\nX: hunter2",
        "https://[::1/v1",
    ],
)
def test_an_address_that_is_anything_else_is_refused_and_not_shown(address: str) -> None:
    with pytest.raises(RecipeError) as refused:
        checked_address(address)
    assert "hunter2" not in str(refused.value)


def test_a_key_comes_from_a_variable_that_is_set() -> None:
    here, there = "http://127.0.0.1:1/v1", "https://host/v1"
    assert key_for(there, None, {}) == "" and key_for(there, "K", {"K": f" {KEY}\n"}) == KEY == key_for(
        here, "K", {"K": KEY}
    )
    for variable, held, says in (
        ("K", {}, "is not set"),
        ("K", {"K": "two words"}, "cannot be a key"),
        ("K", {"K": "schlüssel"}, "cannot be a key"),
        (f"sk-{KEY}", {}, "not the name of an environment variable"),
    ):
        with pytest.raises(RecipeError, match=says) as refused:
            key_for(there, variable, held)
        assert KEY not in str(refused.value)
    with pytest.raises(RecipeError, match="unencrypted"):
        key_for("http://example.org/v1", "K", {"K": KEY})
