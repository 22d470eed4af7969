"""Presenters of the judgments' quality on the Lead page: metrics of `rlhf.analysis.agreement` as text and interval marks.

Nothing is computed here: every number comes from that module. No Gradio.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from feedback_ui.lead.exclusions_view import rule
from feedback_ui.lead.gold_view import ordering
from feedback_ui.lead.lead_view import LETTERS, answers, conversation, letters
from feedback_ui.lead.meanings import FEWEST_SHARED, HASTY_S, WIDEST_RELIABILITY, level, sentence, side
from feedback_ui.shared.html import EMPTY, NOTHING, Spread, button, fragment, interval, muted, table, tag, when
from feedback_ui.shared.i18n import Translator
from feedback_ui.shared.presenters import empty_state, figures, prompt_kind
from rlhf.analysis.agreement import Agreement, Alpha, AnnotatorRow, ComparisonAgreement, LeftShare, Share
from rlhf.analysis.drift import MIN_VOTES, Drift
from rlhf.analysis.target import Outlook
from rlhf.data.reliability import AnnotatorReliability
from storage.core.records import Comparison, Flag, PastJudgment, PolicyVersion, Tiers


def percent(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.0f}%"


def p_value(translate: Translator, p: float | None) -> str:
    if p is None:
        return ""
    return translate("lead.quality.p_small") if p < 0.001 else translate("lead.quality.p", p=f"{p:.3f}")


# ---- the overview


def counts(translate: Translator, *, comparisons: int, waiting: int, today: int, report: Agreement) -> Markup:
    numbers = {"comparisons": comparisons, "waiting": waiting, "today": today, "votes": report.judgments, "by_two": report.unanimous.of}
    return figures({translate(f"lead.quality.{name}"): f"{number:,}" for name, number in numbers.items()})


def overview(translate: Translator, report: Agreement, longer: Share) -> Markup:
    """The metrics over all annotators, each as a dot with its interval, and what its value means.

    Args:
        longer: the votes for the longer answer.
    """
    if not report.judgments:
        return empty_state(translate("lead.quality.nothing"))
    left = report.left_share
    lines = [
        _line(translate, "alpha_nominal", *_alpha(translate, report.alpha_nominal, report.units, report.unanimous.of)),
        _line(translate, "alpha_ordinal", *_alpha(translate, report.alpha_ordinal, report.units, report.unanimous.of)),
        _line(translate, "unanimous", *_unanimous(translate, report.unanimous)),
        _line(translate, "left_share", *_left(translate, left), marks=(0.5,)),
        _line(translate, "longer", *_longer(translate, longer), marks=(0.5,)),
    ]
    scale = tag("div", *(tag("span", mark) for mark in ("0", "0.5", "1")), class_="rl-scale", aria_hidden="true")
    plot = tag("dl", *lines, class_="rl-dot-plot", data_testid="quality-figures")
    return fragment(plot, scale, muted(translate("lead.quality.intervals")))


def _alpha(translate: Translator, alpha: Alpha, units: int, comparisons: int) -> tuple[Spread, str, str]:
    """Alpha, with what it means where enough comparisons have two annotators."""
    if alpha.value is None:
        return (None, None, None), NOTHING, translate("lead.quality.no_variation" if units else "lead.quality.no_overlap")
    meaning = sentence(translate, "alpha", level("alpha", alpha.value, comparisons), comparisons)
    shown = fragment(_number(alpha.value), _ends(translate, alpha.low, alpha.high))
    return (alpha.value, alpha.low, alpha.high), shown, f"{translate('lead.quality.of_pairs', count=units)} · {meaning}"


def _unanimous(translate: Translator, share: Share) -> tuple[Spread, str, str]:
    if share.share is None:
        return (None, None, None), NOTHING, translate("lead.quality.no_overlap")
    return _counted(translate, share, sentence(translate, "unanimous", level("unanimous", share.share, share.of), share.of))


def _longer(translate: Translator, share: Share) -> tuple[Spread, str, str]:
    if share.share is None or share.low is None or share.high is None:
        return (None, None, None), NOTHING, translate("lead.quality.no_lengths")
    found = side("longer", share.low, share.high, share.of)
    by = f"{100 * abs(share.share - 0.5):.0f}"
    return _counted(translate, share, sentence(translate, "longer", found, share.of, points=by))


def _counted(translate: Translator, share: Share, meaning: str) -> tuple[Spread, str, str]:
    shown = fragment(percent(share.share), " ", _between(translate, percent(share.low), percent(share.high)))
    counted = translate("lead.quality.count_of", count=share.count, of=f"{share.of:,}")
    return (share.share, share.low, share.high), shown, f"{counted} · {meaning}"


def _left(translate: Translator, left: LeftShare) -> tuple[Spread, str, str]:
    if left.share is None or left.low is None or left.high is None:
        return (None, None, None), NOTHING, translate("lead.quality.no_sides")
    shown = fragment(percent(left.share), " ", _between(translate, percent(left.low), percent(left.high)))
    meaning = sentence(translate, "left", side("left", left.low, left.high, left.n), left.n)
    return (left.share, left.low, left.high), shown, f"{p_value(translate, left.p_value)} · {meaning}"


def _ends(translate: Translator, low: float | None, high: float | None) -> Markup:
    return EMPTY if low is None or high is None else fragment(" ", _between(translate, _number(low), _number(high)))


def _between(translate: Translator, low: str, high: str) -> Markup:
    return tag("span", translate("lead.quality.between", low=low, high=high), class_="rl-muted")


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _line(translate: Translator, name: str, spread: Spread, shown: str, note: str, marks: Sequence[float] = ()) -> Markup:
    return tag(
        "div",
        tag("dt", translate(f"lead.quality.{name}"), _small(translate(f"lead.quality.{name}_help"))),
        tag("dd", tag("span", shown, class_="rl-value"), interval(spread, marks), _small(note)),
        data_figure=name,
    )


def _small(note: str) -> Markup:
    return tag("span", note, class_="rl-muted rl-small")


# ---- the target


def target(translate: Translator, found: Outlook | None, daily_goal: int) -> Markup:
    """How far the project's target is, when it is reached at the present rate, and what it needs; empty without a target."""
    if found is None:
        return EMPTY
    wanted = translate("lead.target.wanted", count=found.wanted)
    title = translate("lead.target.by", wanted=wanted, day=found.by.isoformat()) if found.by else wanted
    done = translate("lead.target.done", count=found.done, of=f"{found.wanted:,}")
    bar = tag("progress", class_="rl-progress", max=found.wanted, value=min(found.done, found.wanted), aria_label=done)
    said = " ".join(filter(None, [_rate(translate, found), _needed(translate, found, daily_goal)]))
    return tag("section", tag("p", title, class_="rl-subheading"), tag("p", bar, done), muted(said), data_testid="target")


