"""Plotly figures of a run's metrics and of its reward model's validation. They have a fixed size, with or without data. No Gradio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup

from feedback_ui.shared.i18n import Translator
from feedback_ui.training.validation_view import more_would_help
from rlhf.analysis.validation import Validation, curve_accuracy
from rlhf.runs.metric_table import BY_NAME, MetricDefinition
from storage.core.records import Metric

# Visible on light and dark pages: figures are made on the server, which does not know the page's mode. Text needs more contrast
# than one colour can have on both; the style sheet sets its colour.
LINE = "#4f83b5"
TEXT = "#85807a"
LAST_STEP = "#c9752d"
GRID = "rgba(133, 128, 122, .22)"
BAND = "rgba(79, 131, 181, .2)"
TOOLTIP = "#2c2a26"
TOOLTIP_TEXT = "#faf9f7"
HEIGHT = 205
OVERLAID_HEIGHT = 290
"""Of a chart of several runs, with room for a legend of as many lines."""

RUN_LINES = (
    ("#0072b2", "solid", "circle"),
    ("#d55e00", "dash", "square"),
    ("#009e73", "dot", "diamond"),
    ("#c2689a", "dashdot", "triangle-up"),
)
"""Colour, dash and marker of each run that is laid over others, in their order: colours that colour-blind people tell apart (after Okabe
and Ito), with a contrast of 3 to 1 on light and dark pages. The style sheet draws the same beside a run's name (`.rl-line-1` to `-4`)."""

LEGEND_CHARS = 30


@dataclass(frozen=True, slots=True)
class Chart:
    metric: MetricDefinition
    tickformat: str = ""


REWARD_CHARTS = (
    Chart(BY_NAME["reward/loss"]),
    Chart(BY_NAME["reward/heldout_accuracy"], ".0%"),
)
_SAMPLED = (
    Chart(BY_NAME["objective/scores"]),
    Chart(BY_NAME["objective/kl"]),
    Chart(BY_NAME["policy/entropy_avg"]),
    Chart(BY_NAME["val/response_length"]),
)
POLICY_CHARTS = {
    "ppo": _SAMPLED,
    "rloo": _SAMPLED,
    "grpo": _SAMPLED,
    "dpo": (
        Chart(BY_NAME["dpo/loss"]),
        Chart(BY_NAME["dpo/rewards/margins"]),
        Chart(BY_NAME["dpo/rewards/accuracies"], ".0%"),
        Chart(BY_NAME["dpo/logps/chosen"]),
    ),
    "sft": (
        Chart(BY_NAME["sft/loss"]),
        Chart(BY_NAME["sft/mean_token_accuracy"], ".0%"),
        Chart(BY_NAME["sft/entropy"]),
        Chart(BY_NAME["sft/grad_norm"]),
    ),
}
"""Four charts for each method. The methods that sample completions share theirs."""

EVERY_CHART = tuple(dict.fromkeys((*REWARD_CHARTS, *(chart for charts in POLICY_CHARTS.values() for chart in charts))))
"""Each chart once, in the order of the page."""

Curve = tuple[str, Sequence[Metric]]
"""A run's name, and its metrics."""


def figure(translate: Translator, chart: Chart, metrics: Sequence[Metric]) -> go.Figure:
    """One metric over the steps; empty axes of the same size without points."""
    points = sorted((m.step, m.value) for m in metrics if m.name == chart.metric.name)
    line = go.Scatter(
        x=[step for step, _ in points],
        y=[value for _, value in points],
        mode="lines" if len(points) > 40 else "lines+markers",
        line={"color": LINE, "width": 2},
        marker={"size": 5},
        hovertemplate=Markup("{} %{{x}}<br>%{{y:{}}}<extra></extra>").format(translate("chart.step"), chart.tickformat or ".4~g"),
    )
    last = _written(chart, points[-1][1]) if points else ""
    key, unit = f"metric.{chart.metric.key}", chart.metric.unit
    titles = translate(f"{key}.title"), translate(f"{key}.unit") if unit else ""
    plot = _framed(titles, [line], x_title=translate("chart.step"), last=last, empty=not points, uirevision=chart.metric.name)
    return _scaled(plot, chart, [step for step, _ in points])


