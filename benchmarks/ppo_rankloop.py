"""This project's side of `ppo_vs_peers`: one PPO step of the packaged model, its profile, its generation, or the vowel task."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import ppo_work as work
import torch
from tokenizers import Tokenizer, models
from torch.profiler import ProfilerActivity, profile
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from rlhf import model_files
from rlhf.config import AdapterConfig, PPOConfig, RewardConfig, SamplingConfig
from rlhf.generation.sampling import generator, stream
from rlhf.models.backbone import Backbone
from rlhf.models.lora import FusedLinear
from rlhf.ppo import rollout
from rlhf.ppo import trainer as ppo_trainer
from rlhf.ppo.trainer import PPO
from rlhf.reward.model import ADAPTER, RewardModel, TokenizedExample
from storage.core.records import Sampling

NO_CLIPPING = 1e9
"""TRL 1.12.0 takes a `max_grad_norm` and never clips by it; for the same work, neither side does."""

PRODUCTS = ("aten::mm", "aten::addmm", "aten::addmm_", "aten::linear")


class Clock:
    """Seconds spent inside functions, by phase."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    def watch(self, owner: object, name: str, phase: str, *, when: Callable[..., bool] = lambda *_, **__: True) -> None:
        plain: Callable = getattr(owner, name)

        def timed(*args, **kwargs):
            start = time.perf_counter()
            try:
                return plain(*args, **kwargs)
            finally:
                if when(*args, **kwargs):
                    self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - start

        setattr(owner, name, timed)


def packaged() -> Backbone:
    backbone = Backbone.load(model_files.resolve("default"), "cpu")
    backbone.eos_token_ids, backbone.eos_id = (work.NEVER_SAMPLED,), work.NEVER_SAMPLED
    return backbone


def arranged(top_layers: int, reward_layers: int) -> PPO:
    """The trainer of the step that is compared: how many of the last layers have the policy's and the reward model's adapters."""
    backbone = packaged()
    config = RewardConfig(depth=1.0, adapter=AdapterConfig(rank=work.RANK, alpha=work.ALPHA, top_layers=reward_layers))
    backbone.add_adapter(ADAPTER, config.adapter, seed=0)
    return PPO(
        backbone,
        RewardModel(backbone, config, seed=0),
        work.prompts(backbone.base.config.vocab_size),
        PPOConfig(
            batch_size=work.PROMPTS,
            minibatch_size=work.MINIBATCH,
            epochs=work.EPOCHS,
            learning_rate=work.LEARNING_RATE,
        ),
        AdapterConfig(rank=work.RANK, alpha=work.ALPHA, top_layers=top_layers),
        sampling=SamplingConfig(max_new_tokens=work.RESPONSE_TOKENS, temperature=1.0),
        seed=0,
    )


def step(top_layers: int, reward_layers: int) -> None:
    trainer = arranged(top_layers, reward_layers)
    backbone = trainer.backbone
    clock = Clock()
    clock.watch(ppo_trainer, "collect", "collect")
    clock.watch(trainer, "update", "update")
    clock.watch(RewardModel, "score", "scoring")
    clock.watch(rollout, "forward_logprobs", "scoring")
    clock.watch(backbone.decoder, "forward", "prefill", when=lambda ids, *_, cache=None, **__: cache is not None and ids.shape[1] > 1)
    start = time.perf_counter()
    trainer.step()
    seconds = clock.seconds
    work.report(
        step=time.perf_counter() - start,
        rollout=seconds.pop("collect") - seconds["scoring"],
        sizes=sizes(backbone),
        adapted=top_layers or backbone.depth,
        reward_adapted=reward_layers or backbone.depth,
        **seconds,
    )


def profiled(top_layers: int) -> None:
    """Seconds of a step's gradients by what they are spent on; watching costs some of its own.

    A minibatch at a time: what the profiler keeps of a whole update does not fit into the memory of a small machine.
    """
    trainer = arranged(top_layers, top_layers)
    vocabulary = trainer.backbone.base.config.vocab_size
    plain = trainer.add_gradients
    spent: dict[str, float] = {}

    def add_gradients(*args):
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
            found = plain(*args)
        for event in seen.key_averages(group_by_input_shape=True):
            kind = spent_on(event.key, [side for shape in event.input_shapes for side in shape], vocabulary)
            spent[kind] = spent.get(kind, 0.0) + event.self_cpu_time_total / 1e6
        return found

    trainer.add_gradients = add_gradients
    trainer.step()
    work.report(**dict(sorted(spent.items(), key=lambda found: -found[1])))


def spent_on(operator: str, sides: list[int], vocabulary: int) -> str:
    """What an operator on tensors with these sides belongs to."""
    if operator == "aten::bmm":
        return "attention's products"
    if vocabulary in sides:
        return "the head's products" if operator in PRODUCTS else "other passes over the vocabulary"
    if operator in PRODUCTS:
        return "the adapter's products" if work.RANK in sides else "the frozen maps' products"
    return operator.removeprefix("aten::")


