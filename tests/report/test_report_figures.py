"""Figures: the same bytes every time, whatever the machine's settings, and nothing that escapes from the SVG."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree

import matplotlib
import pytest

from ctfed.report import palette
from ctfed.report.drawing import canvas, decade_ticks, label_text, ratio_ticks, wrapped_label
from ctfed.report.figures_curves import Curve, survival_plot
from ctfed.report.figures_effects import Effect, Series, effect_plot
from ctfed.report.figures_rounds import Traffic, traffic_plot
from ctfed.report.figures_tuning import Trial, tuning_plot

CURVE = Curve("all", (30.0, 60.0), (0.9, 0.8), (0.8, 0.7), (0.95, 0.9), ((0.0, 100), (60.0, None)))


def forest(*effects: Effect, key: str = "forest") -> str:
    series = (Series("fit", effects),)
    return str(effect_plot(key, "Title", "Alt text", series, "ratio", 1.0, ratio=True))


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_settings_of_the_machine_do_not_change_a_figure() -> None:
    effect = Effect("age", 1.2, 0.9, 1.6)
    plain = forest(effect)
    with matplotlib.rc_context({"font.size": 30, "axes.grid": True, "lines.color": "red", "svg.hashsalt": "other"}):
        assert forest(effect) == plain


def test_ids_begin_with_the_key_so_that_two_figures_share_none() -> None:
    ids = {key: set(re.findall(r' id="([^"]+)"', forest(Effect("age", 1.2), key=key))) for key in ("one", "two")}
    assert all(name.startswith("one-") for name in ids["one"])
    assert not ids["one"] & ids["two"]


def test_a_figure_is_named_and_described() -> None:
    root = ElementTree.fromstring(forest(Effect("age", 1.2)))
    assert [(child.tag.rpartition("}")[2], child.text) for child in root[:2]] == [
        ("title", "Title"),
        ("desc", "Alt text"),
    ]
    assert root.get("role") == "img"


def test_labels_are_escaped_and_their_control_characters_dropped() -> None:
    svg = forest(Effect("<b>&\x00 $y$", 1.2))
    assert "<b>" not in svg
    assert "<b>&  $y$" in texts(svg)


def test_every_colour_has_a_partner_for_the_dark() -> None:
    svgs = (
        forest(Effect("a", 1.2, 0.9, 1.5), Effect("b", 1.1, None, None, 1.0, 1.3)),
        survival_plot("survival", "t", "a", (CURVE, Curve("other", (0.0,), (1.0,))), "time", "survival"),
        tuning_plot("tuning", "t", "a", (Trial(0.1, 0.5, 0.6, 0.1, 3),), Trial(0.1, 0.5, 0.6), "score"),
        traffic_plot("rounds", "t", "a", (Traffic(1, 10, 20),)),
    )
    known = {shade.light for shade in palette.ALL_SHADES}
    for svg in svgs:
        assert set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", svg)) <= known
        # Black is matplotlib's default and not written: a text without a fill would stay black on a dark screen.
        assert all("fill: #" in style for style in re.findall(r'<text[^>]*style="([^"]*)"', svg))
    rules = palette.dark_mode_rules()
    assert all(shade.light in rules and shade.dark in rules for shade in palette.ALL_SHADES)


def contrast(one: str, other: str) -> float:
    """WCAG 2 contrast ratio of two '#rrggbb' colours."""

    def luminance(colour: str) -> float:
        channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_colours_stand_out_from_both_grounds() -> None:
    for shade in palette.SERIES:
        assert contrast(shade.light, palette.SURFACE.light) >= 4
        assert contrast(shade.dark, palette.SURFACE.dark) >= 4
    for shade in (palette.INK, palette.MUTED):
        assert min(contrast(shade.light, palette.SURFACE.light), contrast(shade.dark, palette.SURFACE.dark)) >= 4.5


def test_what_lies_beyond_the_axis_gets_an_arrow_and_a_word() -> None:
    assert "ratio (arrow: beyond this axis)" in texts(forest(Effect("cac", 1e9, 0.5, 1e12), Effect("age", 1.1)))
    assert "ratio" in texts(forest(Effect("age", 1.1, 0.9, 1.3)))


def test_numbers_at_risk_stand_under_their_ticks() -> None:
    svg = survival_plot("survival", "t", "a", (CURVE,), "time", "survival")
    places: dict[str, list[float]] = {}
    for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text"):
        found = re.search(r"(?:translate\(|rotate\(-0 )([\d.]+)", element.get("transform", "")) or re.search(
            r"^([\d.]+)", element.get("x", "")
        )
        if found:
            places.setdefault(element.text or "", []).append(float(found.group(1)))
    assert places["100"][0] == pytest.approx(places["0"][0], abs=0.01)
    assert places["–"][0] == pytest.approx(places["60"][0], abs=0.01)


def test_a_curve_begins_with_everybody_alive() -> None:
    late = survival_plot("late", "t", "a", (Curve("x", (30.0,), (0.9,)),), "time", "survival")
    early = survival_plot("late", "t", "a", (Curve("x", (0.0, 30.0), (1.0, 0.9)),), "time", "survival")
    assert late == early


def test_unknown_limits_leave_a_gap_in_the_band() -> None:
    gap = Curve("x", (0.0, 30.0, 60.0), (1.0, 0.9, 0.8), (1.0, math.nan, 0.7), (1.0, math.nan, 0.9))
    assert "nan" not in survival_plot("gap", "t", "a", (gap,), "time", "survival").lower()


def test_impossible_figures_are_refused() -> None:
    with pytest.raises(ValueError, match="no estimate"):
        forest()
    with pytest.raises(ValueError, match="without points"):
        survival_plot("k", "t", "a", (), "time", "survival")
    with pytest.raises(ValueError, match="different lengths"):
        survival_plot("k", "t", "a", (Curve("x", (0.0,), (1.0, 0.9)),), "time", "survival")
    with pytest.raises(ValueError, match="positive penalizer"):
        tuning_plot("k", "t", "a", (Trial(0.0, 0.5, 0.6),), None, "score")
    with pytest.raises(ValueError, match="no round"):
        traffic_plot("k", "t", "a", ())
    with pytest.raises(ValueError, match="lower-case"), canvas('x" onload="', 1.0, "t", "a"):
        pass


@pytest.mark.parametrize(("low", "high"), [(0.9, 1.1), (0.55, 2.1), (0.3, 3.0), (0.1, 9.0), (0.03, 33.0), (0.98, 1.02)])
def test_ratio_ticks_are_few_and_inside(low: float, high: float) -> None:
    ticks = ratio_ticks(low, high)
    assert 1 <= len(ticks) <= 7
    assert all(low * 0.999 <= tick <= high * 1.001 for tick in ticks)


def test_decade_ticks_are_few_for_any_range() -> None:
    for exponent in range(1, 30):
        assert 2 <= len(decade_ticks(10.0**-exponent, 1.0)) <= 7


def test_long_labels_keep_both_ends() -> None:
    name = "tumour_original_glszm_SmallAreaLowGrayLevelEmphasis"
    assert label_text(name, 20).startswith("tumour_")
    assert label_text(name, 20).endswith("Emphasis")
    first, second = wrapped_label(name, 26).split("\n")
    assert first == "tumour_original_glszm_"
    assert max(len(first), len(second)) <= 26
    assert wrapped_label("age", 26) == "age"
