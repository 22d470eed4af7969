"""A reward model from elsewhere: what it reads, its scale, its weight beside the learned model, and which folders are refused."""

import json
import logging

import pytest
import tiny
import tiny_reward
import torch
from learning import user
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import AutoTokenizer, BertForSequenceClassification, LlamaForSequenceClassification

from rlhf.config import AdapterConfig, ConfigError, RewardConfig, RoundConfig, with_options
from rlhf.model_files import outside_reward_model
from rlhf.models.backbone import Backbone
from rlhf.reward.model import RewardModel
from rlhf.reward.outside import Answered, OutsideRewardModel, WeightedReward
from rlhf.runs import dry_run
from rlhf.safe_files import ModelError
from storage.project import runs

CPU = torch.device("cpu")
ROWS = [Answered(user("Why?"), "Because it is so."), Answered(user("How long is this one?"), "Long."), Answered(user("A"), "")]


def load(folder):
    return OutsideRewardModel.load(outside_reward_model(str(folder)), CPU, torch.float32)


@pytest.mark.parametrize("pads", [True, False])
def test_a_decoder_reads_its_own_template_and_rows_do_not_depend_on_their_batch(tmp_path, pads):
    folder = tiny_reward.decoder(tmp_path / "reward", pads=pads)
    model, tokenizer = LlamaForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    expected = []
    for row in ROWS:
        text = f"<|user|>{row.prompt[0]['content']}<|end|><|assistant|>{row.answer}<|end|>"
        with torch.no_grad():
            expected.append(float(model(torch.tensor([tokenizer.encode(text)])).logits[0, 0]))
    assert_close(load(folder).logits(ROWS), torch.tensor(expected), atol=1e-5, rtol=1e-5)
    assert len({round(e, 3) for e in expected}) == 3


def test_an_encoder_without_a_template_reads_two_texts(tmp_path):
    folder = tiny_reward.encoder(tmp_path / "reward")
    model, tokenizer = BertForSequenceClassification.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    expected = []
    for row in ROWS:
        read = tokenizer(row.prompt[0]["content"], row.answer, return_tensors="pt")
        with torch.no_grad():
            expected.append(float(model(**read).logits[0, 0]))
    assert_close(load(folder).logits(ROWS), torch.tensor(expected), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("make", [tiny_reward.decoder, tiny_reward.encoder])
def test_what_is_too_long_is_cut_and_counted(tmp_path, caplog, make):
    caplog.set_level(logging.WARNING, logger="rankloop.reward")
    outside = load(make(tmp_path / "reward", positions=32))
    long = Answered(user("Q"), "x" * 100)
    assert len(outside.encode(long).ids) == 32 and outside.logits([*ROWS, long]).isfinite().all()
    assert "reads 32 tokens: 1 of 4 conversations were cut" in caplog.text


def test_scores_are_on_the_scale_of_the_answers_that_normalise_and_the_scale_is_kept(tmp_path):
    outside = load(tiny_reward.decoder(tmp_path / "reward"))
    logits = outside.logits(ROWS)
    outside.normalise(ROWS)
    assert_close(outside.score(ROWS), (logits - logits.mean()) / logits.std(unbiased=False), atol=1e-5, rtol=1e-5)
    outside.save_scale(tmp_path / "run")
    again = load(tmp_path / "reward")
    again.load_scale(tmp_path / "run")
    assert torch.equal(again.score(ROWS), outside.score(ROWS))
    one = load(tmp_path / "reward")
    one.normalise(ROWS[:1])
    assert one.std == 1.0, "answers of one score give no scale"


@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_the_weighted_sum_reads_the_same_answers_by_both(tiny_folder, tmp_path, weight):
    backbone = Backbone.load(tiny_folder, "cpu", "float32")
    learned = RewardModel(backbone, RewardConfig(adapter=AdapterConfig(rank=2), epochs=0), seed=1)
    outside = load(tiny_reward.decoder(tmp_path / "reward"))
    outside.normalise(ROWS)
    both = WeightedReward(learned, outside, weight, backbone, [user("Why?"), user("How?")])
    answers = [("Why?", "So."), ("How?", "Like that")]
    rows = [both.row(backbone.encode(user(asked)), backbone.encode_answer(text)) for asked, text in answers]
    expected = weight * outside.score([Answered(user(asked), text) for asked, text in answers])
    if weight < 1:
        expected += (1 - weight) * learned.score(rows)
    assert_close(both.score(rows), expected, atol=1e-5, rtol=1e-5)


def spoiled(change):
    def make(folder):
        tiny_reward.decoder(folder)
        change(folder)
        return folder

    return make


def config_with(**values):
    def change(folder):
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return spoiled(change)


def without_weights(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


WRONG = [
    (lambda folder: folder, "no config.json"),
    (spoiled(without_weights), "no \\*.safetensors"),
    (tiny.write, "no architecture for sequence classification"),
    (lambda folder: tiny_reward.decoder(folder, labels=3), "has 3 outputs, where a reward model has 1"),
    (config_with(architectures="LlamaForSequenceClassification"), "no architecture for sequence classification"),
    (spoiled(lambda folder: (folder / "adapter_config.json").write_text("{}")), "holds an adapter_config.json"),
]


@pytest.mark.parametrize("make, reason", WRONG)
def test_a_wrong_folder_is_refused_before_a_row_is_written(judged, jobs, tmp_path, make, reason):
    config = judged.config(reward_model_path=str(make(tmp_path / "reward")))
    with pytest.raises(ConfigError, match=f"--reward-model-path .*{reason}"):
        jobs.create(config)
    assert runs.all_runs(judged.store) == [] and "--reward-model-path" in dry_run.of(judged.store, config).hindrance


def without_the_head(folder):
    weights = load_file(folder / "model.safetensors")
    save_file({name: weight for name, weight in weights.items() if name != "score.weight"}, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    "make, reason",
    [
        (spoiled(without_the_head), "its weights lack score.weight, so that its scores would be random"),
        (spoiled(lambda folder: (folder / "model.safetensors").write_bytes(b"no tensors")), "cannot be read as a sequence-classification"),
        (config_with(model_type="of-my-own", auto_map={"AutoConfig": "code.Config"}), "cannot be read as a sequence-classification"),
    ],
)
def test_a_model_that_would_score_at_random_or_run_code_is_not_loaded(tmp_path, make, reason):
    with pytest.raises(ModelError, match=reason):
        load(make(tmp_path / "reward"))


def test_scores_that_are_no_numbers_are_an_error(tmp_path):
    outside = load(tiny_reward.decoder(tmp_path / "reward"))
    outside.model.score.weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="no finite number"):
        outside.logits(ROWS)


def test_two_things_that_score_are_refused():
    config = RoundConfig(reward_function="a:b")
    with pytest.raises(ConfigError, match="one of them scores"):
        with_options(config, {"reward-model-path": "/somewhere"})
