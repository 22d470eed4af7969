-- Results, validations and metrics of runs under the field's names. Values stay as they are, to the last digit: `->` copies their text.
-- What is no JSON object stays too; the pages say that it cannot be read.

UPDATE runs SET result = json_set(
    json_remove(result, '$.kept'),
    '$.best_checkpoint', json_set(
        json_remove(result -> '$.kept', '$.of', '$.score'),
        '$.steps', result -> '$.kept.of',
        '$.conservative_score', result -> '$.kept.score'
    )
)
WHERE CASE WHEN json_valid(result) THEN json_type(result, '$.kept') = 'object' END;

UPDATE runs SET result = json_set(
    json_remove(result, '$.best_of_n.most', '$.best_of_n.beyond_most'),
    '$.best_of_n.max_n', result -> '$.best_of_n.most',
    '$.best_of_n.beyond_max_n', result -> '$.best_of_n.beyond_most'
)
WHERE CASE WHEN json_valid(result) THEN json_type(result, '$.best_of_n.most') IS NOT NULL END;

UPDATE runs SET validation = json_set(
    json_remove(validation, '$.surprises'),
    '$.high_loss_judgments', validation -> '$.surprises'
)
WHERE CASE WHEN json_valid(validation) THEN json_type(validation, '$.surprises') IS NOT NULL END;

UPDATE runs SET validation = json_set(
    json_remove(validation, '$.calibration.by_chance'),
    '$.calibration.ece_by_chance', validation -> '$.calibration.by_chance'
)
WHERE CASE WHEN json_valid(validation) THEN json_type(validation, '$.calibration.by_chance') IS NOT NULL END;

UPDATE runs SET validation = json_set(
    json_remove(validation, '$.curve.reach', '$.curve.half', '$.curve.more'),
    '$.curve.asymptote', validation -> '$.curve.reach',
    '$.curve.half_saturation', validation -> '$.curve.half',
    '$.curve.additional_judgments', validation -> '$.curve.more'
)
WHERE CASE WHEN json_valid(validation) THEN json_type(validation, '$.curve.more') IS NOT NULL END;

UPDATE OR REPLACE metrics SET name = replace(name, '/rewards/paid/', '/rewards/score/') WHERE instr(name, '/rewards/paid/');
