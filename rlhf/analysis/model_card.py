"""Writes a version's card as a model card: a README with the front matter that the Hugging Face Hub reads, in the adapter's folder.

A round writes it when it registers a version, and each decision about the version writes it again. It names no annotator, no prompt and no
folder of this machine.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path

from rlhf.analysis import version_card
from rlhf.analysis.version_card import FIGURES, OUTCOMES, VersionCard
from rlhf.runs.results import Estimate, RoundResult
from storage.content import policies
from storage.core.database import Database, StoreError
from storage.core.records import Decision, PolicyVersion

log = logging.getLogger("rankloop.model_card")

NAME = "README.md"
"""The file's name; the hub shows a repository's README as its model card."""

LIBRARY = "peft"


@dataclass(frozen=True, slots=True)
class Exported:
    """What a card says of an export, in place of what it says of an adapter."""

    library: str
    """The hub's name for the library that reads it."""
    summary: str
    use: str
    check: str


DECIDED_BY = {"guards": "by its guards", "comparisons": "by comparisons", "person": "by a person"}


def write_decided(store: Database, made: Decision) -> None:
    """Writes the cards of the versions of a decision again. It is taken already: a card that cannot be written is logged."""
    for version_id in {made.version_id, made.current_before_id}:
        version = policies.get(store, version_id)
        try:
            folder = policies.adapter_folder(store, version)
            if folder is not None and folder.is_dir():
                write(store, version)
        except (OSError, StoreError) as error:
            log.warning("the model card of %s could not be written: %s", version.name, error)


def write(store: Database, version: PolicyVersion, result: RoundResult | None = None) -> Path:
    """Writes the card of a tuned version beside its adapter, in place of the template that PEFT leaves there. Returns its path.

    Args:
        result: the results of the version's run, which its row does not have yet; None takes those in its row.

    Raises:
        StoreError: the version's folder lies outside of the data folder.
    """
    folder = policies.adapter_folder(store, version)
    if folder is None:
        raise ValueError(f"{version.name} has no folder of its own: only tuned versions have a card")
    part = folder / f"{NAME}.part"
    part.write_text(text(version_card.of_version(store, version, result=result)), encoding="utf-8")
    part.replace(folder / NAME)
    return folder / NAME


def text(card: VersionCard, exported: Exported | None = None) -> str:
    """The whole file.

    Args:
        exported: what is deployed instead of the adapter that a run left.
    """
    sections = {
        "Data": _data(card),
        "Figures": _figures(card.result),
        "Lineage": _lineage(card),
        "Decision": _decision(card),
        "Use": exported.use if exported else _use(card),
        "Check": exported.check if exported else "",
        "Known limits": "\n".join(f"- {_plain(limit.in_words())}" for limit in card.limits),
        "Licence": _licence(card),
    }
    body = "\n\n".join(f"## {title}\n\n{content}" for title, content in sections.items() if content)
    library = exported.library if exported else LIBRARY
    summary = exported.summary if exported else _summary(card)
    return f"{front_matter(card, library)}\n# {_plain(card.version.name)}\n\n{summary}\n\n{body}\n"


def front_matter(card: VersionCard, library: str = LIBRARY) -> str:
    """The metadata as YAML. Every value is an identifier of a known form, so that none needs quotation."""
    tags = ["rankloop", "rlhf", *([card.config.method, card.config.adapter.kind] if card.config else [])]
    lines = [f"library_name: {library}", f"license: {card.licence}", *([f"base_model: {card.base_id}"] if card.base_id else [])]
    return "\n".join(["---", *lines, "pipeline_tag: text-generation", "tags:", *(f"- {tag}" for tag in tags), "---", ""])


def _summary(card: VersionCard) -> str:
    how = f" by {card.config.method.upper()}" if card.config else ""
    return (
        f"An adapter for {_plain(card.base_name)}, tuned{how} on preference judgments with rankloop. It needs the base model, which is "
        "not part of it."
    )


