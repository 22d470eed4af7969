-- What a round says of its reward model before the policy learns from it.

ALTER TABLE runs ADD COLUMN validation TEXT;
