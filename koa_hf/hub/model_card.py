"""The model card, generated from the files of a run folder, with no figure typed by hand."""

import json
import shlex
from pathlib import Path

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from koa_hf.errors import KoaError
from koa_hf.files import write_text
from koa_hf.grades import GRADE_NAMES, GRADES, RESEARCH_USE_NOTICE
from koa_hf.grading.metrics import table_rows
from koa_hf.grading.result import coverage_in_words
from koa_hf.grading.rules import Rules
from koa_hf.network.engine_names import from_accelerate
from koa_hf.network.model_folder import RECIPE_BEFORE_FILE

BASE_MODEL = "timm/legacy_xception.tf_in1k"
"""Hub id of the ImageNet weights that the recipes start from: those of Keras Applications, converted for timm."""

PLACEHOLDER = "FOLDER_OR_HUB_ID"
"""Stands in the card for the model's location; publishing replaces it by the repository's id."""

HEADLINE = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "quadratic_weighted_kappa": "Quadratic weighted kappa",
    "mean_absolute_error": "Mean absolute error (grades)",
    "macro_f1": "Macro F1",
    "macro_auc": "Macro one-vs-rest AUC",
}

BODY = """
# {title}

Grades the severity of knee osteoarthritis on a radiograph on the Kellgren-Lawrence (KL) scale, 0 to 4.
{note}
**{notice}**

## What it is

timm's Xception (`legacy_xception`) with a 5-way head. Input: a greyscale radiograph squashed to a square of
{image_size} px and scaled to -1..1. {description}

| KL | name | meaning |
|---|---|---|
{grades}

## Load it

```python
from koa_hf import Grader                        # this project: grade, probabilities, heatmap

print(Grader.from_pretrained("FOLDER_OR_HUB_ID").grade("knee.png"))
```

```python
import timm                                      # stock timm ("hf-hub:..."; "local-dir:..." for a folder)

model = timm.create_model("hf-hub:FOLDER_OR_HUB_ID", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
```

```python
from transformers import pipeline                # stock transformers

print(pipeline("image-classification", model="FOLDER_OR_HUB_ID")("knee.png"))
```

{same} `revision="..."` (`hf-hub:FOLDER_OR_HUB_ID@...` for timm) pins a version.
{rules}
## How it was measured

{split} split, {images} knees; 95 % intervals by bootstrap over patients; grade = the most probable one.

| figure | value | 95 % interval |
|---|---|---|
{figures}

Confusion matrix (rows the reader's grade, columns the predicted one):

| | {names} |
|---|---|---|---|---|---|
{confusion}

`keras` figures use Keras' defaults (micro average, probability over 0.5), as in the paper that this project
reproduces.

## Training

Data: Chen, Pingjun (2018), Knee Osteoarthritis Severity Grading Dataset, Mendeley Data, doi 10.17632/56rmx5bjcr.1,
CC BY 4.0, derived from the Osteoarthritis Initiative; {train_images} training images{dataset}. Initial weights:
ImageNet weights of Keras Applications (MIT), unless the recipe states others. {machine}. The recipe:

```yaml
{recipe}```

To measure the figures above again, and to train such a model:

```sh
accelerate launch train/validate.py --model FOLDER_OR_HUB_ID --dataset {source} --split {lower_split}
{training}{bundling}```

## Intended use

Research on automatic grading, teaching, and use as a baseline. Not for diagnosis, treatment, triage or insurance.

## Limits

- KL 1 ("doubtful") is noisy: radiologists disagree on it, and published recalls range from 0.02 to 0.45.
- One cohort (OAI), one crop geometry (the joint centred, one knee per image) and no demographics in the data:
  performance on other hospitals, machines and populations is unknown.
{limits}"""

PLAIN_LIMITS = """\
- Photographic negatives (about 1.2 % of the release) and whole films are outside its training data.
- The probabilities are not calibrated.
"""

RULED_LIMITS = """\
- Whole films and views other than the frontal one are outside its training data.
- Calibration, prediction sets and the out-of-distribution limit were fitted on the validation split of the same cohort
  and may not hold elsewhere. The stated coverage treats the two knees of a patient as independent, which they are not.
- The recipe was chosen on the validation split; the test split was not used for that.
"""

