"""Write `docs/keys.md`, the page of every key of a config, from the docstrings: `python -m tests.make_keys_page`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from gru_jax.config import KeyExplanation, explain_keys, explain_options

PAGE = Path(__file__).parent.parent / "docs" / "keys.md"
TITLES = {
    "": "The run", "task": "Tasks", "model": "The network", "model.cell": "Cells", "model.init": "Initialisation",
    "optimizer": "The optimiser", "train": "Training", "transfer": "Carrying over",
    "gradient": "Gradients through time", "regularization": "Regularisation",
    "distillation": "Learning from another network",
    "flow": "What the instruments record",
}  # fmt: skip
HEAD = """# Every key of a config

Made from the docstrings by `python -m tests.make_keys_page`. A config file gives what differs from these defaults; on
the command line `--config.KEY=VALUE` changes any of them, and `--help SECTION` shows a part of this page. Of the two
keys of a duration, in steps and in epochs, one is given at a time.
"""


def table(keys: Iterable[KeyExplanation]) -> str:
    """A row for each key."""
    rows = ["| key | default | allowed | what it is |", "| --- | --- | --- | --- |"]
    for one in keys:
        default = ",".join(map(str, one.default)) if isinstance(one.default, tuple) else one.default
        allowed = one.allowed + ", or none" * one.is_optional
        cells = [f"`{one.key}`", f"`{default}`", allowed, one.text]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def render() -> str:
    """The page."""
    keys, options = explain_keys(), explain_options()
    parts = [HEAD]
    for section, title in TITLES.items():
        parts.append(f"## {title}\n")
        if section in options:
            parts.append(table([keys[f"{section}.name"]]) + "\n")
            for option in options[section]:
                parts.append(f"### {section}.name = {option.name}\n\n{option.text}\n")
                parts += [table(option.keys.values()) + "\n"] * bool(option.keys)
        else:
            parts.append(table(one for key, one in keys.items() if key.rpartition(".")[0] == section) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(render())
