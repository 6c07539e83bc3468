"""The other models of a run, read when a report needs one: members of a consensus, models without ComBat, of the stage
or of the volume alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from ctfed.federation.arrays import frozen
from ctfed.federation.errors import CtfedError
from ctfed.federation.view import RowFilter, Rows, View
from ctfed.model_file import PortableModel, read_model
from ctfed.statistics.predict import LinearPredictor
from ctfed.study import Study
from ctfed.study_models import ModelSpec

STAGE = "stage"
# Of a study's columns: what says how far the tumour has spread, and its volume.
STAGING = re.compile(r"(?:.*_)?stage|[tnm]_(?:category|not_assessable)|metastasis_.+")
# As PyRadiomics and CaPTk name it, and plain: a volume of no organ is taken for the tumour's.
VOLUME = re.compile(
    r"(?:(?:tumou?r|lesion|gtv)[._])?(?:original_shape_(?:mesh|voxel)volume|volume(?:_ml|_mm3)?)|.*_volumetric_volume",
    re.IGNORECASE,
)


class ModelFolder(Mapping[str, PortableModel]):
    """The models that a study of many left beside its results, by name.

    Attributes:
        folder: of NAME.json; None for a run of one model.
        study: SHA-256 of the study that every model must have been fitted for.
        digests: name of each file that was read -> its SHA-256.
    """

    def __init__(self, folder: Path | None = None, study: str = "") -> None:
        self.folder = folder
        self.study = study
        self.digests: dict[str, str] = {}
        self._read: dict[str, PortableModel] = {}

    def __getitem__(self, name: str) -> PortableModel:
        """The model of a name.

        Raises:
            KeyError: there is no such file.
            CtfedError: it is damaged, or of another study.
        """
        if name in self._read:
            return self._read[name]
        path = None if self.folder is None else self.folder / f"{name}.json"
        if path is None or not path.is_file():
            raise KeyError(name)
        model, digest = read_model(path)
        if model.study.sha256 != self.study:
            raise CtfedError(f"{path}: found a model of another study than that of the results, expected the same")
        self._read[name], self.digests[path.name] = model, digest
        return model

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(path.stem for path in self.folder.glob("*.json")) if self.folder is not None else ())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return name in list(self)


def on_patients(model: PortableModel, rows: tuple[RowFilter, ...]) -> PortableModel:
    """The model, to be judged on the patients that pass other filters than its own; it stays as it was fitted."""
    return replace(model, view=model.view.on(Rows("train", rows=rows)))


def scores_beside(models: Mapping[str, PortableModel], split: str, rows: tuple[RowFilter, ...]) -> View:
    """The scores of several models, fitted on the same patients, as columns in their order.

    Args:
        models: by the names of the columns.
        split: 'test', 'train' or 'all'.
        rows: filters of the patients whose scores are wanted.
    """
    parts = [
        model.view.then(LinearPredictor(frozen(model.coefficients[None, :]), name)) for name, model in models.items()
    ]
    return View.joined(parts).on(Rows(split, rows=rows))


def with_other_harmonization(study: Study, name: str) -> str | None:
    """The model of the same groups and patients that differs in its harmonization alone; None where there is none.

    Of several the one without any ComBat comes first, and the one with most of it else.
    """
    spec = study.models.get(name)
    if spec is None:
        return None
    found = [
        (len(other.combat), label)
        for label, other in study.models.items()
        if label != name and _alike(spec, other) and bool(other.combat) != bool(spec.combat)
    ]
    if not found:
        return None
    return min(found)[1] if spec.combat else max(found)[1]


def _alike(one: ModelSpec, other: ModelSpec) -> bool:
    return (
        set(one.groups) == set(other.groups)
        and one.subgroup == other.subgroup
        and set(one.without) == set(other.without)
    )


def of_stage_alone(study: Study) -> str | None:
    """The model of all patients whose columns all say how far the tumour has spread; of several, of most columns.

    One that holds the stage group itself goes before one that does not.
    """
    found = [
        (STAGE in columns, len(columns), name)
        for name, columns in _columns_of_models(study).items()
        if columns and all(STAGING.fullmatch(column) for column in columns)
    ]
    return max(found)[2] if found else None


def of_volume_alone(study: Study) -> str | None:
    """The model of all patients whose one column is the tumour's volume."""
    for name, columns in _columns_of_models(study).items():
        if len(columns) == 1 and VOLUME.fullmatch(columns[0]):
            return name
    return None


def _columns_of_models(study: Study) -> dict[str, tuple[str, ...]]:
    """Raw columns of each model of all patients."""
    return {
        name: tuple(c for group in spec.groups for c in study.names_of(group) if c not in spec.without)
        for name, spec in study.models.items()
        if spec.subgroup is None
    }
