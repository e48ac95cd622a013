"""Kills that a test can place: a function is struck at one of its calls."""

from __future__ import annotations

import contextlib


class Killed(BaseException):
    """Stands for a kill: nothing in the product catches it."""


@contextlib.contextmanager
def struck(monkeypatch, owner, name, call, when="after"):
    """While this lasts, the given call of `owner.name` is killed before or after its work; yields its calls."""
    original, calls = getattr(owner, name), []

    def striking(*args, **kwargs):
        calls.append(name)
        if len(calls) == call and when == "before":
            raise Killed
        result = original(*args, **kwargs)
        if len(calls) == call:
            raise Killed
        return result

    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr(owner, name, striking)
        yield calls
