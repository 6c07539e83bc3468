"""Volume: an image or a mask with its place in the patient. The one owner of geometry.

Arrays are indexed [z, y, x]; everything in millimetres is ordered x, y, z, in the world of DICOM (LPS: x to the
patient's left, y to the back, z to the head). The centre of voxel [k, j, i] lies at

    origin + direction @ (spacing * (i, j, k))

as in SimpleITK, whose images have the same origin, spacing and direction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ctfed.federation.errors import CtfedError

if TYPE_CHECKING:
    import SimpleITK as sitk

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
Box = tuple[slice, slice, slice]

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
ORTHONORMAL = 1e-4  # largest deviation of a direction from orthonormal; DICOM rounds its cosines to six digits
SAME_PLACE = 1e-3  # mm; grids that differ by less are one grid


class GeometryError(CtfedError):
    """Two grids that should agree do not, or a grid is not one."""


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels with their grid.

    Attributes:
        array: (nz, ny, nx); HU for a CT, bool or small integers for masks and labels.
        spacing: (x, y, z) mm between voxel centres.
        origin: (x, y, z) mm, LPS, of the centre of voxel [0, 0, 0].
        direction: 9 cosines, row by row, of the matrix whose columns are the directions of i, j and k.
    """

    array: Array
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = IDENTITY

    def __post_init__(self) -> None:
        if self.array.ndim != 3:
            raise GeometryError(f"a volume has three axes, found shape {self.array.shape}")
        numbers = (*self.spacing, *self.origin, *self.direction)
        if len(numbers) != 15 or not np.isfinite(numbers).all() or min(self.spacing) <= 0:
            raise GeometryError(
                f"a volume needs spacing > 0, an origin and 9 cosines, all finite; found spacing {self.spacing}, "
                f"origin {self.origin}, direction {self.direction}"
            )
        matrix = self.matrix
        if np.abs(matrix.T @ matrix - np.eye(3)).max() > ORTHONORMAL:
            raise GeometryError(f"the directions of a volume's axes are not orthonormal: {self.direction}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(nz, ny, nx)."""
        nz, ny, nx = self.array.shape
        return nz, ny, nx

    @property
    def size(self) -> tuple[int, int, int]:
        """(nx, ny, nz), SimpleITK's order."""
        nz, ny, nx = self.array.shape
        return nx, ny, nz

    @property
    def matrix(self) -> FloatArray:
        """(3, 3) direction cosines; columns are the directions of i, j and k."""
        return np.array(self.direction, dtype=np.float64).reshape(3, 3)

    @property
    def voxel_volume(self) -> float:
        """mm3."""
        return float(np.prod(self.spacing))

    def world(self, index: npt.ArrayLike) -> FloatArray:
        """(..., 3) world points in mm of (..., 3) indices [k, j, i], which may lie between voxels."""
        ijk = np.asarray(index, dtype=np.float64)[..., ::-1]
        return np.asarray(np.array(self.origin) + (ijk * np.array(self.spacing)) @ self.matrix.T)

    def index(self, point: npt.ArrayLike) -> FloatArray:
        """(..., 3) continuous indices [k, j, i] of (..., 3) world points in mm."""
        ijk = ((np.asarray(point, dtype=np.float64) - np.array(self.origin)) @ self.matrix) / np.array(self.spacing)
        return np.asarray(ijk[..., ::-1])

    def with_array(self, array: Array) -> Volume:
        """Other voxels on the same grid.

        Raises:
            GeometryError: when the shape differs.
        """
        if array.shape != self.array.shape:
            raise GeometryError(f"an array of shape {array.shape} does not fit a grid of {self.array.shape}")
        return replace(self, array=array)

    def same_grid(self, other: Volume) -> bool:
        """Whether voxels of equal index lie in the same place, to a thousandth of a millimetre at every corner."""
        if self.shape != other.shape:
            return False
        last = [n - 1 for n in self.shape]
        corners = np.array([[0, 0, 0], [last[0], 0, 0], [0, last[1], 0], [0, 0, last[2]], last])
        return bool(np.abs(self.world(corners) - other.world(corners)).max() <= SAME_PLACE)

    def require_same_grid(self, other: Volume, what: str) -> None:
        """Refuse another grid.

        Raises:
            GeometryError: naming both.
        """
        if not self.same_grid(other):
            raise GeometryError(f"{what}: found {other.grid}, expected {self.grid}")

    @property
    def grid(self) -> str:
        """The grid in words, for messages."""
        spacing = " x ".join(f"{value:.4g}" for value in self.spacing)
        origin = ", ".join(f"{value:.4g}" for value in self.origin)
        return f"{self.size[0]} x {self.size[1]} x {self.size[2]} voxels of {spacing} mm at ({origin})"

    def box(self, margin: int = 0) -> Box | None:
        """The smallest box [z, y, x] around all voxels that are not zero, widened by ``margin`` voxels inside the grid;
        None when there is none."""
        found = self.array.astype(bool)
        axes = [np.flatnonzero(found.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
        if any(axis.size == 0 for axis in axes):
            return None
        z, y, x = (
            slice(max(0, int(axis[0]) - margin), min(n, int(axis[-1]) + 1 + margin))
            for axis, n in zip(axes, self.shape, strict=True)
        )
        return z, y, x

    def crop(self, box: Box) -> Volume:
        """The voxels of a box [z, y, x], where they are."""
        starts = [part.indices(n)[0] for part, n in zip(box, self.shape, strict=True)]
        x, y, z = self.world(starts)
        return replace(self, array=self.array[box], origin=(float(x), float(y), float(z)))

    def centroid(self) -> FloatArray:
        """(3,) world point in mm: the mean of the centres of all voxels that are not zero.

        Raises:
            GeometryError: when there is none.
        """
        where = np.argwhere(self.array)
        if where.size == 0:
            raise GeometryError("an empty mask has no centroid")
        return self.world(where.mean(axis=0))

    def to_sitk(self) -> sitk.Image:
        """The same image for SimpleITK; bool becomes uint8."""
        import SimpleITK as sitk

        array = self.array.astype(np.uint8) if self.array.dtype == bool else self.array
        image = sitk.GetImageFromArray(np.ascontiguousarray(array))
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)
        return image

    @classmethod
    def from_sitk(cls, image: sitk.Image) -> Volume:
        """A three-dimensional, one-channel SimpleITK image.

        Raises:
            GeometryError: when it has other dimensions or several channels.
        """
        import SimpleITK as sitk

        if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
            raise GeometryError(
                f"expected a 3-D image with one channel, found {image.GetDimension()} dimensions and "
                f"{image.GetNumberOfComponentsPerPixel()} channels"
            )
        sx, sy, sz = image.GetSpacing()
        ox, oy, oz = image.GetOrigin()
        return cls(sitk.GetArrayFromImage(image), (sx, sy, sz), (ox, oy, oz), tuple(image.GetDirection()))
