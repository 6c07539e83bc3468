"""The vocabulary every algorithm speaks: Query, Summary, Total, View, Cohort, gather, run_pooled."""

from ctfed.federation.algorithm import Algorithm, Bundle, gather
from ctfed.federation.arrays import FloatArray, IntArray
from ctfed.federation.cohort import Cohort, pool
from ctfed.federation.errors import CtfedError, MalformedMessage, Refusal
from ctfed.federation.pooled import run_pooled
from ctfed.federation.query import Query
from ctfed.federation.summary import Entry, Layout, Summary, Total
from ctfed.federation.view import Feature, RowFilter, Table, Transform, View, Within

__all__ = [
    "Algorithm",
    "Bundle",
    "Cohort",
    "CtfedError",
    "Entry",
    "Feature",
    "FloatArray",
    "IntArray",
    "Layout",
    "MalformedMessage",
    "Query",
    "Refusal",
    "RowFilter",
    "Summary",
    "Table",
    "Total",
    "Transform",
    "View",
    "Within",
    "gather",
    "pool",
    "run_pooled",
]
