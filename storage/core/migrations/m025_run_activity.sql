-- What an active run does within its stage, for people who watch: a key of the pages' texts, and how many of the things it does are done.

ALTER TABLE runs ADD COLUMN activity TEXT;

ALTER TABLE runs ADD COLUMN activity_done INTEGER;

ALTER TABLE runs ADD COLUMN activity_count INTEGER;
