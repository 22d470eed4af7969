"""The methods beside PPO, each by TRL's own trainer, on the one backbone: DPO, RLOO, GRPO and SFT."""
