"""TRL's side of `ppo_vs_peers`; runs in an environment of its own, which has TRL 1.12.0 and nothing of this project."""

from __future__ import annotations

import argparse
import os
import tempfile
import time

os.environ |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}

import ppo_work as work
import torch
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer, models
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    TrainerCallback,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer


class Log(TrainerCallback):
    def __init__(self):
        self.scores: list[float] = []
        self.kl: list[float] = []

    def on_log(self, args, state, control, logs=None, **unused):
        if logs and "objective/scores" in logs:
            self.scores.append(logs["objective/scores"])
            self.kl.append(logs["objective/kl"])


def settings(*, steps: int, batch: int, new_tokens: int, learning_rate: float, kl_coef: float, seed: int) -> PPOConfig:
    # One device batch as large as the whole batch: every minibatch is an update, as on the other side.
    return PPOConfig(
        output_dir=tempfile.mkdtemp(),
        report_to=[],
        use_cpu=True,
        bf16=False,
        seed=seed,
        disable_tqdm=True,
        save_strategy="no",
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=1,
        num_mini_batches=batch // work.MINIBATCH,
        num_ppo_epochs=work.EPOCHS,
        total_episodes=steps * batch,
        local_rollout_forward_batch_size=batch,
        response_length=new_tokens,
        temperature=1.0,
        learning_rate=learning_rate,
        lr_scheduler_type="constant",
        kl_coef=kl_coef,
        num_sample_generations=0,
        stop_token_id=work.NEVER_SAMPLED,
        gradient_checkpointing=False,
        logging_steps=1,
    )


def step(model: str, top_layers: int) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model)
    # Its own padding is the end of a turn; TRL wants one that is never sampled.
    tokenizer.pad_token_id = work.NEVER_SAMPLED + 1
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    critics = [AutoModelForSequenceClassification.from_pretrained(model, num_labels=1, dtype=torch.float32) for _ in range(2)]
    layers = policy.config.num_hidden_layers
    lora = LoraConfig(
        r=work.RANK,
        lora_alpha=work.ALPHA,
        task_type="CAUSAL_LM",
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        layers_to_transform=list(range(layers - top_layers, layers)) if top_layers else None,
    )
    trainer = PPOTrainer(
        args=settings(steps=1, batch=work.PROMPTS, new_tokens=work.RESPONSE_TOKENS, learning_rate=work.LEARNING_RATE, kl_coef=0.05, seed=0),
        processing_class=tokenizer,
        model=policy,
        ref_model=None,
        reward_model=critics[0],
        value_model=critics[1],
        train_dataset=Dataset.from_dict({"input_ids": work.prompts(policy.config.vocab_size)}),
        peft_config=lora,
    )
    seconds = {"rollout": 0.0, "scoring": 0.0}
    watch(seconds, "batch_generation", "rollout")
    watch(seconds, "get_reward", "scoring")
    watch(seconds, "forward", "scoring")
    start = time.perf_counter()
    trainer.train()
    whole = time.perf_counter() - start
    work.report(step=whole, update=whole - sum(seconds.values()), **seconds)


def watch(seconds: dict[str, float], name: str, phase: str) -> None:
    """Adds up the seconds of a function of the trainer, outside of the update."""
    plain = getattr(ppo_trainer, name)

    def timed(*args, **kwargs):
        if torch.is_grad_enabled():
            return plain(*args, **kwargs)
        start = time.perf_counter()
        found = plain(*args, **kwargs)
        seconds[phase] += time.perf_counter() - start
        return found

    setattr(ppo_trainer, name, timed)


# ---- the vowel task


class Vowels(torch.nn.Module):
    """Takes the reward model's place; its scores are replaced below."""


def vowels(seed: int, lam: float) -> None:
    torch.manual_seed(0)
    config = GPT2Config(**work.GPT2, bos_token_id=1, eos_token_id=1, pad_token_id=0, num_labels=1)
    policy, critic = GPT2LMHeadModel(config), GPT2ForSequenceClassification(config)
    torch.manual_seed(seed)
    spelled = Tokenizer(models.WordLevel({word: i for i, word in enumerate(work.words())}, unk_token="<end>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=spelled, eos_token="<end>", pad_token="<pad>")
    said = work.words()
    plain = ppo_trainer.get_reward

    def get_reward(model, query_responses, pad_token_id, context_length):
        if not isinstance(model, Vowels):
            return plain(model, query_responses, pad_token_id, context_length)
        texts = ("".join(said[i] for i in row if i > 1) for row in query_responses[:, context_length:].tolist())
        return None, torch.tensor([work.vowel_score(text) for text in texts]), None

    ppo_trainer.get_reward = get_reward
    log = Log()
    args = settings(
        steps=work.VOWEL_STEPS,
        batch=work.VOWEL_BATCH,
        new_tokens=work.VOWEL_NEW_TOKENS,
        learning_rate=work.VOWEL_LEARNING_RATE,
        kl_coef=work.VOWEL_KL,
        seed=seed,
    )
    args.stop_token_id, args.lam = 1, lam
    trainer = PPOTrainer(
        args=args,
        processing_class=tokenizer,
        model=policy,
        ref_model=None,
        reward_model=Vowels(),
        value_model=critic,
        train_dataset=Dataset.from_dict({"input_ids": work.vowel_prompts()}),
        callbacks=[log],
        peft_config=LoraConfig(
            r=work.VOWEL_RANK, lora_alpha=2 * work.VOWEL_RANK, target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True
        ),
    )
    start = time.perf_counter()
    trainer.train()
    work.report(scores=log.scores, kl=log.kl, step=(time.perf_counter() - start) / work.VOWEL_STEPS)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("step", "vowels"))
    parser.add_argument("--model", default="")
    parser.add_argument("--top-layers", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lam", type=float, default=0.95)
    options = parser.parse_args()
    if options.task == "step":
        step(options.model, options.top_layers)
    else:
        vowels(options.seed, options.lam)
