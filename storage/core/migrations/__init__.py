"""The schema, one SQL file after another. A migration that has shipped is never edited.

Ids are integer keys; lists and objects are JSON text; times are ISO 8601 UTC text. Judgments and other acts are append-only: a
correction or an undo is a new row that `supersedes` an older one, and an exclusion names the judgments that do not count.
Triggers maintain the columns and tables that are read most (`judgments.counts`, `comparisons.human_ranks`, `human_skips`,
`leased`, `annotators.judged`, the table `queue`); all of them can be computed again from the other rows.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources

from sqlite_utils import Database, Migrations

NAMES = (
    "m001_loop", "m002_people", "m003_project", "m004_detail", "m005_leases", "m006_audit", "m007_validation", "m008_blindness",
    "m009_sign_in", "m010_names", "m011_option_names", "m012_results", "m013_imports", "m014_refusals", "m015_starters",
    "m017_completion_labels", "m018_undos_and_prompt_events", "m019_rounds",
    "m020_queued_rounds", "m021_batch_choices", "m022_queued_rounds_in_audit",
    "m023_at_chance_of_old_runs", "m024_run_names", "m025_run_activity", "m026_run_jobs",
)  # fmt: skip

migrations = Migrations("rankloop")


def _from_file(name: str) -> Callable[[Database], None]:
    def apply(db: Database) -> None:
        script = resources.files(__name__).joinpath(f"{name}.sql").read_text(encoding="utf-8")
        # executescript() would commit the transaction that the migration runs in.
        for statement in script.split(";\n\n"):
            if statement.strip():
                db.conn.execute(statement)

    return apply


for _name in NAMES:
    migrations(name=_name)(_from_file(_name))
