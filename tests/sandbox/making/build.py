"""Makes the sandbox corpus and the two sandbox recognisers again, end to end: ``python -m tests.sandbox.making.build``.

Needs espeak-ng 1.51 and flite 2.2 on the path, 7 GB of memory a model and 4 GB of ``--scratch``. Every step continues
from what it finds there: finished configs and shards are kept, training resumes from its checkpoint.

Time, on two cores: about 12 minutes for the corpus and the pool of 60,000 utterances (31 hours), then 80 minutes for
both models at one thread each (73 and 81, on a busy machine; a step of 32 utterances takes 0.35 s of one free core).
Seed: ``script.SEED`` everywhere. Versions: Python 3.11, torch 2.13.0, transformers 5.23.0, tokenizers 0.23.3, numpy
2.4.6, soxr 1.1.0, soundfile 0.14.0 (libsndfile's Vorbis). Torch promises no equal results across machines: expect
weights of the same quality, not the same weights.

WER (%, Whisper normalizer) by utterances seen, on the 100 shortest utterances of each development set:

    thousands        16     32     48     64     80    112    128    160    165
    whisper clean    81     44     24     13    7.1    3.3      -   0.17      -
    whisper other    91     65     47     34     29     18      -    7.0      -
    moonshine clean 103     54     26     11    8.4    3.8    4.7   0.17   0.35
    moonshine other 110     64     38     30     28     15     16    6.1    5.9

On 320 utterances of either test set, in fp32: whisper 1.50 clean, 6.75 other; moonshine 1.19 clean, 6.43 other. What
ships is the first 64 of them, and the weights rounded to 8 bits: files are for tests, and small.

The shipped weights followed the recipes' schedules, in several resumed pieces, but for two things: their first 250
steps had seed 0 and drew from the half of the pool that was there, and whisper's rate fell a little earlier and slower
at first (from step 4,200). Utterances were drawn by the same rules, not in the order that this code draws them.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
from transformers import AutoProcessor

from src.embedded.shrink import named_model, shrink
from src.models.loading import load
from src.project import ROOT
from src.settings import ModelSettings
from tests.sandbox.making import corpus
from tests.sandbox.making.pool import synthesise
from tests.sandbox.making.recipe import Recipe, Schedule
from tests.sandbox.making.recipes import RECIPES
from tests.sandbox.making.scoring import score
from tests.sandbox.making.script import SEED, script
from tests.sandbox.making.training import BATCH, Trainer

SANDBOX = ROOT / "src" / "sandbox"
DATA, MODELS = SANDBOX / "data", SANDBOX / "models"
DEV = ("dev_clean", "dev_other")
SAVE_EVERY = 500  # steps between checkpoints, each scored on part of the development sets
WATCHED = 2  # one in so many utterances of the development sets is scored at a checkpoint


def build_corpus(scratch: Path) -> None:
    """The published configs into ``data/``, the development sets and the training pool into ``scratch``."""
    corpus.check_splits()
    for config in (*corpus.PUBLISHED, *DEV):
        folder = DATA if config in corpus.PUBLISHED else scratch
        if not corpus.parquet(folder, config).exists():
            corpus.write_config(folder, config)
    synthesise(scratch / "train", "train", workers=os.cpu_count() or 1)


def make_recipe(name: str) -> Recipe:
    """A recipe with its tokenizer trained on the training sentences."""
    recipe = RECIPES[name]
    return recipe(recipe.make_processor([line.text for line in script("train")]))


def train(name: str, scratch: Path, schedule: Schedule) -> None:
    """Train one model, from its checkpoint if there is one; logs WER at every checkpoint, exports at the end."""
    recipe = make_recipe(name)
    dev = {config: corpus.read_config(scratch, config)[::WATCHED] for config in DEV}
    trainer = Trainer(recipe, scratch / "train", scratch / name, SEED)
    for step in trainer.run(schedule, SAVE_EVERY):
        rates = {config: round(score(recipe, trainer.model, utterances), 2) for config, utterances in dev.items()}
        trainer.log(**rates)
        print(name, step, step * BATCH, rates, flush=True)
    export(name, scratch)


def export(name: str, scratch: Path) -> None:
    """Write the checkpoint's weights (or, before there is one, untrained ones) at 8 bits; at fp16 into ``scratch``."""
    recipe = make_recipe(name)
    trainer = Trainer(recipe, scratch / "train", scratch / name, SEED)
    trainer.model.set_attn_implementation("sdpa")
    trainer.model.half().save_pretrained(scratch / f"{name}_fp16")
    recipe.processor.save_pretrained(scratch / f"{name}_fp16")
    shrink(sandbox_model(name, scratch / f"{name}_fp16"), MODELS / name)
    print(f"exported {name} after {trainer.step * BATCH:,} utterances", flush=True)


def sandbox_model(name: str, folder: Path) -> ModelSettings:
    """The settings of a sandbox model, its weights in ``folder``."""
    return named_model(f"sandbox_{name}").model_copy(update={"source": str(folder)})


def evaluate(name: str) -> None:
    """Print the WER of an exported model, in fp32, on both whole test sets."""
    recipe = RECIPES[name](AutoProcessor.from_pretrained(MODELS / name))
    model = load(sandbox_model(name, MODELS / name), "cpu", SEED).module
    for config in ("clean", "other"):
        print(f"{name} {config}: {score(recipe, model, corpus.read_config(DATA, config)):.2f} % WER", flush=True)


def main() -> None:
    """Everything, or one step of it."""
    parser = argparse.ArgumentParser(description="make the sandbox corpus and models")
    parser.add_argument("step", nargs="?", choices=["all", "corpus", "train", "export", "evaluate"], default="all")
    parser.add_argument("--family", nargs="*", choices=list(RECIPES), default=list(RECIPES))
    parser.add_argument("--scratch", type=Path, default=Path("/tmp/sandbox-scratch"))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--steps", type=int, help="steps in all, instead of the recipe's")
    parser.add_argument("--decay", type=int, help="steps of the final decay, instead of the recipe's")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.step in ("all", "corpus"):
        build_corpus(chosen.scratch)
    for name in chosen.family:
        schedule = RECIPES[name].schedule
        if chosen.step in ("all", "train"):
            train(name, chosen.scratch, Schedule(chosen.steps or schedule.steps, chosen.decay or schedule.decay))
        if chosen.step == "export":
            export(name, chosen.scratch)
        if chosen.step in ("all", "evaluate"):
            evaluate(name)


if __name__ == "__main__":
    main()
