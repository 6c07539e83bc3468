"""Projection: federated principal components against scikit-learn on the pooled rows, and the random projection."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from ctfed.federation import Cohort, CtfedError, Feature, Refusal, View, run_pooled
from ctfed.federation.codec import Decoder, Encoder, digest
from ctfed.federation.pooled import Traffic
from ctfed.statistics.describe import moments
from ctfed.statistics.project import (
    CovarianceProducts,
    Project,
    Projection,
    RandomProjection,
    project,
    project_together,
)
from ctfed.statistics.seeded import logarithm, normals

STUDY = (278, 142, 82, 96, 6)  # patients of five centres


def spectrum(seed: int, n: int, p: int, variances: np.ndarray, offset: float = 0.0) -> np.ndarray:
    """(n, p) rows whose covariance matrix (divided by n) has just these eigenvalues."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, variances.size))
    scores = np.linalg.qr(scores - scores.mean(axis=0))[0]
    axes = np.linalg.qr(rng.normal(size=(p, variances.size)))[0]
    return np.asarray((scores * np.sqrt(n * variances)) @ axes.T + offset * rng.normal(size=p))


def sites_of(x: np.ndarray, sizes: Sequence[int], **labels: np.ndarray) -> tuple[View, list[Cohort]]:
    names = [f"f{j}" for j in range(x.shape[1])]
    exponent = int(np.ceil(np.log2(np.abs(x).max())))
    whole = Cohort.of("s", dict(zip(names, x.T, strict=True)), np.ones(len(x)), np.ones(len(x)), **labels)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    view = View(tuple(Feature(name, exponent) for name in names))
    return view, [whole.subset(owner == k, f"site-{k}") for k in range(len(sizes))]


def agreement(x: np.ndarray, found: Projection) -> tuple[float, float]:
    """Variance explained relative to the exact components, and the cosine of the largest principal angle."""
    k = len(found.variance)
    exact = PCA(k, svd_solver="full").fit(x)
    scores = (x - x.mean(axis=0)) @ found.step.components.T
    explained = scores.var(axis=0, ddof=1).sum() / exact.explained_variance_.sum()
    return float(explained), float(np.linalg.svd(found.step.components @ exact.components_.T)[1].min())


@pytest.mark.parametrize(
    ("sites", "p", "k", "decay", "offset"), [(STUDY, 4096, 50, 0.7, 0.0), ((160, 90, 44, 6), 900, 24, 1.2, 1e3)]
)
def test_wide_features_in_five_rounds(sites: tuple[int, ...], p: int, k: int, decay: float, offset: float) -> None:
    n = sum(sites)
    x = spectrum(0, n, p, np.arange(1.0, n) ** -decay, offset)
    view, cohorts = sites_of(x, sites)
    traffic = Traffic()
    found = run_pooled(project(view, k), cohorts, traffic)
    assert traffic.rounds == 5
    assert found.columns <= n / 3
    assert found.total_variance == pytest.approx(x.var(axis=0, ddof=1).sum(), rel=1e-10)
    exact = np.arange(1.0, k + 1) ** -decay * n / (n - 1)
    scores = (x - x.mean(axis=0)) @ found.step.components.T
    assert scores.var(axis=0, ddof=1).sum() >= 0.999 * exact.sum()
    assert (found.variance <= exact * (1 + 1e-9)).all()
    assert found.variance.sum() >= 0.999 * exact.sum()


@pytest.mark.parametrize("gap", [20, 30])
def test_components_before_a_gap_span_the_exact_space(gap: int) -> None:
    variances = np.arange(1.0, 300) ** -0.7
    variances[gap:] *= 0.5
    x = spectrum(gap, 300, 1000, variances, 10.0)
    view, cohorts = sites_of(x, (150, 90, 54, 6))
    explained, cosine = agreement(x, run_pooled(project(view, gap), cohorts))
    assert explained >= 0.999
    assert cosine >= 0.99


