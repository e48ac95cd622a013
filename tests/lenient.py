"""Where tests are lenient: with JAX as users have it, for the code of others, and without files that are not here."""

from __future__ import annotations

import contextlib
import re
import urllib.request

import jax
import pytest

from gru_jax.errors import UsageError


@contextlib.contextmanager
def jax_as_users_have_it():
    """Types and ranks are promoted while this lasts."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@contextlib.contextmanager
def skipped_without_files():
    """A test that needs files of data is skipped where they are not; none is downloaded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(urllib.request, "urlopen", _refuse)
        try:
            yield
        except UsageError as error:
            if re.search("no such file|: missing", str(error)):
                pytest.skip(str(error))
            raise


def _refuse(*_, **__):
    raise OSError("nothing is downloaded in tests")
