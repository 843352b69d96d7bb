"""The Hub, both ways: publish with one command, and use by id with stock libraries only.

The whole circle runs once, in the fixture `circle`: a data set is pushed, a model is trained from its id, by two
processes that accumulate each batch in parts, and pushed. The tests then use what is on the Hub, as clients that share
nothing with this process.
"""

import json
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard, ModelCard, SpaceCard
from playwright.sync_api import Page, expect

from koa_hf import Grader, checksums
from koa_hf.cli import main
from koa_hf.errors import KoaError
from koa_hf.grades import GRADE_NAMES
from koa_hf.grading.rules import Rules
from koa_hf.hub import contents, model_card
from tests.demo import running_demo
from tests.fake_hub.server import Hub
from tests.helpers import SMALL, assert_same_losses
from tests.processes import run, run_in_two

DATASET, MODEL = "user/knee-kl", "user/koa-xception"


def push(hub: Hub, home: Path, *arguments: object, token: str | None = "write") -> subprocess.CompletedProcess:
    """`koa push ...`, logged in to the Hub."""
    return run("-m", "koa_hf", "push", *arguments, env=hub.environment(home, token), check=False)


def content(hub: Hub, file) -> bytes:
    """The bytes of a file in a commit."""
    return hub.store.content(file.sha256).read_bytes()


def in_stock_python(hub: Hub, home: Path, code: str, **variables: str) -> dict:
    """Run code that puts its findings into `found`, where this project can't be imported."""
    code = f"found = {{}}\n{code}\nimport json, sys\nassert not [m for m in sys.modules if m.startswith('koa_hf')]\n"
    done = hub.run(code + "print('FOUND', json.dumps(found))", home, **variables)
    return json.loads(done.stdout.rpartition("FOUND ")[2])


@dataclass(frozen=True)
class Circle:
    hub: Hub
    run: Path  # the run folder that the model was pushed from
    home: Path  # HF_HOME of whoever loads
    trained: str  # what training wrote to stdout
    validation: dict  # metrics.json that train/validate.py wrote of the two ids

    def commit(self, kind: str, name: str, revision: str = "main"):
        return self.hub.store.repository(kind, name).commit(revision)


# Not per module: pytest runs browser tests together, which would tear a module's fixture down in between.
@pytest.fixture(scope="session")
def circle(shared_hub, dataset_folder, tmp_path_factory) -> Circle:
    work = tmp_path_factory.mktemp("circle")
    pushed = push(shared_hub, work / "maker", "dataset", dataset_folder, DATASET, "--tag", "v1.0")
    assert pushed.returncode == 0, pushed.stderr
    assert pushed.stdout.startswith(f"{shared_hub.url}/datasets/{DATASET}/tree/v1.0  (private, commit ")

    here = {"env": shared_hub.environment(work / "maker", KOA_WEIGHTS="")}
    named = ("--dataset", DATASET, "--revision", "v1.0")
    options = (*named, "--push-to-hub", MODEL, "--output-dir", work / "run", *SMALL, "--accumulate", 3)
    trained = run_in_two("train/run.py", *options, **here)

    out = work / "evaluation"
    run("train/validate.py", "--model", MODEL, *named, "--cpu", "--output-dir", out, **here)
    validation = json.loads((out / "metrics.json").read_text())
    return Circle(shared_hub, work / "run", work / "user", trained.stdout, validation)


# --- what is published


def test_training_from_an_id_publishes_the_model_and_records_what_it_was_trained_on(circle):
    assert circle.trained.rstrip().endswith(f"{circle.hub.url}/{MODEL}")
    published = circle.commit("model", MODEL)
    recorded = json.loads(content(circle.hub, published.files["run.json"]))
    commit = circle.commit("dataset", DATASET, "v1.0").id
    assert (recorded["dataset"]["id"], recorded["dataset"]["commit"]) == (DATASET, commit)
    assert recorded["machine"]["processes"] == 2
    assert circle.validation["model_revision"] == published.id
    assert circle.validation["dataset_commit"] == commit
    assert circle.hub.store.repository("model", MODEL).private


