r"""Let a language model go on with a text.

usage: python -m experiments.sample --workdir RUN [--prompt TEXT] [--length 500] [--count 1] [--temperature 1]
                                    [--top_k 0] [--top_p 1] [--seed 0] [--checkpoint best]

  --workdir RUN        a directory that experiments.train made of a language model; its data are not needed
  --prompt TEXT        what the network reads first (default: a line break)
  --length N           tokens to draw
  --count N            texts, side by side; with one, it is shown while it is drawn
  --temperature NUMBER what scores are divided by: below 1 the likely becomes likelier, 0 takes the likeliest each time
  --top_k N            draw among the N likeliest tokens alone; 0 for all
  --top_p NUMBER       draw among the likeliest that together have this probability; 1 for all
  --seed N             what is drawn follows from it
  --checkpoint WHICH   best (default) or latest
  --code FILE.py       the file that defines classes or functions of your own, which the run was made with

exit codes: 0 done, 2 wrong use (one line says what)

example:
  python -m experiments.sample --workdir runs/shakespeare --prompt "ROMEO:" --temperature 0.8
"""

from __future__ import annotations

from collections.abc import Sequence

from experiments import cli
from gru_jax.config.checkpoint_names import BEST
from gru_jax.errors import ArgumentError, UsageError
from gru_jax.runs.sampling import TextSampler
from gru_jax.runs.sampling import sample_texts as run
from gru_jax.training.sampling import Drawing

__all__ = ["command", "run"]

FLAGS = ("workdir", "prompt", "length", "count", "temperature", "top_k", "top_p", "seed", "checkpoint")


@cli.names_flags
def command(argv: Sequence[str]) -> int:
    """The command line."""
    flags, _ = cli.parse(argv, FLAGS)
    cli.load_code(flags)
    if "workdir" not in flags:
        raise UsageError("--workdir: missing; allowed is the directory of a run")
    prompt, count = flags.get("prompt", "\n"), cli.whole_number(flags, "count", 1)
    how = Drawing(_number(flags, "temperature"), cli.whole_number(flags, "top_k", 0), _number(flags, "top_p"))
    sampler = TextSampler(flags["workdir"], flags.get("checkpoint", BEST))
    steps = sampler.tokens(
        prompt, cli.whole_number(flags, "length", 500), count, how, cli.whole_number(flags, "seed", 0)
    )
    if count == 1:
        print(prompt, end="", flush=True)
        for piece in sampler.pieces(step[0] for step in steps):
            print(piece, end="", flush=True)
        print()
        return 0
    texts = list(zip(*steps, strict=True))
    for number, tokens in enumerate(texts, start=1):
        print(f"--- {number} of {count}\n{prompt}{sampler.vocabulary.decode(tokens)}")
    return 0


def _number(flags: dict[str, str], name: str) -> float:
    """The value of a flag that takes a number; 1 without it."""
    try:
        return float(flags.get(name, 1.0))
    except ValueError:
        raise ArgumentError(f"{name}={flags[name]}: allowed are numbers") from None


if __name__ == "__main__":
    cli.main(command, lambda: __doc__ or "")
