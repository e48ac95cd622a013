"""What compiled and exported programs consist of, read off their structure; programs that tests share."""

from __future__ import annotations

import contextlib
import re

import jax
import pytest
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


COMPILED, INITS = {}, {}  # by all that tells programs apart
TRACED_UNDER = ("jax_enable_x64", "jax_default_matmul_precision", "jax_debug_nans", "jax_debug_infs")


@contextlib.contextmanager
def compiled_once():
    """While this lasts, runs take what one before them compiled, where the product says that it serves both."""
    from gru_jax.config import initial_program, training_program
    from gru_jax.training.population import CompiledPopulation
    from gru_jax.training.step import Trainer

    compile_anew, begin = CompiledPopulation.compile, Trainer.__init__

    def program_of(config):
        return training_program(config), str(config.to_dict().get("sources"))

    def compile_once(self, name, rows, *arguments):
        leaves, structure = jax.tree.flatten(arguments)
        shapes = tuple((leaf.shape, leaf.dtype, getattr(leaf, "sharding", None)) for leaf in leaves)
        how = (self.mapping, self.single, *self.devices, *(getattr(jax.config, name) for name in TRACED_UNDER))
        key = (program_of(self.config), name, rows, how, structure, shapes)
        if key not in COMPILED:
            COMPILED[key] = compile_anew(self, name, rows, *arguments)
        return self._compiled.setdefault((name, rows), COMPILED[key])

    def begin_once(self, config, mesh=None, teacher=None):
        begin(self, config, mesh, teacher)
        self.init = INITS.setdefault((program_of(config), initial_program(config), mesh), self.init)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CompiledPopulation, "compile", compile_once)
        patch.setattr(Trainer, "__init__", begin_once)
        yield
