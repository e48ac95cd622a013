"""A trained network in NumPy alone: copy this one file beside the archive that `experiments.export` wrote.

network = NumpyNetwork("model.zip")
carry, outputs = network.step(network.start(1), x)                      # x [B, D], outputs [B, O]
carry, outputs = network.sequence(network.start(len(xs)), xs, lengths)  # xs [B, T, D], lengths [B] or None
network.read(outputs)                                                   # classes, or numbers in their units

Where inputs are tokens, x is [B] and xs is [B, T], whole numbers; `text_codec.py` makes them of texts.
"""

import json
from typing import Any

import numpy as np

Carry = dict[str, np.ndarray]


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * x))


def _normalise(v: np.ndarray) -> np.ndarray:
    v = v - v.mean(axis=-1, keepdims=True)
    return v / np.sqrt((v * v).mean(axis=-1, keepdims=True) + 1e-5)


def _softmax(scores: np.ndarray) -> np.ndarray:
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


def _gru(settings: dict, dense: Any, u: Carry, h: np.ndarray) -> tuple[np.ndarray, ...]:
    r, z = (_sigmoid(u[gate] + dense(gate, h)) for gate in "rz")
    recurrent = r * dense("n", h) if settings.get("reset", "after") == "after" else dense("n", r * h)
    n = _ACTIVATIONS[settings.get("activation", "tanh")](u["n"] + recurrent)
    if "s" in u:  # a refine gate
        s = _sigmoid(u["s"] + dense("s", h))
        z = s * (1 - (1 - z) ** 2) + (1 - s) * z**2
    kept = z if settings.get("update", "keep") == "keep" else 1 - z
    written = _sigmoid(u["o"] + dense("o", h)) if "o" in u else 1 - kept
    return (kept * h + written * n,)


def _lstm(_: dict, dense: Any, u: Carry, h: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, ...]:
    i, f, o = (_sigmoid(u[gate] + dense(gate, h)) for gate in "ifo")
    c = f * c + i * np.tanh(u["n"] + dense("n", h))
    return o * np.tanh(c), c


def _mingru(settings: dict, _: Any, u: Carry, h: np.ndarray) -> tuple[np.ndarray, ...]:
    z = _sigmoid(u["z"])
    return ((1 - z) * h + z * _ACTIVATIONS[settings["activation"]](u["n"]),)


def _elman(settings: dict, dense: Any, u: Carry, h: np.ndarray) -> tuple[np.ndarray, ...]:
    return (_ACTIVATIONS[settings["activation"]](u["n"] + dense("n", h)),)


_CELLS = {"GRU": _gru, "RefineGRU": _gru, "LayerNormGRU": _gru, "LSTM": _lstm, "MinGRU": _mingru, "Elman": _elman}
_ACTIVATIONS = {
    "tanh": np.tanh, "relu": lambda x: np.maximum(x, 0), "identity": lambda x: x,
    "positive": lambda x: np.where(x >= 0, x + 0.5, _sigmoid(x)),
}  # fmt: skip


_READOUTS = ("last", "mean", "max", "attention", "every")