def _rate(translate: Translator, found: Outlook) -> str:
    if found.is_reached:
        return translate("lead.target.reached")
    lately = translate("lead.target.lately", count=found.days)
    if not found.per_day:
        return translate("lead.target.nobody", lately=lately)
    rate = translate("lead.target.rate", rate=f"{found.per_day:.1f}", lately=lately)
    if found.reached is None:
        return translate("lead.target.never", rate=rate)
    day = found.reached.isoformat()
    if found.by is None or found.reached == found.by:
        return translate("lead.target.on", rate=rate, day=day)
    late = (found.reached - found.by).days
    return translate("lead.target." + ("late" if late > 0 else "early"), rate=rate, day=day, count=abs(late))


def _needed(translate: Translator, found: Outlook, daily_goal: int) -> str:
    if found.is_reached or found.by is None:
        return ""
    if found.needed is None:
        return translate("lead.target.passed")
    said = translate("lead.target.needed", needed=f"{math.ceil(found.needed):,}")
    if found.people:
        said += " " + translate("lead.target.each", share=f"{math.ceil(found.needed / found.people):,}", count=found.people)
    return f"{said} {translate('lead.target.goal', goal=f'{daily_goal:,}')}" if daily_goal else said


# ---- people first


def people(translate: Translator, rows: Sequence[AnnotatorRow], drifts: Mapping[int, Drift], *, acts: bool) -> Markup:
    """Who is hasty, who disagrees and who drifts, each with the numbers, the bound, and buttons to their acts and to an exclusion."""
    if not rows:
        return EMPTY
    found = [
        _person(translate, row, reason, acts=acts)
        for row in rows
        for reason in filter(None, (_hasty(translate, row), _disagrees(translate, row), _drifts(translate, row, drifts.get(row.id))))
    ]
    unknown = [row.name for row in rows if row.agreement_units < FEWEST_SHARED or row.id not in drifts]
    notes = [translate("lead.quality.people_help", seconds=HASTY_S, fewest=FEWEST_SHARED, votes=MIN_VOTES)]
    if unknown:
        notes.append(translate("lead.quality.people_unknown", names=", ".join(unknown)))
    said = tag("ul", *found, class_="rl-judgments") if found else tag("p", translate("lead.quality.nobody"))
    return _titled(translate("lead.quality.people"), fragment(said, muted(" ".join(notes))))


