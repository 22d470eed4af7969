-- Keys of stored results and validations, and one metric's name, under the field's terms. Only keys are replaced in the text, so that
-- every number keeps its last digit: a key is the only place where a quoted word is followed by a colon.

UPDATE runs SET result = replace(replace(replace(replace(replace(json(result),
    '"kept":', '"best_checkpoint":'), '"of":', '"steps":'), '"score":', '"conservative_score":'),
    '"most":', '"max_n":'), '"beyond_most":', '"beyond_max_n":')
WHERE json_valid(result);

UPDATE runs SET validation = replace(replace(replace(replace(replace(json(validation),
    '"surprises":', '"high_loss_judgments":'), '"by_chance":', '"ece_by_chance":'), '"reach":', '"asymptote":'),
    '"half":', '"half_saturation":'), '"more":', '"additional_judgments":')
WHERE json_valid(validation);

UPDATE OR REPLACE metrics SET name = replace(name, '/rewards/paid/', '/rewards/score/') WHERE instr(name, '/rewards/paid/');