RULES = """
## What the Grader adds (grading.json)

| | |
|---|---|
| photographic negatives | {negatives} |
| upside-down radiographs | {upside_down} |
| probabilities | softmax of the logits over a temperature of {temperature:.3f} |
| grade | the most probable one |
| prediction set | a range of grades; {coverage} |
| out of distribution | Mahalanobis distance of {features} features at `{layer}`, {components} principal components |

The rules were fitted to the knees of the validation split, as they are and once more as people upload them (fewer
pixels, another frame, other grey levels, noise, JPEG). On held-out patients (ten folds, fitted on nine and measured on
the tenth): expected calibration error {error:.3f}; the prediction sets contain the reader's grade in
{held_coverage:.1%} of the release's knees and in {uploaded_coverage:.1%} of those as uploaded, and hold {size:.2f}
grades on average; {flagged:.1%} and {uploaded_flagged:.1%} are flagged as out of distribution, and so are
{caught:.0%} of images that are no ordinary knee crops (photographs, noise, text, other radiographs, knees on their side
or in parts; an upside-down knee counts as flagged if it was turned; mean AUROC {auroc:.3f}). The last two figures are
means over kinds of image; each kind is measured with the distance that was best on the other kinds. Some kinds are many
crops of few pictures (one chest radiograph, one of a leg), some are drawn (the hand), so these shares do not predict
what people upload.
"""


