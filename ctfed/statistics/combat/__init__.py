"""Distributed ComBat: batch effects of scanners and sites taken away, from sums; empirical Bayes stays at the sites."""

from ctfed.statistics.combat.fit import CombatOptions, Harmonized, combat
from ctfed.statistics.combat.moments import Covariate
from ctfed.statistics.combat.restandardise import restandardise
from ctfed.statistics.combat.transform import Combat

__all__ = ["Combat", "CombatOptions", "Covariate", "Harmonized", "combat", "restandardise"]
