"""InvMM as a metric of Hugging Face evaluate: the images are the references, the model is an argument.

evaluate copies this file elsewhere and imports it from there, so it imports by full names only.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import evaluate
import numpy as np
import torch
from PIL import Image, ImageOps

from invmm_eval.audits.images import Source, find_images
from invmm_eval.audits.options import insert, with_options
from invmm_eval.audits.pictures import prepare, readable
from invmm_eval.audits.plan import load, weights_of
from invmm_eval.audits.request import Request
from invmm_eval.audits.results import summarize
from invmm_eval.audits.run import run
from invmm_eval.errors import InvMMError
from invmm_eval.models.backbone import Backbone
from invmm_eval.models.identity import model_identity
from invmm_eval.search.fields import columns, finite

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
InvMM measures how much a diffusion model memorized an image. For each image it searches for the noise distribution q,
as near to the standard normal as possible, from which the model replicates the image every time. InvMM is
KL(q || N(0, I)) in nats per dimension of the noise: small if the image is memorized, infinite if no such q is found. It
needs neither the training set nor captions.
"""

_INPUTS = """
Args:
    references: the images. A list of files, bytes, PIL images, arrays (H, W) or (H, W, C) or tensors
        (C, H, W), of uint8 or of floats in [0, 1]; or a batch of these as one array or tensor; or a folder,
        "dataset:NAME[:[config/]split[:column]]", "reference" or "reference:held-out" (images of the reference model),
        or a data set with an image column.
    model: folder written by save_pretrained, Hub id, loaded diffusers pipeline, or "reference" (the model that the
        package brings). The model of a folder or Hub id is kept in memory for the next call; release() frees it.
    captions (list): the text of each image, for a backbone that takes one. Defaults to none.
    out (str): output folder. An existing audit in it is resumed. Defaults to none.
    max_steps (int): maximum number of steps: short for settings={"max_steps": ...}.
    **options: {options}
Returns:
{returns}
    images, memorized, replicable, not_replicated, failed: numbers of images, by verdict.
    replicated: number of images of which a check was passed.
    memorized_fraction: share of all images; None if the recipe estimates no share of plain samples, which decides it.
    replicated_fraction: share of all images.
    median_invmm, smallest_invmm: over the images that did not fail.
    None stands for what is infinite or not a number, so that evaluate.save writes strict JSON.
Examples:
    >>> import evaluate, invmm_eval
    >>> invmm = evaluate.load(invmm_eval.metric_path())
    >>> results = invmm.compute(references="reference:held-out", model="reference")
    >>> print(results["images"], results["replicated"])
    6 0
"""


_INPUTS = insert(_INPUTS).replace(
    "{returns}",
    "\n".join(f"    {column.name}: for each image, {column.description}." for column in columns("metric")),
)


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _INPUTS)
class InvMM(evaluate.Metric):  # type: ignore[misc]
    """Has this diffusion model memorized this image?"""

    _kept: tuple[object, Backbone] | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.info.module_name = "invmm"  # evaluate derives inv_mm from the name of the class

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
        batch = references if isinstance(references, np.ndarray | torch.Tensor) else [references]
        super().add_batch(references=[_stored(source) for source in find_images(*batch)], **inputs)

    def release(self) -> None:
        """Free the model that is kept for the next call."""
        self._kept = None
        torch.cuda.empty_cache()

    @with_options()
    def _compute(
        self,
        references: list[dict[str, Any] | None],
        model: object = None,
        *,
        captions: Sequence[str] | None = None,
        out: str | Path | None = None,
        max_steps: int | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        if model is None:
            raise InvMMError(
                "compute() needs model=: a folder of save_pretrained, a Hub id, a loaded pipeline, or 'reference'."
            )
        if max_steps is not None:
            options["settings"] = {**(options.get("settings") or {}), "max_steps": max_steps}
        images = [image or {} for image in references]
        sources = [Source(image.get("path") or str(index), image) for index, image in enumerate(images)]
        request = Request.of(model, sources, captions, **options)
        alone = request.resources.workers is None
        measured = run(request, out=out, backbone=self._backbone(request) if alone else None)
        progress = evaluate.logging.tqdm(measured, total=len(sources), desc="InvMM", unit="image")
        results = sorted(progress, key=lambda result: result.index)
        found = {column.name: [column.value(result) for result in results] for column in columns("metric", results)}
        return {name: _strict(value) for name, value in (found | summarize(results)).items()}

    def _backbone(self, request: Request) -> Backbone:
        """The model of the last call if it is the same; a loaded pipeline is not kept, because it may change."""
        model, device = request.model, request.resources.device
        if not isinstance(model.source, str | Path):
            return load(model, device)
        named = [Path(value) for value in model.backbone_options.values() if isinstance(value, str | Path)]
        files = weights_of(model), [model_identity(path) for path in named if path.exists()]
        wanted = replace(model, source=str(model.source)), device, files
        if self._kept is None or self._kept[0] != wanted or files[0]["weights"] is None:
            self.release()
            self._kept = wanted, load(model, device)
        return self._kept[1]


def _strict(value: Any) -> Any:
    """The value as strict JSON holds it, which ``evaluate.save`` writes: None is for what is not finite."""
    if isinstance(value, Mapping):
        return {key: _strict(part) for key, part in value.items()}
    return [_strict(part) for part in value] if isinstance(value, list | tuple) else finite(value)


def _stored(source: Source) -> str | dict[str, Any] | None:
    """What evaluate keeps of an image until all are added: its file, or its name and an exact PNG of its pixels.

    Left to itself, it would keep a PIL image as the name of the file it once came from, or as a JPEG, and refuse
    tensors, floats and names that are not Unicode. It would also open a file that has the name of the image, so such a
    name is left out, as is a name that is only the image's position.
    """
    image: Any = source.value() if callable(source.value) else source.value
    if isinstance(image, Mapping):
        contents = image.get("bytes")
        image = image.get("path") if contents is None else contents
    if image is None:
        return None
    if isinstance(image, str | Path):
        name = readable(str(image))
        return name if name == str(image) else {"path": name, "bytes": Path(image).read_bytes()}
    named = not source.name.isdigit() and not Path(source.name).exists()
    return {"path": source.name if named else None, "bytes": _contents(image)}


def _contents(image: Any) -> bytes:
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, Image.Image):
        with suppress(Exception):  # prepare reports what is wrong with a damaged one
            image = ImageOps.exif_transpose(image)
    pixels = prepare(image, (3, *_size(image)))
    file = BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(file, "PNG")
    return file.getvalue()


def _size(image: Any) -> tuple[int, int]:
    match image:
        case Image.Image():
            return image.height, image.width
        case np.ndarray(shape=(height, width, *_)) | torch.Tensor(shape=(*_, height, width)):
            return height, width
    return 1, 1
