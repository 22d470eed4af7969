-- Prompts that a model cannot answer are set aside with the reason, and what an outside server says of its answers is kept.

CREATE TABLE prompt_refusals (
    prompt_id INTEGER NOT NULL REFERENCES prompts(id),
    base_model TEXT NOT NULL,
    reason TEXT NOT NULL,
    created_at TEXT NOT NULL,
    PRIMARY KEY (prompt_id, base_model)
) WITHOUT ROWID;

ALTER TABLE completions ADD COLUMN reported TEXT;
