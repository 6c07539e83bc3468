"""ctfed: federated prognosis models from chest CT, learned from sums over patients and never from patients."""

__version__ = "0.1.0"
