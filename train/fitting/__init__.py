"""Fitting of rules, thresholds and small models, measured on held-out patients.

cross_fit           temperature and prediction-set level, cross-fitted over patients
layer_features      logits and pooled layer outputs of a network
familiarity_search  out-of-distribution detectors, compared
rule_fitting        a model's grading rules (grading.json)
localiser_films     annotated training films of the localiser
localiser_training  the localiser, from annotated films
"""

__all__ = [
    "cross_fit",
    "familiarity_search",
    "layer_features",
    "localiser_films",
    "localiser_training",
    "rule_fitting",
]
