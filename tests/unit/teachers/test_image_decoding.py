"""Pictures as the teacher takes them."""

import io

import numpy as np
import pytest
from PIL import Image

from threedrs.errors import DataError
from threedrs.teachers.image_decoding import preprocess_image
from threedrs.teachers.teacher import ImageFormat


def encoded(pixels_HW3: np.ndarray, format: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels_HW3).save(stream, format=format)
    return stream.getvalue()


def pictures(width: int, **changes: int | bool) -> ImageFormat:
    return ImageFormat(**({"width": width, "patch": 14} | changes))


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
    image = preprocess_image(encoded(noise(height, width), "JPEG"), pictures(518))
    assert image.shape == (*expected, 3)
    assert image.dtype == np.uint8


def test_values_without_resizing() -> None:
    pixels = noise(28, 42)
    image = preprocess_image(encoded(pixels), pictures(42))
    np.testing.assert_array_equal(image, pixels)


def test_rows_are_cropped_in_the_middle() -> None:
    pixels = noise(70, 28)
    image = preprocess_image(encoded(pixels), pictures(28))
    np.testing.assert_array_equal(image, pixels[21:49])


@pytest.mark.parametrize(("width", "height"), [(432, 1080), (216, 540)])
def test_a_height_between_two_patches_goes_where_the_published_quotient_leads(
    width: int, height: int
) -> None:
    """518 / 432 rounds up in float64, so 1080 rows are a hair more than 92.5 patches: 93."""
    pixels = noise(height, width)
    expected = Image.fromarray(pixels).resize((518, 93 * 14), Image.Resampling.BICUBIC)
    top = (93 * 14 - 518) // 2
    image = preprocess_image(encoded(pixels), pictures(518))
    np.testing.assert_array_equal(image, np.asarray(expected)[top : top + 518])


def test_resizing_is_bicubic() -> None:
    pixels = noise(56, 56)
    image = preprocess_image(encoded(pixels), pictures(28))

    def cubic(x: np.ndarray) -> np.ndarray:  # Pillow's a = -0.5, widened by the factor of 2
        x = np.abs(x)
        near = 1.5 * x**3 - 2.5 * x**2 + 1
        far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
        return np.where(x < 1, near, np.where(x < 2, far, 0))

    centres = (np.arange(28) + 0.5) * 2
    weights = cubic((np.arange(56)[None] + 0.5 - centres[:, None]) / 2)
    weights /= weights.sum(axis=1, keepdims=True)
    rounded = np.clip(np.round(np.einsum("ow,hwc->hoc", weights, pixels)), 0, 255)
    expected = np.clip(np.einsum("oh,hwc->owc", weights, rounded), 0, 255)
    np.testing.assert_allclose(image, expected, atol=1.5)


def test_grey_pictures_have_three_channels() -> None:
    stream = io.BytesIO()
    Image.new("L", (28, 28), 51).save(stream, format="JPEG")
    image = preprocess_image(stream.getvalue(), pictures(28))
    np.testing.assert_array_equal(image, np.full((28, 28, 3), 51))


@pytest.mark.parametrize("cut", [0, 3, 200])
def test_damaged_pictures_are_named(cut: int) -> None:
    payload = encoded(noise(40, 40), "JPEG")
    with pytest.raises(DataError, match="is not a readable image"):
        preprocess_image(payload[:cut], pictures(28))


def test_too_flat_pictures_are_named() -> None:
    with pytest.raises(DataError, match=r"is too flat for a patch \(2000x20\)"):
        preprocess_image(encoded(noise(20, 2000)), pictures(518))


def test_square_pictures_are_squeezed() -> None:
    half = np.zeros((20, 64, 3), dtype=np.uint8)
    half[:, 32:] = 200
    image = preprocess_image(encoded(half), pictures(32, patch=16, square=True))
    assert image.shape == (32, 32, 3)
    assert image[:, :12].max() < 10
    assert image[:, 20:].min() > 190
    assert pictures(32, patch=16, square=True).grid(32) == (2, 2)
    assert pictures(518).grid(392) == (28, 37)
