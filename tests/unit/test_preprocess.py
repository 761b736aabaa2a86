"""Pictures as the teacher takes them."""

import io

import numpy as np
import pytest
from PIL import Image

from threedrs.errors import DataError
from threedrs.teachers.preprocess import preprocess_jpeg


def encoded(pixels_HW3: np.ndarray, format: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels_HW3).save(stream, format=format)
    return stream.getvalue()


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (1296, 968, (392, 518)),  # ScanNet: 968 * 518 / 1296 / 14 = 27.6 -> 28 patches
        (640, 480, (392, 518)),  # 27.75
        (518, 518, (518, 518)),
        (480, 640, (518, 518)),  # 691 / 14 = 49.3 -> 686 rows, cropped
        (1000, 100, (56, 518)),  # 3.7
    ],
)
def test_size(width: int, height: int, expected: tuple[int, int]) -> None:
    image = preprocess_jpeg(encoded(noise(height, width), "JPEG"), width=518)
    assert image.shape == (3, *expected)
    assert image.dtype == np.float32
    assert image.min() >= 0
    assert image.max() <= 1


def test_values_without_resizing() -> None:
    pixels = noise(28, 42)
    image = preprocess_jpeg(encoded(pixels), width=42)
    np.testing.assert_array_equal(image, (pixels / 255).astype(np.float32).transpose(2, 0, 1))


def test_rows_are_cropped_in_the_middle() -> None:
    pixels = noise(70, 28)
    image = preprocess_jpeg(encoded(pixels), width=28)
    np.testing.assert_allclose(image, (pixels[21:49] / 255).transpose(2, 0, 1), rtol=1e-6)


def test_resizing_is_bicubic() -> None:
    pixels = noise(56, 56)
    image = preprocess_jpeg(encoded(pixels), width=28)

    def cubic(x: np.ndarray) -> np.ndarray:  # Pillow's a = -0.5, widened by the factor of 2
        x = np.abs(x)
        near = 1.5 * x**3 - 2.5 * x**2 + 1
        far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
        return np.where(x < 1, near, np.where(x < 2, far, 0))

    centres = (np.arange(28) + 0.5) * 2
    weights = cubic((np.arange(56)[None] + 0.5 - centres[:, None]) / 2)
    weights /= weights.sum(axis=1, keepdims=True)
    rounded = np.clip(np.round(np.einsum("ow,hwc->hoc", weights, pixels)), 0, 255)
    expected = np.clip(np.einsum("oh,hwc->owc", weights, rounded), 0, 255) / 255
    np.testing.assert_allclose(image.transpose(1, 2, 0), expected, atol=1.5 / 255)


def test_grey_pictures_have_three_channels() -> None:
    stream = io.BytesIO()
    Image.new("L", (28, 28), 51).save(stream, format="JPEG")
    image = preprocess_jpeg(stream.getvalue(), width=28)
    np.testing.assert_allclose(image, np.full((3, 28, 28), 0.2), atol=1e-6)


@pytest.mark.parametrize("cut", [0, 3, 200])
def test_damaged_pictures_are_named(cut: int) -> None:
    payload = encoded(noise(40, 40), "JPEG")
    with pytest.raises(DataError, match="cannot be decoded"):
        preprocess_jpeg(payload[:cut], width=28)


def test_too_flat_pictures_are_named() -> None:
    with pytest.raises(DataError, match="2000x20 picture is too flat"):
        preprocess_jpeg(encoded(noise(20, 2000)), width=518)
