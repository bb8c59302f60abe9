"""InvMM as a metric of Hugging Face's evaluate: the images are the references, the model is an argument.

evaluate copies this file elsewhere and imports it from there, so it imports by full names only.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, Unpack

import datasets
import evaluate
import numpy as np
import torch
from PIL import Image, ImageOps

from invmm_eval.audits.auditing import Choices, load_backbone, make_plan, summarize
from invmm_eval.audits.images import Source, find_images, prepare, with_captions
from invmm_eval.models.backbone import Backbone
from invmm_eval.search.fields import columns

_CITATION = """\
@inproceedings{ma2025inversion,
  title={An Inversion-based Measure of Memorization for Diffusion Models},
  author={Ma, Zhe and Li, Qingming and Zhang, Xuhong and Du, Tianyu and Lin, Ruixiao and Wang, Zonghui and Ji, Shouling
          and Chen, Wenzhi},
  booktitle={Proceedings of the IEEE/CVF International Conference on Computer Vision (ICCV)},
  year={2025},
  eprint={2405.05846},
  archivePrefix={arXiv}
}
"""

_DESCRIPTION = """\
InvMM tells how far a diffusion model has memorized an image. For each image it searches for the noise distribution q,
as near to the standard normal as possible, from which the model replicates the image every time. InvMM is
KL(q || N(0, I)) in nats per dimension of the noise: small where the image is memorized, infinite where no such q is
found. It needs neither the training set nor captions.
"""

_INPUTS = """
Args:
    references: the images to look for. A list of files, bytes, PIL images, arrays (H, W) or (H, W, C) or tensors
        (C, H, W), of uint8 or of floats in [0, 1]; or a batch of these as one array or tensor; or a folder,
        "dataset:NAME[:split[:column]]", or a data set with an image column.
    model: a folder that save_pretrained wrote, a Hub id, or a loaded pipeline of diffusers. The model of a folder or a
        Hub id is kept for the next call; release() lets it go.
    backbone (str): the registered backbone. Defaults to the one that serves the pipeline's class.
    revision (str): branch, tag or commit on the Hub.
    device (str): defaults to CUDA where there is one, else the CPU.
    dtype (str): precision of the network, 'float32', 'float16' or 'bfloat16'. Defaults to 'float32'.
    backbone_options (dict): for the backbone, such as prompt_mode.
    captions (list): the text of each image, for a backbone that takes one. Defaults to none.
    out (str): a folder to keep results in; what it holds already is not measured again. Defaults to none.
    batch_size (int): images searched together. Defaults to 8.
    micro_batch (int): at most so many rows go through the network at once. Defaults to one image's draws.
    max_steps (int): steps after which an image counts as not replicated: short for settings={"max_steps": ...}.
    similarity (str): what decides whether a sample is a replica, a registered name or an object. Defaults to 'sscd'
        where INVMM_SSCD_WEIGHTS names its weights, else 'pixel-cosine'.
    similarity_options (dict): for the similarity of that name.
    noise (str): the registered name of the family of q. Defaults to 'diagonal-gaussian'.
    noise_options (dict): for the noise family of that name.
    recipe (str): 'paper', the published settings for the model's family and the default, 'dose', 'demo', or a recipe.
    settings (dict): changes to the recipe.
    calibration: sets the threshold; what invmm_eval.calibrate found. Defaults to none.
    seed (int): with an image's pixels it decides all its random numbers. Defaults to 0.
Returns:
{returns}
    images, replicated, failed: how many there were.
    replicated_fraction: of the images that did not fail.
    median_invmm, smallest_invmm: over the images that did not fail.
Examples:
    >>> import evaluate, invmm_eval
    >>> invmm = evaluate.load(invmm_eval.metric_path())
    >>> results = invmm.compute(references=["cat.png", "dog.png"], model="path/to/a/pipeline", seed=0)
    >>> print(results["status"], results["invmm"])
    ['replicated', 'exhausted'] [0.21, inf]