def test_two_processes_that_accumulate_parts_train_it_as_one_process_does(circle, finished):
    assert "2 process(es) on cpu" in circle.trained
    assert_same_losses(finished, circle.run)


def test_what_is_published_is_the_model_and_its_record_and_nothing_else(circle):
    published = circle.commit("model", MODEL)
    assert published.files.keys() - {".gitattributes"} == {
        *("README.md", "config.json", "model.safetensors", "checksums.json", "recipe.yaml", "run.json"),
        *("metrics.json", "metrics.jsonl", "curves.png", "confusion_matrix.png"),
        *(f"examples/drawn-kl-{grade}.png" for grade in range(5)),
    }
    assert published.files["model.safetensors"].sha256 == checksums.sha256(circle.run / "model.safetensors")
    for name in ("run.json", "metrics.json", "README.md"):
        # The folders of the machine that trained it are nobody's business.
        assert str(circle.run.parent) not in content(circle.hub, published.files[name]).decode()


def test_the_model_card_is_complete(circle):
    published = circle.commit("model", MODEL)
    card = ModelCard(content(circle.hub, published.files["README.md"]).decode())
    assert (card.data.license, card.data.library_name) == ("apache-2.0", "timm")
    assert (card.data.pipeline_tag, card.data.datasets) == ("image-classification", [DATASET])
    accuracy = next(result for result in card.data.eval_results if result.metric_type == "accuracy")
    figures = circle.validation["figures"]
    assert accuracy.metric_value == pytest.approx(figures["accuracy"], abs=1e-4)
    assert accuracy.metric_args["interval_95_by_patient"] == pytest.approx(
        circle.validation["intervals_95_by_patient"]["accuracy"], abs=1e-4
    )
    assert accuracy.dataset_revision == circle.commit("dataset", DATASET, "v1.0").id
    assert all(example["src"] in published.files for example in card.data["widget"])
    for line in (f'"hf-hub:{MODEL}"', f'model="{MODEL}"', f'from_pretrained("{MODEL}")'):
        assert line in card.text
    assert "FOLDER" not in card.text


def test_the_data_set_card_is_complete(circle):
    published = circle.commit("dataset", DATASET)
    card = DatasetCard(content(circle.hub, published.files["README.md"]).decode())
    assert card.data.license == "cc-by-4.0"
    assert {config["config_name"] for config in card.data["configs"]} == {"default", "auto_test"}
    described = {info["config_name"]: info for info in card.data["dataset_info"]}
    columns = {column["name"] for column in described["default"]["features"]}
    assert columns == {"image", "label", "patient_id", "side", "file_name"}
    assert {split["name"]: split["num_examples"] for split in described["default"]["splits"]} == {
        "train": 40,
        "validation": 16,
        "test": 16,
    }
    assert f'load_dataset("{DATASET}")' in card.text
    assert "| train |" in card.text


def test_an_imagenet_recipe_names_the_model_that_it_starts_from(circle, tmp_path):
    folder = shutil.copytree(circle.run, tmp_path / "run")
    recipe = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(recipe.replace("weights: random", "weights: imagenet"))
    assert model_card.render(folder).data.base_model == "timm/legacy_xception.tf_in1k"
    assert model_card.render(circle.run).data.base_model is None
    (folder / "recipe_before.yaml").write_text((folder / "recipe.yaml").read_text())  # it continues one that does
    (folder / "recipe.yaml").write_text(recipe.replace("weights: random", "weights: model"))
    assert model_card.render(folder).data.base_model == "timm/legacy_xception.tf_in1k"