@given(st.integers(0, 10_000), st.integers(1, 6))
def test_any_split_gives_the_pooled_projection(seed: int, sites: int) -> None:
    x = spectrum(seed, 60, 40, np.arange(1.0, 31) ** -1.5, 3.0)
    owner = np.random.default_rng(seed).multinomial(60, np.full(sites, 1 / sites))
    view, cohorts = sites_of(x, owner.tolist())
    _, whole = sites_of(x, [60])
    found, pooled = (run_pooled(project(view, 3, seed=seed), where) for where in (cohorts, whole))
    np.testing.assert_allclose(found.step.components, pooled.step.components, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.variance, pooled.variance, rtol=1e-9)
    scores = np.vstack([found.view.table(cohort).values for cohort in cohorts])
    np.testing.assert_allclose(scores, pooled.view.table(whole[0]).values, rtol=0, atol=1e-8)


def test_few_columns_are_exact_in_one_product() -> None:
    x = np.random.default_rng(1).normal(size=(80, 5)) * [1.0, 5.0, 2.0, 1e3, 0.1] + 7
    view, cohorts = sites_of(x, (50, 30))
    traffic = Traffic()
    found = run_pooled(project(view, 5), cohorts, traffic)
    exact = PCA(5, svd_solver="full").fit(x)
    assert traffic.rounds == 2
    np.testing.assert_allclose(found.variance, exact.explained_variance_, rtol=1e-8)
    np.testing.assert_allclose(found.explained, exact.explained_variance_ratio_, rtol=1e-8)
    np.testing.assert_allclose(np.abs(found.step.components @ exact.components_.T), np.eye(5), atol=1e-6)


def test_signs_are_fixed_and_scores_have_the_told_variance() -> None:
    x = spectrum(2, 90, 200, np.arange(1.0, 80) ** -1.2)
    view, cohorts = sites_of(x, (60, 30))
    found = run_pooled(project(view, 6), cohorts)
    largest = np.abs(found.step.components).argmax(axis=1)
    assert (found.step.components[np.arange(6), largest] > 0).all()
    scored = run_pooled(moments(found.view), cohorts)
    np.testing.assert_allclose(scored.mean, 0, atol=1e-10)
    np.testing.assert_allclose(scored.variance(ddof=1), found.variance, rtol=2e-2)
    assert found.view.names == tuple(f"component-{i}" for i in range(6))
    magnitudes = np.array([feature.exponent for feature in found.view.features])
    assert (np.abs(magnitudes - np.log2(np.sqrt(found.variance))) <= 1).all()


def test_truncation_needs_no_question() -> None:
    x = spectrum(3, 90, 60, np.arange(1.0, 50) ** -1.0)
    view, cohorts = sites_of(x, (60, 30))
    found = run_pooled(project(view, 8, prefix="fm50"), cohorts)
    short = found.truncate(3)
    assert short.names == ("fm50-0", "fm50-1", "fm50-2")
    scores = found.view.table(cohorts[0]).values
    np.testing.assert_allclose(short.table(cohorts[0]).values, scores[:, :3], rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="9 components asked, the projection has 8"):
        found.step.truncate(9)


def test_views_share_one_sketch() -> None:
    rng = np.random.default_rng(4)
    x = spectrum(4, 300, 120, np.arange(1.0, 100) ** -1.5)
    fold = rng.permutation(np.arange(300) % 3)
    view, cohorts = sites_of(x, (150, 100, 50), fold=fold)
    views = [view] + [view.training_fold(k) for k in range(3)]
    traffic = Traffic()
    found = run_pooled(project_together(views, 10, products=3), cohorts, traffic)
    assert traffic.rounds == 4
    assert {one.columns for one in found} == {33}  # a third of the 100 patients of a fold
    for k in range(3):
        rows = x[fold != k]
        explained, _ = agreement(rows, found[k + 1])
        assert explained >= 0.99
        np.testing.assert_allclose(found[k + 1].step.mean, rows.mean(axis=0), atol=1e-12)


def test_the_directions_stay_below_a_third_of_the_patients() -> None:
    view, cohorts = sites_of(spectrum(5, 90, 300, np.arange(1.0, 80) ** -1.0), (50, 40))
    assert run_pooled(project(view, 20), cohorts).columns == 28
    with pytest.raises(CtfedError, match=r"the 90 patients .* allow 28 directions in 4 rounds; ask for fewer"):
        run_pooled(project(view, 29), cohorts)
    fold = np.arange(90) % 9
    view, cohorts = sites_of(spectrum(5, 90, 300, np.arange(1.0, 80) ** -1.0), (50, 40), fold=fold)
    with pytest.raises(CtfedError, match=r"the 10 patients .* allow 2 directions in 2 rounds"):
        run_pooled(project_together([view, view.training_fold(0)], 3, products=2), cohorts)
    with pytest.raises(CtfedError, match="301 components asked of 300 columns"):
        run_pooled(project(view, 301), cohorts)


