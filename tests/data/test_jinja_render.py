"""Hostile chat templates reach nothing and burn nothing, and their process can be lost."""

from __future__ import annotations

import os
import signal
import time

import pytest

from mingshi.data.jinja_render import RENDERER, Draft, Refusal

PAYLOADS = (
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ self.__init__.__globals__ }}",
    "{{ lipsum.__globals__['os'].system('id') }}",
    "{{ raise_exception.__globals__ }}",
    "{{ messages.append({}) }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{{ (messages|attr('__class__')).__base__.x() }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(raise_exception) }}",
)
BOMBS = (
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{{ 'a' * 10**10 }}",
    "{% set ns = namespace(x='a') %}{% for a in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
    "{% for a in range(99999) %}{{ 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' }}{% endfor %}",
    "{{ 'a'.center(10**10) }}",
    "{% macro a(n) %}{{ a(n) }}{% endmacro %}{{ a(1) }}",
)


def render_once(source: str) -> str | Refusal:
    return RENDERER.render(
        source, [Draft(messages=[{"role": "user", "content": "a"}], tools=None, cuts=[(1, False)])], {}
    )[0]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_templates_reach_nothing(payload: str) -> None:
    answer = render_once(payload)
    assert isinstance(answer, Refusal) or not answer  # an attribute out of bounds is undefined, and writes nothing


@pytest.mark.parametrize("bomb", BOMBS)
def test_templates_burn_neither_time_nor_memory(bomb: str) -> None:
    start = time.process_time()
    assert isinstance(render_once(bomb), Refusal)
    assert time.process_time() - start < 1  # ours; the process that renders has two seconds of its own
    assert render_once("{{ messages[0].content }}") == "a"


def test_a_killed_renderer_is_replaced() -> None:
    assert render_once("a") == "a"
    assert RENDERER.process is not None
    os.kill(RENDERER.process.pid, signal.SIGKILL)
    RENDERER.process.wait()
    assert render_once("b") == "b"


def test_a_hanging_renderer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    assert render_once("a") == "a"
    assert RENDERER.process is not None
    os.kill(RENDERER.process.pid, signal.SIGSTOP)
    monkeypatch.setattr("mingshi.data.jinja_render.PATIENCE", 0.1)
    assert isinstance(render_once("b"), Refusal)
    monkeypatch.undo()
    assert render_once("c") == "c"
