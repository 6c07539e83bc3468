"""A centre's clinical data, in whatever form it keeps them, as one table of the study's variables."""

from ctfed.cohort.clinical_sources.dictionary import Dictionary, load_dictionary
from ctfed.cohort.clinical_sources.read import ClinicalTable, SetAside, read_clinical

__all__ = ["ClinicalTable", "Dictionary", "SetAside", "load_dictionary", "read_clinical"]
