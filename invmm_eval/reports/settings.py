"""What was audited and how: a table of settings in words."""

from collections.abc import Mapping
from typing import Any

from invmm_eval.reports.summary import Summary
from invmm_eval.search.criteria import CRITERIA
from invmm_eval.statistics.binomial import CONFIDENCE, percent


def settings(summary: Summary) -> dict[str, str]:
    """The settings by name, in words."""
    config, recipe = summary.config, summary.recipe
    similarity, noise, backbone = (dict(config[part]) for part in ("similarity", "noise", "backbone"))
    shape = "x".join(map(str, backbone.pop("image_shape")))
    criterion = CRITERIA[recipe.criterion](recipe, summary.threshold)
    return {
        "Model": config["model"],
        "Weights": config["weights"] or "unknown",
        **_added(config),
        "Backbone": _named(backbone),
        "Image size": f"{shape} (channels, height, width)",
        "Noise family": _named(noise),
        "Similarity": _named({**similarity, "threshold": summary.threshold}),
        **_calibration(config),
        "Recipe": recipe.name,
        "Steps": f"at most {recipe.max_steps:,}, {recipe.draws} draws each; learning rate {recipe.learning_rate:g}; "
        f"a check every {f'{recipe.check_every} steps' if recipe.check_every > 1 else 'step'}",
        "Check": f"passed if {criterion.description}; {recipe.sampler_steps} steps of the sampler {recipe.sampler}; "
        f"guidance {', '.join(f'{scale:g}' for scale in recipe.guidance)}",
        **_doses(summary),
        "Seed": str(config["seed"]),
        "Versions": ", ".join(f"{name} {version}" for name, version in config["versions"].items()),
    }


def _added(config: Mapping[str, Any]) -> dict[str, str]:
    loras = [
        f"{part['file']} at weight {part['weight']:g} (SHA-256 {part['sha256']})" for part in config.get("loras", ())
    ]
    tokens = [
        f"{part['token'] or 'token'} of {part['file']} (SHA-256 {part['sha256']})"
        for part in config.get("embeddings", ())
    ]
    return {name: ", ".join(parts) for name, parts in (("LoRA", loras), ("Embedding", tokens)) if parts}


def _doses(summary: Summary) -> dict[str, str]:
    recipe = summary.recipe
    if not recipe.first_dose:
        return {}
    curve = (
        f"; {recipe.responses} samples for the curve, InvMM read at {percent(recipe.rate)}" if recipe.responses else ""
    )
    return {"Doses": f"from {recipe.first_dose:g} nats, times {recipe.growth:g} after each failed check{curve}"}


def _calibration(config: Mapping[str, Any]) -> dict[str, str]:
    if "calibration" not in config:
        return {}
    found = config["calibration"]
    return {
        "Threshold": f"set for a rate of {found['rate']:.2g} of false replicas on held-out images: "
        f"{found['reached']:,} of {found['images']:,} reach it; of other images of this kind at most "
        f"{percent(found['limit'])} do ({percent(CONFIDENCE)} confidence)"
    }


def _named(values: Mapping[str, Any]) -> str:
    name = values.get("name", "")
    rest = ", ".join(f"{key} {value}" for key, value in values.items() if key != "name" and value is not None)
    return f"{name} ({rest})" if name and rest else name or rest
