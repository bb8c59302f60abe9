"""Pipelines of two models, of which the first makes an embedding of an image from a prompt and the second the image.

The second is what is audited: the embedding takes the place of its prompt. Its noise, and nothing else, is searched, so
an image is found only if the first model's embedding for the caption leads there.
"""

import copy
import inspect
from typing import Any

import torch
from torch import Generator, Tensor

_SEED = 0


def as_one(pipeline: Any) -> Any:
    """The second model with the first as its ``encode_prompt``, if the pipeline is of this kind; or the pipeline."""
    decoder, prior = (getattr(pipeline, f"{stage}_pipe", None) for stage in ("decoder", "prior"))
    if decoder is None or prior is None or "image_embeds" not in inspect.signature(type(decoder).__call__).parameters:
        return pipeline
    kind = type(type(pipeline).__name__, (_Decoder, type(decoder)), {})
    view: Any = object.__new__(kind)
    prior = copy.copy(prior)
    vars(prior)["scheduler"] = copy.deepcopy(prior.scheduler)
    prior.set_progress_bar_config(disable=True)
    vars(view).update({**vars(decoder), "prior": prior})
    return view


class _Decoder:
    """The second model, seen as a pipeline that takes a prompt."""

    prior: Any

    def encode_prompt(self, prompt: list[str], *, null: bool = False) -> tuple[Tensor, ...]:
        """The embedding of an image, by a noise of its own, and the text's own encodings where there are any."""
        generator = Generator().manual_seed(_SEED)
        image, no_image = self.prior(prompt=prompt, generator=generator, output_type="pt", return_dict=False)[:2]
        return no_image if null else image, *self._texts(prompt)

    def _texts(self, prompt: list[str]) -> tuple[Tensor, ...]:
        own: Any = self
        if not hasattr(own, "_encode_prompt"):
            return ()
        found: tuple[Tensor, ...] = own._encode_prompt(prompt, own._execution_device, 1, False)
        return found

    @torch.no_grad()
    def __call__(
        self,
        prompt: list[str],
        height: int = 512,
        width: int = 512,
        guidance_scale: float = 4.0,
        num_inference_steps: int = 100,
        output_type: str = "np",
        return_dict: bool = True,
    ) -> Any:
        """Images of prompts."""
        image, *texts = self.encode_prompt(prompt)
        no_image, *no_texts = self.encode_prompt([""] * len(prompt), null=True) if guidance_scale > 1 else (image,)
        own: dict[str, Any] = {}
        decoder = copy.copy(self)
        if texts:
            pairs = zip(no_texts, texts, strict=True) if no_texts else ()
            given = [torch.cat(pair) for pair in pairs] or texts
            vars(decoder)["_encode_prompt"] = lambda *_, **__: given
            own["prompt"] = prompt
        call = inspect.unwrap(super().__call__.__func__)  # type: ignore[misc]
        return call(
            decoder,
            image_embeds=image,
            negative_image_embeds=no_image,
            height=height,
            width=width,
            guidance_scale=guidance_scale,
            num_inference_steps=num_inference_steps,
            output_type=output_type,
            return_dict=return_dict,
            **own,
        )
