"""Handwritten digits as sequences."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gru_jax.data.files import DataFile, locate
from gru_jax.data.idx import read_idx
from gru_jax.tasks.base import Batch, FromFiles, classification

PixelOrder = Literal["rows", "pixels", "permuted"]
SIDE = 28
PIXELS = SIDE * SIDE
CLASSES = 10
VALID = 5_000  # the last of the 60,000 training images
PARTS = {"train": slice(None, -VALID), "valid": slice(-VALID, None), "test": slice(None)}
SIZES = {"train": 60_000 - VALID, "valid": VALID, "test": 10_000}
PERMUTATION_SEED = 92916
"""Seed of `numpy.random.RandomState`, whose streams are frozen, for the one permutation of permuted MNIST."""

_URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"
_SHA256 = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
FILES = {name: DataFile(f"mnist/{name}", sha256, _URL + name) for name, sha256 in _SHA256.items()}


@dataclasses.dataclass(frozen=True)
class MNIST(FromFiles):
    """Classify a digit that is read as a sequence, pixel values scaled to [0, 1]. LeCun et al. 1998.

    Le et al. 2015, arXiv:1504.00941, introduced the reading by pixels and the permuted one. Chance is 1/10.

    Attributes:
        layout: how the image is read: as `"rows"`, 28 steps of 28 values; `"pixels"`, 784 steps of one; or
            `"permuted"`, these in one fixed random order.

    Examples:
        >>> from gru_jax.tasks import MNIST
        >>> task = MNIST(layout="pixels")  # files are read, or downloaded, where data are asked for
        >>> task.time, task.input_size, task.size("train")
        (784, 1, 55000)
    """

    goal: ClassVar[tuple[str, str]] = ("accuracy", "max")

    layout: PixelOrder = "rows"

    @property
    def input_size(self) -> int:
        return SIDE if self.layout == "rows" else 1

    @property
    def output_size(self) -> int:
        return CLASSES

    @property
    def time(self) -> int:
        return SIDE if self.layout == "rows" else PIXELS

    @property
    def baseline(self) -> Mapping[str, float]:
        return {"accuracy": 1.0 / CLASSES, "loss": math.log(CLASSES)}

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple("0123456789")

    def count(self, split: str) -> int:
        return SIZES[split]

    def division_labels(self) -> Mapping[str, np.ndarray | None]:
        return {"classes": self._labels("train")} if self.divide_by == "stratified" else {}

    def _labels(self, split: str) -> np.ndarray:
        prefix = "t10k" if split == "test" else "train"
        return read_idx(locate(FILES[f"{prefix}-labels-idx1-ubyte.gz"], self.data_dir)).astype(np.int32)[PARTS[split]]

    def read(self, split: str) -> dict[str, np.ndarray]:
        prefix = "t10k" if split == "test" else "train"
        images = read_idx(locate(FILES[f"{prefix}-images-idx3-ubyte.gz"], self.data_dir)).reshape(-1, PIXELS)
        images = images[PARTS[split]]
        if self.layout == "permuted":
            images = images[:, permutation()]
        return {"images": np.ascontiguousarray(images), "labels": self._labels(split)}

    def examples(self, data: Mapping[str, Array], index: Int[Array, " B"]) -> Batch:
        xs = data["images"][index].astype(jnp.float32) * (1.0 / 255.0)
        return Batch(xs.reshape(-1, self.time, self.input_size), data["labels"][index])

    def metrics(self, outputs: Array, batch: Batch) -> dict[str, Float[Array, " B"]]:
        return classification(outputs, batch.targets)


def permutation() -> np.ndarray:
    """The order in which permuted MNIST reads the 784 pixels."""
    return np.random.RandomState(PERMUTATION_SEED).permutation(PIXELS)