def sizes(backbone: Backbone) -> dict[str, int]:
    layer = backbone.decoder.layers[0]
    linears = [m for n, m in layer.named_modules() if isinstance(m, torch.nn.Linear) and ".lora_" not in n]
    return {
        "layers": backbone.depth,
        "per_layer": sum(m.weight.numel() for m in linears),
        "hidden": backbone.hidden_size,
        "vocabulary": backbone.base.config.vocab_size,
    }


@torch.no_grad()
def generate(*, by_transformers: bool) -> None:
    """Tokens a second of base and policy by this project's loop or by `model.generate`, in bfloat16 where there is that."""
    backbone = packaged()
    backbone.add_adapter("policy", AdapterConfig(rank=work.RANK, alpha=work.ALPHA), seed=0)
    options = work.prompts(backbone.base.config.vocab_size)
    ids = torch.tensor(options)
    sampling_ = Sampling(temperature=1.0, max_new_tokens=work.RESPONSE_TOKENS)
    if by_transformers:
        plain(backbone)

    def run(adapter: str | None) -> None:
        if not by_transformers:
            rng = generator(backbone.device, 0)
            for _ in stream(backbone, options, sampling_, rng, adapter=adapter, return_stats=adapter is not None):
                pass
            return
        with backbone.adapter_set.applied(adapter):
            backbone.base.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                top_k=0,
                top_p=1.0,
                temperature=1.0,
                max_new_tokens=work.RESPONSE_TOKENS,
                eos_token_id=work.NEVER_SAMPLED,
                pad_token_id=backbone.pad_id,
            )

    def rate(adapter: str | None) -> float:
        """The best of three, so that the first one's first touch of the weights does not count."""
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            run(adapter)
            seconds.append(time.perf_counter() - start)
        return work.PROMPTS * work.RESPONSE_TOKENS / min(seconds)

    work.report(base=rate(None), policy=rate("policy"))


def plain(backbone: Backbone) -> None:
    """As `generate` meets it elsewhere: torch's own attention, PEFT's own LoRA."""
    backbone.base.set_attn_implementation("sdpa")
    FusedLinear.forward = FusedLinear.__base__.forward


def matmul_rate() -> None:
    """Multiplications and additions a second of one large product, the best of several."""
    dtype = packaged().base.dtype
    a, b = (torch.randn(2048, 2048, dtype=dtype) for _ in range(2))
    best = 0.0
    for _ in range(12):
        start = time.perf_counter()
        a @ b
        best = max(best, 2 * 2048**3 / (time.perf_counter() - start))
    work.report(rate=best, dtype=str(dtype).removeprefix("torch."))


# ---- the vowel task


def small() -> Backbone:
    """The random GPT-2 with a vocabulary of letters."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**work.GPT2, bos_token_id=1, eos_token_id=1, pad_token_id=0))
    spelled = Tokenizer(models.WordLevel({word: i for i, word in enumerate(work.words())}, unk_token="<end>"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=spelled, eos_token="<end>", pad_token="<pad>", chat_template="{{ messages[0].content }}"
    )
    return Backbone(model, tokenizer)


class Vowels:
    """In the reward model's place: reads what the letters say."""

    def __init__(self):
        self.words = work.words()

    def row(self, prompt_ids, answer_ids) -> TokenizedExample:
        return TokenizedExample([*prompt_ids, *answer_ids], len(prompt_ids))

    def score(self, rows, *, on_progress=lambda: None) -> torch.Tensor:
        return torch.tensor([work.vowel_score("".join(self.words[i] for i in r.ids[r.start :] if i > 1)) for r in rows])


def vowels(seed: int, lam: float) -> None:
    trainer = PPO(
        small(),
        Vowels(),
        work.vowel_prompts(),
        PPOConfig(
            batch_size=work.VOWEL_BATCH,
            minibatch_size=work.MINIBATCH,
            epochs=work.EPOCHS,
            learning_rate=work.VOWEL_LEARNING_RATE,
            kl_coef=work.VOWEL_KL,
            kl_target=0.0,
            lam=lam,
            max_grad_norm=NO_CLIPPING,
        ),
        replace(AdapterConfig(), rank=work.VOWEL_RANK, alpha=2 * work.VOWEL_RANK),
        sampling=SamplingConfig(max_new_tokens=work.VOWEL_NEW_TOKENS, temperature=1.0),
        seed=seed,
    )
    start = time.perf_counter()
    steps = [trainer.step() for _ in range(work.VOWEL_STEPS)]
    seconds = (time.perf_counter() - start) / work.VOWEL_STEPS
    work.report(step=seconds, **{name: [step[f"objective/{name}"] for step in steps] for name in ("scores", "kl")})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("step", "profile", "generate", "transformers", "rate", "vowels"))
    parser.add_argument("--top-layers", type=int, default=0)
    parser.add_argument("--reward-layers", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lam", type=float, default=0.95)
    options = parser.parse_args()
    match options.task:
        case "step":
            step(options.top_layers, options.reward_layers)
        case "profile":
            profiled(options.top_layers)
        case "generate" | "transformers":
            generate(by_transformers=options.task == "transformers")
        case "rate":
            matmul_rate()
        case "vowels":
            vowels(options.seed, options.lam)
