"""What compiled and exported programs consist of, read off their structure."""

from __future__ import annotations

import re

import jax
from jax import export


def assert_exports(function, platforms, *arguments):
    """Export a compiled function for platforms that need not be here: it gives there what it gives here, by type."""
    exported = export.export(function, platforms=platforms)(*arguments)
    assert exported.platforms == tuple(platforms)
    wanted = jax.tree.leaves(jax.eval_shape(function, *arguments))
    assert [(a.shape, a.dtype) for a in exported.out_avals] == [(a.shape, a.dtype) for a in wanted]


def operations(lowered, name):
    """All operations of a name in a lowered program, those inside of loops and branches included."""
    found = []

    def visit(operation):
        if operation.name == name:
            found.append(operation)
        for region in operation.regions:
            for block in region.blocks:
                for inner in block.operations:
                    visit(inner.operation)

    visit(lowered.compiler_ir("stablehlo").operation)
    return found


COLLECTIVE = re.compile(r" (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(")
HEADER = re.compile(r"(?:ENTRY )?%?([\w.\-]+) .*\{$")
CALLED = re.compile(r"(body|condition|calls|to_apply|branch_computations)=(?:\{([^}]*)\}|(%?[\w.\-]+))")


def collectives(compiled):
    """The operations of a compiled program in which its devices meet: how many loops each stands in.

    A sequence of those depths, one for each operation: 0 stands in no loop.
    """
    lines_of, name, entry = {}, None, None
    for line in compiled.as_text().splitlines():
        header = HEADER.match(line)
        if header:
            name = header[1]
            entry = name if line.startswith("ENTRY") else entry
            lines_of[name] = []
        elif name:
            lines_of[name].append(line)

    def depths(name, depth):
        for line in lines_of[name]:
            if COLLECTIVE.search(line):
                yield depth
            for role, several, one in CALLED.findall(line):
                for called in (several or one).replace("%", "").split(", "):
                    if called in lines_of:
                        yield from depths(called, depth + (role in ("body", "condition")))

    return sorted(depths(entry, 0))
