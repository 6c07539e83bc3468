"""From a centre's own files to its Cohort: clinical tables, splits and folds."""

from ctfed.cohort.clinical import Exclusion, PartitionedCohorts, load_cohort, load_cohorts
from ctfed.cohort.splits import assign_folds, assign_split
from ctfed.cohort.table import DataError

__all__ = [
    "DataError",
    "Exclusion",
    "PartitionedCohorts",
    "assign_folds",
    "assign_split",
    "load_cohort",
    "load_cohorts",
]
