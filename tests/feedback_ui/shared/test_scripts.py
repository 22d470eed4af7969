"""The modules of the pages: what the browser gets, from which address, and that no two versions mix."""

import json
import re
from pathlib import Path

from feedback_ui.lead.page import SECTIONS
from feedback_ui.shared import scripts
from feedback_ui.shared.scripts import CLASSIC_SCRIPTS, ENTRY, EVENTS, TRANSLATIONS, browser_texts, in_browser, modules

PAGES = Path(scripts.__file__).parents[1]


def imports_of(source: bytes) -> set[str]:
    return set(re.findall(r'^import .*? from "(.*?)";$', source.decode(), flags=re.M))


def test_every_import_is_a_module_that_is_served():
    sources = modules().sources
    imported = {name: imports_of(source) for name, source in sources.items()}
    assert {path for paths in imported.values() for path in paths} <= {f"./{name}" for name in sources}
    assert imported["server.js"] == {"./i18n.js"}


def test_the_two_entries_reach_every_module():
    sources, reached, waiting = modules().sources, set(), [ENTRY, EVENTS]
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


def test_the_pages_call_every_function_for_events_and_no_other():
    called = {name for file in PAGES.rglob("*.py") for name in re.findall(r'\bin_browser\("(\w+)"\)', file.read_text())}
    source = modules().sources[EVENTS].decode()
    exported = set(re.findall(r"^export function (\w+)", source, flags=re.M))
    # Some come from other modules: `export { a, b };`.
    exported |= {name for names in re.findall(r"^export \{ ([\w, ]+) \};", source, flags=re.M) for name in names.split(", ")}
    assert called == exported and len(called) == 27
    path = f"modules/{modules().version}/events.js"
    assert in_browser("f") == f'async (...values) => (await import(new URL("{path}", document.baseURI).href)).f(...values)'


def test_the_addresses_name_the_tabs_of_the_app():
    source = modules().sources["addresses.js"].decode()
    rows = json.loads("{" + re.search(r"TABS = \{(.*?),\n\};", source, flags=re.S)[1].replace("pages:", '"pages":') + "}")
    assert rows["lead-sections"] == list(SECTIONS)
    assert rows["pages"] == re.findall(r'\bpage\("(\w+)"\)', (PAGES / "app.py").read_text())


def test_no_script_is_a_text_in_python():
    scripts_of = {file: re.findall(r"\bjs(?:_on_load)?=(?!in_browser\(|asset\()", file.read_text()) for file in PAGES.rglob("*.py")}
    assert not [file for file, texts in scripts_of.items() if texts]


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