def test_data_of_low_rank_end_early_and_say_so() -> None:
    x = spectrum(6, 120, 200, np.array([5.0, 2.0, 1.0]), 4.0)
    view, cohorts = sites_of(x, (80, 40))
    traffic = Traffic()
    found = run_pooled(project(view, 5), cohorts, traffic)
    assert traffic.rounds < 5
    assert found.variance.size == 3
    assert found.warnings == ("the data vary in 3 directions only; 5 components were asked",)
    explained, cosine = agreement(x, found)
    assert explained == pytest.approx(1.0, abs=1e-9)
    assert cosine == pytest.approx(1.0, abs=1e-9)


def test_what_cannot_be_projected_is_refused_in_words() -> None:
    view, cohorts = sites_of(np.full((30, 4), 0.1), (20, 10))
    with pytest.raises(CtfedError, match="no column of the view varies"):
        run_pooled(project(view, 2), cohorts)
    with pytest.raises(CtfedError, match="0 patients"):
        run_pooled(project(view.test(), 2), cohorts)
    with pytest.raises(CtfedError, match="at least one view"):
        run_pooled(project(view, 0), cohorts)
    x = np.random.default_rng(0).normal(size=(30, 4))
    x[3, 2] = np.nan
    holes = [Cohort.of("s", {f"f{j}": x[:, j] for j in range(4)}, np.ones(30), np.ones(30))]
    with pytest.raises(CtfedError, match="column 'f2' lacks 1 values; impute first"):
        run_pooled(project(view, 1), holes)
    for transform in (RandomProjection(4, 2), Project(view.names, np.zeros(4), np.eye(4)[:2], (0, 0))):
        with pytest.raises(Refusal, match="missing-values"):
            view.then(transform).table(holes[0])
    with pytest.raises(CtfedError, match="same columns"):
        run_pooled(project_together([view, View(view.columns[:3])], 1), cohorts)


def test_the_random_projection_has_the_same_bits_everywhere() -> None:
    matrix = RandomProjection(64, 8, seed=2024).matrix
    assert hashlib.sha256(matrix.astype("<f8").tobytes()).hexdigest() == MATRIX_SHA256
    columns = [plain_normals(2024, f"random projection 64 {index}", 64) for index in range(8)]
    np.testing.assert_array_equal(matrix, np.array(columns).T / math.sqrt(8.0))


MATRIX_SHA256 = "10b1ab33997b4062c00997f7701f203fb95945ed6865d89108355b0b04f5adc7"


def plain_logarithm(x: float) -> float:
    mantissa, exponent = math.frexp(x)
    if mantissa < math.sqrt(0.5):
        mantissa, exponent = 2 * mantissa, exponent - 1
    z = (mantissa - 1) / (mantissa + 1)
    series = 0.0
    for k in range(13, 0, -1):
        series = (series + 1 / (2 * k + 1)) * (z * z)
    return exponent * 0.6931471805599453 + 2 * z * (series + 1)


def plain_normals(seed: int, stream: str, count: int) -> list[float]:
    """The same numbers, one after another, without numpy."""
    stretch = hashlib.shake_256(f"ctfed normal numbers\0{seed}\0{stream}".encode()).digest(64 * (count + 64))
    words = [int.from_bytes(stretch[k : k + 8], "little") >> 11 for k in range(0, len(stretch), 8)]
    uniform = [(word + 0.5) * 2.0**-52 - 1 for word in words]
    found: list[float] = []
    for x, y in zip(uniform[0::2], uniform[1::2], strict=True):
        radius = x * x + y * y
        if 0 < radius < 1 and len(found) < count:
            factor = math.sqrt(-2 * plain_logarithm(radius) / radius)
            found += [x * factor, y * factor]
    return found[:count]


