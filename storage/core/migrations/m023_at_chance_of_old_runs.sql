-- A run that was made before `at_chance` could be chosen trained its policy whatever its reward model was worth. If it is resumed, it still does.
-- A row whose options are no JSON stays as it is.

UPDATE runs SET config = json_set(config, '$.at_chance', 'continue')
WHERE status <> 'done'
  AND CASE WHEN json_valid(config) THEN json_type(config) = 'object' AND json_type(config, '$.at_chance') IS NULL END;