def test_a_card_does_not_give_figures_of_other_rules_for_those_of_the_model(circle, tmp_path):
    folder = shutil.copytree(circle.run, tmp_path / "run")
    Rules(temperature=2).save(folder)
    with pytest.raises(KoaError, match=r"measured with other rules.*measure again with train/validate\.py"):
        model_card.render(folder)


# --- loading, with stock libraries only

LOAD_DATA = f"""
from datasets import load_dataset
knees = load_dataset("{DATASET}")
found["rows"] = {{split: len(part) for split, part in knees.items()}}
found["names"] = knees["train"].features["label"].names
found["size"] = knees["train"][0]["image"].size
streamed = load_dataset("{DATASET}", streaming=True)
found["streamed"] = sum(1 for _ in streamed["validation"])
found["first"] = [next(iter(streamed["validation"]))["file_name"], knees["validation"][0]["file_name"]]
found["pinned"] = len(load_dataset("{DATASET}", revision="v1.0", split="train"))
found["auto_test"] = {{split: len(part) for split, part in load_dataset("{DATASET}", "auto_test").items()}}
"""


def test_stock_datasets_loads_it_whole_streaming_pinned_and_the_second_configuration(circle):
    found = in_stock_python(circle.hub, circle.home, LOAD_DATA)
    assert found["rows"] == {"train": 40, "validation": 16, "test": 16}
    assert found["names"] == list(GRADE_NAMES)
    assert found["size"] == [224, 224]
    assert found["streamed"] == 16
    assert found["first"][0] == found["first"][1]
    assert found["pinned"] == 40
    assert found["auto_test"] == {"test": 16}


# `evaluate.load("accuracy")` would download a script; a metric of one's own needs no network. The evaluator is given
# the id and makes the pipeline itself: evaluate 0.4.6 looks for transformers' TFPreTrainedModel, gone since version 5,
# when it is given anything else.
LOAD_MODEL = f"""
import datasets, evaluate, timm, torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

image = Image.open("knee.png").convert("RGB")
model = timm.create_model("hf-hub:{MODEL}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
with torch.inference_mode():
    found["timm"] = model(transform(image).unsqueeze(0)).softmax(1)[0].tolist()
found["timm names"] = model.pretrained_cfg["label_names"] if "label_names" in model.pretrained_cfg else None

classify = pipeline("image-classification", model="{MODEL}", device="cpu")
found["pipeline"] = {{answer["label"]: answer["score"] for answer in classify("knee.png", top_k=5)}}

auto = AutoModelForImageClassification.from_pretrained("{MODEL}")
processor = AutoImageProcessor.from_pretrained("{MODEL}")
with torch.inference_mode():
    found["auto"] = auto(**processor(image, return_tensors="pt")).logits.softmax(1)[0].tolist()
found["id2label"] = [auto.config.id2label[i] for i in range(5)]

class Accuracy(evaluate.Metric):
    def _info(self):
        features = datasets.Features({{"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}})
        return evaluate.MetricInfo(description="", citation="", features=features)

    def _compute(self, predictions, references):
        return {{"accuracy": sum(p == r for p, r in zip(predictions, references)) / len(references)}}

validation = datasets.load_dataset("{DATASET}", split="validation")
names = validation.features["label"].names
found["accuracy"] = evaluate.evaluator("image-classification").compute(
    model_or_pipeline="{MODEL}", data=validation, metric=Accuracy(), label_mapping={{n: i for i, n in enumerate(names)}}
)["accuracy"]
"""


def test_stock_timm_transformers_and_evaluate_agree_with_the_grader(circle, knee_png):
    circle.home.mkdir(exist_ok=True)
    shutil.copy(knee_png, circle.home / "knee.png")
    found = in_stock_python(circle.hub, circle.home, LOAD_MODEL)
    ours = Grader.from_pretrained(circle.run, engine="torch").grade(knee_png).probabilities
    assert found["timm"] == pytest.approx(ours, abs=1e-4)
    assert found["auto"] == pytest.approx(ours, abs=1e-4)
    assert found["pipeline"] == pytest.approx(dict(zip(GRADE_NAMES, ours, strict=True)), abs=1e-4)
    assert found["id2label"] == list(GRADE_NAMES)
    assert found["accuracy"] == pytest.approx(circle.validation["figures"]["accuracy"])


