-- The options of a run get the names of today. Options that a row lacks stay away: they have their defaults, as before. A row
-- whose options are no JSON stays as it is.

-- The first versions held the policy's adapter in the section of PPO.
UPDATE runs SET config =
  json_remove(json_set(config, '$.adapter', config -> '$.ppo.adapter'), '$.ppo.adapter')
WHERE CASE WHEN json_valid(config) THEN json_type(config, '$.ppo.adapter') END IS NOT NULL;

-- Evaluation measured the KL in PPO's minibatches.
UPDATE runs SET config =
  json_set(config, '$.evaluation.batch_size', config -> '$.ppo.minibatch_size')
WHERE CASE WHEN json_valid(config) THEN json_type(config, '$.ppo.minibatch_size') END IS NOT NULL;

UPDATE runs SET config =
  json_remove(json_set(config, '$.sampling.max_new_tokens', config -> '$.ppo.max_new_tokens'), '$.ppo.max_new_tokens')
WHERE CASE WHEN json_valid(config) THEN json_type(config, '$.ppo.max_new_tokens') END IS NOT NULL;

UPDATE runs SET config =
  json_remove(json_set(config, '$.sampling.temperature', config -> '$.ppo.temperature'), '$.ppo.temperature')
WHERE CASE WHEN json_valid(config) THEN json_type(config, '$.ppo.temperature') END IS NOT NULL;

UPDATE runs SET config =
  json_remove(json_set(config, '$.scoring.missing_eos_score', config -> '$.ppo.missing_eos_score'), '$.ppo.missing_eos_score')
WHERE CASE WHEN json_valid(config) THEN json_type(config, '$.ppo.missing_eos_score') END IS NOT NULL;

UPDATE runs SET config =
  json_remove(json_set(config, '$.scoring.length_penalty', config -> '$.ppo.length_penalty'), '$.ppo.length_penalty')
WHERE CASE WHEN json_valid(config) THEN json_type(config, '$.ppo.length_penalty') END IS NOT NULL;

UPDATE runs SET config =
  json_remove(json_set(config, '$.ppo.early_stopping_kl', config -> '$.ppo.epoch_kl_stop'), '$.ppo.epoch_kl_stop')
WHERE CASE WHEN json_valid(config) THEN json_type(config, '$.ppo.epoch_kl_stop') END IS NOT NULL;

UPDATE runs SET config =
  json_remove(json_set(config, '$.reward.std_penalty', config -> '$.reward.conservatism'), '$.reward.conservatism')
WHERE CASE WHEN json_valid(config) THEN json_type(config, '$.reward.conservatism') END IS NOT NULL;

UPDATE runs SET config =
  json_remove(json_set(config, '$.reward.normalize_samples', config -> '$.reward.reference_samples'), '$.reward.reference_samples')
WHERE CASE WHEN json_valid(config) THEN json_type(config, '$.reward.reference_samples') END IS NOT NULL;

UPDATE runs SET config =
  json_remove(json_set(config, '$.group.num_generations', config -> '$.group.size'), '$.group.size')
WHERE CASE WHEN json_valid(config) THEN json_type(config, '$.group.size') END IS NOT NULL;
