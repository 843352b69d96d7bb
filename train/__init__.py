"""Training, evaluation and fitting: one script for each verb, and three rooms of nouns that the scripts share.

run             train by a recipe
validate        measure a model on a split
bundle          a finished run to the model that ships
average         the mean of several runs' weights
calibrate       fit the grading rules of a model
audit           worst mistakes, recall, and a deletion test of the heat maps
fit_localiser, fit_orientation                     fit what comes with the package or with a model

recipes/        YAML files that `run` trains by
loop            what training and evaluation are made of
fitting         what fits rules, thresholds and small models
pictures        composed films and images that are no knees

Nothing imports a script.
"""

__all__ = ["fitting", "loop", "pictures"]
