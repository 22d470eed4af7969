-- Whether a prompt is only one of the packaged starter prompts. They serve while the store has no others; a starter prompt that somebody
-- imports as well becomes one of theirs.

ALTER TABLE prompts ADD COLUMN starter INTEGER NOT NULL DEFAULT 0;

UPDATE prompts SET starter = 1
WHERE source = 'starter'
    AND NOT EXISTS (SELECT 1 FROM comparisons c WHERE c.prompt_id = prompts.id AND c.import_id IS NOT NULL AND c.retired = 0)
    AND NOT EXISTS (
        SELECT 1 FROM imports i, json_each(CASE WHEN json_valid(i.report) THEN i.report ELSE '{}' END, '$.reused') span
        WHERE i.undone_at IS NULL AND prompts.id BETWEEN json_extract(span.value, '$[0]') AND json_extract(span.value, '$[1]')
    );

CREATE INDEX prompts_starter ON prompts(id) WHERE starter = 1;

CREATE INDEX prompts_theirs ON prompts(split) WHERE retired = 0 AND starter = 0;
