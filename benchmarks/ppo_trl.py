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
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
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


def settings(load: work.Workload, *, steps: int, batch: int, new_tokens: int, learning_rate: float, kl_coef: float, seed: int) -> PPOConfig:
    # One device batch as large as the whole batch: every minibatch is an update, as on the other side.
    return PPOConfig(
        output_dir=tempfile.mkdtemp(),
        report_to=[],
        use_cpu=load.device == "cpu",
        bf16=load.device == "cuda",
        seed=seed,
        disable_tqdm=True,
        save_strategy="no",
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=1,
        num_mini_batches=batch // load.minibatch,
        num_ppo_epochs=load.epochs,
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


def models_of(load: work.Workload, model: str) -> tuple[PreTrainedTokenizerFast, PreTrainedModel, list[PreTrainedModel]]:
    """The tokenizer, the policy, and the reward and value models: the packaged one's weights, or random ones of the shape asked for."""
    if load.shape == work.PACKAGED:
        tokenizer = AutoTokenizer.from_pretrained(model)
        # Its own padding is the end of a turn; TRL wants one that is never sampled.
        tokenizer.pad_token_id = work.NEVER_SAMPLED + 1
        policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        critics = [AutoModelForSequenceClassification.from_pretrained(model, num_labels=1, dtype=torch.float32) for _ in range(2)]
        return tokenizer, policy, critics
    spelled = Tokenizer(models.WordLevel({"<end>": work.NEVER_SAMPLED, "<pad>": work.NEVER_SAMPLED + 1}, unk_token="<end>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=spelled, eos_token="<end>", pad_token="<pad>")
    config, dtype = Qwen2Config(**work.qwen2_fields(load.shape), num_labels=1), getattr(torch, load.dtype)
    torch.manual_seed(0)
    with torch.device(load.device):
        policy = AutoModelForCausalLM.from_config(config, dtype=dtype)
        critics = [AutoModelForSequenceClassification.from_config(config, dtype=dtype) for _ in range(2)]
    return tokenizer, policy, critics


def step(load: work.Workload, model: str, top_layers: int) -> None:
    tokenizer, policy, critics = models_of(load, model)
    layers = policy.config.num_hidden_layers
    lora = LoraConfig(
        r=work.RANK,
        lora_alpha=work.ALPHA,
        task_type="CAUSAL_LM",
        target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        layers_to_transform=list(range(layers - top_layers, layers)) if top_layers else None,
    )
    trainer = PPOTrainer(
        args=settings(
            load,
            # On an accelerator the first step is not counted, as on the other side.
            steps=2 if load.device == "cuda" else 1,
            batch=load.prompts,
            new_tokens=load.response_tokens,
            learning_rate=work.LEARNING_RATE,
            kl_coef=0.05,
            seed=0,
        ),
        processing_class=tokenizer,
        model=policy,
        ref_model=None,
        reward_model=critics[0],
        value_model=critics[1],
        train_dataset=Dataset.from_dict({"input_ids": load.prompt_ids(policy.config.vocab_size)}),
        peft_config=lora,
    )
    seconds = {"rollout": 0.0, "scoring": 0.0}
    for name, phase in (("batch_generation", "rollout"), ("get_reward", "scoring"), ("forward", "scoring")):
        watch(seconds, name, phase, load.device)
    clock = StepClock(load.device, seconds)
    trainer.add_callback(clock)
    trainer.train()
    whole = now(load.device) - clock.start
    peak = {"peak_gib": torch.cuda.max_memory_allocated() / 2**30} if load.device == "cuda" else {}
    work.report(step=whole, update=whole - sum(seconds.values()), **seconds, **peak)


class StepClock(TrainerCallback):
    """Begins to count again after every step but the last, which is the one that is measured."""

    def __init__(self, device: str, seconds: dict[str, float]):
        self.device, self.seconds = device, seconds
        self.start = now(device)

    def on_step_end(self, args, state, control, **unused):
        if state.global_step < state.max_steps:
            self.seconds.update(dict.fromkeys(self.seconds, 0.0))
            self.start = now(self.device)


def now(device: str) -> float:
    """The time when the device has computed what it was asked for."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def watch(seconds: dict[str, float], name: str, phase: str, device: str) -> None:
    """Adds up the seconds of a function of the trainer, outside of the update."""
    plain = getattr(ppo_trainer, name)

    def timed(*args, **kwargs):
        if torch.is_grad_enabled():
            return plain(*args, **kwargs)
        start = now(device)
        found = plain(*args, **kwargs)
        seconds[phase] += now(device) - start
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
        work.Workload(),
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
    work.add_options(parser)
    options = parser.parse_args()
    if options.task == "step":
        step(work.chosen(options), options.model, options.top_layers)
    else:
        vowels(options.seed, options.lam)
