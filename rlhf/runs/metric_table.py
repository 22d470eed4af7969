"""The metrics that a round logs: the name of each, its unit and meaning. The reference and the page's labels come from here. No torch.

Names are TRL's where TRL has the metric. RLOO, GRPO, DPO and SFT also log, as `METHOD/NAME`, what their trainers name and this
project passes on unchanged; of those this table has the ones that the Training page draws.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlhf.config import METHODS


@dataclass(frozen=True, slots=True)
class MetricDefinition:
    name: str
    unit: str
    """Empty for a number without a unit."""
    meaning: str
    title: str = ""
    """Title of its chart on the Training page; empty without a chart."""

    @property
    def key(self) -> str:
        """The name in keys of translations and ids of elements: `objective-kl`."""
        return self.name.replace("/", "-")


TIME = "time/"
STAGE = "STAGE"

METRICS = (
    MetricDefinition(
        "objective/scores", "reward units", "Mean score of the step's completions, as PPO learns from it: after penalties.", "Score"
    ),
    MetricDefinition("objective/scores_std", "reward units", "Standard deviation of those scores."),
    MetricDefinition("objective/proxy_scores", "reward units", "Mean score by the reward model, before penalties."),
    MetricDefinition("objective/disagreement", "reward units", "Mean standard deviation over the heads of an ensemble; 0 with one head."),
    MetricDefinition("objective/conservative_scores", "reward units", "Proxy score minus disagreement."),
    MetricDefinition(
        "objective/kl", "nats per completion", "KL from the policy to the reference, on the policy's own completions.", "KL to base"
    ),
    MetricDefinition("objective/sqrt_kl", "square root of nats", "Square root of that KL: the horizontal axis of Gao 2023."),
    MetricDefinition("objective/kl_coef", "reward units per nat", "Coefficient of the KL penalty in this step."),
    MetricDefinition("objective/rewards", "reward units", "Mean over completions of the summed rewards: the score minus the KL penalty."),
    MetricDefinition("policy/entropy_avg", "nats per token", "Mean entropy of the policy's next-token distribution.", "Entropy"),
    MetricDefinition("policy/approxkl_avg", "nats per token", "Estimated KL to the policy that sampled the batch."),
    MetricDefinition("policy/clipfrac_avg", "share, 0 to 1", "Share of tokens whose probability ratio the policy loss clips."),
    MetricDefinition("policy/grad_norm", "", "Global norm of the policy's gradient before clipping."),
    MetricDefinition("policy/epochs", "epochs", "Epochs of this step; fewer than asked where `--ppo-early-stopping-kl` ended them."),
    MetricDefinition("loss/policy_avg", "", "Policy loss."),
    MetricDefinition("loss/value_avg", "", "Value loss, before its coefficient."),
    MetricDefinition("loss/ptx_avg", "nats per token", "Loss on demonstrations, where `--ppo-ptx-coef` is on."),
    MetricDefinition("val/response_length", "tokens", "Mean length of the completions.", "Answer length"),
    MetricDefinition("val/finished", "share, 0 to 1", "Share of completions that ended with the end token."),
    MetricDefinition("val/ratio", "", "Mean probability ratio of the policy to the one that sampled. Close to 1."),
    MetricDefinition("val/clipfrac_avg", "share, 0 to 1", "Share of tokens whose value the value loss clips."),
    MetricDefinition(
        "val/explained_variance", "at most 1", "Share of the variance of the returns that the values explain. 0: no better than their mean."
    ),
    MetricDefinition(
        "sampling/importance_sampling_ratio/mean",
        "",
        "Mean of a token's probability here over that at the server that sampled it (`--rollouts`), before the limit. Close to 1.",
    ),
    MetricDefinition(
        "sampling/importance_sampling_truncated",
        "share, 0 to 1",
        "Share of tokens whose ratio is above `--ppo-importance-sampling-clip-max`.",
    ),
    MetricDefinition(
        "sampling/sampling_logp_difference/mean", "nats per token", "Mean difference of the two log-probabilities, without its sign."
    ),
    MetricDefinition("sampling/sampling_logp_difference/max", "nats", "The largest of those differences."),
    MetricDefinition(
        "sampling/base_logp_difference/max", "nats", "The largest one on an answer of the base, which is compared before the first step."
    ),
    MetricDefinition("reward/loss", "nats per pair", "Preference loss of the reward model's fine-tuning.", "Loss"),
    MetricDefinition("reward/accuracy", "share of pairs", "Share of the batch's pairs that the reward model orders as the annotator did."),
    MetricDefinition("reward/heldout_accuracy", "share of pairs", "The same on the held-out pairs.", "Held-out accuracy"),
    MetricDefinition("dpo/loss", "nats per pair", "DPO's loss.", "Loss"),
    MetricDefinition(
        "dpo/rewards/margins",
        "nats",
        "Mean implicit reward, beta log pi/ref, of the chosen completions less the rejected.",
        "Reward margin",
    ),
    MetricDefinition(
        "dpo/rewards/accuracies",
        "share of pairs",
        "Share of pairs whose chosen completion has the higher implicit reward.",
        "Training accuracy",
    ),
    MetricDefinition("dpo/logps/chosen", "nats", "Mean log-probability of the chosen completions under the policy.", "Chosen answer"),
    MetricDefinition("sft/loss", "nats per token", "Mean negative log-probability of the demonstrations' tokens.", "Loss"),
    MetricDefinition(
        "sft/mean_token_accuracy",
        "share of tokens",
        "Share of the demonstrations' tokens that the policy finds most probable.",
        "Token accuracy",
    ),
    MetricDefinition("sft/entropy", "nats per token", "Mean entropy of the policy's next-token distribution.", "Entropy"),
    MetricDefinition("sft/grad_norm", "", "Global norm of the gradient before clipping.", "Gradient norm"),
    MetricDefinition(f"{TIME}{STAGE}", "seconds", "Wall time of a stage: `snapshot`, `reward`, the method, `evaluate`, `register`."),
)

BY_NAME = {metric.name: metric for metric in METRICS}


def of_stage(stage: str) -> str:
    """The name of the metric of a stage's wall time."""
    return TIME + stage


def is_known(name: str) -> bool:
    """Whether the table has the metric, or a trainer of TRL names it."""
    return name in BY_NAME or name.startswith((TIME, *(f"{method}/" for method in METHODS)))
