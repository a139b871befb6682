"""Makes the embedded corpus and the two embedded recognisers again, end to end: ``python -m src.embedded.build``.

CURVE_GOES_HERE
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

from src.embedded import corpus
from src.embedded.families import FAMILIES, Family
from src.embedded.pool import synthesise
from src.embedded.scoring import score
from src.embedded.script import SEED, script
from src.embedded.training import BATCH, Schedule, Trainer

HERE = Path(__file__).parent
DATA, MODELS = HERE / "data", HERE / "models"
SCHEDULES = {"whisper": Schedule(steps=8_000, decay=2_000), "moonshine": Schedule(steps=8_000, decay=2_000)}
DEV = ("dev_clean", "dev_other")
SAVE_EVERY = 500  # steps between checkpoints, each scored on part of the development sets
WATCHED = 100  # utterances of each development set scored at a checkpoint


def build_corpus(scratch: Path) -> None:
    """The published configs into ``data/``, the development sets and the training pool into ``scratch``."""
    corpus.check_splits()
    for config in (*corpus.PUBLISHED, *DEV):
        folder = DATA if config in corpus.PUBLISHED else scratch
        if not corpus.parquet(folder, config).exists():
            corpus.write_config(folder, config)
    synthesise(scratch / "train", "train", workers=os.cpu_count() or 1)


def make_family(name: str) -> Family:
    """A family with its tokenizer trained on the training sentences."""
    return FAMILIES[name]([line.text for line in script("train")])


def train(name: str, scratch: Path, schedule: Schedule) -> None:
    """Train one model, from its checkpoint if there is one; logs WER at every checkpoint, exports at the end."""
    family = make_family(name)
    dev = {config: corpus.read_config(scratch, config)[::-1][:: 160 // WATCHED][:WATCHED] for config in DEV}
    trainer = Trainer(family, scratch / "train", scratch / name, SEED)
    for step in trainer.run(schedule, SAVE_EVERY):
        rates = {config: round(score(family, trainer.model, utterances), 2) for config, utterances in dev.items()}
        trainer.log(**rates)
        print(name, step, step * BATCH, rates, flush=True)
    export(name, scratch)


def export(name: str, scratch: Path) -> None:
    """Write the checkpoint's weights (or, before there is one, untrained ones) as an ordinary fp16 model folder."""
    family = make_family(name)
    trainer = Trainer(family, scratch / "train", scratch / name, SEED)
    trainer.model.set_attn_implementation("sdpa")
    trainer.model.half().save_pretrained(MODELS / name)
    family.processor.save_pretrained(MODELS / name)
    print(f"exported {name} after {trainer.step * BATCH:,} utterances", flush=True)


def evaluate(name: str) -> None:
    """Print the WER of an exported model, in fp32, on both whole test sets."""
    family = make_family(name)
    model = type(family.build()).from_pretrained(MODELS / name, dtype=torch.float32)
    for config in ("clean", "other"):
        print(f"{name} {config}: {score(family, model, corpus.read_config(DATA, config)):.2f} % WER", flush=True)


def main() -> None:
    """Everything, or one step of it."""
    parser = argparse.ArgumentParser(description="make the embedded corpus and models")
    parser.add_argument("step", nargs="?", choices=["all", "corpus", "train", "export", "evaluate"], default="all")
    parser.add_argument("--family", nargs="*", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--scratch", type=Path, default=Path("/tmp/embedded-scratch"))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--steps", type=int, help="steps in all, instead of the recipe's")
    parser.add_argument("--decay", type=int, help="steps of the final decay, instead of the recipe's")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.step in ("all", "corpus"):
        build_corpus(chosen.scratch)
    for name in chosen.family:
        recipe = SCHEDULES[name]
        if chosen.step in ("all", "train"):
            train(name, chosen.scratch, Schedule(chosen.steps or recipe.steps, chosen.decay or recipe.decay))
        if chosen.step == "export":
            export(name, chosen.scratch)
        if chosen.step in ("all", "evaluate"):
            evaluate(name)


if __name__ == "__main__":
    main()
