"""The source of what a notebook defines, which no file holds: the cells that were run, as IPython keeps them."""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterator

NOTEBOOK = "__main__"
CELLS = "In"  # the name under which IPython keeps the cells that were run


def notebook_source(name: str) -> str | None:
    """The statements that make a name of the notebook what it is, and all names of the notebook that these mention.

    Comments and layout do not count. Of names that only look like one of the notebook, as those of a function's own
    variables, the statements count too. None outside of a notebook, and of a name that no cell defines.
    """
    cells = vars(sys.modules[NOTEBOOK]).get(CELLS)
    if not isinstance(cells, list):
        return None
    defined = _definitions(tuple(cells))
    if name not in defined:
        return None
    needed, waiting = set[str](), [name]
    while waiting:
        current = waiting.pop()
        if current in defined and current not in needed:
            needed.add(current)
            trees = defined[current].values()
            waiting += [node.id for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name)]
    return "\n".join(text for current in sorted(needed) for text in defined[current])


@functools.lru_cache(maxsize=1)  # configs become dicts many times in a run
def _definitions(cells: tuple[str, ...]) -> dict[str, dict[str, ast.stmt]]:
    """By name the statement that bound it last, and those after it that changed it, each once, by its text."""
    defined: dict[str, dict[str, ast.stmt]] = {}
    for cell in cells:
        try:
            statements = ast.parse(cell).body
        except (SyntaxError, ValueError):  # a cell that failed
            continue
        for statement in statements:
            text = ast.unparse(statement)
            for name, is_new in _bound(statement):
                before = {} if is_new else {t: tree for t, tree in defined.get(name, {}).items() if t != text}
                defined[name] = {**before, text: statement}
    return defined


def _bound(statement: ast.stmt) -> Iterator[tuple[str, bool]]:
    """The names that a statement binds anew, or changes."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name, True
    elif isinstance(statement, ast.Import | ast.ImportFrom):
        for alias in statement.names:
            yield (alias.asname or alias.name).split(".")[0], True
    else:
        is_plain = isinstance(statement, ast.Assign | ast.AnnAssign)
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id, is_plain
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield node.name, False
            elif isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store):
                root: ast.expr = node
                while isinstance(root, ast.Attribute | ast.Subscript):
                    root = root.value
                if isinstance(root, ast.Name):
                    yield root.id, False
