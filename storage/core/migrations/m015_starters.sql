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

-- A project in which people judge starter prompts beside their own goes on as before; its lead may end that.
INSERT INTO settings ("values", by_id, created_at)
SELECT json_set(coalesce((SELECT CASE WHEN json_valid("values") THEN "values" END FROM settings ORDER BY id DESC LIMIT 1), '{}'),
    '$.starters', 'on'), NULL, strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now')
WHERE EXISTS (SELECT 1 FROM prompts WHERE starter = 0 AND retired = 0)
    AND EXISTS (SELECT 1 FROM judgments j JOIN comparisons c ON c.id = j.comparison_id JOIN prompts p ON p.id = c.prompt_id
        WHERE p.starter = 1);

CREATE INDEX prompts_starter ON prompts(id) WHERE starter = 1;

CREATE INDEX prompts_theirs ON prompts(split) WHERE retired = 0 AND starter = 0;
