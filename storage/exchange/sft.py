"""Ideal answers as TRL's prompt-completion dataset: demonstrations for SFT. This format can only be exported."""

from __future__ import annotations

from pathlib import Path

from storage.core.database import Database, to_json
from storage.exchange import atomic_files
from storage.exchange.export import Exported
from storage.exchange.files import RowProgress

_DEMONSTRATIONS = """
SELECT p.messages, i.text, i.edit_distance, {name} AS annotator, s.annotator_kind, p.kind, p.split
FROM ideal_answers i
JOIN active_judgments s ON s.id = i.judgment_id
JOIN annotators a ON a.id = s.annotator_id
JOIN comparisons c ON c.id = s.comparison_id
JOIN prompts p ON p.id = c.prompt_id
WHERE (s.annotator_kind = 'human' OR :simulated) AND NOT EXISTS (
    SELECT 1 FROM excluded_judgments x
    WHERE x.judgment_id = s.id AND x.exclusion_id NOT IN (SELECT exclusion_id FROM exclusion_lifts))
ORDER BY i.judgment_id
"""


def write(
    store: Database,
    path: Path | str,
    *,
    include_simulated: bool = False,
    names: bool = False,
    strict: bool = False,
    progress: RowProgress | None = None,
) -> Exported:
    """Writes one row for each ideal answer of an active judgment that is not excluded."""
    name = "a.name" if names else "a.pseudonym"
    total = store.value("SELECT count(*) FROM ideal_answers") if progress else 0
    written = 0
    with atomic_files.atomic_write_text(path) as file, store.snapshot():
        for row in store.rows(_DEMONSTRATIONS.format(name=name), {"simulated": include_simulated}):
            rest = {key: row[key] for key in ("edit_distance", "annotator", "annotator_kind", "kind", "split")}
            completion = to_json([{"role": "assistant", "content": row["text"]}])
            file.write(f'{{"prompt":{row["messages"]},"completion":{completion},{to_json(rest)[1:]}\n')
            written += 1
            if progress:
                progress(written, total)
    return Exported(written)
