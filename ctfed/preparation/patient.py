"""One patient from files to features: a chain of steps, each looked up in the cache before it is done.

    scan -> masks of each model -> kernel normalisation -> radiomics of each region (original, rkn)
                                -> calcium             -> foundation model, one step per cube
                                -> files (masks, contact sheet)

Images are read and normalised only when a step that is not in the cache needs them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ctfed.cohort.faults import CaseFault
from ctfed.cohort.scans.model import PatientScans
from ctfed.imaging.segment.base import SegmenterSettings
from ctfed.imaging.volume import GeometryError, Volume
from ctfed.preparation import steps
from ctfed.preparation.cache import Cache, Result, key_of
from ctfed.preparation.columns import CALCIUM, SCAN, Column, calcium_names, imaging_columns, radiomics_columns
from ctfed.preparation.columns import radiomics_group as group_of
from ctfed.preparation.digests import file_digests
from ctfed.preparation.embedded import plain
from ctfed.preparation.masks import identity, unpacked
from ctfed.preparation.outcome import Aside, Outcome
from ctfed.preparation.settings import ExtractionSettings


@dataclass(frozen=True)
class Plan:
    """What is the same for all patients of a run; sent to every process once.

    Attributes:
        settings: the extraction's, with this centre's weights.
        identities: all that the masks of each of its models depend on, in their order.
        foundation: all that the foundation model's features depend on; None when it is not used.
        code: the version of each step's code.
        root: the folder of scans.
        local: the folder for everything that is made.
    """

    settings: ExtractionSettings
    identities: tuple[Mapping[str, Any], ...]
    foundation: Mapping[str, Any] | None
    code: Mapping[str, str]
    root: Path
    local: Path

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """The columns that come from scans."""
        return imaging_columns(self.settings)


@dataclass(frozen=True)
class Case:
    """One patient: the key in all outputs, and the scans."""

    key: str
    scans: PatientScans = field(repr=False)


@dataclass(eq=False)
class _Found:
    """What has been found out about a patient so far."""

    values: dict[str, float] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    masks: dict[str, Result] = field(default_factory=dict)  # by region
    missing: dict[str, CaseFault] = field(default_factory=dict)  # why a region has no mask


class _Missing(Exception):
    """A step is not in the cache."""


class Patient:
    """The steps of one case."""

    def __init__(self, case: Case, plan: Plan) -> None:
        self.case = case
        self.plan = plan
        self.settings = plan.settings
        self.cache = Cache(plan.local / "cache")
        self.computed: list[str] = []
        self.found = _Found()
        self._masks: dict[str, Volume] = {}
        self._memory = plan.local / "cache" / "files" / f"{case.key}.json"
        self._dry = False

    def run(self) -> Outcome:
        """Everything that the settings ask for."""
        stage = "scan"
        acquisition: Mapping[str, Any] = {}
        try:
            scan = self.scan_step.require()
            acquisition = scan.values["acquisition"]
            self.found.notes += scan.values["notes"]
            for axis, value in zip("xyz", scan.values["grid"]["spacing"], strict=True):
                self.found.values[f"{SCAN}.spacing_{axis}"] = value
            stage = "masks"
            self._segment()
            self._measure()
            stage = "files"
            self._files()
        except CaseFault as fault:
            aside = Aside(stage, fault.rule, fault.sentence)
            return self._outcome(acquisition, None, aside)
        values = np.array([self.found.values.get(column.name, math.nan) for column in self.plan.columns])
        return self._outcome(acquisition, values, None)

    def next_step(self) -> str | None:
        """The first step that is not in the cache, None when all are; nothing is computed or written."""
        if not self._memory.is_file():  # without it all files would be read
            return "scan"
        self._dry = True
        try:
            self.run()
        except _Missing as missing:
            return str(missing)
        return None

    def _outcome(self, acquisition: Mapping[str, Any], values: Any, aside: Aside | None) -> Outcome:
        found = self.found
        return Outcome(
            self.case.key,
            values,
            {} if aside else found.reasons,
            tuple(found.notes),
            acquisition,
            found.provenance,
            aside,
            tuple(self.computed),
        )

    def _step(
        self,
        name: str,
        settings: Any,
        after: Mapping[str, Result],
        compute: Callable[[], Result],
        inputs: Mapping[str, str] | None = None,
        label: str = "",
    ) -> Result:
        """The result of a step: from the cache, or computed and kept."""
        key = key_of(name, self.plan.code[name], settings, inputs or {}, after)
        result = self.cache.get(key)
        if result is None:
            if self._dry:
                raise _Missing(label or name)
            try:
                result = compute()
            except CaseFault as fault:
                result = Result.of_fault(fault)
            except GeometryError as error:
                result = Result.of_fault(CaseFault("geometry", str(error)))
            self.cache.put(key, result)
            self.computed.append(label or name)
        return result

    # the scan

    @cached_property
    def _inputs(self) -> dict[str, str]:
        return file_digests(steps.files_of(self.case.scans), self.plan.root, self._memory)

    @cached_property
    def _choice(self) -> Any:
        return steps.choose(self.case.scans, self.settings.scan)

    @cached_property
    def _scan(self) -> Any:
        """The scan itself, read when first needed."""
        return steps.read(self._choice)

    @cached_property
    def scan_step(self) -> Result:
        """Which series was chosen and why, its acquisition, and the digest of its voxels."""
        # What was wrong while the folder was walked belongs to no file that could be read.
        scans, root = self.case.scans, self.plan.root
        found = [[fault.rule, fault.sentence] for fault in scans.faults]
        damaged = sorted(os.path.relpath(folder, root) for folder in scans.damaged)
        settings = {"wanted": plain(self.settings.scan), "faults": found, "damaged": damaged}
        return self._step("scan", settings, {}, lambda: steps.describe(self._choice, self._scan), self._inputs)

    @cached_property
    def _image(self) -> Result:
        """What the image is, apart from how it was found: the later steps' basis."""
        values = self.scan_step.values
        return Result({"voxels": values["voxels"], "grid": values["grid"]})

    # masks

    def _segment(self) -> None:
        for settings, known in zip(self.settings.segmentation, self.plan.identities, strict=True):
            lacking = [region for region in self.settings.needed if region not in self.found.masks]
            if not lacking or not steps.may_give(settings, self.settings, lacking):
                continue
            result = self._masks_of(settings, known)
            if result.fault is not None:
                for region in lacking:
                    self.found.missing.setdefault(region, CaseFault(*result.fault))
                self.found.notes.append(f"{known['model']}: {result.fault[0]}: {result.fault[1]}")
                continue
            self.found.notes += [f"{known['model']}: {note}" for note in result.values["notes"]]
            self.found.provenance[str(known["model"])] = result.values["provenance"]
            for region in lacking:
                if region in result.values["masks"]:
                    self.found.masks[region] = result
                elif region in result.values["faults"]:
                    self.found.missing.setdefault(region, CaseFault(*result.values["faults"][region]))
        self._require_regions()

    def _masks_of(self, settings: SegmenterSettings, known: Mapping[str, Any]) -> Result:
        if steps.is_given(settings):
            names = self.settings.names_content
            return self._step(
                "given",
                {"identity": known, "names": names},
                {"image": self._image},
                lambda: steps.given(self.case.scans, self._choice, self._scan, settings, self.settings),
                self._inputs,
            )
        return self._step(
            "segment", known, {"image": self._image}, lambda: steps.segment(settings, self._scan), label=known["model"]
        )

    def _require_regions(self) -> None:
        absent = CaseFault("region-missing", "found no voxel of the region in any source, expected at least one")
        for region in self.settings.needed:
            if region not in self.found.masks:
                fault = self.found.missing.setdefault(region, absent)
                if region in self.settings.required:
                    raise CaseFault(fault.rule, f"{region}: {fault.sentence}")
        if not self.found.masks:
            first = self.found.missing[self.settings.needed[0]]
            raise CaseFault(first.rule, first.sentence)

    def mask(self, region: str) -> Volume:
        """The mask (bool) of a region that was found."""
        if region not in self._masks:
            self._masks[region] = unpacked(self.found.masks[region], region, self._scan.volume)
        return self._masks[region]

    def _basis(self, *regions: str) -> dict[str, Result]:
        masks = self.found.masks
        return {region: identity(masks[region], region) for region in regions if region in masks}

    # measures

    def _measure(self) -> None:
        for region, wanted in self.settings.measured:
            missing = self.found.missing.get(region) if region not in self.found.masks else None
            for kernel in wanted.kernels:
                group = group_of(region, kernel)
                columns = radiomics_columns(self.settings, region, kernel)
                if missing is None:
                    self._keep(group, columns, self._radiomics(region, kernel, columns))
                else:
                    self.found.reasons[group] = f"{missing.rule}: {missing.sentence}"
            if wanted.calcium:
                self._calcium(missing)
        self._foundation()

    def _radiomics(self, region: str, kernel: str, columns: Sequence[Column]) -> Result:
        after = {"image": self._image, **self._basis(region)}
        if kernel == "rkn":
            after["rkn"] = self._kernel
            if self._kernel.fault is not None:
                return self._kernel
            note = f"rkn: {self._kernel.values['iterations']} passes did not bring all bands to the reference"
            if not self._kernel.values["converged"] and note not in self.found.notes:
                self.found.notes.append(note)
        shape = any("_shape_" in column.name for column in columns)
        settings = {"radiomics": steps.radiomics_content(self.settings), "shape": shape}

        def compute() -> Result:
            image = self._scan.volume if kernel == "original" else self._normalised.image
            return steps.radiomics(image, self.mask(region), self.settings, shape)

        return self._step("radiomics", settings, after, compute, label=group_of(region, kernel))

    @cached_property
    def _kernel(self) -> Result:
        after = {"image": self._image, **self._basis("lung", "tumour")}
        return self._step(
            "kernel", steps.kernel_content(self.settings), after, lambda: steps.kernel_result(self._normalised)
        )

    @cached_property
    def _normalised(self) -> Any:
        if "lung" not in self.found.masks:
            missing = self.found.missing["lung"]
            raise CaseFault(missing.rule, f"no lung to normalise in: {missing.sentence}")
        regions = [self.mask(region) for region in ("lung", "tumour") if region in self.found.masks]
        return steps.normalise(self._scan.volume, regions, self.settings)

    def _calcium(self, missing: CaseFault | None) -> None:
        if missing is not None:
            self.found.reasons[CALCIUM] = f"{missing.rule}: {missing.sentence}"
            return
        acquisition = self.scan_step.values["acquisition"]
        settings = {
            "connectivity": self.settings.connectivity,
            "kernel": acquisition["kernel"],
            "contrast": acquisition["contrast"],
        }
        result = self._step(
            "calcium",
            settings,
            {"image": self._image, **self._basis("coronaries")},
            lambda: steps.calcium(self._scan.volume, self.mask("coronaries"), settings),
        )
        columns = [Column(f"coronaries.{name}", "", CALCIUM) for name in calcium_names()]
        self._keep(CALCIUM, columns, result)

    def _foundation(self) -> None:
        foundation = self.settings.foundation
        if foundation is None or self.plan.foundation is None:
            return
        for cube in foundation.cubes:
            group = f"fm{cube}"
            if "tumour" not in self.found.masks:
                missing = self.found.missing["tumour"]
                self.found.reasons[group] = f"{missing.rule}: {missing.sentence}"
                continue
            result = self._step(
                "foundation",
                {**self.plan.foundation, "cube": cube},
                {"image": self._image, **self._basis("tumour")},
                lambda cube=cube: steps.foundation(self._scan.volume, self.mask("tumour"), foundation, cube),  # type: ignore[misc]
                label=group,
            )
            self._keep(group, [c for c in self.plan.columns if c.group == group], result)

    def _keep(self, group: str, columns: Sequence[Column], result: Result) -> None:
        """Take the values of a result into the row; a value that is no finite number is missing, with a reason."""
        if result.fault is not None:
            self.found.reasons[group] = f"{result.fault[0]}: {result.fault[1]}"
            return
        self.found.notes += [f"{group}: {note}" for note in result.values.get("notes", ())]
        values = result.values["features"]
        reason = result.values.get("reason")
        broken = 0
        for column in columns:
            value = values[column.name.rpartition(".")[2]]
            number = math.nan if value is None else float(value)
            broken += not math.isfinite(number)
            self.found.values[column.name] = number if math.isfinite(number) else math.nan
        if reason or broken:
            self.found.reasons[group] = reason or f"not-finite: {broken} of {len(columns)} values are not numbers"

    # files

    def _files(self) -> None:
        wanted = self.settings.files
        if wanted.nifti:
            self._file("nifti", lambda: steps.nifti(self._all_masks()))
        if wanted.dicom_seg and self._choice.series.file is None:
            self._file("dicom-seg", lambda: steps.seg(self._choice, self._all_masks(), self.found.provenance))
        if wanted.sheets:
            self._file("sheet", lambda: steps.sheet(self._scan.volume, self._all_masks()))

    def _all_masks(self) -> dict[str, Volume]:
        return {region: self.mask(region) for region in self.settings.needed if region in self.found.masks}

    def _file(self, kind: str, make: Callable[[], Result]) -> None:
        """Files among the outputs; the cache holds their content, so that lost or older ones are put back."""
        made = self._step(kind, {}, {"image": self._image, **self._basis(*self.settings.needed)}, make)
        if made.fault is not None:
            self.found.notes.append(f"{kind}: {made.fault[0]}: {made.fault[1]}")
        elif not self._dry and steps.put_files(kind, made, self.plan.local, self.case.key):
            self.computed.append(f"{kind} files")