# --- loading, with this project

GRADE = """
import sys, json, shutil
from pathlib import Path
from huggingface_hub import constants
from koa_hf import Grader
from koa_hf.errors import KoaError

def grade(*arguments):
    try:
        grading = Grader.from_pretrained(*arguments, engine="torch").grade("{knee}")
        return [grading.revision, list(grading.probabilities)]
    except KoaError as error:
        return str(error)

def blob():
    return next(Path(constants.HF_HUB_CACHE).glob("models--*/snapshots/*/model.safetensors")).resolve()
"""


DOWNLOAD_AND_DIE = f"""
import os, signal, threading
from pathlib import Path
from huggingface_hub import constants, snapshot_download

def die_in_the_middle():
    while not any(file.stat().st_size for file in Path(constants.HF_HUB_CACHE).rglob("*.incomplete")):
        pass
    os.kill(os.getpid(), signal.SIGKILL)

threading.Thread(target=die_in_the_middle, daemon=True).start()
snapshot_download("{MODEL}", allow_patterns="*.safetensors")
"""


def graded(circle: Circle, home: Path, knee_png: Path, code: str, **variables: str) -> dict:
    code = "found = {}\n" + GRADE.replace("{knee}", str(knee_png)) + code
    done = circle.hub.run(code + "\nprint('FOUND', json.dumps(found))", home, **variables)
    return json.loads(done.stdout.rpartition("FOUND ")[2])


