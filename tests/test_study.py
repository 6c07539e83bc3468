"""Study files: what is wrong with one is said in words, and its digest depends on its content alone."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from ctfed import site as site_module
from ctfed import study as study_module
from ctfed.cli import main
from ctfed.config import ConfigError, Section
from ctfed.federation.view import Feature
from ctfed.study import Study, Variable, load_study, study_json_schema

SHIPPED = Path(__file__).parents[1] / "site_config" / "studies" / "ncctg_lung.yaml"

BASE: dict[str, Any] = {
    "ctfed_study": 1,
    "name": "demo",
    "title": "A demonstration",
    "endpoint": {"name": "overall survival", "time_unit": "months"},
    "variables": {
        "age": {"type": "continuous", "range": [18, 110], "impute": "median", "label": "Age"},
        "sex": {"type": "binary", "range": [0, 1], "impute": "mode", "levels": {0: "male", 1: "female"}},
        "ecog": {"type": "ordinal", "range": [0, 4], "impute": "none"},
    },
    "model": {"features": ["age", "sex"]},
    "tuning": {},
    "split": {"test_fraction": 0.3},
    "evaluation": {"horizons": [6, 12], "time_bin": 1},
}
ABSENT = object()
NOMINAL = {"type": "nominal", "levels": {1: "upper lobe", 2: "middle lobe", 3: "lower lobe"}, "impute": "mode"}


def edited(key: str, value: object) -> dict[str, Any]:
    """BASE with one key (dotted) set, or removed."""
    document = copy.deepcopy(BASE)
    *path, last = key.split(".")
    here = document
    for part in path:
        here = here.setdefault(part, {})
    if value is ABSENT:
        del here[last]
    elif isinstance(value, dict):
        here[last] = {name: entry for name, entry in value.items() if entry is not ABSENT}
    else:
        here[last] = value
    return document


def written(folder: Path, document: object) -> Path:
    path = folder / "study.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document, sort_keys=False))
    return path


def study_with(folder: Path, key: str, value: object) -> Study:
    return load_study(written(folder, edited(key, value)))


# key to set, value, key that is named, what is found, what is expected
BAD = [
    ("name", "9 lives", "name", "'9 lives'", "an identifier"),
    ("name", 7, "name", "7", "an identifier"),
    ("title", ABSENT, "title", "nothing", "the title of the study in words"),
    ("[key]", 1, "[key]", "an unknown key", "ctfed_study"),
    ("titel", "x", "titel", "an unknown key", "(did you mean 'title'?)"),
    (
        "evaluation",
        {"horizon": [6], "time_bin": 1},
        "evaluation.horizon",
        "an unknown key",
        "(did you mean 'horizons'?)",
    ),
    ("endpoint.time_unit", "weeks", "endpoint.time_unit", "'weeks'", "'days' or 'months'"),
    ("endpoint", "survival", "endpoint", "'survival'", "a mapping: name, time_unit"),
    ("endpoint.time_unit", ABSENT, "endpoint.time_unit", "nothing", "'days' or 'months'"),
    ("variables", {}, "variables", "a mapping", "a mapping of names to variables"),
    ("variables.age.type", "float", "variables.age.type", "'float'", "'continuous', 'binary', 'ordinal' or 'nominal'"),
    ("variables.age.range", ABSENT, "variables.age.range", "nothing", "a list of two numbers [low, high]"),
    ("variables.age.range", [18], "variables.age.range[1]", "nothing", "a list of two numbers [low, high]"),
    ("variables.age.range", [18, "110"], "variables.age.range[1]", "'110'", "a list of two numbers [low, high]"),
    ("variables.age.range", [110, 18], "variables.age.range", "[110.0, 18.0]", "low < high"),
    ("variables.age.range", [0, float("inf")], "variables.age.range[1]", "inf", "a list of two numbers"),
    (
        "variables.age.range",
        [0, 1e300],
        "variables.age.range",
        "a magnitude of 2^997",
        "values between 2^-120 and 2^120",
    ),
    ("variables.age.magnitude", 0, "variables.age.magnitude", "0", "a number > 0"),
    ("variables.age.magnitude", 1e-80, "variables.age.magnitude", "a magnitude of 2^-265", "values between 2^-120"),
    ("variables.age.rnage", [1, 2], "variables.age.rnage", "an unknown key", "(did you mean 'range'?)"),
    ("variables.age.impute", "mean", "variables.age.impute", "'mean'", "'median', 'mode' or 'none'"),
    ("variables.age.missing_indicator", "yes", "variables.age.missing_indicator", "'yes'", "true or false"),
    ("variables.age.levels", {1: "one"}, "variables.age.levels", "levels of a continuous variable", "none"),
    ("variables.age.impute", "mode", "variables.age.impute", "'mode' of a variable without levels", "median or none"),
    (
        "variables.ecog.impute",
        "mode",
        "variables.ecog.impute",
        "'mode' of a variable without levels",
        "levels to count",
    ),
    ("variables.ecog.levels", {"a": "x"}, "variables.ecog.levels.a", "'a'", "whole numbers"),
    ("variables.ecog.levels", {5: "dead"}, "variables.ecog.levels", "[5]", "inside the range [0.0, 4.0]"),
    (
        "variables.ecog.missing_indicator",
        True,
        "variables.ecog.missing_indicator",
        "true with impute: none",
        "impute: median or mode",
    ),
    ("variables.sex.reference", 1, "variables.sex.reference", "a reference of a variable that is binary", "none"),
    *(
        ("variables.site", NOMINAL | change, f"variables.site.{key}", found, wanted)
        for change, key, found, wanted in (
            ({"levels": ABSENT}, "levels", "nothing", "at least 3 levels of a nominal variable"),
            ({"levels": {}}, "levels", "nothing", "at least 3 levels of a nominal variable"),
            ({"levels": {1: "a", 2: "b"}}, "levels", "2 levels", "(of two, say type: binary)"),
            ({"levels": {1: "a", 2: "b", 3: "a"}}, "levels", "a label for the second time", "another for each level"),
            ({"levels": {1: "a", 2: "b", 2**60: "c"}}, "levels", "a level beyond 2^53", "smaller codes"),
            ({"reference": 4}, "reference", "4", "one of its levels: [1, 2, 3]"),
            ({"reference": "a"}, "reference", "'a'", "a whole number, the level without a column"),
            ({"impute": "median"}, "impute", "'median' of a nominal variable", "mode or none"),
            ({"impute": "none", "missing_indicator": True}, "missing_indicator", "true with impute: none", "mode"),
            ({"range": [1, 2]}, "levels", "[3]", "inside the range [1.0, 2.0]"),
        )
    ),
    ("variables.sex.range", [1, 2], "variables.sex.range", "[1.0, 2.0]", "[0, 1], because the variable is binary"),
    ("variables.sex.levels", {0: "male"}, "variables.sex.levels", "[0]", "labels for 0 and 1"),
    ("variables.2nd", BASE["variables"]["age"], "variables.2nd", "'2nd'", "a mapping of names to variables"),
    ("model.features", [], "model.features", "[]", "at least one variable's name"),
    ("model.features", ["agee"], "model.features[0]", "'agee'", "a name of variables (did you mean 'age'?)"),
    ("model.features", ["age", "age"], "model.features[1]", "'age' for the second time", "each feature once"),
    ("model.ties", "exact", "model.ties", "'exact'", "'efron' or 'breslow'"),
    ("model.risk_sets", None, "model.risk_sets", "nothing", "'stratified' or 'pooled'"),
    ("model.updates", "bfgs", "model.updates", "'bfgs'", "'newton' or 'gradient'"),
    ("model.standardise", 1, "model.standardise", "1", "true or false"),
    ("model.penalty_factors", {"sx": 0}, "model.penalty_factors.sx", "'sx'", "(did you mean 'sex'?)"),
    ("model.penalty_factors", {"sex": -1}, "model.penalty_factors.sex", "-1", "numbers >= 0"),
    ("model.risk_sets", "pooled", "tuning", "tuning with risk_sets: pooled", "penalty"),
    ("tuning.folds", 1, "tuning.folds", "1", "a whole number from 2 to 20"),
    ("tuning.folds", 5.5, "tuning.folds", "5.5", "a whole number from 2 to 20"),
    ("tuning.l1_ratios", [0.5, 0], "tuning.l1_ratios[1]", "0", "at least one number > 0 and <= 1"),
    ("tuning.l1_ratios", [0.5, 0.5], "tuning.l1_ratios[1]", "0.5 for the second time", "each ratio once"),
    ("tuning.penalizers", {"count": 1}, "tuning.penalizers.count", "1", "a whole number from 2 to 1000"),
    ("tuning.penalizers", {"smallest_ratio": 1}, "tuning.penalizers.smallest_ratio", "1", "between 0 and 1"),
    ("tuning.rule", "1se", "tuning.rule", "'1se'", "'best' or 'one_standard_error'"),
    ("tuning.score", "auc", "tuning.score", "'auc'", "'within_site_c'"),
    ("penalty", {"penalizer": 0.1, "l1_ratio": 0.5}, "", "both", "exactly one of tuning or penalty"),
    ("tuning", ABSENT, "", "neither", "exactly one of tuning or penalty"),
    ("penalty", {"penalizer": 0.1, "l1_ratio": 2}, "penalty.l1_ratio", "2", "a number from 0 (ridge) to 1 (lasso)"),
    ("split", {}, "split", "none", "exactly one of test_fraction, column or test_sites"),
    (
        "split",
        {"test_fraction": 0.3, "column": "s"},
        "split",
        "test_fraction and column",
        "exactly one of test_fraction, column or test_sites",
    ),
    ("split", {"test_sites": ["a", "b"]}, "split.test_sites", "['a', 'b']", "at least three sites"),
    ("split", {"test_fraction": 1}, "split.test_fraction", "1", "between 0 and 1 (both excluded)"),
    ("evaluation.horizons", [6.5], "evaluation.horizons[0]", "6.5", "a multiple of time_bin 1, such as 6 or 7"),
    ("evaluation.horizons", [0.5], "evaluation.horizons[0]", "0.5", "a multiple of time_bin 1, such as 1"),
    ("evaluation.horizons", [12, 6], "evaluation.horizons[1]", "6 after 12", "rising times"),
    ("evaluation.horizons", [0], "evaluation.horizons[0]", "0", "at least one time > 0"),
    ("evaluation.horizons", 12, "evaluation.horizons", "12", "a list of at least one time > 0"),
    ("evaluation.time_bin", 0.0001, "evaluation.time_bin", "0.0001", "at most 10000 bins"),
    ("evaluation.confidence", 95, "evaluation.confidence", "95", "between 0.5 and 1"),
    ("evaluation.min_cell", 0, "evaluation.min_cell", "0", "a whole number >= 1"),
    ("evaluation.seed", -1, "evaluation.seed", "-1", "a whole number >= 0"),
    ("time_grid", {"width": 2, "end": 13}, "time_grid.end", "13", "a multiple of the width 2"),
    ("time_grid", {"width": 1e-5, "end": 10}, "time_grid.width", "1e-05", "at most 10000 intervals"),
    ("sites", ["a", "b", "a"], "sites[2]", "'a' for the second time", "each site once"),
    ("sites", ["a b"], "sites[0]", "'a b'", "a list of at least one site's name"),
    ("sites", [], "sites", "[]", "a list of at least one site's name"),
]


@pytest.mark.parametrize(("key", "value", "named", "found", "expected"), BAD)
def test_a_wrong_value_gives_one_sentence(
    tmp_path: Path, key: str, value: object, named: str, found: str, expected: str
) -> None:
    path = written(tmp_path, edited(key, value))
    with pytest.raises(ConfigError) as caught:
        load_study(path)
    assert len(caught.value.faults) == 1
    [fault] = caught.value.faults
    subject, _, rest = fault.partition("found ")
    assert subject.startswith(f"{path}, line ")
    assert subject.endswith(f": {named}: " if named else ": ")
    assert rest.startswith(f"{found}, expected ")
    assert expected in rest
    assert "\n" not in fault


def test_every_fault_of_a_file_is_listed_on_its_own_line(tmp_path: Path) -> None:
    document = edited("model.ties", "exact")
    document["evaluation"]["seed"] = "x"
    document["variables"]["age"]["rnage"] = 1
    with pytest.raises(ConfigError) as caught:
        load_study(written(tmp_path, document))
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["variables.age.rnage", "model.ties", "evaluation.seed"]


def test_several_faults_of_one_section_are_all_listed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        study_with(tmp_path, "evaluation.horizons", [6.5, 7.5])
    assert ["[0]" in caught.value.faults[0], "[1]" in caught.value.faults[1]] == [True, True]


# text of the file, line that is named, what is found
UNREADABLE = [
    ("ctfed_study: 1\nname: [a\n", 3, "invalid YAML"),
    ("ctfed_study: 1\nname: a\nname: b\n", 3, "the key name for the second time"),
    ("ctfed_study: 1\nendpoint:\n  name: a\n  name: b\n", 4, "the key endpoint.name for the second time"),
    ("ctfed_study: 1\nname: &n a\ntitle: *n\n", 3, "an alias (*name); write the value out"),
    ("ctfed_study: 1\nname: !!python/name:os.system a\n", 2, "the tag tag:yaml.org,2002:python/name:os.system"),
    ("ctfed_study: 1\nname: !!int abc\n", 2, "the tag tag:yaml.org,2002:int on 'abc'"),
    ("ctfed_study: 1\n? [a, b]\n: c\n", 2, "a key that is not plain text"),
    ("ctfed_study: 1\n---\nctfed_study: 1\n", 2, "but found another document"),
    ("ctfed_study: 1\nname: a\x01b\n", 2, "a control character"),
]


@pytest.mark.parametrize(("text", "line", "found"), UNREADABLE)
def test_invalid_yaml_is_named_with_its_line(tmp_path: Path, text: str, line: int, found: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_study(path)
    assert str(caught.value).startswith(f"{path}, line {line}: found ")
    assert found in str(caught.value)
    assert len(caught.value.faults) == 1


def test_a_file_that_is_not_utf8_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes(b"ctfed_study: 1\ntitle: \xe9t\xe9\n")
    with pytest.raises(ConfigError, match=r"study\.yaml, line 2: found a byte that is not UTF-8, expected UTF-8 text"):
        load_study(path)


def test_a_file_that_is_absent_or_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"gone\.yaml: found no readable file \(No such file or directory\), expected"
    ):
        load_study(tmp_path / "gone.yaml")
    with pytest.raises(ConfigError, match=r"found no readable file \(Is a directory\), expected a YAML file"):
        load_study(tmp_path)


def test_brackets_without_end_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="found brackets nested too deeply, expected a YAML mapping"):
        load_study(written(tmp_path, "ctfed_study: " + "[" * 20_000))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "found nothing, expected a mapping that begins with 'ctfed_study: 1'"),
        ("- a\n", "found ['a'], expected a mapping that begins with 'ctfed_study: 1'"),
        ("ctfed_site: 1\nsite: a\n", "found no key 'ctfed_study', expected a mapping that begins with"),
        ("name: a\n", "found no key 'ctfed_study', expected a mapping that begins with 'ctfed_study: 1'"),
        ("ctfed_study: 2\nall: new\n", "line 1: ctfed_study: found 2, expected 1, the only format"),
        ("ctfed_study: true\n", "line 1: ctfed_study: found true, expected 1, the only format"),
    ],
)
def test_another_kind_of_file_gives_one_sentence(tmp_path: Path, text: str, found: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_study(written(tmp_path, text))
    assert len(caught.value.faults) == 1
    assert found in str(caught.value)


def test_plain_words_stay_words(tmp_path: Path) -> None:
    """YAML 1.1 would read these as false, a sexagesimal number, a date and a text."""
    text = yaml.safe_dump(BASE).replace("label: Age", "label: no").replace("A demonstration", "2020-01-01")
    text = text.replace("male", "12:30", 1).replace("test_fraction: 0.3", "test_fraction: 3e-1")
    study = load_study(written(tmp_path, text))
    assert study.label("age") == "no"
    assert study.title == "2020-01-01"
    assert study.split.test_fraction == 0.3
    assert "12:30" in (study.variables["sex"].levels or {}).values()


def test_the_digest_ignores_comments_formatting_order_and_written_defaults(tmp_path: Path) -> None:
    plain = load_study(written(tmp_path, BASE))
    document = edited("tuning.folds", 5)
    document["evaluation"]["horizons"] = [6.0, 12.0]
    text = "# a comment\n" + yaml.safe_dump(document, sort_keys=True, default_flow_style=True)
    assert load_study(written(tmp_path, text)).sha256 == plain.sha256
    assert len(plain.sha256) == 64


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("title", "Another"),
        ("variables.age.range", [18, 111]),
        ("model.features", ["sex", "age"]),
        ("tuning.folds", 4),
        ("evaluation.fine_evaluation_tables", True),
        ("sites", ["a"]),
    ],
)
def test_the_digest_changes_with_the_content(tmp_path: Path, key: str, value: object) -> None:
    assert study_with(tmp_path, key, value).sha256 != load_study(written(tmp_path, BASE)).sha256


def test_the_digest_survives_a_round_trip_through_json(tmp_path: Path) -> None:
    study = load_study(written(tmp_path, BASE))
    assert Study.model_validate_json(study.model_dump_json()).sha256 == study.sha256


@pytest.mark.parametrize(
    ("limits", "magnitude", "exponent"),
    [((18, 110), None, 7), ((0, 128), None, 7), ((0, 129), None, 8), ((-300, 2), None, 9), ((0, 0.1), None, 0),
     ((0, 1), None, 0), ((0, 1), 0.01, -6), ((0, 1e6), 8.0, 3)],
)  # fmt: skip
def test_a_feature_takes_its_exponent_from_range_or_magnitude(
    limits: tuple[float, float], magnitude: float | None, exponent: int
) -> None:
    variable = Variable(type="continuous", range=limits, impute="none", magnitude=magnitude)
    assert variable.feature("x") == Feature("x", exponent)


def test_possible_levels_are_listed_by_the_dictionary() -> None:
    binary = Variable(type="binary", range=(0, 1), impute="mode")
    ordinal = Variable(type="ordinal", range=(1, 4), impute="mode", levels={4: "IV", 1: "I"})
    scale = Variable(type="ordinal", range=(0, 100), impute="median")
    assert binary.possible_levels == (0.0, 1.0)
    assert ordinal.possible_levels == (1.0, 4.0)
    assert scale.possible_levels == ()


def with_nominal(**changes: object) -> dict[str, Any]:
    document = edited("variables.site", NOMINAL)
    document["model"] |= {"features": ["site", "age"], **changes}
    return document


def test_a_nominal_variable_needs_no_range_and_takes_its_lowest_level_for_reference(tmp_path: Path) -> None:
    study = load_study(written(tmp_path, with_nominal()))
    assert study.variables["site"].range == (1, 3)
    assert study.features == (Feature("site", 2), Feature("age", 7))
    (column,) = study.nominal
    assert (column.reference, column.indicators) == (1, ("site=2", "site=3"))
    assert Study.model_validate_json(study.model_dump_json()).sha256 == study.sha256
    assert Study.model_validate_json(study.model_dump_json(exclude_unset=True)).sha256 == study.sha256
    turned = dict(reversed(NOMINAL["levels"].items()))
    other = edited("variables.site", NOMINAL | {"levels": turned})
    other["model"] |= {"features": ["site", "age"]}
    assert load_study(written(tmp_path, other)).sha256 == study.sha256


def test_labels_of_columns_name_the_level(tmp_path: Path) -> None:
    document = with_nominal()
    document["variables"]["site"]["label"] = "Lobe"
    document["variables"]["age"]["missing_indicator"] = True
    study = load_study(written(tmp_path, document))
    names = ("site", "site=2", "site=9", "site missing", "age missing", "tumour.x", "other=2", "other missing")
    assert [study.label(name) for name in names] == [
        *("Lobe", "Lobe: middle lobe", "Lobe: 9", "Lobe missing", "Age missing"),
        *("tumour.x", "other=2", "other missing"),
    ]


def test_a_level_can_have_a_penalty_factor_but_the_reference(tmp_path: Path) -> None:
    load_study(written(tmp_path, with_nominal(penalty_factors={"site": 0, "site=3": 2})))
    with pytest.raises(ConfigError, match=r"model\.penalty_factors\.site=1: found 'site=1', expected a name of"):
        load_study(written(tmp_path, with_nominal(penalty_factors={"site=1": 0})))


def test_studies_without_nominal_variables_keep_their_digest(tmp_path: Path) -> None:
    """A digest that a site approved before there were nominal variables."""
    assert load_study(SHIPPED).sha256.startswith("6febe9be1d3c7e27347395c16e03d91b")


def test_the_models_features_keep_their_order(tmp_path: Path) -> None:
    study = study_with(tmp_path, "model.features", ["sex", "age"])
    assert study.features == (Feature("sex", 0), Feature("age", 7))


@pytest.mark.parametrize(
    ("unit", "horizons", "width", "end"),
    [("months", [6, 12], 1.0, 12.0), ("months", [0.5, 6.5], 1.0, 7.0), ("days", [365], 30.4375, 12 * 30.4375)],
)
def test_the_default_grid_is_in_months(
    tmp_path: Path, unit: str, horizons: list[float], width: float, end: float
) -> None:
    document = edited("endpoint.time_unit", unit)
    document["evaluation"] = {"horizons": horizons, "time_bin": 0.5}
    grid = load_study(written(tmp_path, document)).grid
    assert (grid.width, grid.end) == (width, end)


def test_a_missing_indicator_can_have_a_penalty_factor(tmp_path: Path) -> None:
    document = edited("variables.age.missing_indicator", True)
    document["model"]["penalty_factors"] = {"age missing": 0, "sex": 2.5}
    study = load_study(written(tmp_path, document))
    assert study.indicators == ("age",)
    assert study.model.penalty_factors == {"age missing": 0.0, "sex": 2.5}
    document["model"]["penalty_factors"] = {"sex missing": 0}
    with pytest.raises(
        ConfigError, match=r"model\.penalty_factors\.sex missing: found 'sex missing', expected a name of"
    ):
        load_study(written(tmp_path, document))


def test_a_fixed_penalty_needs_one_fold(tmp_path: Path) -> None:
    document = edited("tuning", ABSENT)
    document["penalty"] = {"penalizer": 0.1, "l1_ratio": 0.0}
    document["model"]["risk_sets"] = "pooled"
    study = load_study(written(tmp_path, document))
    assert study.folds == 1
    assert load_study(written(tmp_path, BASE)).folds == 5


def test_horizons_on_bin_edges_are_accepted_when_floats_round(tmp_path: Path) -> None:
    document = edited("evaluation", {"horizons": [0.3, 0.7], "time_bin": 0.1})
    assert load_study(written(tmp_path, document)).evaluation.horizons == (0.3, 0.7)


def test_a_study_cannot_be_changed(tmp_path: Path) -> None:
    study = load_study(written(tmp_path, BASE))
    with pytest.raises(ValidationError, match="frozen"):
        study.model.ties = "breslow"


def test_the_schema_describes_every_key() -> None:
    schema = study_json_schema()
    json.dumps(schema)
    assert set(schema["properties"]) == set(Study.model_fields)
    assert schema["additionalProperties"] is False


def test_the_shipped_schema_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "schema"]) == 0
    shipped = SHIPPED.parents[1] / "study.schema.json"
    assert capsys.readouterr().out == shipped.read_text(encoding="utf-8"), "ctfed study schema > study.schema.json"


def sections(module: object) -> list[type[BaseModel]]:
    found = [item for item in vars(module).values() if isinstance(item, type) and issubclass(item, Section)]
    return [item for item in found if item is not Section]


@pytest.mark.parametrize(
    "section", dict.fromkeys([*sections(study_module), *sections(site_module)]), ids=lambda s: s.__name__
)
def test_every_key_says_what_is_expected(section: type[BaseModel]) -> None:
    """The descriptions end the sentences 'found X, expected ...'."""
    silent = [name for name, field in section.model_fields.items() if not field.description]
    assert section.model_fields
    assert silent == []


def test_the_shipped_study_loads() -> None:
    study = load_study(SHIPPED)
    assert study.name == "ncctg_lung"
    assert [feature.name for feature in study.features] == list(study.variables)
    assert study.evaluation.fine_evaluation_tables is False
