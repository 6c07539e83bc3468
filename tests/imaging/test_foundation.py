"""Foundation-model features: the exact encoder, strict loading of every published form, fixed columns.

Most tests take an encoder of width 1/32 (the same code and the same 322 tensors, 64 features).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctfed.imaging.device import DeviceError, resolve_device
from ctfed.imaging.segment.weights import WeightsError, write_manifest
from ctfed.imaging.volume import Volume

torch = pytest.importorskip("torch", reason="torch is not installed (pip install ctfed[segmentation])")
pytest.importorskip("monai", reason="MONAI is not installed")
pytest.importorskip("SimpleITK", reason="SimpleITK is not installed (pip install ctfed[imaging])")

from ctfed.imaging.foundation import (  # noqa: E402
    KEYS,
    WIDTH,
    FoundationModel,
    FoundationSettings,
    build_network,
    column_names,
    load_encoder,
    load_model,
)

SMALL = 1 / 32
SMALL_WIDTH = 64
CUBES = (32, 40)
Tensors = dict[str, Any]


@pytest.fixture(scope="module")
def tensors() -> Tensors:
    torch.manual_seed(0)
    return dict(build_network(SMALL).state_dict())


def vissl(tensors: Tensors) -> Any:
    return {"trunk_state_dict": tensors}


def lighter(tensors: Tensors) -> Any:
    trunk = {f"model.trunk.{name}": value for name, value in tensors.items()}
    return {"state_dict": {**trunk, "model.heads.0.0.weight": torch.zeros(3, 3)}, "epoch": 7}


def parallel(tensors: Tensors) -> Any:
    return {"state_dict": {f"module.model.trunk.{name}": value for name, value in tensors.items()}}


def wrapped(tensors: Tensors) -> Any:
    return {"trunk_state_dict": {f"module.{name}": value for name, value in tensors.items()}}


def bare(tensors: Tensors) -> Any:
    return tensors


@pytest.mark.parametrize("form", [vissl, lighter, parallel, wrapped, bare])
def test_every_published_form_loads_strictly(tensors: Tensors, form: Callable[[Tensors], Any], tmp_path: Path) -> None:
    path = tmp_path / "model_weights.torch"
    torch.save(form(tensors), path)
    network = load_encoder(path, SMALL)
    loaded = network.state_dict()
    assert len(loaded) == KEYS
    assert not network.training
    assert all(torch.equal(loaded[name], value) for name, value in tensors.items())


def without(tensors: Tensors) -> Any:
    return vissl({name: value for name, value in tensors.items() if name != "layer3.2.bn2.running_var"})


def with_more(tensors: Tensors) -> Any:
    return vissl({**tensors, "layer5.0.weight": torch.zeros(1)})


def misshapen(tensors: Tensors) -> Any:
    return vissl({**tensors, "conv1.weight": torch.zeros(4, 3, 7, 7, 7)})


def twice(tensors: Tensors) -> Any:
    return vissl({**tensors, "module.conv1.weight": tensors["conv1.weight"]})


@pytest.mark.parametrize(
    ("form", "said"),
    [
        (without, r"found 321 tensors, expected the 322 of the encoder; missing: layer3\.2\.bn2\.running_var;"),
        (with_more, r"unknown: layer5\.0\.weight"),
        (misshapen, r"conv1\.weight: found \(4, 3, 7, 7, 7\), expected \(2, 1, 7, 7, 7\)"),
        (twice, "found two tensors of one name"),
        (lambda _: [1, 2], "found no trunk_state_dict and no state_dict of tensors"),
        (lambda _: {"epoch": 3}, "found no trunk_state_dict and no state_dict of tensors"),
    ],
)
def test_anything_else_is_refused_by_name(
    tensors: Tensors, form: Callable[[Tensors], Any], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "model_weights.torch"
    torch.save(form(tensors), path)
    with pytest.raises(WeightsError, match=said):
        load_encoder(path, SMALL)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    trace = tmp_path / "was-unpickled"

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (trace,)

    torch.save({"state_dict": Trap()}, tmp_path / "bad.torch")
    (tmp_path / "text.torch").write_text("no tensors")
    for name in ("bad.torch", "text.torch"):
        with pytest.raises(WeightsError, match="found no checkpoint of plain tensors"):
            load_encoder(tmp_path / name, SMALL)
    assert not trace.exists()


def model(tensors: Tensors, batch: int = 2) -> FoundationModel:
    network = build_network(SMALL)
    network.load_state_dict(tensors)
    return FoundationModel(network.eval(), torch.device("cpu"), batch, SMALL_WIDTH, {})


def case(shift: int = 0) -> tuple[Volume, Volume]:
    """A scan of noise with a tumour of two components, the larger one around (30, 28, 26 + shift)."""
    rng = np.random.default_rng(shift)
    image = Volume(rng.normal(-500.0, 300.0, (56, 60, 64)), (1.0, 1.0, 1.0))
    mask = np.zeros(image.shape, dtype=bool)
    mask[24 + shift : 29 + shift, 26:31, 28:33] = True
    mask[2:4, 2:4, 2:4] = True
    return image, image.with_array(mask)


def test_columns_are_fixed() -> None:
    names = column_names()
    assert (len(names), names[0], names[4096], names[-1]) == (3 * WIDTH, "fm50_0000", "fm96_0000", "fm128_4095")


def test_features_are_those_of_the_cube_around_the_largest_component(tensors: Tensors) -> None:
    encoder = model(tensors)
    image, mask = case()
    found = encoder.features(image, mask, CUBES)
    assert tuple(found.values) == column_names(CUBES, SMALL_WIDTH)
    assert found.reason is None
    assert found.flags == ()
    plain = (image.array[10:42, 12:44, 14:46] + 1024.0) / 3072.0  # voxels of 1 mm: no resampling
    with torch.no_grad():
        expected = encoder.network(torch.from_numpy(plain.astype(np.float32))[None, None]).numpy().ravel()
    assert list(found.values.values())[:SMALL_WIDTH] == pytest.approx(expected.tolist(), rel=1e-5, abs=1e-7)


def test_batches_change_nothing_but_the_last_bits(tensors: Tensors) -> None:
    cases = [case(0), case(1), case(2)]
    together = model(tensors, batch=3).features_of(cases, CUBES)
    for each, (image, mask) in zip(together, cases, strict=True):
        alone = model(tensors, batch=1).features(image, mask, CUBES)
        assert list(each.values.values()) == pytest.approx(list(alone.values.values()), rel=1e-4, abs=1e-6)
    first, second = (list(item.values.values()) for item in together[:2])
    assert first != second


def test_the_same_case_gives_the_same_bits(tensors: Tensors) -> None:
    image, mask = case()
    encoder = model(tensors)
    assert encoder.features(image, mask, CUBES) == encoder.features(image, mask, CUBES)


def test_a_failed_case_has_every_column_and_a_reason_and_harms_no_other(tensors: Tensors) -> None:
    image, mask = case()
    empty = mask.with_array(np.zeros_like(mask.array))
    elsewhere = Volume(mask.array, mask.spacing, origin=(9.0, 0.0, 0.0))
    holed = image.with_array(np.where(mask.array, np.nan, image.array))
    found = model(tensors).features_of([(image, empty), (image, mask), (image, elsewhere), (holed, mask)], CUBES)
    rules = [None if item.reason is None else item.reason.partition(":")[0] for item in found]
    assert rules == ["tumour-empty", None, "mask-on-another-grid", "cube-not-finite"]
    for item in found:
        assert tuple(item.values) == column_names(CUBES, SMALL_WIDTH)
        assert np.isnan(list(item.values.values())).all() == (item.reason is not None)


def test_a_cube_over_the_edge_is_flagged(tensors: Tensors) -> None:
    image, _ = case()
    mask = np.zeros(image.shape, dtype=bool)
    mask[26:30, 28:32, 16:19] = True  # 17 mm from the first column
    assert model(tensors).features(image, image.with_array(mask), CUBES).flags == ("fm40-clamped",)


def test_weights_are_checked_before_they_are_read(tensors: Tensors, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"expected the weights of FMCIB.*zenodo"):
        load_model(FoundationSettings(weights=tmp_path / "absent"))
    torch.save(vissl(tensors), tmp_path / "model_weights.torch")
    digest = write_manifest(tmp_path, "fmcib").digest
    with pytest.raises(WeightsError, match="as the study says"):
        load_model(FoundationSettings(weights=tmp_path, weights_sha256="0" * 64))
    # The digest fits; the small encoder's tensors do not.
    with pytest.raises(WeightsError, match=r"bn1\.bias: found \(2,\), expected \(128,\)|found \(\d.*expected \("):
        load_model(FoundationSettings(weights=tmp_path, weights_sha256=digest, device="cpu"))


def test_a_gpu_that_is_not_there_is_refused() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(DeviceError, match="expected one of them, or cpu"):
        resolve_device("cuda:99")
    with pytest.raises(DeviceError, match="expected auto, cpu, cuda"):
        resolve_device("gpu")


@pytest.mark.slow
def test_the_full_encoder_is_the_published_one(tmp_path: Path) -> None:
    """184,477,824 parameters in 322 tensors of 738,336,680 bytes; 4,096 features of each cube."""
    torch.manual_seed(1)
    network = build_network()
    state = network.state_dict()
    assert len(state) == KEYS
    assert sum(value.numel() for value in network.parameters()) == 184_477_824
    assert sum(value.numel() * value.element_size() for value in state.values()) == 738_336_680
    first = network.conv1
    assert (first.kernel_size, first.stride, first.padding, first.out_channels) == ((7,) * 3, (2,) * 3, (3,) * 3, 128)
    torch.save({"trunk_state_dict": state}, tmp_path / "model_weights.torch")
    write_manifest(tmp_path, "fmcib")
    encoder = load_model(FoundationSettings(weights=tmp_path, device="cpu", batch=1))
    image, mask = case()
    found = encoder.features(image, mask, (50,))
    assert tuple(found.values) == column_names((50,))
    assert np.isfinite(list(found.values.values())).all()
    assert encoder.identity["weights_sha256"]
