-- Wrong passwords are counted by name and by where they came from, so that nobody can keep somebody else out.

ALTER TABLE sign_in_failures ADD COLUMN origin TEXT NOT NULL DEFAULT '';
