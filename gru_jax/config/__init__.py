"""The config of a run: what it may hold, how long things last, and which of its numbers are traced."""

from gru_jax.config.comparison import (
    differences,
    fingerprint,
)
from gru_jax.config.durations import (
    Plan,
    plan,
)
from gru_jax.config.files import (
    load_config,
    override,
    read_config_file,
)
from gru_jax.config.hyperparameters import (
    Hyperparameters,
    initial_program,
    real_settings,
    traced_hyperparameters,
    training_program,
    with_values,
)
from gru_jax.config.loading import (
    load,
)
from gru_jax.config.schema import (
    AUTO,
    FLOW_INSTRUMENTS,
    NEUTRAL_KEYS,
    NOISE,
    OPTIMIZERS,
    PROCESS_KEYS,
    REGISTRIES,
    SCHEDULES,
    WRITERS,
    Config,
    FlowConfig,
    GradientConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)

__all__ = [
    "AUTO",
    "FLOW_INSTRUMENTS",
    "NEUTRAL_KEYS",
    "NOISE",
    "OPTIMIZERS",
    "PROCESS_KEYS",
    "REGISTRIES",
    "SCHEDULES",
    "WRITERS",
    "Config",
    "FlowConfig",
    "GradientConfig",
    "Hyperparameters",
    "ModelConfig",
    "OptimizerConfig",
    "Plan",
    "TrainConfig",
    "differences",
    "fingerprint",
    "initial_program",
    "load",
    "load_config",
    "override",
    "plan",
    "read_config_file",
    "real_settings",
    "traced_hyperparameters",
    "training_program",
    "with_values",
]
