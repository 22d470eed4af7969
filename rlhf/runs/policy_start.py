"""Where a round's policy begins: at the base, or at the version that was current when the round began. No torch.

A round's row names that version, so that a resumed run begins where it began, whatever was promoted meanwhile.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from rlhf.analysis import run_table
from rlhf.config import AdapterConfig, ConfigError, RoundConfig
from rlhf.safe_files import ModelError, adapter_fields
from storage.content import policies
from storage.core.database import Database, StoreError
from storage.core.records import PolicyVersion
from storage.project import rounds, runs

REMEDY = "or begin at the base with --policy-start base"


@dataclass(frozen=True, slots=True)
class PolicyStart:
    """A tuned version with whose adapter a policy begins."""

    version: PolicyVersion
    folder: Path
    """Its adapter's."""


def of_new_round(store: Database, config: RoundConfig) -> PolicyStart | None:
    """Where a round would begin now; None for the base.

    Raises:
        ConfigError: the current version's adapter is missing or unsafe, or the round's options describe another adapter.
    """
    return None if config.policy_start == "base" else _at(store, config, rounds.current(store, config.model))


def of_run(store: Database, config: RoundConfig, run_id: str) -> PolicyStart | None:
    """Where the round of this run began; None for the base.

    Raises:
        ConfigError: as `of_new_round`.
    """
    found = rounds.of_run(store, run_id)
    if config.policy_start == "base" or found is None or found.baseline_version_id is None:
        return None
    return _at(store, config, policies.get(store, found.baseline_version_id))


def _at(store: Database, config: RoundConfig, version: PolicyVersion) -> PolicyStart | None:
    if version.kind == "base":
        return None
    try:
        folder = policies.adapter_folder(store, version)
        if folder is None or version.run_id is None:
            raise ModelError(f"{version.name} has no adapter")
        adapter_fields(folder)
        before = run_table.config_of(runs.get(store, version.run_id)).adapter
    except (ModelError, StoreError, ConfigError) as error:
        raise ConfigError(f"--policy-start current: the policy cannot begin at {version.name} ({error}). Repair that, {REMEDY}") from error
    if other := differing(before, config.adapter):
        has, asked = (
            ", ".join(f"--adapter-{name.replace('_', '-')} {asdict(a)[name]}" for name in other) for a in (before, config.adapter)
        )
        raise ConfigError(
            f"--policy-start current: {version.name} has an adapter with {has}, and this round asks for {asked}. Set what it has, {REMEDY}"
        )
    return PolicyStart(version, folder)


def differing(one: AdapterConfig, other: AdapterConfig) -> list[str]:
    """The options in which two adapters differ, of those that their kind has: weights of one do not fit into the other."""
    if one.kind != other.kind:
        return ["kind"]
    names = {"prompt": ["virtual_tokens"], "ia3": ["top_layers"]}.get(one.kind, ["rank", "alpha", "top_layers"])
    return [name for name in names if getattr(one, name) != getattr(other, name)]