def _person(translate: Translator, row: AnnotatorRow, reason: str, *, acts: bool) -> Markup:
    exclude = button("exclude", row.id, translate("lead.exclusions.exclude_short"), row.name) if acts else EMPTY
    shown = button("judgments", row.id, translate("lead.quality.their_judgments"), row.name)
    return tag("li", tag("p", tag("strong", _name(translate, row)), " ", reason), tag("p", shown, " ", exclude), data_person=row.id)


def _hasty(translate: Translator, row: AnnotatorRow) -> str:
    if row.median_active_s is None or row.median_active_s >= HASTY_S:
        return ""
    return translate("lead.quality.hasty", seconds=f"{row.median_active_s:.1f}", bound=HASTY_S)


def _disagrees(translate: Translator, row: AnnotatorRow) -> str:
    if row.agreement is None or row.agreement_units < FEWEST_SHARED or row.agreement > 0.5:
        return ""
    return translate("lead.quality.disagrees", share=percent(row.agreement), count=row.agreement_units)


def _drifts(translate: Translator, row: AnnotatorRow, drift: Drift | None) -> str:
    if drift is None or not drift.is_clear:
        return ""
    ends = {"low": _points(drift.low), "high": _points(drift.high)}
    return translate("lead.quality.drifts", first=percent(drift.first), last=percent(drift.last), votes=drift.votes, **ends)


def _points(change: float) -> str:
    return f"{100 * change:+.0f}".replace("-", "−")


# ---- annotators and items


def annotator_table(translate: Translator, rows: Sequence[AnnotatorRow], *, acts: bool) -> Markup:
    if not rows:
        return EMPTY
    heads = [
        translate(f"lead.quality.column.{name}")
        for name in ("annotator", "votes", "median", "gold", "consistency", "left", "agreement", "excluded")
    ]
    cells = [
        [
            _name(translate, row),
            f"{row.judgments:,}",
            _median(translate, row),
            _meant(translate, "gold", row.gold.share, row.gold.of),
            _meant(translate, "consistency", row.consistency.share, row.consistency.of),
            _left_cell(translate, row.left_share),
            _meant(translate, "agreement", row.agreement, row.agreement_units),
            f"{row.excluded:,}" if row.excluded else NOTHING,
            fragment(
                button("judgments", row.id, translate("lead.quality.their_judgments"), row.name), " ",
                button("exclude", row.id, translate("lead.exclusions.exclude_short"), row.name) if acts else EMPTY,
            ),
        ]
        for row in rows
    ]  # fmt: skip
    return _titled(translate("lead.quality.annotators"), table([*heads, ""], cells, caption=heads[0], numbers=range(1, 8)))


def reliability_table(translate: Translator, rows: Sequence[AnnotatorReliability], drifts: Mapping[int, Drift]) -> Markup:
    """How far each annotator's votes can be relied on, from what, what a vote would weigh in training, and any drift."""
    if not rows:
        return EMPTY
    heads = [
        translate(f"lead.quality.column.{name}") for name in ("annotator", "reliability", "votes", "agreement", "gold", "weight", "drift")
    ]
    cells = [
        [
            _name(translate, row),
            _reliability(translate, row),
            f"{row.judgments:,}",
            _with_number(translate, row.agreement, row.shared),
            _with_number(translate, row.gold.share, row.gold.of),
            f"{row.weight:.2f}",
            _drift(translate, drifts.get(row.annotator_id)),
        ]
        for row in rows
    ]
    title = translate("lead.quality.reliability")
    shown = table(heads, cells, caption=title, numbers=range(2, 7))
    return _titled(title, fragment(muted(translate("lead.quality.reliability_help")), shown))


