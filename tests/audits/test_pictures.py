"""A picture of any kind as a model sees it, and one sentence where it cannot be seen."""

import math
import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

from invmm_eval.audits.images import find_images
from invmm_eval.audits.pictures import ImageLike, Late, prepare
from invmm_eval.errors import InvMMError
from tests.helpers.images import encoded, noise

HEIGHT, WIDTH = 7, 5


def shown(source: ImageLike | Late, height: int, width: int, channels: int = 3) -> Any:
    """The pixels ``(H, W, C)``, or ``(H, W)`` of one channel."""
    return prepare(source, (channels, height, width)).permute(1, 2, 0).squeeze(2).numpy()


def refusal(source: Any) -> str:
    with pytest.raises(InvMMError) as caught:
        prepare(source, (3, 4, 4))
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


def through_dataset(image: Image.Image) -> ImageLike | Late:
    rows = datasets.Dataset.from_dict({"x": [image]}, features=datasets.Features({"x": datasets.Image()}))
    return find_images(rows)[0].value


def tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.atleast_3d(np.array(image))).movedim(-1, 0)


CONTAINERS: dict[str, Callable[[Image.Image], ImageLike | Late]] = {
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
    "torch": tensor,
    "torch float32": lambda image: tensor(image) / 255,
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


CORNERS = Image.fromarray(np.array([[10, 80], [150, 220]], np.uint8))
IN_TEXT = PngImagePlugin.PngInfo()
IN_TEXT.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
ORIENTED: dict[str, tuple[ImageLike, Any]] = {
    "text of a PNG": (encoded(Image.fromarray(np.array([[10, 80]], np.uint8)), pnginfo=IN_TEXT), [[10], [80]]),
    **{
        f"{kind} {value}": (oriented(CORNERS, kind, value), [[LETTERS[x] for x in row] for row in corners.split()])
        for value, corners in UPRIGHT.items()
        for kind in ("PNG", "TIFF")
    },
}


# Colour, transparency and depth

RED, GREEN, BLUE, WHITE = [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]
PALETTED = Image.fromarray(np.array([[0, 1], [2, 0]], np.uint8)).convert("P")
PALETTED.putpalette([*RED, *GREEN, *BLUE])
LEVELS = np.arange(256, dtype=np.uint8).reshape(16, 16)
FLOATS = torch.from_numpy(LEVELS).double() / 255
TRUTH = np.array([[True, False], [False, False]])
GREYS = noise(HEIGHT, WIDTH)


def paletted(transparency: int | bytes) -> Image.Image:
    image = PALETTED.copy()
    image.info["transparency"] = transparency
    return image


COLOURS: dict[str, tuple[ImageLike, Any]] = {
    # value * alpha + 255 * (1 - alpha), by hand
    "no alpha": (Image.new("RGBA", (1, 1), (100, 0, 200, 0)), [[WHITE]]),
    "half alpha": (Image.new("RGBA", (1, 1), (100, 0, 200, 128)), [[[177, 127, 227]]]),
    "full alpha": (Image.new("RGBA", (1, 1), (100, 0, 200, 255)), [[[100, 0, 200]]]),
    "grey with alpha": (Image.new("LA", (1, 1), (100, 51)), [[[224, 224, 224]]]),
    "numpy RGBA": (np.full((1, 1, 4), (100, 0, 200, 128), np.uint8), [[[177, 127, 227]]]),
    "numpy LA": (np.full((1, 1, 2), (100, 51), np.uint8), [[[224, 224, 224]]]),
    "torch RGBA": (torch.tensor([100, 0, 200, 128], dtype=torch.uint8).view(4, 1, 1), [[[177, 127, 227]]]),
    "palette": (encoded(PALETTED), [[RED, GREEN], [BLUE, RED]]),
    "palette, one transparent": (paletted(1), [[RED, WHITE], [BLUE, RED]]),
    "palette, alphas": (paletted(b"\xff\x00\xff"), [[RED, WHITE], [BLUE, RED]]),
    "PNG palette, one transparent": (encoded(PALETTED, transparency=1), [[RED, WHITE], [BLUE, RED]]),
    "PNG palette, alphas": (encoded(PALETTED, transparency=b"\xff\x00\xff"), [[RED, WHITE], [BLUE, RED]]),
    "a transparent colour": (
        encoded(Image.fromarray(np.array([[[9, 9, 9], [1, 2, 3]]], np.uint8)), transparency=(1, 2, 3)),
        [[[9, 9, 9], WHITE]],
    ),
    "grey as colour": (GREYS, np.stack([GREYS] * 3, -1)),
    # ITU-R 601: 0.299 R + 0.587 G + 0.114 B
    "luma of red": (Image.new("RGB", (1, 1), (255, 0, 0)), [[76]]),
    "luma of green": (Image.new("RGB", (1, 1), (0, 255, 0)), [[150]]),
    "luma of blue": (Image.new("RGB", (1, 1), (0, 0, 255)), [[29]]),
    "luma": (Image.new("RGB", (1, 1), (200, 100, 50)), [[124]]),
    "CMYK JPEG": (encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100), [[[254, 0, 0]]]),
    "damaged EXIF": (encoded(Image.new("L", (8, 8), 90), "JPEG", exif=b"Exif\0\0no such thing"), [[90]]),
    "one bit": (encoded(Image.fromarray(TRUTH)), [[255, 0], [0, 0]]),
    "bool": (TRUTH, [[255, 0], [0, 0]]),
    "torch bool": (torch.from_numpy(TRUTH), [[255, 0], [0, 0]]),
    "first frame": (
        encoded(Image.new("L", (4, 4), 9), "GIF", save_all=True, append_images=[Image.new("L", (4, 4), 99)]),
        [[9]],
    ),
    "floats are rounded": (np.array([[0, 0.499 / 255, 0.501 / 255, 1]]), [[0, 0, 1, 255]]),
    "PIL floats are rounded": (Image.fromarray(np.array([[0, 0.501 / 255, 1]], np.float32)), [[0, 1, 255]]),
    **{f"numpy {kind}": ((LEVELS / 255).astype(kind), LEVELS) for kind in ("f2", "f4", ">f4", "f8")},
    **{
        f"torch {kind}": (FLOATS.to(kind, copy=True).requires_grad_(), LEVELS)
        for kind in (torch.float16, torch.float32, torch.float64)
    },
    "torch bfloat16, which cannot tell all levels apart": (
        FLOATS.bfloat16(),
        (FLOATS.bfloat16().double() * 255).round().numpy(),
    ),
}


