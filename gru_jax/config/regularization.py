"""The section `regularization` of a config: what keeps a network from fitting its training examples alone.

Dropout of inputs, between layers and of outputs is in the section `model`; L1, L2, decoupled weight decay and noise on
gradients are in the section `optimizer`.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from gru_jax.settings import setting

LARGEST_DECAY = 0.999999


@dataclasses.dataclass(frozen=True)
class RegularizationConfig:
    """What keeps a network from fitting its training examples alone, in training; metrics are those without it.

    Attributes:
        label_smoothing: share of the loss that is the mean over all classes of what it were with each as the target;
            Szegedy et al. 2016, arXiv:1512.00567. For tasks whose targets are classes.
        activation: factor of the mean square of the last layer's states, over units and the steps that count (AR);
            Merity et al. 2017, arXiv:1708.02182.
        temporal_activation: factor of the mean square of their change from each step to the next (TAR), as there.
        input_noise: standard deviation of Gaussian noise on every number of the inputs; Bishop 1995, Neural Computation
            7(1). For tasks whose inputs are numbers; of tokens, `model.input_dropout` drops numbers of the embedding.
        weight_noise: standard deviation of Gaussian noise on every kernel, drawn once a step; Graves 2011, NIPS.
        dropconnect: probability of dropping a weight of a recurrent kernel, drawn once a step for all sequences and
            times; Merity et al. 2017, arXiv:1708.02182.
        recurrent_dropout: probability of dropping a unit of the state where recurrent products read it, the same units
            for all gates; the state itself goes on whole.
        recurrent_dropout_per: whether what is dropped is drawn once for each sequence, Gal and Ghahramani 2016,
            arXiv:1512.05287, or anew at each step.
        orthogonality: factor of the sum over recurrent kernels of ||U^T U - I||^2; Vorontsov et al. 2017,
            arXiv:1702.00071.
        max_norm: greatest norm of a column of a kernel, a unit's incoming weights, after each update; Srivastava et al.
            2014, JMLR 15. The embedding is left alone. None for any.
        sparsity: share of the weights of each kernel that is zero, those of least magnitude; Zhu and Gupta 2017,
            arXiv:1710.01878. The best network is one of those that are that sparse. The embedding is left alone.
        sparsity_until: update up to which that share rises from nothing, fast at first; with 1 it is there at once.
            After it the same weights stay zero.
        ema: decay of an exponential moving average of the parameters over steps, whose network is the one that is
            evaluated, chosen and kept; Polyak and Juditsky 1992, SIAM J. Control Optim. 30(4). None for the network
            of the last step itself.
        swa_from: step from which on an equal average of the parameters is that network, before it the network of the
            last step itself; Izmailov et al. 2018, arXiv:1803.05407. None for no such average.

    Examples:
        >>> from gru_jax.config import load
        >>> config = load({"train": {"steps": 10}, "regularization": {"dropconnect": 0.5, "ema": 0.99}})
        >>> config.regularization.dropconnect, config.regularization.averages
        (0.5, True)
    """

    traced_counts: ClassVar[tuple[str, ...]] = ("swa_from", "sparsity_until")
    """Whole numbers that are traced as the real ones are."""

    label_smoothing: float = setting(0.0, low=0.0, high=1.0)
    activation: float = setting(0.0, low=0.0)
    temporal_activation: float = setting(0.0, low=0.0)
    input_noise: float = setting(0.0, low=0.0)
    weight_noise: float = setting(0.0, low=0.0)
    dropconnect: float = setting(0.0, low=0.0, high=0.99)
    recurrent_dropout: float = setting(0.0, low=0.0, high=0.99)
    recurrent_dropout_per: Literal["sequence", "step"] = "sequence"
    orthogonality: float = setting(0.0, low=0.0)
    max_norm: float | None = setting(None, low=1e-30)
    sparsity: float = setting(0.0, low=0.0, high=0.999)
    sparsity_until: int = setting(1, low=1, high=10**9)
    ema: float | None = setting(None, low=0.0, high=LARGEST_DECAY)
    swa_from: int | None = setting(None, low=1, high=10**9)

    @property
    def sparse_from(self) -> int:
        """Updates after which kernels are as sparse as they are to be."""
        return self.sparsity_until if self.sparsity else 0

    @property
    def averages(self) -> bool:
        """Whether the network that is evaluated is an average over steps."""
        return self.ema is not None or self.swa_from is not None

    @property
    def draws_of_each(self) -> bool:
        """Whether anything is drawn for each sequence by itself."""
        return self.input_noise > 0 or self.recurrent_dropout > 0

    @property
    def perturbs_weights(self) -> bool:
        """Whether the kernels that a step sees are drawn at random about their values."""
        return self.weight_noise > 0 or self.dropconnect > 0