def test_random_numbers_are_normal_and_nested() -> None:
    drawn = normals(1, "a", 200_000)
    assert abs(drawn.mean()) < 0.01
    assert drawn.std() == pytest.approx(1.0, abs=0.01)
    assert (np.abs(drawn) > 1.959964).mean() == pytest.approx(0.05, abs=0.003)
    np.testing.assert_array_equal(normals(1, "a", 777), drawn[:777])
    assert abs(np.corrcoef(drawn, normals(1, "b", 200_000))[0, 1]) < 0.01
    assert abs(np.corrcoef(drawn, normals(2, "a", 200_000))[0, 1]) < 0.01
    with pytest.raises(ValueError, match="seed"):
        normals(-1, "a", 3)
    x = 10.0 ** np.linspace(-300, 300, 4001)
    np.testing.assert_allclose(logarithm(x), np.log(x), rtol=1e-15, atol=1e-16)


def test_a_random_projection_keeps_distances_and_asks_nothing() -> None:
    x = np.random.default_rng(8).normal(size=(40, 2000))
    view, cohorts = sites_of(x, (25, 15))
    step = RandomProjection(2000, 400, seed=3)
    scores = np.vstack([view.then(step).table(cohort).values for cohort in cohorts])
    np.testing.assert_allclose(scores, x @ step.matrix, rtol=1e-10, atol=1e-10)
    before = np.linalg.norm(x[:, None] - x, axis=2)[np.triu_indices(40, 1)]
    after = np.linalg.norm(scores[:, None] - scores, axis=2)[np.triu_indices(40, 1)]
    assert np.abs(after / before - 1).max() < 5 / np.sqrt(2 * 400)
    fewer = RandomProjection(2000, 100, seed=3).matrix
    np.testing.assert_allclose(fewer * np.sqrt(100.0), step.matrix[:, :100] * np.sqrt(400.0), rtol=1e-15)
    features = View((Feature("a"), Feature("b", 5), Feature("c"))).then(RandomProjection(3, 2, prefix="rp")).features
    assert features == (Feature("rp-0", 5), Feature("rp-1", 5))


def test_queries_and_transforms_travel() -> None:
    step = Project(("a", "b"), np.array([1.0, 2.0]), np.array([[0.6, 0.8]]), (3,), "pc")
    view = View((Feature("a"), Feature("b"))).then(step, RandomProjection(1, 1, 9, "r"))
    sent = CovarianceProducts(view, np.zeros(1), np.ones((1, 1)), (4,), -2)
    encoder = Encoder()
    body = encoder.body(sent)
    found = Decoder(encoder.flat(), encoder.shared).build(body, CovarianceProducts, "query")
    assert digest(found) == digest(sent)
    assert sent.exposure.parameters == 1
    assert sent.layout["products"].exponents.tolist() == [[2]]
    assert sent.layout["squares"].exponents.tolist() == -4
    bodies = Encoder()
    again = Decoder(bodies.flat(), {}).build(Encoder().body(view.transforms[1]), RandomProjection, "transform")
    assert again == view.transforms[1]


TWO = View((Feature("a"), Feature("b")))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: CovarianceProducts(TWO, np.zeros(3), np.eye(2), (), 0), "centre"),
        (lambda: CovarianceProducts(TWO, np.zeros(2), np.ones((3, 1)), (), 0), "directions"),
        (lambda: CovarianceProducts(TWO, np.zeros(2), np.zeros((2, 0)), (), 0), "directions"),
        (lambda: CovarianceProducts(TWO, np.zeros(2), np.ones((2, 1)), (), 0), "longer"),
        (lambda: CovarianceProducts(TWO, np.zeros(2), np.eye(2), (1,), 0), "exponents"),
        (lambda: CovarianceProducts(TWO, np.zeros(2), np.eye(2), (), 999), "outside"),
        (lambda: Project(("a",), np.zeros(2), np.eye(1), (0,)), "means"),
        (lambda: Project(("a", "b"), np.zeros(2), 2 * np.eye(2), (0, 0)), "orthonormal"),
        (lambda: Project(("a", "b"), np.zeros(2), np.zeros((0, 2)), ()), "components"),
        (lambda: TWO.then(Project(("b", "a"), np.zeros(2), np.eye(2), (0, 0))), "other columns"),
        (lambda: TWO.then(RandomProjection(3, 2)), "3 columns, the view has 2"),
        (lambda: RandomProjection(3, 4), "4 components"),
        (lambda: RandomProjection(3, 2, -1), "seed"),
    ],
)
def test_impossible_parameters_are_refused(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
