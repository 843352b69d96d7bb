"""README.md's front matter: read, and checked by the rules of the Hub's validate-yaml that a card can break here.

After the card specifications in https://github.com/huggingface/hub-docs (modelcard.md, datasetcard.md) and the Space
configuration reference.
"""

import re

import yaml

_LICENSES = (
    "apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m"
    " afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0"
    " cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0"
    " cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0"
    " cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0"
    " gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl"
    " apple-amlr mpl-2.0 odc-by odbl openmdw-1.0 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl"
    " lgpl-lr deepfloyd-if-license fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3"
    " llama4 gemma unknown other"
)
LICENSES = frozenset(_LICENSES.split())
SIZE_CATEGORIES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "n>1T")
COLORS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")
SDKS = ("gradio", "streamlit", "docker", "static")

_FRONT_MATTER = re.compile(r"\A\s*---[ \t]*\r?\n(.*?)^---[ \t]*$", re.DOTALL | re.MULTILINE)
_LISTS_OF_TEXT = ("tags", "datasets", "metrics", "task_categories", "task_ids", "size_categories", "models")


def front_matter(text: str) -> dict:
    """The card's metadata, {} where there is none or it can't be read."""
    try:
        data = _load(text)
    except yaml.YAMLError:
        return {}
    return data if isinstance(data, dict) else {}


def validate(text: str, kind: str) -> tuple[list[str], list[str]]:
    """Errors and warnings about the card of a model, dataset or space."""
    try:
        data = _load(text)
    except yaml.YAMLError as error:
        return [f"YAML Syntax error: {error}"], []
    if not data:
        if kind == "space":
            return ["Missing configuration in README"], []
        return [], ["empty or missing yaml metadata in repo card"]
    if not isinstance(data, dict):
        return ["YAML metadata must be an object"], []
    errors, warnings = [], []
    for license in _as_list(data.get("license")):
        if license not in LICENSES:
            errors.append(f'"license" must be one of [{", ".join(sorted(LICENSES))}]')
    for language in _as_list(data.get("language")):
        if not isinstance(language, str) or not re.fullmatch(r"[a-z]{2,3}|code|multilingual", language):
            errors.append('"language" must only contain ISO 639-1, 639-2 or 639-3 codes, "code" or "multilingual"')
    for key in _LISTS_OF_TEXT:
        value = data.get(key)
        if value is not None and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            errors.append(f'"{key}" must be an array of strings')
    for key in ("pipeline_tag", "library_name", "pretty_name", "title", "emoji", "app_file"):
        if not isinstance(data.get(key, ""), str):
            errors.append(f'"{key}" must be a string')
    errors += {"model": _model, "dataset": _dataset, "space": _space}[kind](data)
    return errors, warnings


def _load(text: str):
    match = _FRONT_MATTER.match(text)
    return yaml.safe_load(match[1]) if match else None


def _as_list(value) -> list:
    return [] if value is None else value if isinstance(value, list) else [value]


def _model(data: dict) -> list[str]:
    index = data.get("model-index", [])
    if not isinstance(index, list):
        return ['"model-index" must be an array']
    errors = []
    for i, model in enumerate(index):
        at = f'"model-index[{i}]'
        if not isinstance(model, dict):
            errors.append(f'{at}" must be an object')
            continue
        if not isinstance(model.get("name"), str):
            errors.append(f'{at}.name" is required')
        for j, result in enumerate(_as_list(model.get("results"))):
            errors += _result(result, f"{at}.results[{j}]")
    return errors


def _result(result, at: str) -> list[str]:
    if not isinstance(result, dict):
        return [f'{at}" must be an object']
    errors = []
    for part, keys in (("task", ["type"]), ("dataset", ["type", "name"])):
        value = result.get(part)
        if not isinstance(value, dict):
            errors.append(f'{at}.{part}" is required')
        else:
            errors += [f'{at}.{part}.{key}" is required' for key in keys if not value.get(key)]
    metrics = result.get("metrics")
    if not isinstance(metrics, list):
        return [*errors, f'{at}.metrics" is required']
    for k, metric in enumerate(metrics):
        for key in ("type", "value"):
            if not isinstance(metric, dict) or metric.get(key) is None:
                errors.append(f'{at}.metrics[{k}].{key}" is required')
    return errors


def _dataset(data: dict) -> list[str]:
    errors = []
    for size in _as_list(data.get("size_categories")):
        if size not in SIZE_CATEGORIES:
            errors.append(f'"size_categories" must be one of [{", ".join(SIZE_CATEGORIES)}]')
    configs = data.get("configs", [])
    if not isinstance(configs, list):
        return [*errors, '"configs" must be an array']
    for i, config in enumerate(configs):
        if not isinstance(config, dict) or not isinstance(config.get("config_name"), str):
            errors.append(f'"configs[{i}].config_name" is required')
    return errors


def _space(data: dict) -> list[str]:
    errors = []
    if data.get("sdk") not in SDKS:
        errors.append(f'"sdk" must be one of [{", ".join(SDKS)}]')
    for key in ("colorFrom", "colorTo"):
        if data.get(key, "red") not in COLORS:
            errors.append(f'"{key}" must be one of [{", ".join(COLORS)}]')
    if not isinstance(data.get("pinned", False), bool):
        errors.append('"pinned" must be a boolean')
    if len(str(data.get("short_description", ""))) > 60:
        errors.append('"short_description" length must be less than or equal to 60 characters long')
    return errors
