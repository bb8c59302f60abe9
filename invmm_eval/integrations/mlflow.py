"""InvMM as an evaluator of mlflow: an audit, and what it found in the run's metrics and artifacts.

    mlflow.models.evaluate(
        data=pandas.DataFrame({"image": files}),
        model_type="diffusion",
        evaluators="invmm",
        evaluator_config={"model": "my-model"},
    )

mlflow loads this module whenever it evaluates anything, so the imports of an audit are inside :meth:`evaluate`.
"""

import json
import math
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import mlflow
import pandas
from mlflow.models.evaluation import EvaluationArtifact, EvaluationResult, ModelEvaluator
from mlflow.models.evaluation.artifacts import JsonEvaluationArtifact, TextEvaluationArtifact
from PIL import Image

from invmm_eval.audits.options import insert
from invmm_eval.errors import InvMMError

if TYPE_CHECKING:
    from invmm_eval.reports.findings import Findings

MODEL_TYPE = "diffusion"
"""The ``model_type`` that this evaluator serves."""
GALLERY = 50
"""Maximum number of images in the gallery, the most memorized first."""


class InvMMEvaluator(ModelEvaluator):  # type: ignore[misc]
    """Has this diffusion model memorized these images?"""

    @classmethod
    def can_evaluate(cls, *, model_type: str | None, evaluator_config: Mapping[str, Any], **_: Any) -> bool:  # noqa: ARG003
        """Whether the model's type is ``diffusion``."""
        return model_type == MODEL_TYPE

    def evaluate(
        self,
        *,
        dataset: Any,
        run_id: str,
        evaluator_config: Mapping[str, Any],
        model: object = None,
        model_id: str | None = None,
        **_: Any,
    ) -> EvaluationResult:
        """Audit the images of the data, and log what was found.

        Args:
            dataset: Its first feature holds the images: files, folders, ``dataset:NAME[:[config/]split[:column]]``,
                contents of files, arrays, or what :class:`datasets.Image` stores.
            run_id: The run to log to.
            evaluator_config: The keys below, ``model``, ``out`` and ``captions`` as :func:`invmm_eval.audit` takes
                them (``captions`` may also name a feature), ``names`` and ``pictures``. With ``names``, names, prompts
                and errors of images are logged, with ``pictures``, images and samples. Both may be private, and are
                not logged by default.
            **options: {options}
            model: None, because mlflow's models cannot be diffusers pipelines.
            model_id: The logged model that the metrics belong to.

        Returns:
            Metrics, without those that are infinite or undefined, and artifacts.

        Raises:
            InvMMError: ``model`` is missing, or a requested part, option or image is unknown or incompatible.
        """
        if model is not None or "model" not in evaluator_config:
            raise InvMMError(
                "mlflow's own model cannot be a diffusion pipeline: leave it out, and give a folder, a Hub id or a "
                'loaded pipeline as evaluator_config={"model": ...}.'
            )
        from invmm_eval.audits.run import audit
        from invmm_eval.reports.findings import find

        chosen = dict(evaluator_config)
        names, pictures = chosen.pop("names", False), chosen.pop("pictures", False)
        images, captions = _images(dataset.features_data, chosen.pop("captions", None))
        with TemporaryDirectory() as folder:
            out = chosen.pop("out", None) or Path(folder, "audit")
            summary = audit(chosen.pop("model"), images, captions=captions, out=out, **chosen).summary
            findings = find(out)
            metrics = {
                f"invmm/{name}": value for name, value in summary.items() if value is not None and math.isfinite(value)
            }
            mlflow.log_metrics(metrics, run_id=run_id, model_id=model_id)
            logged = _log(findings.public(names=names), Path(folder, "artifacts"), run_id, pictures=pictures)
        return EvaluationResult(metrics=metrics, artifacts=logged, run_id=run_id)


def _images(features: Any, captions: Any) -> tuple[list[Any], Any]:
    """The images of mlflow's features, a data frame or an array ``(n, features)``, and their captions."""
    frame = pandas.DataFrame(features)
    if isinstance(captions, str) and captions in frame:
        captions = [text if isinstance(text, str) else None for text in frame[captions]]
    return frame.iloc[:, 0].tolist(), captions


def _log(findings: "Findings", folder: Path, run_id: str, *, pictures: bool) -> dict[str, EvaluationArtifact]:
    from invmm_eval.reports.card import addition
    from invmm_eval.reports.html.page import write_page

    folder.mkdir()
    write_page(findings, folder / "report.html", pictures=pictures)
    (folder / "config.json").write_text(json.dumps(dict(findings.config), indent=2) + "\n", encoding="utf-8")
    logged: dict[str, type[EvaluationArtifact]] = {
        "invmm/report.html": TextEvaluationArtifact,
        "invmm/config.json": JsonEvaluationArtifact,
    }
    if findings.measured:
        addition(findings, pictures=pictures).save(folder / "card" / "README.md")
        logged["invmm/card/README.md"] = TextEvaluationArtifact
    mlflow.log_artifacts(str(folder), "invmm", run_id)

    tables = {"invmm_table.json": findings.table().to_pandas()}
    if pictures and findings.measured:
        tables["invmm_gallery.json"] = _gallery(findings)
    for name, table in tables.items():
        mlflow.log_table(table, name, run_id)
        logged[name] = JsonEvaluationArtifact
    return {name: kind(mlflow.get_artifact_uri(name)) for name, kind in logged.items()}


def _gallery(findings: "Findings") -> pandas.DataFrame:
    """Images beside their samples, one row a guidance scale, as mlflow shows pictures in a table."""
    from invmm_eval.reports.card import sheet
    from invmm_eval.search.sentence import sentence

    shown = [result for result in findings.results if findings.picture(result).is_file()][:GALLERY]
    return pandas.DataFrame(
        {
            "name": [result.name for result in shown],
            "finding": [sentence(result) for result in shown],
            "pictures": [Image.open(BytesIO(sheet(findings, result))) for result in shown],
        }
    )


InvMMEvaluator.evaluate.__doc__ = insert(InvMMEvaluator.evaluate.__doc__ or "")
