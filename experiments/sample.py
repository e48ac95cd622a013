r"""Let the network of a run make something up: a language model goes on with a text, a network of music with a piece.

usage: python -m experiments.sample --workdir RUN [--prompt TEXT] [--length 500] [--count 1] [--temperature 1]
                                    [--top_k 0] [--top_p 1] [--seed 0] [--checkpoint best]
       python -m experiments.sample --workdir RUN [--frames 200] [--prime 0] [--piece 0] [--frame_seconds 0.25]
                                    [--output DIR] [--temperature 1] [--seed 0] [--checkpoint best]

  --workdir RUN        a directory that experiments.train made of a language model, or of music
  --temperature NUMBER what scores are divided by: below 1 the likely becomes likelier; 0 takes the likeliest token
  --seed N             what is drawn follows from it
  --checkpoint WHICH   best (default) or latest
  --code FILE.py       the file that defines classes or functions of your own, which the run was made with

of a language model, whose data are not needed:
  --prompt TEXT        what the network reads first (default: a line break)
  --length N           tokens to draw
  --count N            texts, side by side; with one, it is shown while it is drawn
  --top_k N            draw among the N likeliest tokens alone; 0 for all
  --top_p NUMBER       draw among the likeliest that together have this probability; 1 for all

of music, which becomes sample.mid and sample.png, a piano roll:
  --frames N           frames to make up
  --prime N            frames of a test piece that it hears before, for which its data are needed
  --piece N            which test piece, from 0
  --frame_seconds S    how long a frame lasts in the MIDI file
  --output DIR         where the files go (default: the run's plots)

exit codes: 0 done, 2 wrong use (one line says what)

examples:
  python -m experiments.sample --workdir runs/shakespeare --prompt "ROMEO:" --temperature 0.8
  python -m experiments.sample --workdir runs/jsb --prime 16 --frames 200 --temperature 0.9
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from experiments import cli
from gru_jax.config.checkpoint_names import BEST
from gru_jax.errors import ArgumentError, UsageError, closest, listing
from gru_jax.runs.sampling import TextSampler
from gru_jax.runs.sampling import sample_texts as run
from gru_jax.runs.stored import open_run
from gru_jax.tasks import LanguageModel, Music, Task
from gru_jax.training.sampling import Drawing

__all__ = ["command", "run"]

COMMON = ("workdir", "temperature", "seed", "checkpoint")


@cli.names_flags
def command(argv: Sequence[str]) -> int:
    """The command line."""
    flags, _ = cli.parse(argv, list(dict.fromkeys(flag for kind in SAMPLE_KINDS for flag in (*COMMON, *kind.flags))))
    cli.load_code(flags)
    if "workdir" not in flags:
        raise UsageError("--workdir: missing; allowed is the directory of a run")
    task = open_run(flags["workdir"], compares_source=False)[1].task
    kind = next((kind for kind in SAMPLE_KINDS if isinstance(task, kind.task)), None)
    if kind is None:
        allowed = listing(kind.what for kind in SAMPLE_KINDS)
        raise ArgumentError(f"workdir={flags['workdir']}: its task is {type(task).__name__}; allowed are {allowed}")
    for name, value in flags.items():
        if name not in (*COMMON, *kind.flags, cli.CODE):
            hint = closest(name, kind.flags)
            allowed = listing(f"--{flag}" for flag in (*COMMON, *kind.flags))
            raise ArgumentError(f"{name}={value}: without effect on {kind.what}; allowed are {allowed}{hint}")
    return kind.sample(flags)


def _sample_text(flags: Mapping[str, str]) -> int:
    """Show texts that a language model goes on with."""
    prompt, count = flags.get("prompt", "\n"), cli.whole_number(flags, "count", 1)
    how = Drawing(_number(flags, "temperature"), cli.whole_number(flags, "top_k", 0), _number(flags, "top_p"))
    sampler = TextSampler(flags["workdir"], flags.get("checkpoint", BEST))
    steps = sampler.tokens(
        prompt, cli.whole_number(flags, "length", 500), count, how, cli.whole_number(flags, "seed", 0)
    )
    if count == 1:
        print(prompt, end="", flush=True)
        for piece in sampler.pieces(step[0] for step in steps):
            print(sampler.between(prompt, piece), piece, sep="", end="", flush=True)
            prompt = "" if piece else prompt
        print()
        return 0
    texts = list(zip(*steps, strict=True))
    for number, tokens in enumerate(texts, start=1):
        text = sampler.vocabulary.decode(tokens)
        print(f"--- {number} of {count}\n{prompt}{sampler.between(prompt, text)}{text}")
    return 0


def _sample_music(flags: Mapping[str, str]) -> int:
    """Write music that a network makes up."""
    from gru_jax.runs.music import sample_music  # which draws a picture; texts do without
    from gru_jax.runs.run import Run

    made = sample_music(
        Run(flags["workdir"]),
        flags.get("output"),
        frames=cli.whole_number(flags, "frames", 200),
        prime=cli.whole_number(flags, "prime", 0),
        piece=cli.whole_number(flags, "piece", 0),
        temperature=_number(flags, "temperature"),
        seed=cli.whole_number(flags, "seed", 0),
        frame_seconds=_number(flags, "frame_seconds", 0.25),
        checkpoint=flags.get("checkpoint", BEST),
    )
    heard = f"{made.primed} frames of a test piece, then " if made.primed else ""
    print(f"{heard}{len(made.roll) - made.primed} frames with {int(made.roll[made.primed :].sum())} notes")
    print(f"to listen to: {made.midi}\npicture: {made.picture}")
    return 0


class SampleKind(NamedTuple):
    """A kind of runs whose networks make something up.

    Attributes:
        what: they are, for people.
        task: of these runs.
        flags: that such a run takes, beside those that all take.
        sample: what is done, by the flags.
    """

    what: str
    task: type[Task]
    flags: tuple[str, ...]
    sample: Callable[[Mapping[str, str]], int]


SAMPLE_KINDS = (
    SampleKind("language models", LanguageModel, ("prompt", "length", "count", "top_k", "top_p"), _sample_text),
    SampleKind("networks of music", Music, ("frames", "prime", "piece", "frame_seconds", "output"), _sample_music),
)


def _number(flags: Mapping[str, str], name: str, default: float = 1.0) -> float:
    """The value of a flag that takes a number."""
    try:
        return float(flags.get(name, default))
    except ValueError:
        raise ArgumentError(f"{name}={flags[name]}: allowed are numbers") from None


if __name__ == "__main__":
    cli.main(command, lambda: __doc__ or "")
