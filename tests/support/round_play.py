"""A store in which rounds end and people judge, with a verb for each thing that happens. Real SQLite; no model."""

from __future__ import annotations

import itertools

from storage.content import comparisons, completions, policies, prompts
from storage.core.database import Database
from storage.core.records import Annotator, PolicyVersion, Presentation, Round, Sampling
from storage.judging import judgments, queue
from storage.people import annotators
from storage.project import rounds, runs

BASE = "hub/tiny"


class Rounds:
    def __init__(self, store: Database):
        self.store = store
        self.base = policies.ensure_base(store, BASE)
        self.ann, self.bob = annotators.ensure(store, "Ann"), annotators.ensure(store, "Bob")
        self.rule = annotators.ensure(store, "longest", "simulated", "length")
        self._number = itertools.count(1)

    def round(self, name: str, *, guards="passed", judges="people", base=BASE) -> Round:
        """A finished round with its version, `v-` and the name."""
        policies.ensure_base(self.store, base)
        runs.create(self.store, name, config={}, seed=1, versions={})
        made = rounds.create(self.store, name, trigger="hand", judges=judges, baseline=rounds.current(self.store, base))
        policies.register_tuned(self.store, name=f"v-{name}", base_model=base, adapter_path=f"runs/{name}/policy", run_id=name)
        runs.finish(self.store, name, "done")
        if guards:
            rounds.set_guards(self.store, made.id, guards)
        return rounds.get(self.store, made.id)

    def current(self) -> str:
        return rounds.current(self.store, BASE).name

    def comparison(self, *versions: PolicyVersion, round_id: int | None = None, purpose="decide", batch_id=None, wanted=None) -> int:
        """A comparison of one answer of each version to a prompt of its own."""
        text = f"Question {next(self._number)}?"
        prompts.add(self.store, [prompts.NewPrompt([{"role": "user", "content": text}], "test", "heldout")], source="test")
        prompt_id = self.store.value("SELECT max(id) FROM prompts")
        ids = [
            completions.add(
                self.store, prompt_id=prompt_id, policy_version_id=version.id, text=f"Answer {next(self._number)}", sampling=Sampling(),
                seed=1, finish_reason="stop", latency_s=0.1,
            )
            for version in versions
        ]  # fmt: skip
        return comparisons.add(self.store, prompt_id, ids, purpose=purpose, round_id=round_id, batch_id=batch_id, wanted=wanted)

    def deciding(self, found: Round, *outcomes: str, by: Annotator | None = None) -> list[int]:
        """New comparisons of a round's version with the current policy, judged at once: `w` won, `l` lost, `t` tied, `-` not judged."""
        opponent = rounds.current(self.store, found.version.base_model)
        better = {"w": found.version, "l": opponent, "t": None}
        made = []
        for outcome in "".join(outcomes):
            made.append(self.comparison(found.version, opponent, round_id=found.id))
            if outcome in better:
                self.rank(by or self.ann, made[-1], better[outcome])
        return made

    def rank(self, annotator: Annotator, comparison_id: int, better: PolicyVersion | None) -> int:
        """The annotator opens this comparison, wherever it stands in the queue, and prefers one version; None is a tie."""
        shown = comparisons.get(self.store, comparison_id)
        first = [c.id for c in shown.completions if better is not None and c.policy_version_id == better.id]
        rest = [c.id for c in shown.completions if c.id not in first]
        tiers = tuple(tuple(tier) for tier in (first, rest) if tier)
        return judgments.save(self.store, self.open(annotator, comparison_id), annotator.id, verdict="rank", tiers=tiers).id

    def open(self, annotator: Annotator, comparison_id: int) -> Presentation:
        """Skips what stands before it."""
        while (shown := queue.next_presentation(self.store, annotator.id))[0].id != comparison_id:
            judgments.save(self.store, shown[1], annotator.id, verdict="skip", skip_reason="not this one")
        return shown[1]

    def rule_ranks(self, comparison_id: int, better: PolicyVersion) -> None:
        ids = sorted(comparisons.get(self.store, comparison_id).completions, key=lambda c: c.policy_version_id != better.id)
        judgments.add_simulated(self.store, comparison_id, self.rule.id, tiers=tuple((c.id,) for c in ids))

    def rows(self, columns: str) -> list[tuple]:
        """Columns of every comparison."""
        return [tuple(row) for row in self.store.rows(f"SELECT {columns} FROM comparisons ORDER BY id")]

    def waiting(self) -> list[int]:
        """The comparisons in the queue."""
        return [row["comparison_id"] for row in self.store.rows("SELECT comparison_id FROM queue ORDER BY position")]
