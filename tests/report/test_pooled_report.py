"""The pooled page: whole, honest, self-contained, and the same every time."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_reader import ParsedPage, no_other_script

from ctfed.report import write_pooled_report
from ctfed.report.pooled import SECTIONS
from ctfed.report.reader import MalformedResults

FILES = {
    "report.html",
    "results.json",
    "coefficients.csv",
    "tuning.csv",
    "curves.csv",
    "rounds.csv",
    "baseline.csv",
}
HOSTILE = "<img src=x onerror=alert(1)>\"' $x^2$ --> ]]> \x00\x1b & </text><script>alert(2)</script>"


def page_of(results: dict[str, Any], folder: Path) -> ParsedPage:
    return ParsedPage(write_pooled_report(results, folder).read_text(encoding="utf-8"))


def only(results: dict[str, Any], *sections: str) -> dict[str, Any]:
    """The results cut down to a few sections: a page without the other figures is quickly written."""
    return {key: results[key] for key in sections}


def test_every_file_is_written_and_no_other(results: dict[str, Any], tmp_path: Path) -> None:
    path = write_pooled_report(results, tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "report.html"
    assert {file.name for file in path.parent.iterdir()} == FILES


def test_sections_stand_in_their_order_and_can_be_linked_to(results: dict[str, Any], tmp_path: Path) -> None:
    page = page_of(results, tmp_path)
    anchors = [value for tag, name, value in page.attributes if tag == "section" and name == "id"]
    assert anchors == [key for key, _, _ in SECTIONS] + ["provenance"]
    assert [link.removeprefix("#") for link in page.values("href") if link != "#content"][: len(anchors)] == anchors
    assert page.tags["h1"] == 1


def test_headline_numbers_are_those_of_the_results(results: dict[str, Any], tmp_path: Path) -> None:
    text = page_of(results, tmp_path).text
    assert "0.632 95 % CI 0.554 to 0.710; test split; pairs within a site" in text
    assert "1.94 95 % CI 1.06 to 3.55; test split; higher against lower risk" in text
    assert "Patients 228 165 events; 3 sites" in text


def test_nothing_is_loaded_from_anywhere(results: dict[str, Any], tmp_path: Path) -> None:
    html = write_pooled_report(results, tmp_path).read_text(encoding="utf-8")
    page = ParsedPage(html)
    assert not page.tags.keys() & {"link", "img", "iframe", "object", "embed", "image"}
    assert no_other_script(html)
    assert all(target.startswith("#") for name in ("href", "src", "xlink:href") for target in page.values(name))
    assert set(re.findall(r"url\(\s*['\"]?(.)", html)) <= {"#"}
    assert "@import" not in html
    assert set(re.findall(r"https?://[^\s\"'<]+", html)) == {"http://www.w3.org/2000/svg"}
    assert any("default-src 'none'" in value for value in page.values("content"))


def test_links_inside_the_page_find_exactly_one_target(results: dict[str, Any], tmp_path: Path) -> None:
    html = write_pooled_report(results, tmp_path).read_text(encoding="utf-8")
    page = ParsedPage(html)
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    wanted = {target.removeprefix("#") for target in page.values("href")} | set(re.findall(r"url\(#([^)]+)\)", html))
    wanted |= {name for value in page.values("aria-labelledby") for name in value.split()}
    assert wanted <= set(ids)


def test_every_figure_has_a_description_and_its_data(results: dict[str, Any], tmp_path: Path) -> None:
    page = page_of(results, tmp_path)
    assert page.tags["svg"] == page.tags["figure"] == page.tags["desc"] == 6
    assert page.tags["details"] >= page.tags["figure"]
    assert page.values("role").count("img") == 6


def test_tables_scroll_in_boxes_of_their_own(results: dict[str, Any], tmp_path: Path) -> None:
    page = page_of(results, tmp_path)
    boxes = [classes for classes in page.values("class") if "scroll" in classes.split()]
    assert len(boxes) == page.tags["table"] == page.tags["caption"]


def test_same_results_give_the_same_bytes(results: dict[str, Any], tmp_path: Path) -> None:
    shuffled = dict(reversed(list(copy.deepcopy(results).items())))
    first, second = write_pooled_report(results, tmp_path / "a"), write_pooled_report(shuffled, tmp_path / "b")
    for name in FILES:
        assert (first.parent / name).read_bytes() == (second.parent / name).read_bytes(), name


def test_writing_again_replaces_the_old_report(results: dict[str, Any], tmp_path: Path) -> None:
    write_pooled_report(results, tmp_path)
    results["study"]["title"] = "Another study"
    assert "Another study" in page_of(results, tmp_path).text
    assert {file.name for file in tmp_path.iterdir()} == FILES


def test_results_are_kept_as_they_are_and_the_page_names_their_hash(results: dict[str, Any], tmp_path: Path) -> None:
    text = page_of(results, tmp_path).text
    stored = (tmp_path / "results.json").read_bytes()
    assert json.loads(stored) == results
    assert list(json.loads(stored)) == sorted(results)
    assert hashlib.sha256(stored).hexdigest() in text


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        ("sites", "The results do not say which sites took part."),
        ("cohort", "The results hold no counts of patients and features."),
        ("model", "The results hold no fitted model."),
        ("tuning", "The results hold no tuning: the penalty was given, or the results do not say."),
        ("curves", "The results hold no survival curves by risk group."),
        ("discrimination", "The results hold no measure of discrimination."),
        ("baseline", "The results hold no baseline survival"),
        ("rounds", "The results do not list the rounds"),
        ("run", "The results hold nothing about the run"),
        ("study", "The results hold nothing about the study"),
    ],
)
def test_a_section_that_is_not_there_leaves_a_sentence(
    results: dict[str, Any], tmp_path: Path, section: str, sentence: str
) -> None:
    del results[section]
    assert sentence in page_of(results, tmp_path).text


def test_no_results_at_all_give_a_page_of_sentences(tmp_path: Path) -> None:
    page = page_of({}, tmp_path)
    nothing = dict.fromkeys(("study", "run", "sites", "cohort", "tuning", "model", "baseline", "curves", "rounds"))
    assert page_of(nothing, tmp_path / "none").text[:400] == page.text[:400]
    assert page.tags["figure"] == 0
    assert page.text.count("Not shown") == len(SECTIONS) + 1
    assert (tmp_path / "rounds.csv").read_text() == "round,queries,bytes_down,bytes_up,seconds\n"


def test_every_number_may_be_unknown(results: dict[str, Any], tmp_path: Path) -> None:
    def blank(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: blank(item) for key, item in value.items()}
        if isinstance(value, list):
            return [blank(item) for item in value]
        return None if isinstance(value, int | float) and not isinstance(value, bool) else value

    text = page_of(blank(results), tmp_path).text
    assert "an unknown number of patients" in text
    assert "None" not in text
    assert "nan" not in text.split()


def test_an_unmasked_run_says_so_before_any_section(results: dict[str, Any], tmp_path: Path) -> None:
    text = page_of(only(results, "study", "run"), tmp_path).text
    head = text[: text.index("Who took part")]
    assert "This run was unmasked: secure summation was off." in head
    assert "The sums of each single site were visible to the server." in head
    assert "fit for a simulation only" in head


def test_an_unmasked_deployment_is_called_wrong(results: dict[str, Any], tmp_path: Path) -> None:
    results["run"]["runner"] = "flower-deployment"
    assert "a deployment with patients' data must be masked" in page_of(only(results, "run"), tmp_path).text


def test_silence_about_masking_is_read_as_unmasked(results: dict[str, Any], tmp_path: Path) -> None:
    results["run"]["masked"] = None
    assert "read this run as unmasked" in page_of(only(results, "run"), tmp_path).text


def test_a_masked_run_is_not_called_unmasked(results: dict[str, Any], tmp_path: Path) -> None:
    results["run"]["masked"] = True
    text = page_of(only(results, "run"), tmp_path).text
    assert "no single site's sums" in text
    assert "unmasked" not in text.lower()


def test_a_penalised_fit_has_no_standard_errors_and_says_why(results: dict[str, Any], tmp_path: Path) -> None:
    text = page_of(only(results, "model"), tmp_path).text
    assert "A penalised fit has no standard errors, z, p-values or confidence intervals" in text
    results["model"]["penalizer"] = 0.0
    assert "A penalised fit" not in page_of(only(results, "model"), tmp_path).text


def test_robust_errors_stand_beside_the_others_where_there_are_any(results: dict[str, Any], tmp_path: Path) -> None:
    text = page_of(only(results, "model"), tmp_path).text
    assert "Robust SE per SD" in text
    assert "0.58 to 0.84" in text
    assert "sandwich estimator of Lin & Wei" in text
    for row in results["model"]["unpenalised"]:
        row.update({key: None for key in row if key.startswith("robust_")})
    results["model"]["risk_sets"] = "pooled"
    text = page_of(only(results, "model"), tmp_path).text
    assert "Robust SE" not in text
    assert "Robust (sandwich) errors are computed for risk sets that are stratified by site alone." in text


def test_performance_in_the_training_split_is_called_optimistic(results: dict[str, Any], tmp_path: Path) -> None:
    assert "optimistic" not in page_of(only(results, "discrimination"), tmp_path).text
    results["discrimination"]["split"] = "train"
    assert "Training split: optimistic" in page_of(only(results, "discrimination"), tmp_path).text


def test_warnings_of_the_fit_stand_in_the_head(results: dict[str, Any], tmp_path: Path) -> None:
    results["model"]["warnings"] = ["separation by cac_score"]
    text = page_of(only(results, "model"), tmp_path).text
    assert text.index("separation by cac_score") < text.index("Who took part")


def test_names_from_outside_stay_text(results: dict[str, Any], tmp_path: Path) -> None:
    honest = page_of(results, tmp_path / "honest")
    for place in (*results["model"]["coefficients"], *results["model"]["unpenalised"], *results["cohort"]["features"]):
        place["feature"] = f"{place['feature']} {HOSTILE}"
    results["study"]["title"] = results["curves"]["groups"][0]["name"] = HOSTILE
    results["sites"]["names"] = [HOSTILE]
    results["rounds"][0]["queries"] = [HOSTILE]
    page = page_of(results, tmp_path / "hostile")
    assert "img" not in page.tags
    assert no_other_script((tmp_path / "hostile" / "report.html").read_text(encoding="utf-8"))
    assert {key for key in page.tags if page.tags[key] != honest.tags[key]} <= {
        "text",
        "g",
        "path",
        "use",
        "tr",
        "th",
        "td",
    }
    assert not any(name.startswith("on") for _, name, _ in page.attributes)
    assert HOSTILE.replace("\x00", "").replace("\x1b", "")[:28] in page.text


def test_numbers_that_are_not_finite_are_named(results: dict[str, Any], tmp_path: Path) -> None:
    results["model"]["unpenalised"][1]["upper"] = float("inf")
    text = page_of(only(results, "model"), tmp_path).text
    assert "results.model.unpenalised[1].upper" in text
    assert json.loads((tmp_path / "results.json").read_text())["model"]["unpenalised"][1]["upper"] is None


def test_numpy_numbers_give_the_page_of_plain_numbers(results: dict[str, Any], tmp_path: Path) -> None:
    plain = write_pooled_report(results, tmp_path / "plain").read_bytes()
    results["baseline"] = {key: np.array(values) for key, values in results["baseline"].items()}
    results["model"]["patients"] = np.int64(160)
    assert write_pooled_report(results, tmp_path / "numpy").read_bytes() == plain


def test_a_value_of_a_wrong_type_is_refused_and_nothing_is_written(results: dict[str, Any], tmp_path: Path) -> None:
    results["model"]["penalizer"] = "strong"
    with pytest.raises(MalformedResults, match=r"results\.model\.penalizer: expected a finite number or None"):
        write_pooled_report(results, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_many_features_leave_the_page_readable(results: dict[str, Any], tmp_path: Path) -> None:
    row = results["model"]["coefficients"][1]
    results["model"]["coefficients"] = [row | {"feature": f"feature_{index:03d}"} for index in range(90)]
    page = page_of(only(results, "model"), tmp_path)
    assert "The 30 largest effects; 60 more features are in the table." in page.text
    assert "feature_089" in page.text
    assert (tmp_path / "coefficients.csv").read_text().count("\nmodel,") == 90


def test_a_search_over_many_ratios_is_drawn_without_lines(results: dict[str, Any], tmp_path: Path) -> None:
    results["tuning"]["trials"] = [
        {"penalizer": 0.01 * (index + 1), "l1_ratio": index / 9, "score": 0.6, "score_se": 0.02, "nonzero": 3}
        for index in range(10)
    ]
    assert "trials of any l1_ratio" in page_of(only(results, "tuning"), tmp_path).text


def test_a_long_run_folds_its_rounds(results: dict[str, Any], tmp_path: Path) -> None:
    results["rounds"] = [results["rounds"][1] | {"round": number} for number in range(1, 1001)]
    text = page_of(only(results, "rounds"), tmp_path).text
    assert "The first 400 rounds; 600 more are in rounds.csv." in text
    assert "CoxDerivatives 5,000 1,000" in text
    assert (tmp_path / "rounds.csv").read_text().count("\n") == 1001


def test_the_page_says_which_files_may_be_handed_on(results: dict[str, Any], tmp_path: Path) -> None:
    path = write_pooled_report(results, tmp_path)
    words = ParsedPage(path.read_text(encoding="utf-8")).text
    tables = len(list(tmp_path.glob("*.csv")))
    assert "What may be handed on" in words
    assert f"this page, results.json, the {tables} CSV files, model.json and model_card.md" in words
    assert "Stays: journal/" in words


def test_figures_tell_their_values_under_the_pointer_without_scripts(results: dict[str, Any], tmp_path: Path) -> None:
    html = write_pooled_report(results, tmp_path).read_text(encoding="utf-8")
    told = re.findall(r"<title>([^<]*)</title></(?:circle|rect)>", html)
    assert "lower risk: time (days) 180, survival probability 0.8" in told
    assert "elastic-net fit: sex: 0.787" in told
    assert "Estimate: C, within sites: 0.632" in told or any("C, within sites: 0.632" in text for text in told)
    assert any(text.startswith("round 2, sent by the site") for text in told)


def test_data_of_a_figure_can_be_sorted_and_a_short_table_needs_no_sorting(
    results: dict[str, Any], tmp_path: Path
) -> None:
    page = page_of(results, tmp_path)
    assert page.tags["script"] == 1
    sortable = [name for _, name, _ in page.attributes].count("data-sortable")
    assert 0 < sortable < page.tags["table"]
