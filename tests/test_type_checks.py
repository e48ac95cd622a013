"""Types and shapes are checked while tests run, by what modules and classes define."""

from __future__ import annotations

import os

import jax.numpy as jnp
import jaxtyping
import pytest

from gru_jax.cells import GRU, gru
from tests.type_checks import check_outer_ones


@pytest.mark.skipif(os.environ.get("GRU_JAX_TEST_TYPES") == "unchecked", reason="types are not checked in this run")
def test_functions_and_methods_refuse_other_types():
    with pytest.raises(jaxtyping.TypeCheckError, match="gru"):
        gru({}, "a state", jnp.ones(2))
    with pytest.raises(jaxtyping.TypeCheckError, match="equations"):
        GRU().equations("a product", jnp.ones(2), {})


def test_functions_inside_of_others_are_left_as_they_are():
    def inner(): ...

    decorated = check_outer_ones(lambda **options: lambda thing: (thing, options))(typechecker=None)
    assert decorated(inner) is inner
    assert decorated(gru) == (gru, {"typechecker": None})
