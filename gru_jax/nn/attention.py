"""What a decoder looks at its source through."""

from __future__ import annotations

import abc
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from gru_jax.cells import Carry

Attention = Literal["none", "luong", "bahdanau"]
"""What a decoder looks at its source through, beside the carry that it starts from."""
ATTENTIONS = get_args(Attention)


class SourceMemory(NamedTuple):
    """What a decoder knows of the sources.

    Attributes:
        carries: of every layer of the decoder before its first step.
        states: of the encoder's top layer, `[B, T, W]`; None without attention.
        keys: what states are compared by, `[B, T, H]`; None without attention.
        valid: False in the padding, `[B, T]`; None where there is none.
    """

    carries: tuple[Carry, ...]
    states: Float[Array, "B T W"] | None = None
    keys: Float[Array, "B T H"] | None = None
    valid: Bool[Array, "B T"] | None = None


class SourceAttention(nnx.Module, abc.ABC):
    """Attention after the decoder's states, as Luong et al. 2015, arXiv:1508.04025, have it.

    Of a state h and the states s of a source, `tanh(W [c; h])` with `c = sum_s a_s s` and `a` the softmax over the
    source of a score of h and s, which a subclass has. It is not fed back into the decoder, whose pass over a known
    target is therefore a plain unroll.

    Args:
        query_size: H, of a state of the decoder.
        memory_size: W, of a state of the source.
        param_dtype: type of the parameters.
        rngs: stream `params`.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> from gru_jax.nn.attention import KINDS, SourceMemory
        >>> attention, states = KINDS["luong"](3, 4, rngs=nnx.Rngs(0)), jnp.ones((2, 5, 4))
        >>> memory = SourceMemory((), states, attention.keys(states))
        >>> attention(jnp.ones((2, 6, 3)), memory).shape, attention.weights(jnp.ones((2, 6, 3)), memory).shape
        ((2, 6, 3), (2, 6, 5))
    """

    def __init__(
        self, query_size: int, memory_size: int, *, param_dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> None:
        self.score: nnx.Linear = nnx.Linear(memory_size, query_size, use_bias=False, param_dtype=param_dtype, rngs=rngs)
        both = memory_size + query_size
        self.combine: nnx.Linear = nnx.Linear(both, query_size, use_bias=False, param_dtype=param_dtype, rngs=rngs)

    def keys(self, states: Float[Array, "B T W"]) -> Float[Array, "B T H"]:
        """What states of a source are compared by, once for all states of a decoder."""
        return self.score(states)

    @abc.abstractmethod
    def scores(self, states: Float[Array, "B N H"], keys: Float[Array, "B T H"]) -> Float[Array, "B N T"]:
        """How well each state of a decoder goes with each step of its source."""

    def weights(self, states: Float[Array, "B N H"], memory: SourceMemory) -> Float[Array, "B N T"]:
        """How much each state of a decoder looks at each step of its source; they add up to 1."""
        assert memory.keys is not None
        scores = self.scores(states, memory.keys)
        return nnx.softmax(scores if memory.valid is None else jnp.where(memory.valid[:, None], scores, -1e30), axis=-1)

    def __call__(self, states: Float[Array, "B N H"], memory: SourceMemory) -> Float[Array, "B N H"]:
        """What is read of states, with what they looked at."""
        assert memory.states is not None
        context = jnp.einsum("bnt,btw->bnw", self.weights(states, memory), memory.states)
        return jnp.tanh(self.combine(jnp.concatenate([context, states], axis=-1)))


class LuongAttention(SourceAttention):
    """The general score, `h^T V s`: Luong et al. 2015, arXiv:1508.04025.

    Examples:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from gru_jax.nn.attention import LuongAttention
        >>> LuongAttention(3, 4, rngs=nnx.Rngs(0)).scores(jnp.ones((2, 6, 3)), jnp.ones((2, 5, 3))).shape
        (2, 6, 5)
    """

    def scores(self, states: Float[Array, "B N H"], keys: Float[Array, "B T H"]) -> Float[Array, "B N T"]:
        return jnp.einsum("bnh,bth->bnt", states, keys)


class BahdanauAttention(SourceAttention):
    """The additive score, `v^T tanh(W h + V s + b)`: Bahdanau et al. 2015, arXiv:1409.0473.

    The paper's decoder reads the context in its next step; this one's head does, see `SourceAttention`. What tanh is
    taken of, `[B, N, T, H]`, is there for one step of the decoder at a time, and computed again in the backward pass:
    of 64 sequences of 30 tokens and 256 units, forwards and back, that takes 8 MB rather than 177, and a fourth of the
    time.

    Examples:
        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> from gru_jax.nn.attention import BahdanauAttention
        >>> BahdanauAttention(3, 4, rngs=nnx.Rngs(0)).scores(jnp.ones((2, 6, 3)), jnp.ones((2, 5, 3))).shape
        (2, 6, 5)
    """

    def __init__(
        self, query_size: int, memory_size: int, *, param_dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ) -> None:
        super().__init__(query_size, memory_size, param_dtype=param_dtype, rngs=rngs)
        self.query: nnx.Linear = nnx.Linear(query_size, query_size, param_dtype=param_dtype, rngs=rngs)
        self.energy: nnx.Linear = nnx.Linear(query_size, 1, use_bias=False, param_dtype=param_dtype, rngs=rngs)

    def scores(self, states: Float[Array, "B N H"], keys: Float[Array, "B T H"]) -> Float[Array, "B N T"]:
        energy = self.energy.kernel[...][:, 0]

        @jax.checkpoint
        def of_step(query: Float[Array, "B H"]) -> Float[Array, "B T"]:
            return jnp.tanh(query[:, None] + keys) @ energy

        by_step = jax.lax.map(of_step, jnp.moveaxis(self.query(states), 1, 0))
        return jnp.moveaxis(by_step, 0, 1)


KINDS: dict[str, type[SourceAttention]] = {"luong": LuongAttention, "bahdanau": BahdanauAttention}
"""By the name that configs use."""