def _name(translate: Translator, row: AnnotatorRow | AnnotatorReliability) -> str:
    return fragment(row.name, " ", tag("span", translate("data.simulated"), class_="rl-tag")) if row.kind == "simulated" else row.name


def _reliability(translate: Translator, row: AnnotatorReliability) -> str:
    if row.reliability is None:
        return fragment(NOTHING, " ", _small(translate("lead.quality.reliability_unknown")))
    shown = fragment(percent(row.reliability), " ", _between(translate, percent(row.low), percent(row.high)))
    cases = row.shared + row.gold.of
    found = level("reliability", row.reliability, cases)
    if found != "too_few" and (row.high or 0) - (row.low or 0) > WIDEST_RELIABILITY:
        found = "wide"
    return fragment(shown, interval((row.reliability, row.low, row.high)), _meaning(sentence(translate, "reliability", found, cases)))


def _median(translate: Translator, row: AnnotatorRow) -> str:
    if row.median_active_s is None:
        return NOTHING
    meaning = sentence(translate, "median", level("median", row.median_active_s, row.judgments), row.judgments)
    return _with_meaning(translate("lead.quality.seconds", seconds=f"{row.median_active_s:.0f}"), meaning)


def _meant(translate: Translator, statistic: str, share: float | None, of: int) -> str:
    """A share with its number of cases, and what it means."""
    if share is None:
        return _with_meaning(NOTHING, sentence(translate, statistic, "too_few", of))
    return _with_meaning(_with_number(translate, share, of), sentence(translate, statistic, level(statistic, share, of), of))


def _drift(translate: Translator, drift: Drift | None) -> str:
    if drift is None:
        return _meaning(translate("lead.quality.drift_unknown", votes=3 * MIN_VOTES))
    change = translate("lead.quality.points", points=_points(drift.last - drift.first))
    meaning = sentence(translate, "drift", side("drift", drift.low, drift.high, drift.votes, middle=0), drift.votes)
    return _with_meaning(change, meaning)


def _with_meaning(value: str, meaning: str) -> Markup:
    return fragment(value, _meaning(meaning))


def _meaning(meaning: str) -> Markup:
    return tag("span", meaning, class_="rl-muted rl-small rl-meaning")


def _with_number(translate: Translator, share: float | None, of: int) -> str:
    return NOTHING if share is None else fragment(percent(share), " ", _small(f"/ {of:,}"))


def _left_cell(translate: Translator, left: LeftShare) -> str:
    if left.share is None or left.p_value is None:
        return NOTHING
    found = side("left", left.low or 0, left.high or 0, left.n)
    tone = "rl-warn" if found in ("left", "right") else "rl-muted"
    return fragment(
        _with_number(translate, left.share, left.n),
        interval((left.share, left.low, left.high), (0.5,)),
        tag(
            "span",
            f"{p_value(translate, left.p_value)} · {sentence(translate, 'left', found, left.n)}",
            class_=f"{tone} rl-small rl-meaning",
        ),
    )


def item_table(translate: Translator, items: Sequence[ComparisonAgreement]) -> Markup:
    if not items:
        return _titled(translate("lead.quality.items"), empty_state(translate("lead.quality.no_items")))
    rows = [
        [
            f"{item.comparison_id}",
            tag("span", item.prompt, class_="rl-line-clamp"),
            f"{item.annotators}",
            percent(item.agreement),
            button("open", item.comparison_id, translate("lead.quality.open"), f"{item.comparison_id}"),
        ]
        for item in items
    ]
    heads = ["#", *(translate(f"lead.quality.column.{name}") for name in ("prompt", "annotators", "agreement_item")), ""]
    title = translate("lead.quality.items")
    return _titled(title, table(heads, rows, caption=title, numbers=(0, 2, 3), cards=False))


def _titled(title: str, body: Markup) -> Markup:
    return tag("section", tag("p", title, class_="rl-subheading"), body)


# ---- one item, opened


