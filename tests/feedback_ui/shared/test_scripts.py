"""The modules of the judging pages: what the browser gets, from which address, and that no two versions mix."""

import json
import re

from feedback_ui.shared import scripts
from feedback_ui.shared.scripts import CLASSIC_SCRIPTS, ENTRY, TRANSLATIONS, browser_texts, modules


def imports_of(source: bytes) -> set[str]:
    return set(re.findall(r'^import .*? from "(.*?)";$', source.decode(), flags=re.M))


def test_every_import_is_a_module_that_is_served():
    sources = modules().sources
    imported = {name: imports_of(source) for name, source in sources.items()}
    assert {path for paths in imported.values() for path in paths} <= {f"./{name}" for name in sources}
    assert imported["server.js"] == {"./i18n.js"}


def test_the_entry_reaches_every_module():
    sources, reached, waiting = modules().sources, set(), [ENTRY]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += [path.removeprefix("./") for path in imports_of(sources[name])]
    assert reached == set(sources)
    assert not reached & set(CLASSIC_SCRIPTS)


def test_every_script_is_checked_for_its_types():
    files = [file for file in scripts.ASSETS.glob("*.js")]
    assert len(files) > 15
    assert [file.name for file in files if not file.read_text().startswith("// @ts-check\n")] == []


def test_the_texts_are_a_module():
    source = modules().sources[TRANSLATIONS].decode()
    assert json.loads(source.removeprefix("export default ").removesuffix(";\n")) == browser_texts()
    assert browser_texts()["en"]["compare.undo"] == "Undo" and set(browser_texts()) == {"en", "ko"}


def test_a_change_of_one_module_changes_every_address(tmp_path, monkeypatch):
    for name, source in {"judging.js": "export {};\n", "i18n.js": "// one\n", "start.js": "no module"}.items():
        (tmp_path / name).write_text(source)
    monkeypatch.setattr(scripts, "ASSETS", tmp_path)
    read = modules.__wrapped__
    before = read()
    assert set(before.sources) == {"judging.js", "i18n.js", TRANSLATIONS}
    assert before.path("judging.js") == f"modules/{before.version}/judging.js"
    assert re.fullmatch("[0-9a-f]{16}", before.version) and read().version == before.version
    (tmp_path / "i18n.js").write_text("// two\n")
    after = read()
    assert after.version != before.version
    (tmp_path / "i18n.js").rename(tmp_path / "texts.js")
    assert len({before.version, after.version, read().version}) == 3
