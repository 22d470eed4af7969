"""Folders from elsewhere: only safetensors inside them are read."""

import ast
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rlhf import model_files
from rlhf.config import AdapterConfig
from rlhf.models.backbone import Backbone
from rlhf.safe_files import ModelError, check_base


@pytest.fixture
def folder(tmp_path, tiny_folder):
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


def shard(folder, name, *, save=save_file):
    """Moves the weights into one shard of this name, behind an index."""
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    path = Path(folder, name)
    path.parent.mkdir(exist_ok=True)
    save(state, path)
    index(folder, dict.fromkeys(state, name))


def index(folder, weight_map, name="model.safetensors.index.json"):
    (folder / name).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))


def change(file, **fields):
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def refused(folder, said):
    """By the loader itself and by what looks at the folder before."""
    with pytest.raises(ModelError, match=said):
        Backbone.load(folder, "cpu", "float32")
    with pytest.raises(ModelError, match=said):
        model_files.resolve(str(folder))


def test_shards_of_safetensors_are_read(folder, tiny_folder):
    shard(folder, "model-00001-of-00001.safetensors", save=lambda state, path: save_file(state, path, metadata={"format": "pt"}))
    read, whole = Backbone.load(folder, "cpu", "float32"), Backbone.load(tiny_folder, "cpu", "float32")
    assert all(torch.equal(a, b) for a, b in zip(read.base.parameters(), whole.base.parameters(), strict=True))


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "weights.pt", "weights", "model.safetensors.bin", "w.pkl", "model.safetensors/../x.bin"]
)
def test_an_index_that_names_another_format_is_refused_before_it_is_read(folder, name, monkeypatch):
    (folder / "decoy.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    if "/" not in name:
        shard(folder, name, save=torch.save)
    else:
        (folder / "model.safetensors").unlink()
        index(folder, {"lm_head.weight": name})
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch.load was reached"))
    refused(folder, "names .*, which is no safetensors file")


@pytest.mark.parametrize("name", [None, 7, ["model.safetensors"], {"a": 1}, True])
def test_an_index_that_names_no_text_is_refused(folder, name):
    index(folder, {"lm_head.weight": name})
    refused(folder, "which is no safetensors file")


@pytest.mark.parametrize("name", ["../outside.safetensors", "inner/../../outside.safetensors", "{outside}", "inner/part.safetensors"])
def test_an_index_that_leads_out_of_the_folder_is_refused(folder, name):
    outside = folder.parent / "outside.safetensors"
    shutil.copy(folder / "model.safetensors", outside)
    (folder / "inner").mkdir()
    index(folder, {"lm_head.weight": name.format(outside=outside)})
    refused(folder, "which is not in this folder")


@pytest.mark.parametrize("text, said", [("[]", "is no JSON object"), ("{", "cannot be read as JSON"), ("{}", "has no weight_map"),
                                        ('{"weight_map": []}', "has no weight_map"), ("[" * 200_000, "cannot be read as JSON"),
                                        ('{"weight_map": {"a": "gone.safetensors"}}', "which is missing")])  # fmt: skip
def test_an_index_that_is_none_is_refused(folder, text, said):
    (folder / "model.safetensors.index.json").write_text(text)
    refused(folder, said)


def test_a_config_that_names_other_weights_is_refused(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "w.bin")
    change(folder / "config.json", transformers_weights="w.bin")
    refused(folder, "config.json names 'w.bin', which is no safetensors file")
    change(folder / "config.json", transformers_weights="../w.safetensors")
    refused(folder, "which is not in this folder")
    (folder / "other.safetensors.index.json").write_text(json.dumps({"weight_map": {"lm_head.weight": "w.bin"}}))
    change(folder / "config.json", transformers_weights="other.safetensors.index.json")
    refused(folder, "other.safetensors.index.json names 'w.bin'")


def test_an_adapter_in_the_place_of_a_base_is_refused_and_the_base_it_names_is_not_read(folder, tmp_path, tiny_folder):
    elsewhere = shutil.copytree(tiny_folder, tmp_path / "elsewhere")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": str(elsewhere)}))
    refused(folder, "holds an adapter_config.json")


def test_links_out_of_the_folder_are_refused_and_links_within_it_are_read(folder):
    inside = folder / "kept.safetensors"
    (folder / "model.safetensors").rename(inside)
    (folder / "model.safetensors").symlink_to(inside.name)
    check_base(folder)
    outside = folder.parent / "secret"
    outside.write_text("root:x:0:0")
    for name in ("chat_template.jinja", "tokenizer_config.json", "extra.txt"):
        kept = (folder / name).read_bytes() if (folder / name).exists() else None
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(outside)
        refused(folder, f"{name}: is a link to .*secret, outside of its folder")
        (folder / name).unlink()
        if kept is not None:
            (folder / name).write_bytes(kept)
    check_base(folder)


def test_links_that_lead_nowhere_or_in_a_ring_or_to_no_file_are_refused(folder):
    odd = folder / "odd.txt"
    for make in (lambda: odd.symlink_to("gone"), lambda: odd.symlink_to("odd.txt"), lambda: os.mkfifo(odd)):
        make()
        refused(folder, "odd.txt: (cannot be looked at|is neither a file nor a folder)")
        odd.unlink()


def test_the_hubs_cache_is_read_through_its_links(folder, tmp_path):
    snapshot, blobs = tmp_path / "models--x--y" / "snapshots" / "abc", tmp_path / "models--x--y" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for i, file in enumerate(sorted(folder.iterdir())):
        file.rename(blobs / f"{i:040x}")
        (snapshot / file.name).symlink_to(Path("../..") / "blobs" / f"{i:040x}")
    assert Backbone.load(model_files.resolve(str(snapshot)), "cpu", "float32").depth == 2
    linked = tmp_path / "by-another-name"
    linked.symlink_to(snapshot)
    check_base(linked)


# Adapters.


def saved(backbone, folder, kind="lora"):
    backbone.add_adapter("made", AdapterConfig(kind=kind, rank=4, virtual_tokens=4), seed=0)
    backbone.save_adapter("made", folder)
    backbone.delete_adapter("made")
    return folder / "adapter_config.json"


def read(backbone, folder):
    backbone.load_adapter("v1", folder)
    backbone.delete_adapter("v1")


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora", "ia3", "peanut", "prompt"])
def test_every_kind_that_a_round_makes_is_read_and_another_base_is_only_a_name(backbone, tmp_path, kind):
    config = saved(backbone, tmp_path, kind)
    change(config, base_model_name_or_path="../../another/base", revision="evil")
    backbone.load_adapter("v1", tmp_path)
    in_use = backbone.adapter_set._group_of("v1").model.peft_config["v1"]
    assert in_use.base_model_name_or_path != "../../another/base" and in_use.revision is None


HOSTILE = [
    ("prompt", {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": "x", "tokenizer_name_or_path": "evil/code",
                "tokenizer_kwargs": {"trust_remote_code": True}}),
    ("prompt", {"tokenizer_kwargs": {"trust_remote_code": True}}),
    ("prompt", {"num_virtual_tokens": 10**9}),
    ("lora", {"megatron_config": {"a": 1}, "megatron_core": "os"}),
    ("lora", {"megatron_core": "antigravity"}),
    ("lora", {"auto_mapping": {"base_model_class": "x", "parent_library": "os"}}),
    ("lora", {"layer_replication": [[0, 2], [0, 2]]}),
    ("lora", {"init_lora_weights": "pissa_niter_100000"}),
    ("lora", {"modules_to_save": ["lm_head"]}),
    ("lora", {"target_modules": "(a+)+$"}),
    ("lora", {"target_modules": [["q_proj"]]}),
    ("lora", {"exclude_modules": "(a+)+$"}),
    ("lora", {"rank_pattern": {"(a+)+$": 8}}),
    ("lora", {"r": 10**9}), ("lora", {"r": 0}), ("lora", {"r": True}), ("lora", {"r": "4"}),
    ("lora", {"lora_alpha": float("nan")}), ("lora", {"lora_alpha": float("inf")}),
    ("lora", {"lora_dropout": 0.5}),
    ("lora", {"bias": "all"}),
    ("lora", {"use_dora": "yes"}),
    ("lora", {"some_field_of_tomorrow": 1}),
    ("lora", {"peft_type": "MULTITASK_PROMPT_TUNING", "prompt_tuning_init_state_dict_path": "evil.bin"}),
    ("lora", {"peft_type": "XLORA"}), ("lora", {"peft_type": None}), ("lora", {"peft_type": ["LORA"]}),
]  # fmt: skip


@pytest.mark.parametrize("kind, fields", HOSTILE)
def test_a_field_that_no_round_writes_is_refused_and_nothing_is_left_behind(backbone, tmp_path, kind, fields):
    change(saved(backbone, tmp_path, kind), **fields)
    with pytest.raises(ModelError, match=r"the adapter cannot be read \((adapter_config.json has|adapters of type)"):
        backbone.load_adapter("v1", tmp_path)
    assert backbone.adapters == []


@pytest.mark.parametrize("text", ["[]", "null", "{", "[" * 200_000])
def test_a_config_that_is_none_is_refused(backbone, tmp_path, text):
    saved(backbone, tmp_path).write_text(text)
    with pytest.raises(ModelError, match="the adapter cannot be read"):
        backbone.load_adapter("v1", tmp_path)


def test_pickled_weights_beside_a_config_are_not_read(backbone, tmp_path, monkeypatch):
    saved(backbone, tmp_path)
    torch.save(load_file(tmp_path / "adapter_model.safetensors"), tmp_path / "adapter_model.bin")
    (tmp_path / "adapter_model.safetensors").unlink()
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch.load was reached"))
    with pytest.raises(ModelError, match="adapter_model.safetensors is missing"):
        backbone.load_adapter("v1", tmp_path)


def test_an_adapter_behind_a_link_out_of_its_folder_is_refused(backbone, tmp_path):
    saved(backbone, tmp_path / "a")
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (tmp_path / "a" / name).rename(tmp_path / name)
        (tmp_path / "a" / name).symlink_to(tmp_path / name)
        with pytest.raises(ModelError, match=f"{name}: is a link to"):
            backbone.load_adapter("v1", tmp_path / "a")
        (tmp_path / "a" / name).unlink()
        (tmp_path / name).rename(tmp_path / "a" / name)
    read(backbone, tmp_path / "a")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_adapter_that_holds_no_numbers_is_refused(backbone, tmp_path, bad):
    saved(backbone, tmp_path)
    state = load_file(tmp_path / "adapter_model.safetensors")
    next(iter(state.values())).view(-1)[3] = bad
    save_file(state, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="holds what is no number"):
        backbone.load_adapter("v1", tmp_path)


# The code itself.


@pytest.mark.slow
def test_nothing_here_unpickles_or_trusts_a_models_own_code():
    root = Path(model_files.__file__).parents[1]
    found = []
    for file in [*root.glob("rlhf/**/*.py"), *root.glob("storage/**/*.py"), *root.glob("feedback_ui/**/*.py"), root / "launch.py"]:
        for node in ast.walk(ast.parse(file.read_text())):
            loads = isinstance(node, ast.Attribute) and node.attr == "load" and getattr(node.value, "id", "") in ("torch", "pickle", "dill")
            imports = isinstance(node, ast.Import) and any(alias.name in ("pickle", "dill", "shelve", "marshal") for alias in node.names)
            trusts = isinstance(node, ast.keyword) and node.arg == "trust_remote_code" and getattr(node.value, "value", True) is not False
            if loads or imports or trusts:
                found.append(f"{file.name}:{node.lineno}")
    assert found == []
