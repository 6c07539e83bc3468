"""Elastic-net Cox regression from sums: exact to the pooled fit, with stratified or pooled risk sets."""

from ctfed.statistics.cox.fit import CoxFit, cox_path, fit_cox, fit_cox_stack, penalizer_path
from ctfed.statistics.cox.penalty import ElasticNet
from ctfed.statistics.cox.robust import robust_covariance
from ctfed.statistics.cox.solver import Settings

__all__ = [
    "CoxFit",
    "ElasticNet",
    "Settings",
    "cox_path",
    "fit_cox",
    "fit_cox_stack",
    "penalizer_path",
    "robust_covariance",
]
