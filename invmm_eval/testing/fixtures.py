"""Pytest fixtures for plugins: small real models and pictures.

Pytest loads this module wherever invmm_eval is installed, so it imports nothing heavy before a test needs it.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from invmm_eval.reference import Picture


@pytest.fixture(scope="session")
def planted_images() -> "list[Picture]":
    """Three pictures that the reference model's training set held 256 times each, then three that it did not hold."""
    from invmm_eval.reference import pictures

    repeated = [picture for picture in pictures() if picture.copies == 256]
    held_out = [picture for picture in pictures() if picture.copies == 0]
    return [*repeated[:3], *held_out[:3]]


def _saved(name: str) -> Any:
    """A fixture ``NAME_folder``: the pipeline of that name in :mod:`invmm_eval.testing.tiny`, saved."""

    @pytest.fixture(scope="session", name=f"{name}_folder")
    def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
        from invmm_eval.testing import tiny

        path = tmp_path_factory.mktemp(name) / "model"
        getattr(tiny, name)().save_pretrained(path)
        return path

    return folder


tiny_ddpm_folder = _saved("tiny_ddpm")
tiny_ldm_folder = _saved("tiny_ldm")
tiny_stable_diffusion_folder = _saved("tiny_stable_diffusion")
tiny_sdxl_folder = _saved("tiny_sdxl")
tiny_sd3_folder = _saved("tiny_sd3")
tiny_flux_folder = _saved("tiny_flux")
tiny_pixart_folder = _saved("tiny_pixart")
