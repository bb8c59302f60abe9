import math
import os
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin
from torch import Tensor

from invmm_eval.audits.images import Source, find_images
from invmm_eval.audits.pictures import ImageLike, prepare
from invmm_eval.audits.request import Request
from invmm_eval.errors import InvMMError
from invmm_eval.search.target import Target

Pixels = NDArray[Any]

HEIGHT, WIDTH = 7, 5


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def noise(*shape: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def grey(source: ImageLike, height: int, width: int) -> list[list[int]]:
    values: list[list[int]] = prepare(source, (1, height, width))[0].tolist()
    return values


def colour(source: ImageLike) -> list[int]:
    """The one colour of an image that is all alike."""
    pixels = prepare(source, (3, 4, 4)).reshape(3, -1)
    assert (pixels == pixels[:, :1]).all()
    values: list[int] = pixels[:, 0].tolist()
    return values


def refusal(source: Any, shape: tuple[int, int, int] = (3, 4, 4)) -> str:
    with pytest.raises(InvMMError) as caught:
        prepare(source, shape)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


# An image at the model's size passes through bit for bit


def through_dataset(image: Image.Image) -> ImageLike:
    rows = datasets.Dataset.from_dict({"x": [image]}, features=datasets.Features({"x": datasets.Image()}))
    return find_images(rows)[0].value


CONTAINERS: dict[str, Callable[[Image.Image], ImageLike]] = {
    "PIL": lambda image: image,
    "PNG bytes": encoded,
    "PNG bytearray": lambda image: bytearray(encoded(image)),
    "PNG memoryview": lambda image: memoryview(encoded(image)),
    "BMP bytes": lambda image: encoded(image, "BMP"),
    "TIFF bytes": lambda image: encoded(image, "TIFF"),
    "opaque RGBA": lambda image: image.convert("RGBA"),
    "mapping": lambda image: {"bytes": encoded(image), "path": None},
    "dataset row": through_dataset,
    "numpy": np.asarray,
    "numpy, not contiguous": lambda image: np.asarray(image)[::-1][::-1],
    "numpy float64": lambda image: np.asarray(image) / 255,
    "torch": lambda image: torch.from_numpy(np.atleast_3d(np.array(image))).movedim(-1, 0),
    "torch float32": lambda image: torch.from_numpy(np.atleast_3d(np.array(image))).movedim(-1, 0) / 255,
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_at_the_models_size_keeps_its_pixels(container: str, channels: int) -> None:
    pixels = noise(HEIGHT, WIDTH, channels)
    image = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)
    prepared = prepare(CONTAINERS[container](image), (channels, HEIGHT, WIDTH))
    assert prepared.dtype == torch.uint8
    assert prepared.is_contiguous()
    np.testing.assert_array_equal(prepared.numpy(), np.transpose(pixels, (2, 0, 1)))


@pytest.mark.parametrize("as_text", [True, False])
@pytest.mark.parametrize("name", ["a.png", "größe 画像 🙂.png", "two\nlines.png", "[1]*.png", "no suffix"])
def test_a_file_of_any_name_keeps_its_pixels(tmp_path: Path, name: str, as_text: bool) -> None:
    pixels = noise(HEIGHT, WIDTH, 3)
    path = tmp_path / name
    path.write_bytes(encoded(Image.fromarray(pixels)))
    (source,) = find_images(str(path) if as_text else path)
    assert source.name == path.as_posix()
    np.testing.assert_array_equal(prepare(source.value, (3, HEIGHT, WIDTH)).numpy(), np.transpose(pixels, (2, 0, 1)))


def test_a_pil_image_stays_open_and_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    frames = [Image.new("L", (4, 4), value) for value in (10, 200)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with Image.open(path) as image:
        prepare(image, (1, 2, 2))
        assert image.size == (4, 4)
        image.seek(1)
        assert np.asarray(image.convert("L")).max() == 200


# Orientation

# What the corners A B / C D of the stored picture show, by the EXIF standard's meaning of each value.
UPRIGHT = {1: "AB CD", 2: "BA DC", 3: "DC BA", 4: "CD AB", 5: "AC BD", 6: "CA DB", 7: "DB CA", 8: "BD AC"}
LETTERS = dict(zip("ABCD", [10, 80, 150, 220], strict=True))


def oriented(image: Image.Image, kind: str, value: int, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return encoded(image, kind, exif=exif, **options)


@pytest.mark.parametrize("value", UPRIGHT)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_exif_orientation_is_applied(value: int, kind: str) -> None:
    stored = Image.fromarray(np.array([[10, 80], [150, 220]], np.uint8))
    shown = [[LETTERS[letter] for letter in row] for row in UPRIGHT[value].split()]
    assert grey(oriented(stored, kind, value), 2, 2) == shown


def test_a_rotated_jpeg_is_upright_before_it_is_cropped() -> None:
    stored = Image.new("RGB", (32, 16), (0, 0, 255))
    stored.paste((255, 0, 0), (0, 0, 16, 16))
    upright = prepare(oriented(stored, "JPEG", 6, quality=100, subsampling=0), (3, 32, 16))
    assert (upright[0, :16] > 250).all()
    assert (upright[2, 16:] > 250).all()
    assert (upright[0, 16:] < 5).all()


def test_damaged_exif_does_not_matter() -> None:
    image = encoded(Image.new("L", (8, 8), 90), "JPEG", exif=b"Exif\0\0no such thing")
    assert grey(image, 1, 1) == [[90]]


# Transparency


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        # value * alpha + 255 * (1 - alpha), by hand
        (Image.new("RGBA", (4, 4), (100, 0, 200, 0)), (255, 255, 255)),
        (Image.new("RGBA", (4, 4), (100, 0, 200, 128)), (177, 127, 227)),
        (Image.new("RGBA", (4, 4), (100, 0, 200, 255)), (100, 0, 200)),
        (Image.new("LA", (4, 4), (100, 51)), (224, 224, 224)),
        (np.full((4, 4, 4), (100, 0, 200, 128), np.uint8), (177, 127, 227)),
        (np.full((4, 4, 2), (100, 51), np.uint8), (224, 224, 224)),
        (torch.tensor([100, 0, 200, 128], dtype=torch.uint8).reshape(4, 1, 1).expand(4, 4, 4), (177, 127, 227)),
    ],
)
def test_transparent_images_are_laid_on_white(image: ImageLike, expected: tuple[int, int, int]) -> None:
    assert colour(image) == pytest.approx(expected, abs=1)


def paletted() -> Image.Image:
    image = Image.fromarray(np.array([[0, 1], [2, 0]], np.uint8)).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    return image


def test_palettes_are_resolved() -> None:
    red, green, blue = [255, 0, 0], [0, 255, 0], [0, 0, 255]
    prepared = prepare(encoded(paletted()), (3, 2, 2)).permute(1, 2, 0).tolist()
    assert prepared == [[red, green], [blue, red]]


@pytest.mark.parametrize(
    "transparency", [1, b"\xff\x00\xff"], ids=["one entry is transparent", "an alpha for each entry"]
)
@pytest.mark.parametrize("kind", ["PNG", "in memory"])
def test_transparent_palette_entries_are_white(transparency: int | bytes, kind: str) -> None:
    image = paletted()
    image.info["transparency"] = transparency
    source = encoded(image, transparency=transparency) if kind == "PNG" else image
    red, white, blue = [255, 0, 0], [255, 255, 255], [0, 0, 255]
    assert prepare(source, (3, 2, 2)).permute(1, 2, 0).tolist() == [[red, white], [blue, red]]


def test_the_transparent_colour_of_an_rgb_png_is_white() -> None:
    pixels = np.array([[[9, 9, 9], [1, 2, 3]]], np.uint8)
    prepared = prepare(encoded(Image.fromarray(pixels), transparency=(1, 2, 3)), (3, 1, 2))
    assert prepared.permute(1, 2, 0).tolist() == [[[9, 9, 9], [255, 255, 255]]]


# Colour and depth


def test_greyscale_becomes_three_equal_channels() -> None:
    pixels = noise(HEIGHT, WIDTH)
    prepared = prepare(pixels, (3, HEIGHT, WIDTH)).numpy()
    np.testing.assert_array_equal(prepared, np.stack([pixels] * 3))


@pytest.mark.parametrize(
    ("rgb", "luma"), [((255, 0, 0), 76), ((0, 255, 0), 150), ((0, 0, 255), 29), ((200, 100, 50), 124)]
)
def test_colour_becomes_luma(rgb: tuple[int, int, int], luma: int) -> None:
    """ITU-R 601: 0.299 R + 0.587 G + 0.114 B."""
    assert grey(Image.new("RGB", (1, 1), rgb), 1, 1) == [[luma]]


def test_cmyk_jpeg() -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert colour(encoded(image, "JPEG", quality=100)) == pytest.approx((255, 0, 0), abs=3)


def test_one_bit_is_black_and_white() -> None:
    image = Image.fromarray(np.array([[True, False]]))
    assert image.mode == "1"
    assert grey(encoded(image), 1, 2) == [[255, 0]]


def test_the_first_frame_of_an_animation_counts() -> None:
    red, blue = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    assert colour(encoded(red, "GIF", save_all=True, append_images=[blue])) == [255, 0, 0]


# v / 65535 * 255 by hand: 128 is 0.498, 129 is 0.502, 32767 is 127.498, 32768 is 127.502.
DEEP = np.array([[0, 128, 129], [32767, 32768, 65535]], np.uint16)
SHALLOW = [[0, 0, 1], [127, 128, 255]]
DEEP_SOURCES: dict[str, ImageLike] = {
    "PNG": encoded(Image.fromarray(DEEP), "PNG"),
    "TIFF": encoded(Image.fromarray(DEEP), "TIFF"),
    "big endian TIFF": encoded(Image.fromarray(DEEP.astype(">u2")), "TIFF"),
    "I TIFF": encoded(Image.fromarray(DEEP.astype(np.int32)), "TIFF"),
    "PIL I;16": Image.fromarray(DEEP),
    "PIL I": Image.fromarray(DEEP.astype(np.int32)),
    "numpy": DEEP,
    "numpy >u2": DEEP.astype(">u2"),
    "torch HW": torch.from_numpy(DEEP),
    "torch CHW": torch.from_numpy(DEEP)[None],
}


@pytest.mark.parametrize("source", DEEP_SOURCES.values(), ids=DEEP_SOURCES)
def test_sixteen_bits_are_scaled_not_clipped(source: ImageLike) -> None:
    assert grey(source, 2, 3) == SHALLOW


def test_sixteen_bit_colour() -> None:
    prepared = prepare(np.stack([DEEP, DEEP[::-1], DEEP], -1), (3, 2, 3))
    assert prepared.tolist() == [SHALLOW, SHALLOW[::-1], SHALLOW]


@pytest.mark.parametrize("value", [-1, 65536])
def test_values_beyond_sixteen_bits_are_refused(value: int) -> None:
    assert "int32" in refusal(Image.fromarray(np.array([[value]], np.int32)))


LEVELS = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_level_survives_as_a_torch_float(dtype: torch.dtype) -> None:
    floats = (torch.from_numpy(LEVELS).double() / 255).to(dtype).requires_grad_()
    expected = (floats.double() * 255).round().tolist()  # bfloat16 itself cannot tell all levels apart
    assert grey(floats, 16, 16) == expected
    if dtype != torch.bfloat16:
        assert expected == LEVELS.tolist()


@pytest.mark.parametrize("dtype", ["f2", "f4", ">f4", "f8"])
def test_every_level_survives_as_a_numpy_float(dtype: str) -> None:
    assert grey((LEVELS / 255).astype(dtype), 16, 16) == LEVELS.tolist()


def test_floats_round_to_the_nearest_level() -> None:
    assert grey(np.array([[0, 0.499 / 255, 0.501 / 255, 1]]), 1, 4) == [[0, 0, 1, 255]]
    assert grey(Image.fromarray(np.array([[0, 0.501 / 255, 1]], np.float32)), 1, 3) == [[0, 1, 255]]


def test_booleans_are_black_and_white() -> None:
    truth = np.array([[True, False], [False, False]])
    assert grey(truth, 2, 2) == grey(torch.from_numpy(truth), 2, 2) == [[255, 0], [0, 0]]


@pytest.mark.parametrize("bad", [-0.01, 1.01, 255.0, math.nan, math.inf, -math.inf])
def test_floats_outside_the_unit_interval_are_refused(bad: float) -> None:
    values = np.full((4, 4), 0.5, np.float32)
    values[2, 1] = bad
    for source in (values, torch.from_numpy(values), Image.fromarray(values)):
        assert "not all in [0, 1]; scale them" in refusal(source)


@pytest.mark.parametrize("dtype", [np.int64, np.int8, np.uint32, np.complex64, object])
def test_other_values_are_refused(dtype: type) -> None:
    assert f"its values are {np.dtype(dtype)}" in refusal(np.ones((4, 4), dtype))


# Layout


@pytest.mark.parametrize(
    ("source", "shape"),
    [
        (np.zeros((2, 4, 4, 3), np.uint8), "(2, 4, 4, 3)"),
        (np.zeros((3, 4, 8), np.uint8), "(3, 4, 8)"),
        (np.zeros(4, np.uint8), "(4,)"),
        (np.zeros((0, 4, 3), np.uint8), "(0, 4, 3)"),
        (np.zeros((4, 4, 0), np.uint8), "(4, 4, 0)"),
        (torch.zeros(1, 3, 4, 4), "(1, 3, 4, 4)"),
        (torch.zeros(8, 4, 3), "(8, 4, 3)"),
        (torch.zeros(3, 0, 4), "(3, 0, 4)"),
        (torch.tensor(0.5), "()"),
    ],
)
def test_what_is_not_one_image_is_refused_by_its_shape(source: ImageLike, shape: str) -> None:
    assert f"its shape {shape} is not that of one image" in refusal(source)


def test_a_pil_image_without_pixels_is_refused() -> None:
    assert "no pixels" in refusal(Image.new("RGB", (0, 5)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU to move a tensor from")
def test_a_tensor_on_the_gpu_comes_to_the_cpu() -> None:
    pixels = torch.from_numpy(noise(3, HEIGHT, WIDTH))
    assert torch.equal(prepare(pixels.cuda(), (3, HEIGHT, WIDTH)), pixels)


# Scaling


@pytest.mark.parametrize(("size", "cut"), [((6, 20), np.s_[:, 7:13]), ((20, 6), np.s_[7:13, :])])
def test_the_longer_side_is_cropped_around_the_centre(size: tuple[int, int], cut: Any) -> None:
    pixels = noise(*size)
    np.testing.assert_array_equal(prepare(pixels, (1, 6, 6))[0].numpy(), pixels[cut])


def lanczos(length: int, out: int) -> Pixels:
    """Weights ``(out, length)`` of a Lanczos filter of three lobes, widened to the scale of the reduction."""
    scale = length / out
    centres = (np.arange(out) + 0.5) * scale
    x = (np.arange(length) + 0.5 - centres[:, None]) / scale
    weights = np.where(abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)
    normalised: Pixels = weights / weights.sum(1, keepdims=True)
    return normalised


def test_reduction_is_lanczos() -> None:
    ramp = np.add.outer(np.arange(36) * 4, np.arange(24) * 3).astype(np.uint8)
    pixels = np.where(ramp > 100, ramp, 255 - ramp).astype(np.uint8)
    expected = lanczos(36, 12) @ pixels @ lanczos(24, 8).T
    prepared = prepare(pixels, (1, 12, 8))[0].numpy()
    np.testing.assert_allclose(prepared, expected.clip(0, 255), atol=1)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (3, 5)])
def test_any_size_covers_the_models(size: tuple[int, int]) -> None:
    assert colour(np.full((*size, 3), (10, 20, 30), np.uint8)) == [10, 20, 30]


# Damage


PHOTO = encoded(Image.fromarray(noise(32, 32, 3)))
MIDDLE = len(PHOTO) // 2


@pytest.mark.parametrize(
    ("contents", "told"),
    [
        (b"", "it is empty"),
        (b"not an image", "it is damaged, or of no image format"),
        (PHOTO[:12], "it is damaged, or of no image format"),
        (PHOTO[:MIDDLE], "runcated"),
        *((encoded(Image.fromarray(noise(64, 64, 3)), kind)[:-700], "") for kind in ("GIF", "WEBP", "TIFF", "BMP")),
        (encoded(Image.fromarray(noise(32, 32, 3)), "JPEG")[:700], "truncated"),
        (PHOTO[:MIDDLE] + bytes(20) + PHOTO[MIDDLE + 20 :], "broken"),
        (encoded(Image.new("RGB", (8, 8)), "EPS"), "PostScript"),
    ],
    ids=[
        "empty",
        "text",
        "head only",
        "truncated PNG",
        "GIF",
        "WebP",
        "TIFF",
        "BMP",
        "truncated JPEG",
        "overwritten",
        "PostScript",
    ],
)
def test_a_damaged_file_is_named(contents: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "my\nphoto.png"
    path.write_bytes(contents)
    for source in (path, str(path), {"bytes": None, "path": str(path)}, {"bytes": contents, "path": str(path)}):
        sentence = refusal(source)
        assert "my\\nphoto.png" in sentence
        assert told in sentence
    assert told in refusal(contents)


def test_a_pil_image_whose_file_is_truncated_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    path.write_bytes(PHOTO[:MIDDLE])
    with Image.open(path) as image:
        assert "cut.png" in refusal(image)
    with Image.open(BytesIO(path.read_bytes())) as image:
        assert refusal(image).startswith("The image cannot be used: ")


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    assert "gone.png' cannot be used: No such file" in refusal(tmp_path / "gone.png")
    assert "Is a directory" in refusal(tmp_path)


def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "secret.png").touch()
    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert "secret.png' cannot be used: Permission denied." in refusal(tmp_path / "secret.png")


@pytest.mark.parametrize("source", [None, 3, {}, {"bytes": None, "path": None}, {"train": []}, [b""]])
def test_what_is_no_image_at_all_is_refused(source: Any) -> None:
    assert "it is not a file, bytes" in refusal(source)


def test_pixels_beyond_pillows_limit_are_refused_before_they_are_decoded(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    def decode(*_: object, **__: object) -> None:
        raise AssertionError("decoded")

    big = Image.new("RGBA", (100, 11))
    deep = encoded(Image.fromarray(np.zeros((100, 11), np.uint16)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    sources: list[ImageLike] = [encoded(big), deep, big, np.asarray(big), torch.zeros(3, 100, 11)]
    with monkeypatch.context() as patched:
        patched.setattr(Image.Image, "convert", decode)
        patched.setattr("PIL.ImageFile.ImageFile.load", decode)
        told = [refusal(source) for source in sources]
    assert all("more than 1,000 pixels: it has 1,100" in sentence for sentence in told)
    assert not recwarn.list
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # Pillow itself refuses twice its limit
    assert "more than 500 pixels" in refusal(deep)
    for allowed in (1100, None):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", allowed)
        assert prepare(deep, (3, 4, 4)).shape == (3, 4, 4)


def with_texts(image: Image.Image, kind: str, where: str) -> bytes:
    """A PNG with a text of 3 MB, before or after its pixels."""
    told = PngImagePlugin.PngInfo()
    if kind == "iCCP":
        return encoded(image, icc_profile=bytes(3_000_000))
    if kind == "iTXt":
        told.add_itxt("workflow", "x" * 3_000_000, zip=True)
    else:
        for number in range(30 if kind == "many tEXt" else 1):
            told.add_text(f"workflow {number}", "x" * 3_000_000, zip=kind == "zTXt")
    png = encoded(image, pnginfo=told)
    if where == "before":
        return png
    plain = encoded(image)
    at = next(at for at in range(8, len(png)) if png[at + 4 : at + 8] in (b"tEXt", b"zTXt", b"iTXt"))
    text = png[at : at + 12 + int.from_bytes(png[at : at + 4])]
    return plain[:-12] + text + plain[-12:]


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize("kind", ["tEXt", "zTXt", "iTXt", "iCCP", "many tEXt"])
def test_long_texts_in_a_png_do_not_matter(kind: str, where: str) -> None:
    if (kind, where) == ("iCCP", "after"):
        return
    pixels = noise(HEIGHT, WIDTH, 3)
    prepared = prepare(with_texts(Image.fromarray(pixels), kind, where), (3, HEIGHT, WIDTH))
    np.testing.assert_array_equal(prepared.numpy(), np.transpose(pixels, (2, 0, 1)))


def test_the_orientation_in_a_text_of_a_png_is_kept() -> None:
    told = PngImagePlugin.PngInfo()
    told.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    stored = encoded(Image.fromarray(np.array([[10, 80]], np.uint8)), pnginfo=told)
    assert grey(stored, 2, 1) == [[10], [80]]


def test_a_pipe_is_refused_and_left_out_of_a_folder(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(PHOTO)
    assert names(tmp_path) == ["b.png"]
    assert "it is a pipe or a device" in refusal(tmp_path / "a.png")


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="counts open files where the system lists them")
@pytest.mark.parametrize("kept", [1, 0.5, 0])
def test_no_file_stays_open(kept: float, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(PHOTO[: int(kept * len(PHOTO))])
    before = len(os.listdir("/dev/fd"))  # noqa: PTH208
    outcomes: list[Tensor | InvMMError] = []
    for _ in range(5):
        try:
            outcomes.append(prepare(path, (3, 4, 4)))
        except InvMMError as error:  # an error that is kept keeps its frames alive
            outcomes.append(error)
    assert len(os.listdir("/dev/fd")) == before  # noqa: PTH208
    assert len(outcomes) == 5


# Finding


def names(*where: Any) -> list[str]:
    return [source.name for source in find_images(*where)]


def not_found(*where: Any) -> str:
    with pytest.raises(InvMMError) as caught:
        find_images(*where)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def test_a_folder_gives_its_image_files_sorted(tmp_path: Path) -> None:
    visible = ["B.JPG", "a.png", "sub/deep/画.WebP", "sub/two\nlines.tiff", "z.jpeg"]
    other = [".hidden.png", ".thumbnails/a.png", "sub/._a.png", "notes.txt", "png", "table.parquet"]
    for name in visible + other:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "folder.png").mkdir()
    assert names(tmp_path) == names(str(tmp_path)) == visible
    assert [source.value for source in find_images(tmp_path)] == [str(tmp_path / name) for name in visible]


def test_a_folder_inside_a_hidden_one_is_listed(tmp_path: Path) -> None:
    folder = tmp_path / ".cache" / "images"
    folder.mkdir(parents=True)
    (folder / "a.png").touch()
    assert names(folder) == ["a.png"]


def test_a_dangling_link_is_listed_and_fails_alone(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "gone")
    assert "No such file" in refusal(find_images(tmp_path)[0].value)


def test_nothing_to_find_is_told(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    assert f"The folder {str(tmp_path)!r} holds no image file" in not_found(tmp_path)
    assert "gone.png' cannot be opened: No such file" in not_found(tmp_path / "gone.png")
    assert "cannot be opened: " in not_found("nul\0byte")
    assert "cannot be opened: " in not_found("x" * 5000)
    assert "no image to audit" in not_found()
    assert "no image to audit" in not_found([])


def test_images_in_memory_are_named_by_position(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.new("L", (4, 4), 7)))
    image, array, tensor = Image.new("L", (4, 4), 7), np.full((4, 4), 7, np.uint8), torch.full((1, 4, 4), 7 / 255)
    images = [image, array, str(path), tensor, path.read_bytes(), {"bytes": path.read_bytes()}]
    expected = ["0", "1", path.as_posix(), "3", "4", "5"]
    assert names(images) == names(*images) == names(images[:3], *images[3:]) == expected
    assert all(colour(source.value) == [7, 7, 7] for source in find_images(images))


def test_captions_may_be_the_texts_themselves() -> None:
    sources = find_images([np.zeros((4, 4), np.uint8), b"other"], captions=["a cat", None])
    assert [(source.name, source.caption) for source in sources] == [("0", "a cat"), ("1", None)]
    with pytest.raises(InvMMError, match="There are 1 captions for 2 images; give one for each"):
        find_images([b"one", b"other"], captions=["a cat"])


def test_one_array_or_tensor_is_one_image() -> None:
    assert names(np.zeros((4, 4, 3), np.uint8)) == names(torch.zeros(3, 4, 4)) == ["0"]


@pytest.mark.parametrize(
    "container",
    [
        lambda paths: iter(paths),
        lambda paths: (path for path in paths),
        lambda paths: paths[0].parent.glob("*.png"),
        lambda paths: set(paths),
        lambda paths: dict.fromkeys(paths).keys(),
        lambda paths: np.array([str(path) for path in paths]),
        lambda paths: [[paths[0]], (paths[1],)],
        lambda paths: pd.Series(paths),
    ],
    ids=["iterator", "generator", "glob", "set", "keys", "array of texts", "nested", "series"],
)
def test_any_list_or_stream_of_images_is_listed(container: Callable[[list[Path]], Any], tmp_path: Path) -> None:
    paths = sorted(captioned(tmp_path, a="one", b="two").glob("*.png"))
    assert sorted(names(container(paths))) == [path.as_posix() for path in paths]
    request = Request.of("model", container(paths))
    assert len(request.sources) == len(replace(request, choices=request.choices).sources) == 2


@pytest.mark.parametrize("nested", [False, True])
def test_an_open_file_is_one_image_however_often_it_is_listed(nested: bool, tmp_path: Path) -> None:
    [path] = captioned(tmp_path, a="one").glob("*.png")
    with path.open("rb") as file:
        for opened in (file, BytesIO(path.read_bytes())):
            request = Request.of("model", [opened] if nested else opened)
            for _ in range(2):
                [source] = request.sources
                assert torch.equal(prepare(source.value, (3, 8, 8)), prepare(path, (3, 8, 8)))


def test_a_batch_is_its_images() -> None:
    pixels = noise(2, HEIGHT, WIDTH, 3)
    for batch in (pixels, torch.from_numpy(pixels).movedim(-1, 1)):
        found = find_images(batch)
        assert [source.name for source in found] == ["0", "1"]
        for source, image in zip(found, pixels, strict=True):
            np.testing.assert_array_equal(prepare(source.value, (3, HEIGHT, WIDTH)).permute(1, 2, 0).numpy(), image)


@pytest.mark.parametrize(
    ("images", "told"),
    [
        (None, "There is no image to audit"),
        (3, "The type int cannot be listed as images; give a folder"),
        ([b"one", 3], "The type int cannot be listed"),
        ("", "name of an image or folder is empty"),
        (datasets.DatasetDict(), "There is no image to audit"),
        (
            pd.DataFrame({"image": ["a.png"]}),
            "The type DataFrame cannot be listed as images; give a datasets.Dataset of it",
        ),
        ({"label": 3}, "There is no image in a row; its columns are label"),
        ({"first": "a.png"}, "There is no image in a row; its columns are first"),
        ({"image": ["a.png"]}, "There is no image in a row; its columns are image"),
        ({}, "There is no image to audit"),
    ],
)
def test_what_holds_no_images_is_told(images: Any, told: str) -> None:
    assert told in not_found(images)


def test_images_are_found_from_another_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captioned(tmp_path, a="one")
    monkeypatch.chdir(tmp_path)
    found = find_images("a.png", ".")
    monkeypatch.chdir("/")
    assert [source.name for source in found] == ["a.png", "a.png"]
    assert all(prepare(source.value, (1, 4, 4)).any() == 0 for source in found)


# Datasets


def table(**columns: Any) -> datasets.Dataset:
    features = {name: datasets.Image() if name in ("image", "mask") else datasets.Value("string") for name in columns}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def painted(*values: int) -> list[dict[str, Any]]:
    return [{"bytes": encoded(Image.new("L", (4, 4), value)), "path": None} for value in values]


def shades(sources: list[Source]) -> list[int]:
    return [colour(source.value)[0] for source in sources]


BROKEN = {"bytes": b"broken", "path": "broken.png"}


def test_a_corrupt_row_fails_alone() -> None:
    rows = table(label=["x", "y", "z", "none"], image=[painted(1)[0], BROKEN, painted(3)[0], None])
    sources = find_images(rows)
    assert [source.name for source in sources] == ["dataset#0", "dataset#1", "dataset#2", "dataset#3"]
    assert shades([sources[0], sources[2]]) == [1, 3]
    assert "'broken.png' cannot be used: it is damaged" in refusal(sources[1].value)
    assert "cannot be used" in refusal(sources[3].value)


def test_the_first_column_of_images_is_taken_and_no_other_is_read() -> None:
    rows = table(label=["x", "y"], image=painted(1, 2), mask=[BROKEN, BROKEN])
    assert shades(find_images(rows)) == [1, 2]


def test_the_datasets_format_order_and_selection_hold() -> None:
    rows = table(image=painted(1, 2, 3)).select([2, 0]).with_format("pandas")
    assert shades(find_images(rows)) == [3, 1]


def test_a_row_travels_to_another_process() -> None:
    sources = pickle.loads(pickle.dumps(find_images(table(image=painted(1, 2)))))
    assert shades(sources) == [1, 2]


def test_a_local_parquet_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "[ab]" / "rows [1].parquet"
    path.parent.mkdir()
    table(label=["a", "b", "c"], image=painted(1, 2, 3), mask=painted(4, 5, 6)).to_parquet(path)
    name = f"dataset:{path}"
    assert shades(find_images(name)) == [1, 2, 3]
    assert names(name) == [f"{path}[train]#0", f"{path}[train]#1", f"{path}[train]#2"]
    assert shades(find_images(f"{name}:train[1:]")) == [2, 3]
    assert shades(find_images(f"{name}:train[:1]+train[2:]:mask")) == [4, 6]
    assert shades(find_images(f"{name}::mask")) == [4, 5, 6]
    monkeypatch.chdir(path.parent)
    assert names("dataset:rows [1].parquet:train[:1]") == ["rows [1].parquet[train[:1]]#0"]


def test_a_local_table_of_paths(tmp_path: Path) -> None:
    for value in (1, 2):
        Image.new("L", (4, 4), value).save(tmp_path / f"{value}.png")
    lines = [f'{{"id": {value}, "file": "{tmp_path.as_posix()}/{value}.png"}}' for value in (1, 2, 3)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    sources = find_images(f"dataset:{tmp_path}/rows.jsonl:train:file")
    assert shades(sources[:2]) == [1, 2]
    assert "3.png' cannot be used: No such file" in refusal(sources[2].value)
    assert "no images in any column; its columns are id, file" in not_found(f"dataset:{tmp_path}/rows.jsonl")


def test_a_local_folder_as_a_dataset_with_splits(tmp_path: Path) -> None:
    for split, value in (("train", 1), ("test", 2)):
        (tmp_path / split).mkdir()
        Image.new("L", (4, 4), value).save(tmp_path / split / "a.png")
    assert shades(find_images(f"dataset:{tmp_path}")) == [1]
    assert shades(find_images(f"dataset:{tmp_path}:test")) == [2]
    assert names(f"dataset:{tmp_path}:test") == [f"{tmp_path}[test]#0"]
    assert "'other'" in not_found(f"dataset:{tmp_path}:other")


def test_rows_and_batches_of_a_dataset_are_its_images() -> None:
    rows = table(label=["x", "y", "z"], image=painted(1, 2, 3))
    assert shades(find_images(rows[0])) == [1]
    assert shades(find_images(rows[1:])) == shades(find_images(list(rows)[1:])) == [2, 3]
    assert shades(find_images(rows["image"])) == shades(find_images(list(rows.to_iterable_dataset()))) == [1, 2, 3]
    assert shades(find_images(rows.with_format("torch")[:2])) == [1, 2]
    named = find_images(rows[:2], rows[2], captions="label")
    assert [(source.name, source.caption) for source in named] == [("0", "x"), ("1", "y"), ("2", "z")]
    with pytest.raises(InvMMError, match="A row has no text in 'text'; its columns are label, image"):
        find_images(rows[0], captions="text")


def test_one_of_several_splits_is_asked_for_and_a_single_one_taken() -> None:
    rows = table(image=painted(1, 2))
    assert shades(find_images(datasets.DatasetDict(train=rows))) == [1, 2]
    told = not_found(datasets.DatasetDict(train=rows, test=rows))
    assert told == "A DatasetDict has several data sets; give one of its splits (train, test), as in images['train']."
    assert shades(find_images(datasets.IterableDatasetDict(train=rows.to_iterable_dataset()))) == [1, 2]


def test_a_configuration_of_a_dataset_is_named_before_its_split(tmp_path: Path) -> None:
    listed = "".join(f"- config_name: {name}\n  data_files: {name}/*.png\n" for name in ("small", "large"))
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{listed}---\n")
    for name, value in (("small", 1), ("large", 2)):
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4), value).save(tmp_path / name / "a.png")
    assert shades(find_images(f"dataset:{tmp_path}:large/train")) == shades(find_images(f"dataset:{tmp_path}:large/"))
    assert names(f"dataset:{tmp_path}:small/train:image") == [f"{tmp_path}[small/train]#0"]
    for text in ("", ":small", ":other/train"):
        told = not_found(f"dataset:{tmp_path}{text}")
        assert f"has several configurations (small, large); name one before its split, as in dataset:{tmp_path}" in told


@pytest.mark.parametrize("text", ["dataset:", "dataset::train", "dataset:x:train["])
def test_a_dataset_text_that_cannot_be_read_is_told(text: str) -> None:
    assert "does not read dataset:NAME" in not_found(text)


def test_what_a_dataset_lacks_is_told(tmp_path: Path) -> None:
    assert "'train' of the dataset" in not_found(f"dataset:{tmp_path}/none/such")
    assert "no images in any column; its columns are label" in not_found(table(label=["a"]))
    assert "no image to audit" in not_found(table(image=[]))
    table(label=["a"], image=painted(1)).to_parquet(tmp_path / "rows.parquet")
    for column in ("picture", "label "):
        told = not_found(f"dataset:{tmp_path}/rows.parquet:train:{column}")
        assert f"no images in {column}; its columns are label, image" in told


# Captions


def captioned(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (folder / f"{name}.png").write_bytes(encoded(Image.new("L", (4, 4))))
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder


def test_captions_lie_beside_image_files(tmp_path: Path) -> None:
    captioned(tmp_path, b="  a blüe heart\n", a="a red cat")
    found = find_images(tmp_path, tmp_path / "b.png", captions=".txt")
    assert [(source.name, source.caption) for source in found] == [
        ("a.png", "a red cat"),
        ("b.png", "a blüe heart"),
        ((tmp_path / "b.png").as_posix(), "a blüe heart"),
    ]
    assert [source.caption for source in find_images(tmp_path)] == [None, None]


def test_captions_are_a_column_of_a_dataset(tmp_path: Path) -> None:
    rows = table(image=painted(1, 2, 3), text=["one", "two", None], tag=["x", "y", "z"])
    assert [source.caption for source in find_images(rows, captions="text")] == ["one", "two", None]
    assert [source.caption for source in find_images(rows.select([1, 0]), captions="tag")] == ["y", "x"]
    assert [source.caption for source in find_images(rows)] == [None] * 3
    rows.to_parquet(tmp_path / "rows.parquet")
    found = find_images(f"dataset:{tmp_path / 'rows.parquet'}:train[1:]", captions="text")
    assert [source.caption for source in found] == ["two", None]
    assert shades(found) == [2, 3]


@pytest.mark.parametrize("kind", ["csv", "parquet", "json", "folder with csv", "folder with jsonl", "pandas"])
def test_texts_of_any_kind_of_table_are_captions(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(Image.new("L", (4, 4), 9)))
    frame = pd.DataFrame({"file_name": ["a.png"], "image": [str(tmp_path / "a.png")], "text": ["a red cat"]})
    where: Any = f"dataset:{tmp_path}/t.{kind}:train:image"
    match kind:
        case "csv":
            frame.to_csv(tmp_path / "t.csv", index=False)
        case "parquet":
            frame.to_parquet(tmp_path / "t.parquet")
        case "json":
            frame.to_json(tmp_path / "t.json", orient="records")
        case "pandas":
            where = datasets.Dataset.from_pandas(frame).cast_column("image", datasets.Image())
        case _:
            where, frame = f"dataset:{tmp_path}", frame.drop(columns="image")
            if kind.endswith("csv"):
                frame.to_csv(tmp_path / "metadata.csv", index=False)
            else:
                frame.to_json(tmp_path / "metadata.jsonl", orient="records", lines=True)
    [source] = find_images(where, captions="text")
    assert (source.caption, *colour(source.value)) == ("a red cat", 9, 9, 9)


def test_captions_may_be_any_list_of_texts() -> None:
    two = [b"one", b"other"]
    for captions in (iter(["a", None]), table(text=["a", None])["text"], np.array(["a", None], object)):
        assert [source.caption for source in find_images(two, captions=captions)] == ["a", None]
    for wrong in (math.nan, "\udcff"):
        with pytest.raises(InvMMError, match=r"A caption is .*, which is no text; give None"):
            find_images(two, captions=["a", wrong])  # type: ignore[list-item]
    with pytest.raises(InvMMError, match="A row has no text in 'text'"):
        find_images({"image": b"one", "text": "\udcff"}, captions="text")


@pytest.mark.parametrize("captions", [5, b"ab"])
def test_captions_that_are_no_list_are_told(captions: Any) -> None:
    with pytest.raises(InvMMError, match="give a list of texts, one for each image"):
        find_images([b"one", b"two"], captions=captions)


def test_captions_beside_images_in_memory_are_told() -> None:
    with pytest.raises(InvMMError, match=r"An image in memory has no '\.txt' beside it; give captions as a list"):
        find_images(Image.new("L", (4, 4)), captions=".txt")


@pytest.mark.parametrize(
    ("captions", "told"),
    [
        (".caption", "The caption of 'a.png' cannot be read (No such file"),
        ("text", "Image files have no column 'text'; name the ending of the text files beside them"),
    ],
)
def test_captions_that_are_not_there_are_told(tmp_path: Path, captions: str, told: str) -> None:
    with pytest.raises(InvMMError, match=re.escape(told)):
        find_images(captioned(tmp_path, a="a red cat"), captions=captions)


@pytest.mark.parametrize("captions", ["words", "image", ".txt"])
def test_a_column_that_holds_no_texts_is_told(captions: str) -> None:
    rows = table(image=painted(1), text=["one"])
    with pytest.raises(InvMMError, match=f"no column of texts '{captions}'; its columns of texts are: text"):
        find_images(rows, captions=captions)


def test_a_caption_that_is_no_text_is_told(tmp_path: Path) -> None:
    text = captioned(tmp_path, a="") / "a.txt"
    text.write_bytes(b"\xff\xfe\x00")
    for _ in range(2):
        with pytest.raises(InvMMError, match=r"The caption of 'a\.png' cannot be read"):
            find_images(tmp_path, captions=".txt")
        text.unlink()
        os.mkfifo(text)  # reading it would never end


def test_the_mark_of_a_byte_order_is_no_part_of_a_caption(tmp_path: Path) -> None:
    (captioned(tmp_path, a="") / "a.txt").write_bytes(b"\xef\xbb\xbfa red cat\n")
    assert [source.caption for source in find_images(tmp_path, captions=".txt")] == ["a red cat"]


@pytest.mark.parametrize("name", ["set.zip", "set.tar.gz", "set.TGZ"])
def test_pictures_that_are_packed_together_are_told(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(InvMMError, match=r"compressed together .* unpack it"):
        find_images(tmp_path / name)


@pytest.mark.parametrize(
    "kind",
    [
        datasets.Value("binary"),
        datasets.Value("large_binary"),
        {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
        {"bytes": datasets.Value("binary"), "width": datasets.Value("int64")},
    ],
)
def test_a_column_of_bytes_holds_images(kind: Any) -> None:
    image = BytesIO()
    Image.new("RGB", (4, 4), (1, 2, 3)).save(image, "PNG")
    stored = {"bytes": image.getvalue(), "path": "a.png", "width": 4}
    value = {name: stored[name] for name in kind} if isinstance(kind, dict) else image.getvalue()
    features = datasets.Features({"hash": datasets.Value("string"), "picture": kind})
    rows = datasets.Dataset.from_dict({"hash": ["x"], "picture": [value]}, features=features)
    [source] = find_images(rows)
    assert prepare(source.value, (3, 4, 4))[:, 0, 0].tolist() == [1, 2, 3]


def test_what_is_wrong_in_a_file_of_a_data_set_is_told(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"image": "a.png"\n')
    with pytest.raises(InvMMError, match=r"cannot be loaded: JSON parse error"):
        find_images(f"dataset:{tmp_path / 't.jsonl'}:train:image")


# Targets


def ramp() -> Tensor:
    return torch.tensor([[[0, 1]], [[2, 3]], [[4, 255]]], dtype=torch.uint8)


def test_the_digest_is_the_hash_of_shape_and_pixels() -> None:
    r"""printf '(3, 1, 2)\x00\x01\x02\x03\x04\xff' | sha256sum"""
    target = Target(ramp(), name="a")
    assert target.digest == "e5309cdd7bc4c258d50ed3cbc20098cf4abe3d359c69fd7edfd08ccc1e05d757"
    assert target.digest is target.digest
    assert Target(ramp().mT.contiguous().mT, name="b", caption="c").digest == target.digest


def test_the_digest_tells_images_apart() -> None:
    changed = ramp()
    changed[2, 0, 1] = 254
    others = [changed, ramp().reshape(3, 2, 1), ramp().flip(0)]
    assert len({Target(image).digest for image in [ramp(), *others]}) == 4


@pytest.mark.parametrize("image", [ramp().float(), ramp()[None], ramp()[0], ramp().to("meta")])
def test_a_target_is_uint8_and_whole(image: Tensor) -> None:
    with pytest.raises(InvMMError, match=r"uint8 tensor \(C, H, W\) on the CPU"):
        Target(image)
