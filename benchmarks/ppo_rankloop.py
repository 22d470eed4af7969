"""This project's side of `ppo_vs_peers`: one PPO step, its profile, its generation, or the vowel task."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import ppo_work as work
import torch
from tokenizers import Tokenizer, models
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, Qwen2Config

from rlhf import model_files
from rlhf.config import AdapterConfig, PPOConfig, RewardConfig, SamplingConfig
from rlhf.generation.engine import GenerationEngine, requests_for
from rlhf.generation.lanes import Prefill
from rlhf.generation.recording import RolloutRecorder
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
    """Seconds spent inside functions, by phase, until the device has computed what they asked for."""

    def __init__(self, device: str):
        self.device = device
        self.seconds: dict[str, float] = {}

    def now(self) -> float:
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def watch(self, owner: object, name: str, phase: str, *, when: Callable[..., bool] = lambda *_, **__: True) -> None:
        plain: Callable = getattr(owner, name)

        def timed(*args, **kwargs):
            start = self.now()
            try:
                return plain(*args, **kwargs)
            finally:
                if when(*args, **kwargs):
                    self.seconds[phase] = self.seconds.get(phase, 0.0) + self.now() - start

        setattr(owner, name, timed)


def base(load: work.Workload) -> Backbone:
    """The packaged model, or random weights of the shape that is asked for."""
    if load.shape == work.PACKAGED:
        backbone = Backbone.load(model_files.resolve("default"), load.device)
    else:
        torch.manual_seed(0)
        with torch.device(load.device):
            model = AutoModelForCausalLM.from_config(Qwen2Config(**work.qwen2_fields(load.shape)), dtype=getattr(torch, load.dtype))
        backbone = Backbone(model, tokenizer({"<end>": work.NEVER_SAMPLED, "<pad>": work.NEVER_SAMPLED + 1}), load.device)
    backbone.eos_token_ids, backbone.eos_id = (work.NEVER_SAMPLED,), work.NEVER_SAMPLED
    return backbone


def tokenizer(vocabulary: dict[str, int]) -> PreTrainedTokenizerFast:
    spelled = Tokenizer(models.WordLevel(vocabulary, unk_token="<end>"))
    return PreTrainedTokenizerFast(
        tokenizer_object=spelled, eos_token="<end>", pad_token="<pad>", chat_template="{{ messages[0].content }}"
    )


def arranged(load: work.Workload, top_layers: int, reward_layers: int) -> PPO:
    """The trainer of the step that is compared: how many of the last layers have the policy's and the reward model's adapters."""
    backbone = base(load)
    config = RewardConfig(depth=1.0, adapter=AdapterConfig(rank=work.RANK, alpha=work.ALPHA, top_layers=reward_layers))
    backbone.add_adapter(ADAPTER, config.adapter, seed=0)
    return PPO(
        backbone,
        RewardModel(backbone, config, seed=0),
        load.prompt_ids(backbone.base.config.vocab_size),
        PPOConfig(
            batch_size=load.prompts,
            minibatch_size=load.minibatch,
            epochs=load.epochs,
            learning_rate=work.LEARNING_RATE,
        ),
        AdapterConfig(rank=work.RANK, alpha=work.ALPHA, top_layers=top_layers),
        sampling=SamplingConfig(max_new_tokens=load.response_tokens, temperature=1.0),
        seed=0,
    )


def peak(load: work.Workload) -> dict[str, float]:
    return {"peak_gib": torch.cuda.max_memory_allocated() / 2**30} if load.device == "cuda" else {}


def step(load: work.Workload, top_layers: int, reward_layers: int) -> None:
    trainer = arranged(load, top_layers, reward_layers)
    backbone = trainer.backbone
    clock = Clock(load.device)
    clock.watch(ppo_trainer, "collect", "collect")
    clock.watch(trainer, "update", "update")
    clock.watch(RewardModel, "score", "scoring")
    clock.watch(rollout, "forward_logprobs", "scoring")
    clock.watch(Prefill, "step", "prefill")
    if load.device == "cuda":
        # The first step allocates and captures.
        trainer.step()
        clock.seconds.clear()
    start = clock.now()
    trainer.step()
    seconds = clock.seconds
    work.report(
        step=clock.now() - start,
        rollout=seconds.pop("collect") - seconds["scoring"],
        sizes=sizes(backbone),
        adapted=top_layers or backbone.depth,
        reward_adapted=reward_layers or backbone.depth,
        **seconds,
        **peak(load),
    )


def profiled(load: work.Workload, top_layers: int) -> None:
    """Seconds of a step's gradients by what they are spent on; watching costs some of its own.

    A minibatch at a time: what the profiler keeps of a whole update does not fit into the memory of a small machine.
    """
    trainer = arranged(load, top_layers, top_layers)
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
def generate(load: work.Workload, *, by_transformers: bool) -> None:
    """Tokens a second of base and policy by this project's loop or by `model.generate`, in bfloat16 where there is that."""
    backbone = base(load)
    backbone.add_adapter("policy", AdapterConfig(rank=work.RANK, alpha=work.ALPHA), seed=0)
    options = load.prompt_ids(backbone.base.config.vocab_size)
    ids = torch.tensor(options, device=load.device)
    sampling_ = Sampling(temperature=1.0, max_new_tokens=load.response_tokens)
    clock = Clock(load.device)
    engine = GenerationEngine(backbone)
    if by_transformers:
        plain(backbone)

    def run(adapter: str | None) -> None:
        if not by_transformers:
            recorder = None if adapter is None else RolloutRecorder(backbone, [len(row) for row in options], load.response_tokens)
            engine.run(requests_for(options, sampling_, 0, adapter=adapter), recorder=recorder)
            return
        with backbone.adapter_set.applied(adapter):
            backbone.base.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                top_k=0,
                top_p=1.0,
                temperature=1.0,
                max_new_tokens=load.response_tokens,
                eos_token_id=work.NEVER_SAMPLED,
                pad_token_id=backbone.pad_id,
            )

    def rate(adapter: str | None) -> float:
        """The best of three, so that the first one's first touch of the weights does not count."""
        seconds = []
        for _ in range(3):
            start = clock.now()
            run(adapter)
            seconds.append(clock.now() - start)
        return load.new_tokens / min(seconds)

    work.report(base=rate(None), policy=rate("policy"), **peak(load))


