"""Looking inside a network: what its outputs hang on, what its states hold, and how alike two of them are."""

from gru_jax.inspect.attribution import (
    IntegratedGradients,
    integrated_gradients,
    occlusion,
    saliency,
    share_of_steps,
)
from gru_jax.inspect.probes import (
    LinearProbe,
    ProbeProfile,
    UnitScores,
    fit_probe,
    probe_over_time,
    probe_units,
    r_squared,
)
from gru_jax.inspect.similarity import dissimilarities, linear_cka, representational_similarity, similarity_matrix

__all__ = [
    "IntegratedGradients",
    "LinearProbe",
    "ProbeProfile",
    "UnitScores",
    "dissimilarities",
    "fit_probe",
    "integrated_gradients",
    "linear_cka",
    "occlusion",
    "probe_over_time",
    "probe_units",
    "r_squared",
    "representational_similarity",
    "saliency",
    "share_of_steps",
    "similarity_matrix",
]
