"""Parts of the training loop and of evaluation.

recipe            the YAML recipe, checked
settings          command-line options checked against recipe, output folder and processes
device            Accelerator, precision, threads and memory
knee_images       data-set rows as tensors
augment           random changes of a batch
starting_weights  ImageNet, random, or those of a finished run
teacher           logits of the starting model, for distillation
trunk             the frozen layers in front of a stage's cut, and a batch's way through them
trunk_cache       their output on disk
optim             optimiser, schedule, weight average, class weights, criterion
batch_plan        position of a micro-batch in the epoch: real rows, size of the update, seeds
checkpoints       what a killed run resumes from
history           figures of every epoch
evaluation        a pass over a split, its figures and tables
deletion_test     do the heat maps show what the network uses
predictions       predictions.csv
plots             figures as PNG files
run_record        run.json
run_folder        the output folder, from empty to model folder
"""

__all__ = [
    "augment",
    "batch_plan",
    "checkpoints",
    "deletion_test",
    "device",
    "evaluation",
    "history",
    "knee_images",
    "optim",
    "plots",
    "predictions",
    "recipe",
    "run_folder",
    "run_record",
    "settings",
    "starting_weights",
    "teacher",
    "trunk",
    "trunk_cache",
]
