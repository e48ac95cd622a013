"""The file that holds an exported network: a zip, whose arrays are `.npy` members, so that `numpy.load` opens it.

description.json     what the network is, reads and says
sequence.jax         the program of whole sequences, as `jax.export` serialises it
step.jax             the program of one step, where there can be one
vocabulary.json      of a network that reads texts, its tokens
weights/NAME.npy     the arrays that both take
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

FORMAT, VERSION = "gru_jax export", 1
DESCRIPTION = "description.json"
VOCABULARY = "vocabulary.json"
WEIGHTS = "weights"
JAX_PROGRAM, ONNX_PROGRAM = ".jax", ".onnx"
"""Endings of the names of programs."""


def archive_bytes(
    description: Mapping[str, Any], members: Mapping[str, bytes], weights: Mapping[str, np.ndarray]
) -> bytes:
    r"""The content of the file; of equal parts equal bytes.

    Examples:
        >>> import io
        >>> import numpy as np
        >>> from gru_jax.deploy.archive import archive_bytes
        >>> archive = np.load(io.BytesIO(archive_bytes({"a": 1}, {}, {"head/bias": np.ones(2)})))
        >>> archive.files, archive["description.json"]
        (['description.json', 'weights/head/bias'], b'{\n "a": 1\n}')
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:

        def add(name: str, content: bytes) -> None:
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)  # without the time of day

        add(DESCRIPTION, json.dumps(description, indent=1, allow_nan=False).encode())
        for name, member in members.items():
            add(name, member)
        for name, array in weights.items():
            content = io.BytesIO()
            np.save(content, array, allow_pickle=False)
            add(f"{WEIGHTS}/{name}.npy", content.getvalue())
    return stream.getvalue()
