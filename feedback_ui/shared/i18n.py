"""The translations: every text of the user interface, in English and Korean. No Gradio.

`locales/` has one file per language, nested by section; a key joins the sections with dots: `compare.save`. A text with a
plural has two entries, `x.one` and `x.other`, and is looked up as `x` with `count`; Korean needs only `x.other`.
The English texts of a round's options (`option.NAME.title`, `.help`) come from `rlhf.config`, those of its metrics
(`metric.KEY.title`, `.unit`) from `rlhf.runs.metric_table`, and the limits of versions (`version.limit.KEY`) from
`rlhf.analysis.version_card`, where these are defined.
This module does not choose the language of a page's static labels: Gradio does that in the browser, by the same rule.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rlhf.analysis.version_card import LIMITS
from rlhf.config import RoundConfig, options
from rlhf.runs.metric_table import METRICS

LANGUAGES = ("en", "ko")

LOCALES = Path(__file__).parents[1] / "locales"

ABBREVIATIONS = {
    "min": "fewest",
    "ppo": "PPO",
    "dpo": "DPO",
    "sft": "SFT",
    "kl": "KL",
    "coef": "coefficient",
    "lam": "lambda",
    "eos": "EOS",
    "num": "number of",
}
"""The written form of abbreviations in an option's name."""


@dataclass(frozen=True, slots=True)
class Translator:
    """Looks texts up in one language: `translate("training.left", time="4 min")`."""

    language: str

    def __call__(self, key: str, **values: Any) -> str:
        """The text of that key with its `{placeholders}` filled.

        Raises:
            KeyError: there is no such text, or a value that it needs is missing.
        """
        texts = tables()[self.language]
        full_key = key if key in texts or "count" not in values else f"{key}.{self._number(values['count'])}"
        if full_key not in texts:
            raise KeyError(f"no text {full_key!r} in locales/{self.language}.json")
        return texts[full_key].format(**values)

    def _number(self, count: float) -> str:
        return "one" if count == 1 and self.language == "en" else "other"


def translator_for(request: Any) -> Translator:
    """The translator for the language that the browser prefers, if there is a translation, and for English otherwise.

    Only the first preference counts, because Gradio's part of the page uses only that one. `request` is Gradio's or
    Starlette's; a request without headers gets English.
    """
    headers = getattr(request, "headers", None) or {}
    language = _preferred_language(headers.get("accept-language") or "")
    return Translator(language if language in LANGUAGES else LANGUAGES[0])


def _preferred_language(accept_language: str) -> str:
    """`ko` of `en;q=0.8, ko-KR` (RFC 9110, section 12.5.4)."""
    preferences = [part.partition(";") for part in accept_language.split(",")]
    tag, _, _ = max(preferences, key=lambda preference: _weight(preference[2]))
    return tag.strip().split("-")[0].lower()


def _weight(parameter: str) -> float:
    name, _, value = parameter.partition("=")
    try:
        return float(value) if name.strip() == "q" else 1.0
    except ValueError:
        return 0.0


@cache
def tables() -> dict[str, dict[str, str]]:
    """For each language, every text by its full key."""
    texts = {language: dict(_flat(_file(language))) for language in LANGUAGES}
    texts["en"] |= _options_in_english() | _metrics_in_english() | {f"version.limit.{key}": text for key, text in LIMITS.items()}
    return texts


def _options_in_english() -> dict[str, str]:
    """Titles and help texts of a round's options, from the same metadata that the command line uses."""
    every = options(RoundConfig())
    titles = {f"option.{option.name}.title": _title(option.name) for option in every}
    return titles | {f"option.{option.name}.help": option.help for option in every}


def _metrics_in_english() -> dict[str, str]:
    """Title and unit of each metric that has a chart, from the table that the reference is written from."""
    with_chart = [metric for metric in METRICS if metric.title]
    titles = {f"metric.{metric.key}.title": metric.title for metric in with_chart}
    return titles | {f"metric.{metric.key}.unit": metric.unit for metric in with_chart if metric.unit}


def _title(name: str) -> str:
    """`PPO KL coefficient` of `ppo-kl-coef`."""
    title = " ".join(ABBREVIATIONS.get(part, part) for part in name.split("-"))
    return title[:1].upper() + title[1:]


def _file(language: str) -> Mapping[str, Any]:
    texts: Mapping[str, Any] = json.loads((LOCALES / f"{language}.json").read_text(encoding="utf-8"))
    return texts


def _flat(texts: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for name, text in texts.items():
        if isinstance(text, str):
            yield path + name, text
        else:
            yield from _flat(text, f"{path}{name}.")
