"""No text is missing in a language or unused, and texts have the same placeholders in both languages."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from string import Formatter
from types import SimpleNamespace

import pytest
from starlette.requests import Request

import feedback_ui
from feedback_ui.shared.i18n import LANGUAGES, Translator, tables, translator_for
from feedback_ui.shared.presenters import prompt_kind
from feedback_ui.shared.theme import heading, label
from rlhf.config import RoundConfig, options
from storage.content import prompts
from storage.core.records import STRENGTHS

ROOT = Path(feedback_ui.__file__).parent
STARTERS = Path(prompts.__file__).with_name("starter_prompts.jsonl")
HANGUL = re.compile("[가-힣]")
SAME_IN_KOREAN = {
    "run.nats", "run.stage.ppo", "run.stage.dpo", "run.stage.rloo", "run.stage.grpo", "run.stage.sft",
    "lead.batches.top_p", "lead.batches.top_k", "lead.quality.p", "lead.quality.p_small",
}  # fmt: skip
"""Texts that are a number or an international term, and the same in Korean."""

CALLS = {"words", "label", "heading", "quiet"}


def without_number(key: str) -> str:
    """`x` of `x.one` and `x.other`; a text that is merely called "other" keeps its name."""
    base, _, form = key.rpartition(".")
    return base if form in ("one", "other") and f"{base}.one" in tables()["en"] else key


def places(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def asked_for() -> dict[str, Path]:
    """The keys that the sources look up."""
    keys = {call.args[0].value: file for file, call in literal_calls()}
    for file, text in scripts():
        keys |= {key: file for key in re.findall(r'\bwords\("([^"$]+)"', text)}
    return keys


def literal_calls() -> Iterator[tuple[Path, ast.Call]]:
    """Each `words("some.key", ...)`."""
    for file, node in nodes():
        if isinstance(node, ast.Call) and _name(node.func) in CALLS and node.args and isinstance(node.args[0], ast.Constant):
            yield file, node


def mentioned() -> re.Pattern[str]:
    """Matches every key that the sources name whole, complete (`run.status.` before a status) or take by section."""
    patterns: set[str] = set()
    for _, node in nodes():
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"[\w.-]+", node.value):
            patterns.add(re.escape(node.value) + (".*" if node.value.endswith(".") else ""))
        if isinstance(node, ast.JoinedStr):
            patterns.add("".join(re.escape(part.value) if isinstance(part, ast.Constant) else r"[\w-]+" for part in node.values))
    for _, text in scripts():
        for quoted in re.findall(r"""["'`]([\w.-]+(?:\$\{[^}]*\}[\w.-]*)*)["'`]""", text):
            patterns.add("".join(r"[\w-]+" if part.startswith("$") else re.escape(part) for part in re.split(r"(\$\{[^}]*\})", quoted)))
    sections = tuple({re.escape(key.partition(".")[0]) + r"\." for key in tables()["en"]})
    return re.compile("|".join(pattern for pattern in patterns if pattern.startswith(sections)))


def nodes() -> Iterator[tuple[Path, ast.AST]]:
    for file in ROOT.rglob("*.py"):
        # A constant inside an f-string is a part of that string.
        tree = ast.parse(file.read_text(encoding="utf-8"))
        inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        yield from ((file, node) for node in ast.walk(tree) if id(node) not in inside)


def scripts() -> Iterator[tuple[Path, str]]:
    for file in [*ROOT.rglob("*.js"), *ROOT.rglob("*.html")]:
        yield file, file.read_text(encoding="utf-8")


def _name(function: ast.expr) -> str:
    return function.id if isinstance(function, ast.Name) else function.attr if isinstance(function, ast.Attribute) else ""


def test_both_languages_have_the_same_texts():
    english, korean = ({without_number(key) for key in tables()[language]} for language in LANGUAGES)
    assert english - korean == set(), "not in ko.json"
    assert korean - english == set(), "not in en.json"


def test_a_text_that_depends_on_a_number_has_every_form_that_its_language_needs():
    english, korean = (tables()[language] for language in LANGUAGES)
    assert {key for key in english if key.endswith(".one") and f"{without_number(key)}.other" not in english} == set()
    assert {key for key in english if "{count" in english[key] and key.endswith(".other") and without_number(key) == key} == set()
    assert {key for key in korean if key.endswith(".one")} == set()


def test_both_languages_have_the_same_placeholders():
    english, korean = (tables()[language] for language in LANGUAGES)
    other = {key: korean.get(key, korean.get(f"{without_number(key)}.other", "")) for key in english}
    assert {key: other[key] for key in english if places(english[key]) != places(other[key])} == {}


def test_korean_texts_are_korean():
    texts = {key: re.sub(r"\{[^}]*\}", "", text) for key, text in tables()["ko"].items()}
    assert {key for key, text in texts.items() if re.search(r"[^\W\d_]", text) and not HANGUL.search(text)} <= SAME_IN_KOREAN
    assert {key for key, text in tables()["en"].items() if HANGUL.search(text)} == set()


def test_no_text_is_empty_or_only_space():
    assert [(language, key) for language in LANGUAGES for key, text in tables()[language].items() if text.strip() != text or not text] == []


def test_every_text_that_a_source_asks_for_exists():
    there = set(tables()["en"]) | {without_number(key) for key in tables()["en"]}
    keys = asked_for()
    assert len(keys) > 50
    assert {key: str(file) for key, file in keys.items() if key not in there} == {}


def test_every_placeholder_gets_a_value():
    english = tables()["en"]
    wrong = {}
    for file, call in literal_calls():
        given = {keyword.arg for keyword in call.keywords}
        text = english.get(key := call.args[0].value) or english.get(f"{key}.other", "")
        if None not in given and given - {"count"} != places(text) - {"count"}:
            wrong[f"{file.name}:{call.lineno} {key}"] = given ^ places(text)
    assert wrong == {}


def test_every_text_is_used():
    used = mentioned()
    assert [key for key in tables()["en"] if not used.fullmatch(without_number(key))] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_option_of_a_round_is_named_and_explained(language):
    for option in options(RoundConfig()):
        for part in ("title", "help"):
            assert Translator(language)(f"option.{option.name}.{part}")


def test_an_option_is_explained_in_english_as_on_the_command_line():
    option = next(option for option in options(RoundConfig()) if option.name == "ppo-kl-coef")
    assert Translator("en")("option.ppo-kl-coef.help") == option.help == "Reward units per nat of KL to the reference."
    assert Translator("en")("option.ppo-kl-coef.title") == "PPO KL coefficient"


def test_singular_and_plural():
    english, korean = Translator("en"), Translator("ko")
    assert english("training.demo_votes", count=1).startswith("1 vote of the Demo page is left out")
    assert english("training.demo_votes", count=0).startswith("0 votes of the Demo page are left out")
    assert english("training.demo_votes", count=1204).startswith("1,204 votes of the Demo page are left out")
    assert korean("training.demo_votes", count=1).startswith("시연 페이지의 투표 1개는")


def test_values_are_not_formatted_again():
    assert Translator("en")("run.error", error="{nats} {0}") == "{nats} {0}"


def test_a_missing_text_is_an_error_with_its_key():
    with pytest.raises(KeyError, match=r"no text 'run\.no_such' in locales/ko\.json"):
        Translator("ko")("run.no_such")
    with pytest.raises(KeyError, match=r"no text 'run\.no_such\.other'"):
        Translator("en")("run.no_such", count=3)
    with pytest.raises(KeyError, match="no_such"):
        label("no_such")
    with pytest.raises(KeyError, match="time"):
        Translator("en")("run.left")


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("ko-KR,ko;q=0.9,en-US;q=0.8,en;q=0.7", "ko"),
        ("ko", "ko"),
        ("en;q=0.8, KO-kr;q=0.9", "ko"),
        ("en-GB,ko;q=0.9", "en"),
        ("fr-FR,fr;q=0.9,ko;q=0.8", "en"),
        ("kok-IN", "en"),
        ("*;q=0.1, ko;q=0.5", "ko"),
        ("ko;q=nonsense, en;q=0.1", "en"),
        (",;=,", "en"),
        ("", "en"),
    ],
)
def test_the_browsers_first_preference_decides(accepted, language):
    request = Request({"type": "http", "headers": [(b"accept-language", accepted.encode())]})
    assert translator_for(request).language == language


