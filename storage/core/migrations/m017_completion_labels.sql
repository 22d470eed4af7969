-- Judgments of one completion, good or bad, without another to compare it with. They come from imports, and no training reads them.

CREATE TABLE completion_labels (
    id INTEGER PRIMARY KEY,
    completion_id INTEGER NOT NULL REFERENCES completions(id),
    annotator_id INTEGER NOT NULL REFERENCES annotators(id),
    good INTEGER NOT NULL CHECK (good IN (0, 1)),
    rationale TEXT NOT NULL DEFAULT '',
    created_at TEXT NOT NULL,
    import_id INTEGER NOT NULL REFERENCES imports(id)
);

CREATE INDEX completion_labels_completion ON completion_labels(completion_id);

CREATE INDEX completion_labels_import ON completion_labels(import_id);

CREATE TRIGGER completion_labels_are_not_changed BEFORE UPDATE ON completion_labels
BEGIN SELECT RAISE(ABORT, 'completion_labels are append-only'); END;

CREATE TRIGGER completion_labels_are_not_deleted BEFORE DELETE ON completion_labels
WHEN OLD.import_id NOT IN (SELECT id FROM imports WHERE state = 'writing')
BEGIN SELECT RAISE(ABORT, 'completion_labels are append-only'); END;

-- Those that stand: their import is whole and was not undone.
CREATE VIEW active_completion_labels AS
SELECT l.*, a.kind AS annotator_kind
FROM completion_labels l JOIN annotators a ON a.id = l.annotator_id
WHERE l.import_id IN (SELECT id FROM imports WHERE state = 'whole' AND undone_at IS NULL);