def _data(card: VersionCard) -> str:
    data = card.data
    if not data.pairs:
        return ""
    lines = [f"- {data.train:,} preference pairs for training, {data.heldout:,} held out"]
    lines += [f"- {data.simulated:,} of them from simulated annotators"] if data.simulated else ["- all of them from people"]
    lines += [f"- {data.ties:,} ties beside them"] if data.ties else []
    lines += [f"- {data.demo_votes:,} votes of the Demo page left out"] if data.demo_votes else []
    lines += [f"- left out: {_plain(report.in_words())}" for report in (card.result.lengths, card.result.template) if report]
    lines += [f"- SHA-256 of the pairs: `{data.sha256}`"] if re.fullmatch(r"[0-9a-f]{64}", data.sha256) else []
    return "\n".join(lines)


def _figures(result: RoundResult) -> str:
    rows = [(title, _estimate(getattr(result, name))) for name, title in FIGURES.items() if getattr(result, name)]
    if result.kl is not None:
        rows.append(("KL to the base, per held-out answer", f"{result.kl:.2f} nats"))
    if not rows:
        return ""
    rule = f"\n\nThe rule is {_code(result.rule)}." if result.rule else ""
    table = "\n".join(f"| {title} | {value} |" for title, value in rows)
    return f"Measured on held-out prompts; intervals at 95%.\n\n| | |\n| --- | --- |\n{table}{rule}"


def _estimate(of: Estimate) -> str:
    return f"{of.value:.1%} ({of.low:.1%} to {of.high:.1%}; {of.cases:,} cases)"


def _lineage(card: VersionCard) -> str:
    base = card.base_id or card.base_name
    lines = [f"- base: {_code(base)}"]
    lines += [f"- training began at: {_code(card.result.started_from)}"] if card.result.started_from else []
    if card.run is not None:
        lines += [f"- run: {_code(card.run.id)}, begun {_code(card.run.created_at)}, seed {card.run.seed}"]
        lines += [f"- packages: {_code(json.dumps(card.run.versions, sort_keys=True))}"] if card.run.versions else []
    if card.config is not None and (path := card.config.reward.model_path):
        weight = card.config.reward.model_weight
        lines += [f"- scored by: {_code(Path(path).name)}, a reward model from elsewhere, with a weight of {weight:g}"]
    if card.config is not None:
        changed = changed_options(card)
        lines += [f"- options that differ from the defaults: {_code(json.dumps(changed, sort_keys=True))}"] if changed else []
    return "\n".join(lines)


def _decision(card: VersionCard) -> str:
    made = card.outcome
    if made is None or made.by is None:
        return "" if made is None else OUTCOMES[made.key]
    return f"{OUTCOMES[made.key]} {DECIDED_BY[made.by]}, {_code(made.at[:16])}: {_plain(made.reason)}"


def changed_options(card: VersionCard) -> dict[str, object]:
    """The run's options that differ from the defaults, by name. The base is left out, which may be a folder of this machine."""
    if card.config is None:
        return {}
    default = type(card.config)().to_dict()
    return {
        name: value
        for name, value in _flat(card.config.to_dict())
        if name not in ("model", "reward_function", "reward.model_path") and value != dict(_flat(default)).get(name)
    }


def _flat(options: object, prefix: str = "") -> list[tuple[str, object]]:
    if not isinstance(options, dict):
        return [(prefix, options)]
    return [item for name, value in options.items() for item in _flat(value, f"{prefix}.{name}" if prefix else str(name))]


def _use(card: VersionCard) -> str:
    base = card.base_id or card.base_name
    return (
        "```python\nfrom peft import AutoPeftModelForCausalLM\n\n"
        'model = AutoPeftModelForCausalLM.from_pretrained("FOLDER_OF_THIS_FILE")\n```\n\n'
        f"`adapter_config.json` names the base; where it is a folder of another machine, load {_code(base)} first and put the adapter on "
        "it with `PeftModel.from_pretrained`."
    )


def _licence(card: VersionCard) -> str:
    if card.licence == "unknown":
        return f"The files of {_plain(card.base_name)} do not name its licence: look it up before you pass this adapter on."
    return f"{_plain(card.base_name)} is under {_code(card.licence)}, which holds for what is made from it as it says."


def _plain(value: str) -> str:
    """Text in one line that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]<>#|!~&])", r"\\\1", " ".join(value.split()))


def _code(value: str | None) -> str:
    """Text as code in one line."""
    return f"`{' '.join((value or '').replace('`', chr(39)).split())}`"