def test_the_grader_takes_a_revision_and_mends_a_damaged_cache(circle, knee_png, tmp_path):
    commit = circle.commit("model", MODEL).id
    probabilities = Grader.from_pretrained(circle.run, engine="torch").grade(knee_png).probabilities
    expected = [commit, pytest.approx(list(probabilities), abs=1e-6)]
    killed = circle.hub.run(DOWNLOAD_AND_DIE, tmp_path, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [file for file in tmp_path.rglob("*.incomplete") if file.stat().st_size]

    found = graded(
        circle,
        tmp_path,
        knee_png,
        f"""
found["after a download that was killed"] = grade("{MODEL}", "main")
found["by commit"] = grade("{MODEL}@{commit}")
found["of no such revision"] = grade("{MODEL}", "v9")
whole = blob().read_bytes()
blob().write_bytes(whole[:-1000] + bytes(1000))
found["after its content changed"] = grade("{MODEL}")
blob().write_bytes(whole[:1000])
found["after it was cut short"] = grade("{MODEL}")
blob().unlink()
found["after it vanished"] = grade("{MODEL}")
""",
    )
    circle.hub.faults.corrupt(path="*.safetensors")
    code = f'found["after a damaged download"] = grade("{MODEL}")'
    found |= graded(circle, tmp_path / "new", knee_png, code)
    assert [fault["effect"] for fault in circle.hub.faults.struck] == ["corrupt"]
    circle.hub.faults.clear()
    assert found.pop("of no such revision") == (
        f"{MODEL} has no revision 'v9' on the Hub; check the branch, tag or commit."
    )
    assert len(found) == 6
    for name, grading in found.items():
        assert grading == expected, name


@pytest.mark.browser
@pytest.mark.parametrize("starts", ["0", pytest.param("01", marks=pytest.mark.slow)], ids=["once", "again, offline"])
def test_the_demo_starts_from_an_id_and_later_without_a_network(circle, knee_png, page: Page, tmp_path, starts):
    grading = Grader.from_pretrained(circle.run, engine="torch").grade(knee_png)
    options = ("--model", MODEL, "--engine", "torch")
    for offline in starts:
        environment = circle.hub.environment(tmp_path, HF_HUB_OFFLINE=offline)
        with running_demo(*options, env=environment, fresh=offline == "1") as demo:
            page.goto(demo.url)
            expect(page.get_by_role("heading", name="No X-ray yet")).to_be_visible(timeout=20_000)
            page.set_input_files("#koa-upload input[type=file]", knee_png)
            said = re.compile(rf"KL {grading.grade}\s+·\s+{grading.name}")
            expect(page.locator("h2.grade")).to_have_text(said, timeout=60_000)
            commit = circle.commit("model", MODEL).id
            expect(page.get_by_text(f"version {commit[:12]}").first).to_be_visible()
            assert ("100%" in demo.written()) == (offline == "0")  # the progress bar of the download


@pytest.mark.parametrize(
    ("hardware", "python"), [("cpu-basic", "3.11"), pytest.param("zero", "3.12.12", marks=pytest.mark.slow)]
)
def test_a_space_runs_as_it_stands(circle, tmp_path, hardware, python):
    options = ("--model", MODEL, "--hardware", hardware, "--dataset", "user/knees")
    done = push(circle.hub, tmp_path, "space", f"user/koa-{hardware}", *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{circle.hub.url}/spaces/user/koa-{hardware}  (private, commit ")
    published = circle.commit("space", f"user/koa-{hardware}")
    folder = tmp_path / "space"
    for path, file in published.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content(circle.hub, file))
    card = SpaceCard.load(folder / "README.md").data
    assert (card.sdk, card.app_file, card.python_version) == ("gradio", "app.py", python)
    assert (card.models, card.preload_from_hub, card.datasets) == ([MODEL], [MODEL], ["user/knees"])
    flavour = circle.hub.store.repository("space", f"user/koa-{hardware}").hardware
    assert flavour == card.suggested_hardware == contents.HARDWARE[hardware].flavour
    assert (folder / card.thumbnail.rpartition("/")[2]).read_bytes().startswith(b"\x89PNG")
    # What requirements.txt leaves out must not be needed.
    required = (folder / "requirements.txt").read_text()
    left_out = ["datasets", "evaluate", "accelerate", "transformers", "sklearn", "tensorboard"]
    left_out += ["openvino"] if hardware == "zero" else []
    assert not set(left_out) & set(required.replace(">", " ").split())
    assert ("torch>=2.8,<2.12\n" in required) == (hardware == "zero")
    assert ("whl/cpu" in required) == (hardware == "cpu-basic")
    (folder / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({left_out!r}))\n")
    environment = circle.hub.environment(circle.home, PYTHONPATH=str(folder))
    with running_demo(folder=folder, env=environment, fresh=True) as demo:
        demo.wait_until_it_says(f"grading with {MODEL}, version {circle.commit('model', MODEL).id[:12]}")


def test_a_space_has_every_file_of_the_package():
    package = {"koa_hf/cli/push.py", "koa_hf/demo/film_editor.html", "koa_hf/demo/page.css", "koa_hf/py.typed"}
    files = contents.of_space("user/demo", "user/model").files
    assert package <= files.keys()
    assert not [path for path in files if path.endswith(".pyc")]


# --- versions, and what is refused

CLIENT = """
import contextlib, io, json, os
from koa_hf.cli import main
for name, (token, *arguments) in json.loads({cases!r}).items():
    os.environ.pop("HF_TOKEN", None)
    if token:
        os.environ["HF_TOKEN"] = token
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["push", *arguments])
    found[name] = [code, out.getvalue(), err.getvalue().strip().split("\\r")[-1].split("\\n")[-1]]
"""


def commands(hub: Hub, home: Path, cases: dict[str, tuple], **variables: str) -> dict[str, tuple[int, str, str]]:
    """Run many `koa push` commands in one process: exit code, stdout and the last line of stderr of each."""
    cases = {name: (hub.token(token) if token else None, *map(str, rest)) for name, (token, *rest) in cases.items()}
    code = "found = {}\n" + CLIENT.format(cases=json.dumps(cases))
    done = hub.run(code + "\nprint('FOUND', json.dumps(found))", home, **variables)
    return json.loads(done.stdout.rpartition("FOUND ")[2])


def test_versions_branches_and_what_is_left_over(hub, dataset_folder, circle, tmp_path):
    smaller = shutil.copytree(dataset_folder, tmp_path / "smaller")
    shutil.rmtree(smaller / "auto_test")
    card = DatasetCard.load(smaller / "README.md")
    for key in ("configs", "dataset_info"):
        card.data[key] = [part for part in card.data[key] if part["config_name"] == "default"]
    card.save(smaller / "README.md")
    name = "user/knees"
    found = commands(
        hub,
        tmp_path,
        {
            "first": ("write", "dataset", dataset_folder, name, "--tag", "v1", "--public"),
            "again": ("write", "dataset", dataset_folder, name, "--public"),
            "smaller": ("write", "dataset", smaller, name, "--public", "--tag", "v2"),
            "taken": ("write", "dataset", smaller, name, "--public", "--tag", "v1"),
            "branch": ("write", "dataset", dataset_folder, name, "--public", "--revision", "trial"),
            "no name for a tag": ("write", "dataset", smaller, name, "--public", "--tag", "v 3"),
            "to a tag": ("write", "dataset", dataset_folder, name, "--public", "--revision", "v1"),
            "public by mistake": ("write", "dataset", dataset_folder, name),
            "model": ("write", "model", circle.run, "user/model", "--dataset", "user/other"),
        },
    )
    repository = hub.store.repository("dataset", name)
    assert not repository.private
    assert found["first"][1].startswith(f"{hub.url}/datasets/{name}/tree/v1  (public, commit ")
    assert repository.tags["v1"][:12] in found["again"][1]  # nothing had changed, so there is no new commit
    assert repository.tags["v2"] == repository.branches["main"]
    assert not [path for path in repository.commit("main").files if path.startswith("auto_test/")]
    assert [path for path in repository.commit("v1").files if path.startswith("auto_test/")]
    assert repository.commit("trial").files.keys() == repository.commit("v1").files.keys()
    assert "already has a version v1" in found["taken"][2]
    assert "is a tag" in found["to a tag"][2]
    assert "is public; give --public" in found["public by mistake"][2]
    assert "'v 3' can't be a name" in found["no name for a tag"][2]
    assert [code for code, *_ in found.values()] == [0, 0, 0, 2, 0, 2, 2, 2, 0]
    card = content(hub, hub.store.repository("model", "user/model").commit("main").files["README.md"]).decode()
    assert ModelCard(card).data.datasets == ["user/other"]


def test_what_is_not_fit_for_the_hub_is_refused_and_leaves_nothing_there(hub, dataset_folder, circle, tmp_path):
    def broken(name: str, source: Path = circle.run) -> Path:
        return shutil.copytree(source, tmp_path / name)

    changed = broken("changed")
    config = json.loads((changed / "config.json").read_text())
    (changed / "config.json").write_text(json.dumps(config | {"koa_note": "Nothing to see here."}))
    unrecorded = broken("unrecorded")
    (unrecorded / "checksums.json").unlink()
    cardless, no_yaml, bad_yaml, not_licensed = map(broken, ("cardless", "no-yaml", "bad-yaml", "not-licensed"))
    card = (circle.run / "README.md").read_text()
    (cardless / "README.md").unlink()
    (no_yaml / "README.md").write_text(card.split("---", 2)[2])
    (bad_yaml / "README.md").write_text(card.replace("license:", "license: [", 1))
    (not_licensed / "README.md").write_text(card.replace("license:", "licence:", 1))
    refused_by_hub = broken("refused-by-hub")
    (refused_by_hub / "README.md").write_text(card.replace("license: apache-2.0", "license: not-a-licence-at-all", 1))
    short = broken("short", dataset_folder)
    next((short / "data").glob("train-*")).unlink()

    name = "user/refused"
    cases = {
        "not logged in": (None, "dataset", dataset_folder, name),
        "a token that reads": ("read", "dataset", dataset_folder, name),
        "somebody else's": ("stranger", "dataset", dataset_folder, name),
        "no model folder": ("write", "model", tmp_path, name),
        "a model as data": ("write", "dataset", circle.run, name),
        "changed": ("write", "model", changed, name),
        "unrecorded": ("write", "model", unrecorded, name),
        "cardless": ("write", "model", cardless, name),
        "no YAML": ("write", "model", no_yaml, name),
        "bad YAML": ("write", "model", bad_yaml, name),
        "no licence": ("write", "model", not_licensed, name),
        "the Hub's rules": ("write", "model", refused_by_hub, name),
        "a shard missing": ("write", "dataset", short, name),
        "a bad name": ("write", "dataset", dataset_folder, "user/not/a/name"),
        "no owner": ("write", "dataset", dataset_folder, "knees"),
        "a Space without its model": ("write", "space", name, "--model", "user/nothing"),
    }
    said = {
        "not logged in": "you are not logged in; run `hf auth login`",
        "a token that reads": "the token of user can only read",
        "somebody else's": "you are logged in as stranger, who can't publish a data set for user",
        "no model folder": "is not a model folder: it has no config.json",
        "a model as data": "holds no data set",
        "changed": "config.json is not the file that checksums.json records",
        "unrecorded": "has no checksums.json",
        "cardless": "has no readable card",
        "no YAML": "fails validation: it does not begin with YAML",
        "bad YAML": "fails validation",
        "no licence": "fails validation: its YAML has no license",
        "the Hub's rules": "fails the Hub's validation",
        "a shard missing": "train",
        "a bad name": "can't be a name on the Hub",
        "no owner": "names no owner",
        "a Space without its model": "there is no model user/nothing on the Hub",
    }
    found = commands(hub, tmp_path / "home", cases)
    for case, (code, out, err) in found.items():
        assert (code, out) == (2, ""), case
        assert err.startswith("error: "), case
        assert said[case] in err, case
    assert not hub.store.repositories
    hub.stop()
    gone = commands(hub, tmp_path / "home", {"no network": ("write", "dataset", dataset_folder, name)})
    assert "the Hub can't be reached" in gone["no network"][2]


def test_a_dry_run_lists_files_and_sizes_without_token_or_network(dataset_folder, circle, tmp_path, capsys):
    # This process is offline (see conftest.py) and has no token.
    assert main(["push", "dataset", str(dataset_folder), "user/knees", "--dry-run"]) == 0
    assert main(["push", "model", str(circle.run), "user/model", "--dry-run"]) == 0
    assert main(["push", "space", "user/demo", "--model", "user/model", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"data/train-00000-of-00001\.parquet\s+[\d.]+ MB", out)
    assert re.search(r"model\.safetensors\s+84 MB", out)
    assert re.search(r"^app\.py\s+[\d.]+ kB", out, re.MULTILINE)
    assert "for the Space user/demo" in out
    assert "predictions.csv" not in out


@pytest.mark.parametrize(
    ("token", "repo", "says"),
    [
        ("read", MODEL, "can only read"),
        ("write", "not a name", "can't be a name on the Hub"),
    ],
)
def test_a_run_that_could_not_be_pushed_ends_before_it_begins(circle, dataset_folder, tmp_path, token, repo, says):
    options = ("--dataset", dataset_folder, "--output-dir", tmp_path / "run", *SMALL, "--push-to-hub", repo)
    done = run("train/run.py", *options, env=circle.hub.environment(tmp_path, token), check=False)
    assert done.returncode == 2
    assert says in done.stderr.strip().splitlines()[-1]
    assert not (tmp_path / "run").exists()