def test_without_a_preference_the_language_is_english():
    assert translator_for(Request({"type": "http", "headers": []})).language == "en"
    assert translator_for(SimpleNamespace()).language == translator_for(None).language == "en"


def test_gradio_gets_a_text_that_it_can_find():
    """A value has one translated text: the browser replaces the first and leaves a second unchanged."""
    assert label("app.data").key == "app.data"
    assert heading("app.data").count("__i18n__") == 1


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_button_names_a_strength_as_the_history_does(language):
    texts = tables()[language]
    for strength in STRENGTHS:
        for section in ("compare", "lead"):
            word = texts[f"{section}.strength.{strength}"].casefold().split()[0]
            assert word in texts[f"compare.verdict.a_{strength}"].casefold(), (section, strength)


def test_a_korean_tab_has_a_word_of_its_own():
    """The names of tabs once were the words for a comparison, for a record and for running a program as well."""
    korean = tables()["ko"]
    tabs = {key: text for key, text in korean.items() if re.fullmatch(r"app\.\w+|lead\.tab\.\w+", key)}
    assert korean["app.compare"] not in korean["lead.tab.comparisons"] and korean["lead.tab.comparisons"] not in korean["app.compare"]
    assert korean["lead.tab.audit"] not in korean["app.history"] and korean["app.history"] not in korean["lead.tab.audit"]
    assert korean["training.run"] not in korean["run.status.running"] + korean["training.resume"]
    assert len(set(tabs.values())) == len(tabs)


def test_the_kinds_of_the_starter_prompts_are_translated():
    for kind in {json.loads(line)["kind"] for line in STARTERS.read_text(encoding="utf-8").splitlines()}:
        english, korean = (prompt_kind(Translator(language), kind) for language in ("en", "ko"))
        assert english == kind and HANGUL.search(korean), kind
    assert prompt_kind(Translator("ko"), "bike_shop") == "bike shop"