def _scaled(plot: go.Figure, chart: Chart, steps: Sequence[int]) -> go.Figure:
    """Whole steps on one axis, and shares from 0 to 1 on the other."""
    # Otherwise a few steps would be labelled 0, 1, 1, 2, 2, because the ticks are halves that are rounded.
    few = bool(steps) and max(steps) - min(steps) < 6
    plot.update_xaxes(tickformat="d", dtick=1 if few else None)
    # Shares get the whole scale: the axis of a single point would otherwise reach from -50% to 150%.
    plot.update_yaxes(tickformat=chart.tickformat, range=[-0.04, 1.04] if chart.tickformat else None)
    return plot


def overlaid(translate: Translator, chart: Chart, curves: Sequence[Curve]) -> go.Figure:
    """One metric of several runs over the steps, each with the line that it has in every chart. Runs without the metric have none."""
    of_runs = [sorted((m.step, m.value) for m in metrics if m.name == chart.metric.name) for _, metrics in curves]
    lines = [
        _run_line(
            translate, number, curves[number][0],
            [(step, value, step) for step, value in points], Markup("%{{x}}<br>%{{y:{}}}").format(chart.tickformat or ".4~g"),
            len(points) > 40,
        )
        for number, points in enumerate(of_runs)
        if points
    ]  # fmt: skip
    key, unit = f"metric.{chart.metric.key}", chart.metric.unit
    titles = translate(f"{key}.title"), translate(f"{key}.unit") if unit else ""
    plot = _framed(titles, lines, x_title=translate("chart.step"), empty=not lines, uirevision=chart.metric.name)
    return _with_legend(_scaled(plot, chart, [step for points in of_runs for step, _ in points]))


def overlaid_score_over_kl(translate: Translator, curves: Sequence[Curve]) -> go.Figure:
    """As `score_over_kl`, of several runs."""
    of_runs = [_score_by_kl(metrics) for _, metrics in curves]
    lines = [
        _run_line(translate, number, curves[number][0], points, Markup("%{customdata}<br>√KL %{x:.2f}<br>%{y:.3g}"), False)
        for number, points in enumerate(of_runs)
        if points
    ]
    titles = _titles(translate, "score_over_kl")
    plot = _framed(titles, lines, x_title=translate("chart.sqrt_kl"), empty=not lines, uirevision="score_over_kl")
    plot.update_xaxes(rangemode="tozero")
    return _with_legend(plot)


def _run_line(
    translate: Translator, number: int, name: str, points: Sequence[tuple[float, float, int]], shown: Markup, many: bool
) -> go.Scatter:
    """The line of the run `number` through `points`: x, y and step of each."""
    colour, dash, marker = RUN_LINES[number]
    x, y, steps = zip(*points, strict=True)
    name = name if len(name) <= LEGEND_CHARS else name[: LEGEND_CHARS - 1] + "…"
    return go.Scatter(
        x=x, y=y, customdata=steps, name=Markup("{}").format(name), mode="lines" if many else "lines+markers",
        line={"color": colour, "width": 2, "dash": dash}, marker={"color": colour, "size": 6, "symbol": marker},
        hovertemplate=Markup("{}<br>{} {}<extra></extra>").format(name, translate("chart.step"), shown),
    )  # fmt: skip


def _with_legend(plot: go.Figure) -> go.Figure:
    legend = {"orientation": "h", "x": 0, "xanchor": "left", "y": -0.24, "yanchor": "top", "font": {"size": 11, "color": TEXT}}
    plot.update_layout(height=OVERLAID_HEIGHT, showlegend=True, legend=legend | {"itemclick": "toggle", "itemdoubleclick": "toggleothers"})
    return plot