# v / 65535 * 255 by hand: 128 is 0.498, 129 is 0.502, 32767 is 127.498, 32768 is 127.502.
DEEP = np.array([[0, 128, 129], [32767, 32768, 65535]], np.uint16)
SHALLOW = np.array([[0, 0, 1], [127, 128, 255]])
DEPTHS: dict[str, tuple[ImageLike, Any]] = {
    "PNG": (encoded(Image.fromarray(DEEP)), SHALLOW),
    "TIFF": (encoded(Image.fromarray(DEEP), "TIFF"), SHALLOW),
    "big endian TIFF": (encoded(Image.fromarray(DEEP.astype(">u2")), "TIFF"), SHALLOW),
    "I TIFF": (encoded(Image.fromarray(DEEP.astype(np.int32)), "TIFF"), SHALLOW),
    "PIL I;16": (Image.fromarray(DEEP), SHALLOW),
    "PIL I": (Image.fromarray(DEEP.astype(np.int32)), SHALLOW),
    "numpy": (DEEP, SHALLOW),
    "numpy >u2": (DEEP.astype(">u2"), SHALLOW),
    "torch HW": (torch.from_numpy(DEEP), SHALLOW),
    "torch CHW": (torch.from_numpy(DEEP)[None], SHALLOW),
    "numpy HWC": (np.stack([DEEP, DEEP[::-1], DEEP], -1), np.stack([SHALLOW, SHALLOW[::-1], SHALLOW], -1)),
}

# The longer side is cropped around the centre; any size covers the model's.
WIDE, HIGH = noise(6, 20), noise(20, 6)
SIZES: dict[str, tuple[ImageLike, Any]] = {
    "wide": (WIDE, WIDE[:, 7:13]),
    "high": (HIGH, HIGH[7:13]),
    **{
        str(size): (np.full((*size, 3), (10, 20, 30), np.uint8), np.full((4, 4, 3), (10, 20, 30)))
        for size in ((1, 1), (1, 300), (300, 1), (3, 5))
    },
}
CASES = {
    f"{table}: {name}": case
    for table, cases in {"orientation": ORIENTED, "colour": COLOURS, "16 bits": DEPTHS, "size": SIZES}.items()
    for name, case in cases.items()
}


@pytest.mark.parametrize(("source", "expected"), CASES.values(), ids=CASES)
def test_an_image_is_upright_on_white_and_of_8_bits(source: ImageLike, expected: Any) -> None:
    pixels = np.array(expected)
    found = shown(source, len(pixels), len(pixels[0]), 3 if pixels.ndim == 3 else 1)
    np.testing.assert_allclose(found.astype(int), pixels, atol=1 if pixels.size == 3 else 0)


def test_a_rotated_jpeg_is_upright_before_it_is_cropped() -> None:
    stored = Image.new("RGB", (32, 16), (0, 0, 255))
    stored.paste((255, 0, 0), (0, 0, 16, 16))
    upright = prepare(oriented(stored, "JPEG", 6, quality=100, subsampling=0), (3, 32, 16))
    assert (upright[0, :16] > 250).all()
    assert (upright[2, 16:] > 250).all()
    assert (upright[0, 16:] < 5).all()


def lanczos(length: int, out: int) -> Any:
    """Weights ``(out, length)`` of a Lanczos filter of three lobes, widened to the scale of the reduction."""
    scale = length / out
    centres = (np.arange(out) + 0.5) * scale
    x = (np.arange(length) + 0.5 - centres[:, None]) / scale
    weights = np.where(abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)
    return weights / weights.sum(1, keepdims=True)


