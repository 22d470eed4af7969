"""The number of preference pairs, counted by SQLite: neither judgments nor completions are loaded for it.

It is the number of pairs that `rlhf.data.pairs` derives without ties: two completions in different tiers of a vote, unless their texts
are identical. Votes whose tiers cannot be read are left out, as there, and so are votes on starter prompts that are not in use, and
those of the Demo page unless they are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from storage.content import comparisons, prompts
from storage.core.database import Database
from storage.core.records import AnnotatorKind, Split

_NO_DEMO = f"c.purpose != '{comparisons.DEMO}'"

_COUNT = f"""
WITH ranked AS (
    SELECT v.annotator_kind, v.comparison_id, CASE WHEN json_valid(v.tiers) THEN v.tiers ELSE '[]' END AS tiers FROM votes v
)
SELECT r.annotator_kind, p.split, count(*) FROM ranked r
CROSS JOIN comparisons c ON c.id = r.comparison_id
CROSS JOIN prompts p ON p.id = c.prompt_id
CROSS JOIN json_each(r.tiers) upper
CROSS JOIN json_each(CASE upper.type WHEN 'array' THEN upper.value ELSE '[]' END) better
CROSS JOIN json_each(r.tiers) lower ON lower.key > upper.key
CROSS JOIN json_each(CASE lower.type WHEN 'array' THEN lower.value ELSE '[]' END) worse
CROSS JOIN completions chosen ON chosen.id = better.value
CROSS JOIN completions rejected ON rejected.id = worse.value
WHERE {_NO_DEMO} AND p.id NOT IN ({prompts.UNUSED_STARTERS})
    AND chosen.text != rejected.text AND NOT EXISTS (
    SELECT 1 FROM json_each(r.tiers) tier
    WHERE tier.type != 'array' OR json_array_length(tier.value) = 0
        OR EXISTS (SELECT 1 FROM json_each(tier.value) member WHERE member.type != 'integer'))
GROUP BY r.annotator_kind, p.split
"""


@dataclass(frozen=True, slots=True)
class PairCountTable:
    """Numbers of preference pairs, by who judged and by the prompt's split."""

    by_kind_and_split: dict[tuple[AnnotatorKind, Split], int]

    def total(self, *kinds: AnnotatorKind, splits: tuple[Split, ...] = get_args(Split)) -> int:
        """The number of pairs of these kinds of annotators on prompts of these splits."""
        return sum(self.by_kind_and_split.get((kind, split), 0) for kind in kinds for split in splits)


def count(store: Database, *, demo_votes: bool = False) -> PairCountTable:
    rows = store.rows(_COUNT.replace(_NO_DEMO, "true") if demo_votes else _COUNT)
    return PairCountTable({(kind, split): pairs for kind, split, pairs in rows})
