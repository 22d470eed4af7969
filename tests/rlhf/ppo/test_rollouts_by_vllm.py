"""PPO on rollouts that vLLM samples, on the packaged model: `make test-vllm VLLM=/path/to/vllm`, two minutes on two cores."""

import os
import shutil
import signal
import subprocess

import httpx2
import pytest
from small_ppo import CONFIG, ByteReward, scrambled
from waiting import until

from rlhf import model_files
from rlhf.config import AdapterConfig, SamplingConfig
from rlhf.models.backbone import Backbone
from rlhf.ppo.remote_rollout import remote_sampler
from rlhf.ppo.trainer import PPO
from rlhf.serving import supervisor
from rlhf.serving.rollout_client import RolloutServerError

pytestmark = [pytest.mark.slow, pytest.mark.packages]

SAMPLING = SamplingConfig(max_new_tokens=24, temperature=0.7)
START_S = 600


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    command = shutil.which(os.environ.get("RANKLOOP_VLLM", "vllm"))
    if command is None:
        pytest.skip("there is no vllm: name its command in RANKLOOP_VLLM")
    port = supervisor.free_port()
    arguments = ["--enable-lora", "--max-lora-rank", "16", "--logprobs-mode", "processed_logprobs", "--dtype", "bfloat16"]
    bounds = ["--max-model-len", "1024", "--gpu-memory-utilization", "0.2", "--host", "127.0.0.1", "--port", str(port)]
    log = tmp_path_factory.mktemp("vllm") / "log.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [command, "serve", str(model_files.resolve("default")), *arguments, *bounds],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"},
            start_new_session=True,
        )

    def ready():
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        try:
            return httpx2.get(f"http://127.0.0.1:{port}/health").status_code == 200
        except httpx2.HTTPError:
            return False

    try:
        until(ready, START_S)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def trained(rank):
    backbone = Backbone.load(model_files.resolve("default"), "cpu", "bfloat16")
    prompts = [backbone.encode([{"role": "user", "content": f"Tell me about {what}."}]) for what in ("tea", "Rome", "cats", "snow", "law")]
    return scrambled(PPO(backbone, ByteReward(), prompts, CONFIG, AdapterConfig(rank=rank, top_layers=10), sampling=SAMPLING, seed=0))


def test_ppo_learns_from_what_vllm_samples(url, tmp_path):
    """Bounds that rounding to bfloat16 keeps and another policy does not: its mean ratio over sampled tokens is far below 1."""
    ppo = trained(16)
    with remote_sampler(ppo.backbone, url, "", tmp_path / "rollouts", "r1") as sampling:
        found = sampling.check(ppo.prompts, SAMPLING.to_sampling())
        assert 0 < found.mean < 0.15 and found.largest < 2.0 and found.mean_unscaled > 2 * found.mean
        ppo.sampler = sampling
        for _ in range(2):
            metrics = ppo.step()
            print({name: round(value, 4) for name, value in metrics.items() if name.startswith("sampling/")})
            assert metrics["sampling/importance_sampling_ratio/mean"] == pytest.approx(1.0, abs=0.1)
            assert metrics["sampling/importance_sampling_truncated"] < 0.02
            assert metrics["sampling/sampling_logp_difference/mean"] < 0.15
    assert len(sampling.client.adapters()) == 1, "the base alone"


def test_a_rank_that_vllm_was_not_started_for_is_named(url, tmp_path):
    ppo = trained(32)
    with remote_sampler(ppo.backbone, url, "", tmp_path / "rollouts", "r2") as sampling:
        ppo.sampler = sampling
        with pytest.raises(RolloutServerError, match="the adapter has rank 32, and the server was started for 16 at most"):
            ppo.step()