def test_reduction_is_lanczos() -> None:
    ramp = np.add.outer(np.arange(36) * 4, np.arange(24) * 3).astype(np.uint8)
    pixels = np.where(ramp > 100, ramp, 255 - ramp).astype(np.uint8)
    expected = lanczos(36, 12) @ pixels @ lanczos(24, 8).T
    np.testing.assert_allclose(shown(pixels, 12, 8, 1), expected.clip(0, 255), atol=1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU to move a tensor from")
def test_a_tensor_on_the_gpu_comes_to_the_cpu() -> None:
    pixels = torch.from_numpy(noise(3, HEIGHT, WIDTH))
    assert torch.equal(prepare(pixels.cuda(), (3, HEIGHT, WIDTH)), pixels)


# What is no image


def with_value(value: float) -> Any:
    values = np.full((4, 4), 0.5, np.float32)
    values[2, 1] = value
    return values


NOTHING: list[Any] = [None, 3, {}, {"bytes": None, "path": None}, {"train": []}, [b""]]
REFUSED: list[tuple[Any, str]] = [
    *((source, "it is not a file, bytes") for source in NOTHING),
    *((np.ones((4, 4), kind), f"its values are {np.dtype(kind)}") for kind in (np.int64, np.int8, np.uint32, object)),
    *((Image.fromarray(np.array([[value]], np.int32)), "its values are int32") for value in (-1, 65536)),
    *((with_value(value), "not all in [0, 1]; scale them") for value in (-0.01, 1.01, 255.0)),
    *((with_value(value), "are not finite") for value in (math.nan, math.inf)),
    (torch.from_numpy(with_value(-math.inf)), "are not finite"),
    (Image.fromarray(with_value(math.nan)), "are not finite"),
    *(
        (np.zeros(shape, np.uint8), f"its shape {shape} is not that of one image")
        for shape in ((2, 4, 4, 3), (3, 4, 8), (4,), (0, 4, 3), (4, 4, 0))
    ),
    *(
        (torch.zeros(shape), f"its shape {shape} is not that of one image")
        for shape in ((1, 3, 4, 4), (8, 4, 3), (3, 0, 4), ())
    ),
    (Image.new("RGB", (0, 5)), "it has no pixels"),
]


@pytest.mark.parametrize(("source", "told"), REFUSED)
def test_what_is_not_one_image_is_told(source: Any, told: str) -> None:
    assert told in refusal(source)


PHOTO = encoded(Image.fromarray(noise(32, 32, 3)))
MIDDLE = len(PHOTO) // 2
DAMAGED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "it is empty"),
    "text": (b"not an image", "it is damaged, or of no image format"),
    "head only": (PHOTO[:12], "it is damaged, or of no image format"),
    "truncated PNG": (PHOTO[:MIDDLE], "runcated"),
    **{kind: (encoded(Image.fromarray(noise(64, 64, 3)), kind)[:-700], "") for kind in ("GIF", "WEBP", "TIFF", "BMP")},
    "truncated JPEG": (encoded(Image.fromarray(noise(32, 32, 3)), "JPEG")[:700], "truncated"),
    "overwritten": (PHOTO[:MIDDLE] + bytes(20) + PHOTO[MIDDLE + 20 :], "broken"),
    "PostScript": (encoded(Image.new("RGB", (8, 8)), "EPS"), "PostScript"),
}


@pytest.mark.parametrize(("contents", "told"), DAMAGED.values(), ids=DAMAGED)
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


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    assert "gone.png' cannot be used: No such file" in refusal(tmp_path / "gone.png")
    assert "Is a directory" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")  # reading it would never end
    assert "it is a pipe or a device" in refusal(tmp_path / "pipe.png")
    (tmp_path / "secret.png").touch()
    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert "secret.png' cannot be used: Permission denied." in refusal(tmp_path / "secret.png")


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


def with_texts(image: Image.Image, kind: str) -> bytes:
    """A PNG with texts of 3 MB, or with a colour profile as long."""
    told = PngImagePlugin.PngInfo()
    if kind == "iCCP":
        return encoded(image, icc_profile=bytes(3_000_000))
    if kind == "iTXt":
        told.add_itxt("workflow", "x" * 3_000_000, zip=True)
    for number in range({"tEXt": 1, "zTXt": 1, "many tEXt": 30}.get(kind, 0)):
        told.add_text(f"workflow {number}", "x" * 3_000_000, zip=kind == "zTXt")
    return encoded(image, pnginfo=told)


@pytest.mark.parametrize("kind", ["tEXt", "zTXt", "iTXt", "iCCP", "many tEXt"])
def test_long_texts_in_a_png_do_not_matter(kind: str) -> None:
    pixels = noise(HEIGHT, WIDTH, 3)
    png, plain = with_texts(Image.fromarray(pixels), kind), encoded(Image.fromarray(pixels))
    head, end = 33, 12  # the bytes before the first text, and those of the last chunk
    after = plain[:-end] + png[head : head + len(png) - len(plain)] + plain[-end:]
    for contents in (png, png if kind == "iCCP" else after):
        np.testing.assert_array_equal(shown(contents, HEIGHT, WIDTH), pixels)


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
