"""What all libraries' weights have in common where they are refused."""

from __future__ import annotations

import inspect

import pytest

from gru_jax.errors import UsageError


def assert_refused(weights, message, *args, read, **kwargs):
    """Reading these weights, as users do it (only the tests check types), ends with one line that matches a message."""
    with pytest.raises(UsageError, match=message) as error:
        inspect.unwrap(read)(weights, *args, **kwargs)
    assert "\n" not in str(error.value)
