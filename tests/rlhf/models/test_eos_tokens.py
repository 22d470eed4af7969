"""Models with several end tokens, as Gemma, Llama 3, Phi and Qwen have: each one ends an answer, wherever answers are made."""

import json

import pytest
import tiny
import torch
from learning import user
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, GenerationConfig

from rlhf.config import RewardConfig
from rlhf.generation.sampling import PrefixActivationCache, collect_sequences, generator, sample, stream
from rlhf.models.backbone import Backbone
from rlhf.models.padding import pad_left
from rlhf.reward.model import RewardModel
from rlhf.safe_files import ModelError
from storage.core.records import Sampling

CPU = torch.device("cpu")
OTHER_END = 7
"""An ordinary letter of the tiny vocabulary, which some configs below call an end."""


def written(folder, *, generation, tokenizer_eos="<|end|>", template=tiny.TEMPLATE):
    tiny.write(folder)
    for name, change in (
        ("generation_config.json", {"eos_token_id": generation}),
        ("tokenizer_config.json", {"eos_token": tokenizer_eos}),
    ):
        fields = json.loads((folder / name).read_text()) | change
        (folder / name).write_text(json.dumps(fields))
    (folder / "chat_template.jinja").write_text(template)
    return folder


def end_of(folder):
    return Backbone.load(folder, "cpu").tokenizer.convert_tokens_to_ids("<|end|>")


@pytest.fixture
def two_ends(tmp_path):
    end = end_of(written(tmp_path / "one", generation=None))
    return Backbone.load(written(tmp_path / "two", generation=[OTHER_END, end]), "cpu", "float32")


def test_the_tokenizers_end_and_those_of_the_generation_config_count(two_ends):
    assert set(two_ends.eos_token_ids) == {two_ends.tokenizer.eos_token_id, OTHER_END}
    assert [two_ends.finish_reason(ids) for ids in ([5, OTHER_END], [two_ends.eos_id], [OTHER_END, 5], [])] == [
        "stop", "stop", "length", "length",
    ]  # fmt: skip
    assert two_ends.ends(torch.tensor([[5, OTHER_END], [two_ends.eos_id, 6]])).tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize("generation", [None, 7, [7], [7, 9]])
def test_a_generation_config_may_name_none_one_or_several(tmp_path, generation):
    backbone = Backbone.load(written(tmp_path, generation=generation), "cpu")
    named = generation if isinstance(generation, list) else [] if generation is None else [generation]
    assert set(backbone.eos_token_ids) == {backbone.tokenizer.eos_token_id, *named}


def test_a_tokenizer_without_an_end_leaves_it_to_the_generation_config(tmp_path):
    assert Backbone.load(written(tmp_path / "a", generation=[7], tokenizer_eos=None), "cpu").eos_token_ids == (7,)
    with pytest.raises(ModelError, match="neither its tokenizer nor its generation config"):
        Backbone.load(written(tmp_path / "b", generation=None, tokenizer_eos=None), "cpu")


TURN = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|turn_end|>AFTER{% endfor %}"


@pytest.mark.parametrize("after", ["", "\n", "<|end|>", "\n<|end|>"])
def test_the_end_that_the_template_puts_after_an_answer_is_the_one_put_after_texts(tmp_path, after):
    # As in Gemma, where the tokenizer's end ends documents and another one ends turns, and in Phi 3, which puts both.
    tok = tiny.tokenizer()
    tok.add_tokens(["<|turn_end|>"], special_tokens=True)
    tok.chat_template = TURN.replace("AFTER", after)
    net = tiny.model(len(tok))
    turn_end = tok.convert_tokens_to_ids("<|turn_end|>")
    net.generation_config.eos_token_id = [tok.eos_token_id, turn_end]
    backbone = Backbone(net, tok)
    assert set(backbone.eos_token_ids) == {tok.eos_token_id, turn_end} and backbone.eos_id == turn_end
    # A mark that nothing calls an end is not made one.
    net.generation_config.eos_token_id = [tok.eos_token_id]
    assert Backbone(net, tok).eos_token_ids == (tok.eos_token_id,)


def test_greedy_answers_end_where_those_of_transformers_do(two_ends):
    prompts = [[i, i + 1, i + 2] for i in range(20, 60)]
    tiny.favour(two_ends, OTHER_END, 3.0)
    ours = sample(two_ends, prompts, Sampling(temperature=0, max_new_tokens=20), generator(CPU, 0))
    ids, mask = pad_left(prompts, two_ends.pad_id)
    config = GenerationConfig(do_sample=False, max_new_tokens=20, eos_token_id=list(two_ends.eos_token_ids), pad_token_id=two_ends.pad_id)
    theirs = two_ends.base.generate(input_ids=ids, attention_mask=mask.long(), generation_config=config)[:, 3:]
    assert len({s.ids[-1] for s in ours if s.finish_reason == "stop"} & {OTHER_END}) == 1
    for mine, row in zip(ours, theirs.tolist(), strict=True):
        assert mine.ids == row[: len(mine.ids)] and set(row[len(mine.ids) :]) <= {two_ends.pad_id}


def test_a_sampled_answer_scores_as_its_text_does_whichever_token_ended_it(two_ends):
    """And the activations recorded while it was sampled are those of the row that is scored."""
    tiny.favour(two_ends, OTHER_END, 3.0)
    reward = RewardModel(two_ends, RewardConfig(), seed=0)
    prompt = two_ends.encode(user("Hi"))
    cache = PrefixActivationCache(two_ends.decoder, (1,))
    steps = list(stream(two_ends, [prompt] * 40, Sampling(max_new_tokens=8), generator(CPU, 3), prefix_cache=cache))
    sampled = collect_sequences(steps, 40, two_ends.eos_token_ids)
    assert {s.ids[-1] for s in sampled if s.finish_reason == "stop"} >= {OTHER_END}
    rows = [reward.row(prompt, s.ids) for s in sampled]
    assert all(row.ids[-1] == two_ends.eos_id and OTHER_END not in row.ids[len(prompt) :] for row in rows)
    recorded = cache.cached(1).hidden
    for row, hidden in zip(rows, recorded, strict=True):
        ids, mask = pad_left([row.ids], two_ends.pad_id)
        with torch.no_grad():
            assert_close(hidden[: len(row.ids)], two_ends.hidden(ids, mask, depth=1, adapter=None)[0], atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_the_default_model_with_two_ends_ends_at_the_end_of_its_turn(tmp_path):
    from rlhf import model_files

    folder = tmp_path / "model"
    folder.mkdir()
    for file in model_files.resolve("default").iterdir():
        (folder / file.name).symlink_to(file) if file.suffix == ".safetensors" else (folder / file.name).write_bytes(file.read_bytes())
    for name, change in (("tokenizer_config.json", {"eos_token": "<|endoftext|>"}), ("generation_config.json", {"eos_token_id": [0, 2]})):
        path = folder / name
        fields = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(fields | change))
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").hardlink_to(model_files.resolve("default") / "model.safetensors")
    backbone = Backbone.load(folder, "cpu", "float32")
    assert backbone.eos_token_ids == (0, 2) and backbone.eos_id == 2
    prompt = backbone.encode(user("What is the capital of France? One word."))
    answer = sample(backbone, [prompt], Sampling(temperature=0, max_new_tokens=40), generator(CPU, 0))[0]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    expected = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), do_sample=False, max_new_tokens=40)
    assert answer.ids == expected[0, len(prompt) :].tolist() and len(answer.ids) == 8 and answer.finish_reason == "stop"