"""


_INPUTS = _INPUTS.replace(
    "{returns}",
    "\n".join(f"    {column.name}: for each image, {column.description}." for column in columns("metric")),
)


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _INPUTS)
class InvMM(evaluate.Metric):  # type: ignore[misc]
    """Has this diffusion model memorized this image?"""

    _kept: tuple[object, Backbone] | None = None

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"references": datasets.Image(decode=False)}),
            reference_urls=["https://arxiv.org/abs/2405.05846"],
        )

    def add(self, *, reference: Any = None, **inputs: Any) -> None:
        """Add one image, as ``reference=`` or, as evaluate names it elsewhere, ``references=``."""
        self.add_batch(references=[inputs.pop("references", reference)], **inputs)

    def add_batch(self, *, references: Any, **inputs: Any) -> None:
        """Add several images.

        Raises:
            InvMMError: There is no such file, folder or data set, or pixels that are not those of an image.
        """
        where = [references] if isinstance(references, str | Path | datasets.Dataset) else references
        super().add_batch(references=[_stored(source.value) for source in find_images(*where)], **inputs)

    def release(self) -> None:
        """Let go of the model that is kept for the next call."""
        self._kept = None
        torch.cuda.empty_cache()

    def _compute(
        self,
        references: list[dict[str, Any] | None],
        model: object,
        *,
        backbone: str | None = None,
        revision: str | None = None,
        device: str | None = None,
        dtype: str = "float32",
        backbone_options: Mapping[str, Any] | None = None,
        captions: Sequence[str] | None = None,
        out: str | Path | None = None,
        batch_size: int = 8,
        micro_batch: int | None = None,
        max_steps: int | None = None,
        **choices: Unpack[Choices],
    ) -> dict[str, Any]:
        if max_steps is not None:
            choices["settings"] = {**choices.get("settings", {}), "max_steps": max_steps}
        loaded = self._backbone(
            model, backbone=backbone, revision=revision, device=device, dtype=dtype, options=backbone_options
        )
        plan = make_plan(loaded, model, revision, **choices)
        images = [image or {} for image in references]
        sources = [Source(image.get("path") or str(index), image) for index, image in enumerate(images)]
        if captions is not None:
            sources = with_captions(sources, captions)
        measured = plan.run(sources, out=out, batch_size=batch_size, micro_batch=micro_batch)
        progress = evaluate.logging.tqdm(measured, total=len(sources), desc="InvMM", unit="image")
        results = sorted(progress, key=lambda result: result.index)
        return {
            **{column.name: [column.value(result) for result in results] for column in columns("metric", results)},
            **summarize(results),
        }

    def _backbone(self, model: object, **how: Any) -> Backbone:
        """The model that is kept, where it is the same; a pipeline is never kept, for it is loaded, and may change."""
        if not isinstance(model, str | Path):
            return load_backbone(model, **how)
        files = {str(file): file.lstat().st_mtime_ns for file in Path(model).rglob("*")}
        wanted = str(model), files, how
        if self._kept is None or self._kept[0] != wanted:
            self.release()
            self._kept = wanted, load_backbone(model, **how)
        return self._kept[1]


def _stored(image: Any) -> str | bytes | None:
    """What evaluate keeps of an image until all are there: its file, or an exact PNG of its pixels.

    Left to itself, it would keep a PIL image as the name of the file it once came from, or as a JPEG, and refuse
    tensors and floats.
    """
    if isinstance(image, Mapping):
        contents = image.get("bytes")
        image = image.get("path") if contents is None else contents
    if image is None or isinstance(image, str | bytes):
        return image
    if isinstance(image, Path):
        return str(image)
    if isinstance(image, bytearray | memoryview):
        return bytes(image)
    if isinstance(image, Image.Image):
        with suppress(Exception):  # of a damaged one prepare tells what is wrong
            image = ImageOps.exif_transpose(image)
    pixels = prepare(image, (3, *_size(image)))
    file = BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(file, "PNG")
    return file.getvalue()


def _size(image: Any) -> tuple[int, int]:
    """Height and width of what has pixels."""
    match image:
        case Image.Image():
            return image.height, image.width
        case np.ndarray(shape=(height, width, *_)) | torch.Tensor(shape=(*_, height, width)):
            return height, width
    return 1, 1
