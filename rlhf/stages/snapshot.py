"""The snapshot stage: freezes the run's data at its start: pairs, demonstrations, prompts, and the base model's answers."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlhf.config import RoundConfig
from rlhf.data import demonstrations, pairs, reliability
from rlhf.data.demonstrations import Demonstration
from rlhf.evaluation import SampledCompletion
from rlhf.models.backbone import Backbone
from rlhf.runs.progress import RunProgress
from rlhf.stages.evaluate import answer_heldout, shown
from storage.content import prompts
from storage.core.database import Database
from storage.core.records import Prompt
from storage.judging import completion_labels, demo_votes
from storage.project import runs

log = logging.getLogger("rankloop.round")


def take_snapshot(store: Database, run_id: str, config: RoundConfig, run_dir: Path) -> list[pairs.PreferencePair]:
    """Freezes the pairs that this run is trained on; a resumed run uses the frozen ones."""
    if not (run_dir / pairs.PAIRS_FILE).is_file():
        with store.snapshot():
            collected = pairs.of_store(
                store,
                include_simulated=config.include_simulated,
                demo_votes=config.demo_votes,
                ties=config.reward.ties != "drop",
                annotator_weights=(
                    reliability.weights(store, include_simulated=config.include_simulated) if config.reward.annotator_weights else None
                ),
            )
        pairs.require(collected, config.reward.min_pairs)
        heldout = sum(p.split == "heldout" for p in collected)
        if few := pairs.few_measure(heldout):
            log.warning("%s", few)
        pairs.write_snapshot(collected, run_dir)
    frozen = pairs.read_snapshot(run_dir)
    left_out = 0 if config.demo_votes else demo_votes.count(store)
    manifest = pairs.manifest(frozen, labels=sum(completion_labels.counts(store).values()), demo_votes=left_out)
    runs.set_snapshot(store, run_id, manifest.to_json())
    return frozen


def take_demonstrations(store: Database, config: RoundConfig, run_dir: Path) -> list[Demonstration]:
    """Freezes the demonstrations that this run is trained on, if any."""
    if not demonstrations.wanted(config):
        return []
    if not (run_dir / demonstrations.DEMONSTRATIONS_FILE).is_file():
        collected = demonstrations.of_store(store, include_simulated=config.include_simulated)
        demonstrations.require(collected, config)
        demonstrations.write_snapshot(collected, run_dir)
    return demonstrations.read_snapshot(run_dir)


def take_prompts(store: Database, run_dir: Path) -> tuple[list[Prompt], list[Prompt]]:
    """The training and held-out prompts of this run; a resumed run uses those of its start, whatever was imported since."""
    file = run_dir / "prompts.json"
    if not file.is_file():
        write_json_atomic(file, [p.id for p in prompts.of_split(store)])
    frozen = sorted(prompts.many(store, json.loads(file.read_text())).values(), key=lambda p: p.id)
    train, heldout = ([p for p in frozen if p.split == split] for split in ("train", "heldout"))
    return train, heldout


def answer_before(
    store: Database, run_id: str, config: RoundConfig, backbone: Backbone, heldout: list[Prompt], run_dir: Path, progress: RunProgress
) -> list[SampledCompletion]:
    """The base model's answers to the held-out prompts; saved, so that a resumed run compares with the same ones."""
    file = run_dir / "before.json"
    if file.is_file():
        progress.skip("snapshot")
        return [SampledCompletion(**row) for row in json.loads(file.read_text())]
    stage = progress.stage("snapshot")
    stage.total(1)
    asked = len(heldout) * config.evaluation.completions_per_prompt
    before = answer_heldout(config, backbone, None, heldout, stage.part(1, "base_answers", count=asked))
    for prompt, answer in zip(heldout[: config.evaluation.shown_samples], shown(config, before), strict=True):
        runs.save_sample(store, run_id, prompt.id, before=answer.text)
    write_json_atomic(file, [asdict(a) for a in before])
    return before


def write_json_atomic(file: Path, value: Any) -> None:
    """Writes JSON atomically: a kill leaves the complete file or none."""
    part = file.with_name(file.name + ".part")
    part.write_text(json.dumps(value))
    part.replace(file)