class NumpyNetwork:
    """The network of an archive."""

    def __init__(self, path: Any) -> None:
        with np.load(path) as archive:
            self.description = json.loads(archive["description.json"])
            stored = {name[8:]: archive[name] for name in archive.files if name.startswith("weights/")}
        self.layers = self.description["model"]["layers"]
        for cell in (cell for layer in self.layers for cell in layer):
            if not cell["is_of_library"] or cell["cell"] not in _CELLS:
                raise ValueError(f"{path}: has the cell {cell['cell']}; this file has {', '.join(_CELLS)}")
        if not self.description["inputs"].get("are_of_library", True):
            raise ValueError(f"{path}: its inputs are made ready by a task of one's own, which this file does not know")
        self.weights = {name: _whole(name, stored) for name in stored if not name.endswith(".scale")}
        readout, known = self.description["model"]["readout"], ("stack/", "head/", "embed/", "attention")
        if readout not in _READOUTS or not all(name.startswith(known) for name in self.weights):
            raise ValueError(f"{path}: has the readout {readout} and weights {', '.join(self.weights)}; not known here")

    def start(self, batch: int) -> Carry:
        """The carry of so many sequences before their first step."""
        return {name: np.zeros((batch, *shape), np.float32) for name, shape in self.description["carry"].items()}

    def step(self, carry: Carry, x: np.ndarray) -> tuple[Carry, np.ndarray]:
        """One step of every sequence: the next carry, and what the network says now, `[B, O]`."""
        if self.description["why_no_step"]:
            raise ValueError(f"no step: {self.description['why_no_step']}")
        carry, outputs = self.sequence(carry, np.asarray(x)[:, None])
        return carry, outputs[:, 0] if outputs.ndim == 3 else outputs

    def sequence(self, carry: Carry, xs: np.ndarray, lengths: Any = None) -> tuple[Carry, np.ndarray]:
        """All steps of sequences: the next carry, and outputs `[B, O]`, or `[B, T, O]` where each step has one."""
        hs, carry, readout = self._inputs(np.asarray(xs)), dict(carry), self.description["model"]["readout"]
        batch, time = hs.shape[:2]
        valid = np.arange(time) < (np.full(batch, time) if lengths is None else np.asarray(lengths))[:, None]
        features = hs
        for layer in self.layers:
            last, states = zip(*[self._run(cell, carry, hs, valid) for cell in layer], strict=True)
            features, hs = np.concatenate(last, axis=-1), np.concatenate(states, axis=-1)
        if readout == "mean":
            total, count = hs.sum(axis=1) + carry.get("mean.sum", 0), valid.sum(axis=1) + carry.get("mean.count", 0)
            features = total / np.maximum(count, 1)[:, None]
            carry |= {"mean.sum": total, "mean.count": count} if self.description["carry"] else {}
        elif readout == "max":
            features = np.where(valid[..., None], hs, -np.inf).max(axis=1)
            features = np.where(valid.any(axis=1)[:, None], features, 0)
        elif readout == "attention":
            hidden = np.tanh(hs @ self.weights["attention/kernel"] + self.weights["attention/bias"])
            scores = np.where(valid, (hidden @ self.weights["attention_scores/kernel"])[..., 0], -1e30)
            features = (_softmax(scores)[..., None] * hs).sum(axis=1)
        kernel = self.weights["head/kernel"] if "head/kernel" in self.weights else self.weights["embed/embedding"].T
        features = hs if readout == "every" else features
        return carry, (features @ kernel + self.weights["head/bias"]).astype(np.float32)

    def read(self, outputs: np.ndarray) -> Any:
        """What a person reads: the likeliest class or token and the probability of each, the probabilities of
        labels, or numbers in their units.
        """
        says, likeliest = self.description["outputs"], outputs.argmax(axis=-1)
        if says.get("are_labels"):
            return _sigmoid(outputs)
        if not (says["classes"] or says.get("are_tokens")):
            return outputs * says["deviation"] + says["mean"]
        return np.array(says["classes"])[likeliest] if says["classes"] else likeliest, _softmax(outputs)

    def _inputs(self, xs: np.ndarray) -> np.ndarray:
        reads = self.description["inputs"]
        if reads.get("tokens"):
            return self.weights["embed/embedding"][xs].astype(np.float32)
        xs, absent = xs.astype(np.float32), np.isnan(xs)
        mean, deviation = (np.asarray(reads[name], np.float32) for name in ("mean", "deviation"))
        if reads["missing"] != "error":
            xs = np.where(absent, 0 if reads["missing"] == "zero" else mean, xs).astype(np.float32)
        xs = (xs - mean) / deviation if reads["is_scaled"] else xs
        return np.concatenate([xs, absent], axis=-1, dtype=np.float32) if reads["missing"] == "mask" else xs

    def _run(self, cell: dict, carry: Carry, xs: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One cell over all steps: its last state `[B, H]` and all of them, zero where a step does not count."""

        def product(a: np.ndarray, gate: str, *groups: str) -> np.ndarray:
            kernel, gain, bias = (self.weights.get(f"{cell['weights']}/{group}/{gate}") for group in groups)
            v = a @ kernel
            v = v if gain is None else _normalise(v) * gain
            return v if bias is None else v + bias

        zeros = np.zeros((len(xs), cell["units"]), np.float32)
        state = tuple(carry.get(name, zeros) for name in cell["carry"])
        us = {gate: product(xs, gate, "W", "p", "b") for gate in cell["gates"]}
        hs = np.zeros((*xs.shape[:2], cell["units"]), np.float32)
        for t in range(xs.shape[1])[:: -1 if cell["reverse"] else 1]:
            u, counts = {gate: values[:, t] for gate, values in us.items()}, valid[:, t, None]
            new = _CELLS[cell["cell"]](cell["settings"], lambda g, q: product(q, g, "U", "s", "c"), u, *state)
            state = tuple(np.where(counts, *parts) for parts in zip(new, state, strict=True))
            hs[:, t] = np.where(counts, state[0], 0)
        carry.update({name: part for name, part in zip(cell["carry"], state, strict=True) if name in carry})
        return state[0], hs


def _whole(name: str, stored: Carry) -> np.ndarray:
    """A weight as it is multiplied with, whatever it is stored as: bytes with scales, or the bits of bfloat16."""
    array = stored[name]
    if array.dtype == np.int8:
        return array * stored[f"{name}.scale"]
    return (array.astype(np.uint32) << 16).view(np.float32) if array.dtype == np.uint16 else array