def item(
    translate: Translator, comparison: Comparison, judged: Sequence[PastJudgment], policies: Mapping[int, PolicyVersion],
    names: Mapping[int, str], *, acts: bool, known: Tiers | None = None, said: Markup = EMPTY,
) -> Markup:  # fmt: skip
    """A comparison with its answers, their policy versions, and all judgments of it.

    Args:
        known: its known order, if it is gold; who acts can set it by ordering the answers.
        said: what came of an order that was just saved.
    """
    if acts:
        shown = ordering(translate, comparison, policies, known)
    else:
        shown = fragment(conversation(translate, comparison.prompt), answers(translate, comparison, policies))
    title = translate("lead.quality.item_title", number=comparison.id, kind=prompt_kind(translate, comparison.prompt.kind))
    return tag(
        "section",
        tag("p", title, class_="rl-subheading"),
        shown,
        said,
        tag("p", translate("lead.quality.judgments", count=len(judged)), class_="rl-subheading"),
        tag("ul", *(_judgment(translate, past, names, acts=acts) for past in judged), class_="rl-judgments"),
        class_="rl-panel rl-comparison",
        data_testid="item",
        data_comparison=comparison.id,
    )


def _judgment(translate: Translator, past: PastJudgment, names: Mapping[int, str], *, acts: bool) -> Markup:
    judgment = past.judgment
    number = translate("lead.quality.judgment_number", number=judgment.id)
    may_exclude = acts and judgment.counts
    exclude = button("exclude-one", judgment.id, translate("lead.exclusions.exclude_short"), str(judgment.id)) if may_exclude else EMPTY
    return tag(
        "li",
        tag(
            "p",
            tag("strong", names.get(judgment.annotator_id, f"#{judgment.annotator_id}")),
            " ",
            tag("span", _verdict(translate, past), class_="rl-order"),
            " ",
            _small(fragment(f"{number} · ", when(judgment.created_at))),
        ),
        tag("blockquote", judgment.rationale, dir="auto") if judgment.rationale else EMPTY,
        *(tag("p", line, class_="rl-small") for line in _details(translate, past)),
        *(tag("p", _flag(translate, flag, past.comparison), class_="rl-small rl-warn") for flag in past.details.flags),
        tag(
            "p",
            _why_not(translate, past) or translate("lead.quality.counts"),
            " ",
            exclude,
            class_=f"rl-small {'rl-warn' if past.exclusion else 'rl-muted'}",
        ),
        data_counts=str(judgment.counts).lower(),
    )


def _verdict(translate: Translator, past: PastJudgment) -> str:
    judgment = past.judgment
    if judgment.verdict == "skip":
        return translate("lead.quality.skipped", reason=judgment.skip_reason or "")
    order = letters(past.comparison, judgment.tiers)
    marks = [translate(f"lead.strength.{judgment.strength}")] if judgment.strength else []
    marks += [translate("lead.quality.all_bad")] if judgment.all_bad else []
    marks += [translate("lead.quality.partial")] if judgment.partial else []
    return fragment(order, " ", _small(", ".join(marks))) if marks else order


def _details(translate: Translator, past: PastJudgment) -> list[str]:
    letter = {completion.id: LETTERS[i] for i, completion in enumerate(past.comparison.completions)}
    lines = [
        f"{letter.get(completion_id, '?')}: " + ", ".join(f"{aspect} {rating}" for aspect, rating in ratings.items())
        for completion_id, ratings in past.details.aspects.items()
    ]
    if past.details.ideal:
        lines.append(f"{translate('lead.quality.ideal')}: {past.details.ideal.text}")
    if past.details.timing:
        lines.append(translate("lead.quality.active", seconds=f"{past.details.timing.active_ms / 1000:.0f}"))
    return lines


def _flag(translate: Translator, flag: Flag, comparison: Comparison) -> str:
    letter = {completion.id: LETTERS[i] for i, completion in enumerate(comparison.completions)}
    where = letter.get(flag.completion_id, "") if flag.completion_id else ""
    return " ".join(filter(None, [translate(f"lead.flag.{flag.kind}"), where and f"({where})", flag.note and f"– {flag.note}"]))


def _why_not(translate: Translator, past: PastJudgment) -> str:
    """Why a judgment does not count as a vote; empty if it counts."""
    if past.exclusion:
        excluded_by = translate("lead.quality.excluded_by", number=past.exclusion.id, rule=rule(translate, past.exclusion.rule))
        return f"{excluded_by}: {past.exclusion.reason}"
    if past.judgment.purpose != "vote":
        return translate(f"lead.quality.purpose.{past.judgment.purpose}")
    return translate("lead.quality.skip_no_vote") if past.judgment.verdict == "skip" else ""
