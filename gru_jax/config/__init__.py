"""The config of a run: what it may hold, how long things last, and which of its numbers are traced."""

from gru_jax.config.comparison import (
    changed_data,
    changed_sources,
    differences,
    fingerprint,
    flat_differences,
    say_what_differs,
    unknown_sources,
    varying_keys,
)
from gru_jax.config.distillation import DistillationConfig
from gru_jax.config.durations import (
    Plan,
    plan,
)
from gru_jax.config.explanations import (
    KeyExplanation,
    OptionExplanation,
    explain_keys,
    explain_options,
    keys_below,
)
from gru_jax.config.files import (
    load_config,
    override,
    read_config_file,
    split_spec,
)
from gru_jax.config.flow import (
    FLOW_INSTRUMENTS,
    NOISE,
    FlowConfig,
)
from gru_jax.config.gradient import (
    GradientConfig,
)
from gru_jax.config.hyperparameters import (
    Hyperparameters,
    Values,
    initial_program,
    naming_traced_numbers,
    real_settings,
    traced_hyperparameters,
    training_program,
    with_task_values,
    with_values,
)
from gru_jax.config.loading import (
    load,
)
from gru_jax.config.model import (
    AUTO,
    ModelConfig,
)
from gru_jax.config.optimizers import (
    LEARNING_RATE,
    OPTIMIZERS,
    SCHEDULES,
    OptimizerBase,
    OptimizerConfig,
)
from gru_jax.config.regularization import (
    RegularizationConfig,
)
from gru_jax.config.schema import (
    GROWING_KEYS,
    NEUTRAL_KEYS,
    PROCESS_KEYS,
    REGISTRIES,
    SOURCES,
    WRITERS,
    Config,
)
from gru_jax.config.train import (
    TrainConfig,
)
from gru_jax.config.transfer import (
    TransferConfig,
)

__all__ = [
    "AUTO",
    "FLOW_INSTRUMENTS",
    "GROWING_KEYS",
    "LEARNING_RATE",
    "NEUTRAL_KEYS",
    "NOISE",
    "OPTIMIZERS",
    "PROCESS_KEYS",
    "REGISTRIES",
    "SCHEDULES",
    "SOURCES",
    "WRITERS",
    "Config",
    "DistillationConfig",
    "FlowConfig",
    "GradientConfig",
    "Hyperparameters",
    "KeyExplanation",
    "ModelConfig",
    "OptimizerBase",
    "OptimizerConfig",
    "OptionExplanation",
    "Plan",
    "RegularizationConfig",
    "TrainConfig",
    "TransferConfig",
    "Values",
    "changed_data",
    "changed_sources",
    "differences",
    "explain_keys",
    "explain_options",
    "fingerprint",
    "flat_differences",
    "initial_program",
    "keys_below",
    "load",
    "load_config",
    "naming_traced_numbers",
    "override",
    "plan",
    "read_config_file",
    "real_settings",
    "say_what_differs",
    "split_spec",
    "traced_hyperparameters",
    "training_program",
    "unknown_sources",
    "varying_keys",
    "with_task_values",
    "with_values",
]
