"""A run's metrics as quiet Plotly figures that keep their place while they fill. No Gradio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from feedback_ui.words import Words
from storage.records import Metric

# Visible on the light and on the dark page alike: a figure is drawn on the server, which knows neither. Text needs more
# contrast than one colour can have on both; the style sheet gives it that.
LINE = "#4f83b5"
TEXT = "#85807a"
GRID = "rgba(133, 128, 122, .22)"
HEIGHT = 205


@dataclass(frozen=True, slots=True)
class Chart:
    metric: str
    name: str
    """Under which its title and its unit stand in the locales, as `chart.NAME`."""
    tickformat: str = ""


REWARD_CHARTS = (
    Chart("reward/loss", "loss"),
    Chart("reward/heldout_accuracy", "heldout_accuracy", ".0%"),
)
PPO_CHARTS = (
    Chart("objective/scores", "scores"),
    Chart("objective/kl", "kl"),
    Chart("policy/entropy_avg", "entropy"),
    Chart("val/response_length", "response_length"),
)
CHARTS = REWARD_CHARTS + PPO_CHARTS


def figure(words: Words, chart: Chart, metrics: Sequence[Metric]) -> go.Figure:
    """One metric over its steps. Without points the axes stand there empty, at the same size."""
    points = sorted((m.step, m.value) for m in metrics if m.name == chart.metric)
    line = go.Scatter(
        x=[step for step, _ in points],
        y=[value for _, value in points],
        mode="lines" if len(points) > 40 else "lines+markers",
        line={"color": LINE, "width": 2},
        marker={"size": 5},
        hovertemplate=f"{words('chart.step')} %{{x}}<br>%{{y:{chart.tickformat or '.4~g'}}}<extra></extra>",
    )
    title, unit = words(f"chart.{chart.name}.title"), words(f"chart.{chart.name}.unit")
    last = f"  {_written(chart, points[-1][1])}" if points else ""
    return go.Figure(
        line,
        layout={
            "height": HEIGHT,
            "margin": {"l": 46, "r": 10, "t": 34, "b": 38},
            "title": {
                "text": f"<b>{title}</b>{last} <span style='font-size:11px'>{unit}</span>",
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
                "showticklabels": bool(points),
                "tickformat": "d",
                "nticks": 6,
                # Else a few steps would be labelled 0, 1, 1, 2, 2: halves, written as whole numbers.
                "dtick": 1 if points and points[-1][0] - points[0][0] < 6 else None,
                "title": {"text": words("chart.step"), "font": {"size": 10}, "standoff": 4},
            },
            "yaxis": {
                "gridcolor": GRID,
                "zeroline": False,
                "tickformat": chart.tickformat,
                # Of a share, the whole scale: a single point would else stand on an axis from -50% to 150%.
                "range": [-0.04, 1.04] if chart.tickformat else None,
                "fixedrange": True,
                "showticklabels": bool(points),
                "nticks": 5,
            },
            "showlegend": False,
            "hovermode": "x",
            "uirevision": chart.metric,
        },
    )


def _written(chart: Chart, value: float) -> str:
    return f"{value:.0%}" if chart.tickformat else f"{value:.3g}"
