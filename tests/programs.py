"""What compiled and exported programs consist of, read off their structure."""

from __future__ import annotations

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