def render(folder: Path) -> ModelCard:
    """Render the card of a run folder, with the model-index for the Hub.

    Raises:
        KoaError: not the folder of a finished run, or one whose figures were measured with other rules.
    """
    try:
        metrics = json.loads((folder / "metrics.json").read_text())
        run = json.loads((folder / "run.json").read_text())
        recipe_text = (folder / "recipe.yaml").read_text()
    except (OSError, ValueError) as error:
        raise KoaError(f"{folder} is not the folder of a finished run ({error}).") from error
    recipe = yaml.safe_load(recipe_text)
    before_file = folder / RECIPE_BEFORE_FILE
    before = yaml.safe_load(before_file.read_text()) if before_file.is_file() else None
    # The first of three runs in a row is not known; all of the project's start from ImageNet.
    from_imagenet = (before or recipe)["weights"] in ("imagenet", "model")
    figures, intervals = metrics["figures"], metrics["intervals_95_by_patient"]
    on_phantoms = bool(recipe["note"])
    dataset_id, dataset_commit = run["dataset"].get("id"), run["dataset"].get("commit")
    name = f"koa-xception-{recipe['name']}"
    data = ModelCardData(
        license="apache-2.0",
        library_name="timm",
        pipeline_tag="image-classification",
        tags=["timm", "transformers", "medical", "x-ray", "knee", "osteoarthritis", "kellgren-lawrence"],
        # Only a data set on the Hub has an id to link to.
        datasets=[dataset_id] if dataset_id else None,
        base_model=BASE_MODEL if from_imagenet else None,
        base_model_relation="finetune" if from_imagenet else None,
        metrics=[key for key in HEADLINE if figures[key] is not None],
        model_name=name,
        eval_results=[
            EvalResult(
                task_type="image-classification",
                task_name="KL grading",
                dataset_type=dataset_id or ("drawn-phantoms" if on_phantoms else "knee-kl-2018"),
                dataset_name="Drawn phantoms" if on_phantoms else "Knee Osteoarthritis Severity Grading Dataset (2018)",
                dataset_split=metrics["split"],
                dataset_revision=dataset_commit,
                metric_type=key,
                metric_name=label,
                metric_value=round(figures[key], 4),
                metric_args=_interval(intervals.get(key)),
            )
            for key, label in HEADLINE.items()
            if figures[key] is not None
        ],
    )
    confusion = [
        f"| **{row_name}** | " + " | ".join(map(str, row)) + " |"
        for row_name, row in zip(GRADE_NAMES, figures["confusion_matrix"], strict=True)
    ]
    rules = Rules.load(folder)
    of_folder = rules.model_dump(mode="json")
    if any(of_folder[key] != value for key, value in metrics.get("rules", {}).items()):
        raise KoaError(
            f"{folder / 'metrics.json'} was measured with other rules than the folder has now; measure again with "
            f"train/validate.py --model {folder} --split {metrics['split']} --output-dir {folder} --dataset DATASET."
        )
    ruled, source = rules != Rules(), dataset_id or "data/knee-kl"
    run_name = "averaged" if "averaged_with" in run else _run_name(run)
    bundling = BUNDLING.format(run_name=run_name, source=source) if ruled else ""
    body = BODY.format(
        title=name,
        note=f"\n**{recipe['note']}**\n" if recipe["note"] else "",
        notice=RESEARCH_USE_NOTICE,
        image_size=recipe["image_size"],
        description=recipe["description"],
        grades="\n".join(f"| {grade.value} | {grade.name} | {grade.definition} |" for grade in GRADES),
        split=metrics["split"].capitalize(),
        images=figures["images"],
        figures="\n".join(f"| {' | '.join(row)} |" for row in table_rows(figures, intervals)),
        names=" | ".join(GRADE_NAMES),
        same=SAME_PROBABILITIES[ruled],
        rules=_rules(rules) if ruled else "",
        limits=RULED_LIMITS if ruled else PLAIN_LIMITS,
        confusion="\n".join(confusion),
        train_images=run["dataset"]["images"]["train"],
        dataset=f" from [{dataset_id}](https://huggingface.co/datasets/{dataset_id}) at `{dataset_commit}`"
        if dataset_id
        else "",
        machine=_training(run, before),
        recipe=recipe_text,
        source=source,
        lower_split=metrics["split"],
        training=_commands(recipe, before, run, source),
        bundling=bundling,
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n{body}")


TRAINING = """\
accelerate launch train/run.py --recipe {recipe}{options} --dataset {source} --output-dir runs/{name}
"""

AVERAGING = """\
python train/average.py {runs} --dataset {source} --output-dir runs/averaged
"""

BUNDLING = """\
python train/bundle.py --run runs/{run_name} --dataset {source} --output runs/bundle --results runs/report
"""

SAME_PROBABILITIES = {
    False: "All three give the same probabilities.",
    True: "The last two return the network's own probabilities, as `Grader.from_pretrained(..., plain=True)` does;\n"
    "the next section lists what the Grader adds.",
}


def _commands(recipe: dict, before: dict | None, run: dict, source: str) -> str:
    """Commands that train the model, first the run that it continues if that run is known."""
    lines, options, name = [], "", _run_name(run)
    if before and before["weights"] != "model":
        lines.append(TRAINING.format(recipe=before["name"], name=before["name"], options="", source=source))
        options = f" --start-from runs/{before['name']}"
    elif run.get("started_from"):
        options = " --start-from MODEL_TO_CONTINUE"
    if teachers := run.get("taught_by"):
        options += f" --teacher {_runs(teachers)}"
    options += "".join(f" --set {shlex.quote(override)}" for override in run["options"]["overrides"])
    lines.append(TRAINING.format(recipe=recipe["name"], name=name, options=options, source=source))
    if averaged := run.get("averaged_with"):
        lines.append(AVERAGING.format(runs=f"runs/{name} {_runs(averaged)}", source=source))
    return "".join(lines)


def _run_name(run: dict) -> str:
    return Path(run["options"]["output_dir"]).name


def _runs(models: list[dict]) -> str:
    """Folders of recorded models as they are after these commands; elsewhere, local paths stay private."""
    return " ".join(f"runs/{Path(one['model']).name}" for one in models)


def _training(run: dict, before: dict | None) -> str:
    """Sentences on the machine and the time, and on the run that was continued, if any."""
    machine, start = run["machine"], run.get("started_from")
    told = f"Trained on {machine['device']}"
    if "seconds" in run:
        minutes = run["seconds"]["this_process"] / 60
        told += f" ({machine.get('device_name') or machine['processor']}), {machine['processes']} process(es), "
        told += f"precision {from_accelerate(machine['precision'])}, in {minutes:.0f} minutes"
    # Not by its folder: local paths stay private.
    of_recipe = f" of the recipe {before['name']}" if before else ""
    if not start:
        return told
    continued = f"It continues a run{of_recipe} with the weights {start['revision']}"
    if averaged := run.get("averaged_with"):
        continued += f", and is the mean of {len(averaged) + 1} networks' weights"
    return f"{continued}. {told}"


def _rules(rules: Rules) -> str:
    held_out, familiarity = rules.held_out, rules.familiarity
    return RULES.format(
        negatives="detected and inverted before grading" if rules.right_negatives else "not treated",
        upside_down="detected and turned before grading" if rules.right_upside_down else "not treated",
        temperature=rules.temperature,
        coverage=coverage_in_words(rules.sets.coverage),
        features=familiarity.features,
        layer=familiarity.layer,
        components=familiarity.components,
        error=held_out["expected_calibration_error"],
        held_coverage=held_out["set_coverage"],
        uploaded_coverage=held_out["set_coverage_as_uploaded"],
        size=held_out["mean_set_size"],
        flagged=held_out["called_unfamiliar"],
        uploaded_flagged=held_out["called_unfamiliar_as_uploaded"],
        caught=held_out["unfamiliar_caught"],
        auroc=held_out["unfamiliar_auroc"],
    )


def _interval(between: list[float] | None) -> dict | None:
    """The 95 % interval of a figure as metric arguments, the only place for it in a model-index."""
    return None if between is None else {"interval_95_by_patient": [round(value, 4) for value in between]}


def write(folder: Path, output: Path | None = None) -> None:
    """Write the card of a run folder, by default to its README.md."""
    write_text(output or folder / "README.md", str(render(folder)))