def plain(backbone: Backbone) -> None:
    """As `generate` meets it elsewhere: torch's own attention, PEFT's own LoRA."""
    backbone.base.set_attn_implementation("sdpa")
    FusedLinear.forward = FusedLinear.__base__.forward


def matmul_rate(load: work.Workload) -> None:
    """Multiplications and additions a second of one large product, the best of several."""
    dtype, clock = base(load).base.dtype, Clock(load.device)
    side = 8192 if load.device == "cuda" else 2048
    a, b = (torch.randn(side, side, dtype=dtype, device=load.device) for _ in range(2))
    best = 0.0
    for _ in range(12):
        start = clock.now()
        a @ b
        best = max(best, 2 * side**3 / (clock.now() - start))
    work.report(rate=best, dtype=str(dtype).removeprefix("torch."))


# ---- the vowel task


def small() -> Backbone:
    """The random GPT-2 with a vocabulary of letters."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**work.GPT2, bos_token_id=1, eos_token_id=1, pad_token_id=0))
    return Backbone(model, tokenizer({word: i for i, word in enumerate(work.words())}))


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
            minibatch_size=work.Workload().minibatch,
            epochs=work.Workload().epochs,
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
    work.add_options(parser)
    options = parser.parse_args()
    load = work.chosen(options)
    match options.task:
        case "step":
            step(load, options.top_layers, options.reward_layers)
        case "profile":
            profiled(load, options.top_layers)
        case "generate" | "transformers":
            generate(load, by_transformers=options.task == "transformers")
        case "rate":
            matmul_rate(load)
        case "vowels":
            vowels(options.seed, options.lam)