def score_over_kl(translate: Translator, metrics: Sequence[Metric]) -> go.Figure:
    """The reward model's score over the square root of the policy's KL to the base (Gao 2023, arXiv 2210.10760, section 3).

    A curve that bends down, or a band that widens, is a sign of over-optimisation.
    """
    points = _score_by_kl(metrics)
    x, y, steps = [x for x, _, _ in points], [y for _, y, _ in points], [step for _, _, step in points]
    disagreement = _by_step_of(metrics, "disagreement")
    apart = [disagreement.get(step, 0.0) for step in steps]
    line = go.Scatter(
        x=x, y=y, customdata=steps, mode="lines+markers", line={"color": GRID, "width": 2}, marker=_by_step(translate, steps),
        hovertemplate=Markup("{} %{{customdata}}<br>√KL %{{x:.2f}}<br>%{{y:.3g}}<extra></extra>").format(translate("chart.step")),
    )  # fmt: skip
    traces = [line]
    if any(apart):
        ends = [a + b for a, b in zip(y, apart, strict=True)], [a - b for a, b in zip(y, apart, strict=True)]
        traces = [
            go.Scatter(x=x, y=ends[0], mode="lines", line={"width": 0}, hoverinfo="skip"),
            go.Scatter(x=x, y=ends[1], mode="lines", line={"width": 0}, fill="tonexty", fillcolor=BAND, hoverinfo="skip"),
            line,
        ]
    plot = _framed(
        _titles(translate, "score_over_kl"), traces, x_title=translate("chart.sqrt_kl"), empty=not steps, uirevision="score_over_kl"
    )
    plot.update_xaxes(rangemode="tozero")
    return plot


def _score_by_kl(metrics: Sequence[Metric]) -> list[tuple[float, float, int]]:
    """Root of the KL, score and step, by step."""
    # The score may include a penalty, in which case PPO logs the reward model's own score too.
    scores = _by_step_of(metrics, "proxy_scores") or _by_step_of(metrics, "scores")
    kl = _by_step_of(metrics, "kl")
    return [(sqrt(max(kl[step], 0.0)), scores[step], step) for step in sorted(scores.keys() & kl.keys())]


def _by_step_of(metrics: Sequence[Metric], name: str) -> dict[int, float]:
    return {m.step: m.value for m in metrics if m.name == f"objective/{name}"}


def _by_step(translate: Translator, steps: Sequence[int]) -> dict[str, Any]:
    """Points that are coloured from the first step to the last, with a scale beside the plot."""
    scale = {"title": {"text": translate("chart.step"), "side": "right"}, "thickness": 8, "outlinewidth": 0, "nticks": 4, "tickformat": "d"}
    return {"size": 8, "color": list(steps), "colorscale": [[0, LINE], [1, LAST_STEP]], "showscale": len(steps) > 1, "colorbar": scale}


def on_negative_kl(translate: Translator, metrics: Sequence[Metric]) -> str:
    """Says of how many steps the KL came out below 0, and why; empty where it never did."""
    below = sum(metric.name == "objective/kl" and metric.value < 0 for metric in metrics)
    return translate("chart.negative_kl", count=below) if below else ""


def learning_curve(translate: Translator, validation: Validation | None) -> go.Figure:
    """Accuracy over the number of judgments; extrapolated as a dashed line only if the gain is significant."""
    curve = validation and validation.curve
    points = curve.points if curve else ()
    traces = [
        go.Scatter(
            x=[p.judgments for p in points], y=[p.accuracy for p in points], mode="markers",
            marker={"size": 6, "color": LINE},
            error_y=_error_bars([p.accuracy for p in points], [p.low for p in points], [p.high for p in points]),
            hovertemplate=Markup("%{{x:.0f}} {}<br>%{{y:.1%}}<extra></extra>").format(translate("chart.judgments")),
        )
    ]  # fmt: skip
    if validation and curve and more_would_help(curve):
        now, more = validation.judgments, curve.additional_judgments
        asymptote, half_saturation = np.array([curve.asymptote]), np.array([curve.half_saturation])
        for start, end, dash in ((points[0].judgments, now, "solid"), (now, now + more, "dash")):
            x = np.linspace(start, end, 40)
            y = np.concatenate([curve_accuracy(judgments, asymptote, half_saturation) for judgments in x])
            traces.append(go.Scatter(x=x, y=y, mode="lines", line={"color": LINE, "width": 2, "dash": dash}, hoverinfo="skip"))
    name = "learning_curve"
    plot = _framed(_titles(translate, name), traces, x_title=translate("chart.judgments"), empty=not points, uirevision=name)
    plot.update_yaxes(tickformat=".0%")
    plot.update_xaxes(rangemode="tozero")
    plot.add_hline(y=0.5, line={"color": TEXT, "width": 1, "dash": "dot"})
    return plot


