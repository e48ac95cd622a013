"""The page of all public functions and classes, made of their docstrings.

usage: python -m tests.api_page

Writes docs/api.md; a test holds that it is up to date.
"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "api.md"
MODULES = (
    "gru_jax", "gru_jax.cells", "gru_jax.flow", "gru_jax.flow.theory", "gru_jax.nn", "gru_jax.tasks", "gru_jax.config",
)  # fmt: skip
COMMANDS = ("train", "evaluate", "replay", "flow", "ablate", "report")
HEAD = """# Public names

Each with the first line of its docstring, which has the shapes, the equation and its paper: `help(gru_jax.unroll)`.
Every argument and result is annotated, shapes included, and type checkers see it.

```python
import inspect

import gru_jax

print(inspect.signature(gru_jax.unroll))
```
"""


def page() -> str:
    """The content of the page."""
    parts = [HEAD]
    for name in MODULES:
        module = importlib.import_module(name)
        public = sorted(public_names(module))
        public = [n for n in public if str(getattr(getattr(module, n), "__module__", "")).startswith("gru_jax")]
        parts.append(f"## {name}\n\n{summary(module)}\n")
        parts += [f"- **`{n}`**: {summary(getattr(module, n))}" for n in public]
        parts.append("")
    parts.append("## experiments\n\nThe commands as functions; `python -m experiments.NAME --help` tells of each.\n")
    for name in COMMANDS:
        module = importlib.import_module(f"experiments.{name}")
        if hasattr(module, "run"):
            signature = str(inspect.signature(module.run)).replace("'", "")
            parts.append(f"- **`experiments.{name}.run{signature}`**: {summary(module.run)}")
    return "\n".join(parts) + "\n"


def public_names(module) -> list[str]:
    """What a module offers."""
    defined = (n for n, v in vars(module).items() if getattr(v, "__module__", None) == module.__name__)
    return getattr(module, "__all__", None) or [n for n in defined if not n.startswith("_")]


def summary(of) -> str:
    """The first sentence of a docstring, in one line."""
    return " ".join((inspect.getdoc(of) or "").split("\n\n")[0].split())


if __name__ == "__main__":
    PAGE.write_text(page())