def reliability(translate: Translator, validation: Validation | None) -> go.Figure:
    """Reliability diagram: the probe's accuracy by its confidence; a calibrated probe lies on the diagonal."""
    calibration = validation and validation.calibration
    bins = [b for b in (calibration.bins if calibration else ()) if b.pairs]
    most = max((b.pairs for b in bins), default=1)
    diagonal = go.Scatter(x=[0.5, 1], y=[0.5, 1], mode="lines", line={"color": TEXT, "width": 1, "dash": "dot"}, hoverinfo="skip")
    sizes = [5 + 11 * sqrt(b.pairs / most) for b in bins]
    dots = go.Scatter(
        x=[b.confidence for b in bins], y=[b.accuracy for b in bins], customdata=[b.pairs for b in bins],
        mode="lines+markers", line={"color": LINE, "width": 1}, marker={"color": LINE, "size": sizes, "line": {"width": 0}},
        hovertemplate=Markup("%{{customdata}} {pairs}<br>{confidence} %{{x:.0%}}<br>{accuracy} %{{y:.0%}}<extra></extra>").format(
            pairs=translate("chart.pairs"), confidence=translate("chart.confidence"), accuracy=translate("chart.accuracy")
        ),
    )  # fmt: skip
    plot = _framed(
        _titles(translate, "reliability"), [diagonal, dots], x_title=translate("chart.confidence"), empty=not bins, uirevision="reliability"
    )
    plot.update_xaxes(tickformat=".0%", range=[0.48, 1.02])
    plot.update_yaxes(tickformat=".0%", range=[min([0.45, *(b.accuracy - 0.05 for b in bins if b.accuracy is not None)]), 1.05])
    return plot


def _error_bars(values: Sequence[float], low: Sequence[float | None], high: Sequence[float | None]) -> dict[str, Any]:
    """Error bars to the ends of the intervals; hidden if any is missing."""
    spans = [(v, start, end) for v, start, end in zip(values, low, high, strict=True) if start is not None and end is not None]
    known = len(spans) == len(values)
    return {
        "visible": known,
        "symmetric": False,
        "array": [end - v for v, _, end in spans] if known else [],
        "arrayminus": [v - start for v, start, _ in spans] if known else [],
        "color": LINE,
        "thickness": 1,
        "width": 0,
    }


def _titles(translate: Translator, name: str) -> tuple[str, str]:
    return translate(f"chart.{name}.title"), translate(f"chart.{name}.unit")


def _framed(
    titles: tuple[str, str], traces: Sequence[go.Scatter], *, x_title: str, last: str = "", empty: bool, uirevision: str
) -> go.Figure:
    """A figure with the layout that all share, under its title and unit; without tick labels if it is empty."""
    title, unit = titles
    return go.Figure(
        list(traces),
        layout={
            "height": HEIGHT,
            "margin": {"l": 46, "r": 10, "t": 34, "b": 38},
            "title": {
                "text": Markup("<b>{}</b>{} <span style='font-size:11px'>{}</span>").format(title, last and f"  {last}", unit),
                "font": {"size": 13},
                "x": 0,
                "xanchor": "left",
                "y": 0.97,
                "yanchor": "top",
            },
            "font": {"color": TEXT, "size": 11, "family": "system-ui, sans-serif"},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "xaxis": {
                "showgrid": False,
                "zeroline": False,
                "linecolor": GRID,
                "fixedrange": True,
                "showticklabels": not empty,
                "nticks": 6,
                "title": {"text": x_title, "font": {"size": 10}, "standoff": 4},
            },
            "yaxis": {"gridcolor": GRID, "zeroline": False, "fixedrange": True, "showticklabels": not empty, "nticks": 5},
            "showlegend": False,
            # `x` would lay a second label over the axis; without a limit of distance the nearest point is shown from everywhere.
            "hovermode": "closest",
            "hoverdistance": -1,
            "hoverlabel": {"bgcolor": TOOLTIP, "bordercolor": TOOLTIP, "font": {"color": TOOLTIP_TEXT, "size": 12}},
            "uirevision": uirevision,
        },
    )


def _written(chart: Chart, value: float) -> str:
    return f"{value:.0%}" if chart.tickformat else f"{value:.3g}"
