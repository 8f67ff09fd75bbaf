"""The one way from whatever an image is given as to upright 8-bit RGB: a file, its bytes, PIL, an array, a tensor."""

from __future__ import annotations

import hashlib
import io
import struct
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from occluded_reid.arguments import checked, is_several, shown
from occluded_reid.errors import ImageError, MaskError, ShapeError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "MAX_PIXELS",
    "TAKEN",
    "THUMBNAIL",
    "Channels",
    "ImageLike",
    "Images",
    "as_list",
    "decode",
    "few_at_a_time",
    "file_behind",
    "hash_pixels",
    "is_image",
    "name_of",
    "open_file",
    "require_channels",
    "to_rgb",
    "to_rgba",
    "to_thumbnail",
]

MAX_PIXELS = 64_000_000
"""Larger images are refused before they are decoded: a crop of a person never is, a decompression bomb always."""

THUMBNAIL = 1280
"""Pixels of a side beyond which no image is drawn anywhere."""

ImageLike: TypeAlias = "str | Path | bytes | bytearray | memoryview | Image.Image | np.ndarray | Tensor"
"""An image as every door takes it.

A path; the bytes of a file; a PIL image; a uint8 array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); a tensor (C, H, W) or
(H, W, C) of 1 or 3 channels, or (H, W): uint8, or floats in [0, 1].
"""

Images: TypeAlias = "ImageLike | Iterable[ImageLike]"
"""One image or several; an array or a tensor of four axes is several."""

Channels = Literal["rgb", "bgr"]
"""In which order arrays and tensors hold their colours: OpenCV's is "bgr"."""

_DAMAGE = (OSError, SyntaxError, ValueError, TypeError, EOFError, IndexError, KeyError, struct.error, zlib.error)
"""What Pillow's decoders raise on damaged files."""

TAKEN = "a path, the bytes of a file, a PIL image, a uint8 array (H, W, 3), or a tensor (3, H, W)"
"""What is taken as an image, for messages."""

_Refusal = type[ImageError] | type[MaskError]
_BYTES = bytes | bytearray | memoryview
_HELD = 64  # pictures held at their own size at a time …
_HELD_PIXELS = 16_000_000  # … and their pixels, beyond which no further one is added
_LARGE = 1_000_000  # pixels of a PIL image from which on it is not decoded where it lies
_ROWS = 256  # of deep grey scaled at a time
# EXIF tag 0x0112: 1 is upright, 2 … 8 are these operations away from it.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@checked(ShapeError, only=("name", "max_pixels"))
def to_rgb(
    image: ImageLike, *, name: str | None = None, channels: Channels = "rgb", max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Return any image as 8-bit RGB, upright as its EXIF orientation says; what is given is not changed.

    The same image as a file, as its bytes, and as ``Image.open(file)`` gives the same pixels; so do an array and a
    tensor of those pixels. Transparency is laid on white; CMYK and palettes are converted; of several frames the first
    is taken (of a PIL image the one it stands at). Grey of 16 bits is scaled so that 65,535 becomes 255. Wider integers
    and floats have no agreed white: it is the smallest of 1 (floats only), 255 (floats only), 65,535 and 2³¹ - 1 that
    no pixel exceeds. Arrays and tensors carry no EXIF: they are taken to be upright.

    Args:
        image: see `ImageLike`. A PIL image that still carries an EXIF orientation is turned by it; where it was turned
            by hand, take the tag away (`PIL.ImageOps.exif_transpose` does both).
        name: what messages call it; by default its path, or what it is.
        channels: the order of an array's or a tensor's colours. Files and PIL images say their own order: "bgr" is
            refused for them.
        max_pixels: images with more pixels are refused, files before they are decoded.

    Returns:
        RGB, without EXIF or other information, so that a second conversion changes nothing.

    Raises:
        ImageError: the image is missing, empty, truncated, too large, or no image; it is named.
        ShapeError: an array or a tensor has another type or shape, or nothing that is taken was given.

    Example:
        >>> to_rgb(np.full((2, 1, 3), [0, 0, 255], np.uint8), channels="bgr").getpixel((0, 0))
        (255, 0, 0)
    """
    require_channels(channels)
    called = name or _called(image)
    if isinstance(image, np.ndarray) or _is_tensor(image):
        return _from_array(image, called, channels, max_pixels)
    if channels != "rgb":
        raise ShapeError(
            f"channels={channels!r} is about arrays and tensors, and {called} is {_kind(image)}, which says the order "
            "of its colours itself. Leave channels out for it."
        )
    if isinstance(image, Image.Image):
        return _from_pil(image, called, max_pixels)
    if isinstance(image, str | Path | _BYTES):
        with open_file(image, max_pixels, ImageError, called) as opened:
            decode(opened, called, ImageError)
            return _plain(opened, called)
    raise ShapeError(f"{called} is {type(image).__name__}; an image is given as {TAKEN}.")


def to_rgba(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> tuple[Image.Image, bool, str]:
    """Return a file as upright 8-bit RGBA, its transparency kept; whether it has any; and the mode it is stored in.

    Raises:
        ImageError: the file is missing, empty, truncated, too large, or no image; it is named.
    """
    called = f"'{path}'"
    with open_file(path, max_pixels, ImageError, called) as opened:
        decode(opened, called, ImageError)
        clear = opened.has_transparency_data
        picture = _turned(_converted(opened, "RGBA", called), opened) if clear else _plain(opened, called)
        return picture.convert("RGBA"), clear, opened.mode


def to_thumbnail(image: ImageLike, side: int = THUMBNAIL, *, name: str | None = None) -> Image.Image:
    """Return any image as RGB that fits into a square, for pictures: a large JPEG is decoded at a smaller size.

    An image that fits already is what `to_rgb` gives. Never embed one of these: its pixels are others.

    Args:
        image: see `to_rgb`.
        side: pixels of the square.
        name: what messages call it.

    Raises:
        ImageError, ShapeError: as `to_rgb`.
    """
    if isinstance(image, str | Path):
        called = name or _called(image)
        with open_file(image, MAX_PIXELS, ImageError, called) as opened:
            if opened.mode == "RGB":  # else the colours of a CMYK picture would come out otherwise
                opened.draft("RGB", (side, side))
            decode(opened, called, ImageError)
            picture = _plain(opened, called)
    else:
        picture = to_rgb(image, name=name)
    if max(picture.size) <= side:
        return picture
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def is_image(thing: object) -> bool:
    """Whether a thing is of a kind that `to_rgb` takes."""
    return isinstance(thing, str | Path | Image.Image | np.ndarray | _BYTES) or _is_tensor(thing)


def require_channels(channels: str) -> None:
    """Refuse an order of colours that is none.

    Raises:
        ShapeError: it is neither "rgb" nor "bgr".
    """
    if not isinstance(channels, str) or channels not in ("rgb", "bgr"):
        raise ShapeError(f"channels is {shown(channels)}; give 'rgb', or 'bgr' for arrays as OpenCV makes them.")


def as_list(images: Images, channels: Channels = "rgb") -> list[ImageLike]:
    """Return one image or several as a list, arrays and tensors in the order R, G, B from here on.

    Args:
        images: one image; a sequence of images; or an array or a tensor of four axes, along the first.
        channels: the order of arrays and tensors.

    Raises:
        ShapeError: "bgr" was said, and an image is none of the two.
    """
    require_channels(channels)
    given: Any = images
    single = isinstance(given, str | Path | Image.Image | _BYTES)
    if isinstance(given, np.ndarray):
        single = given.ndim in (2, 3) and given.dtype.kind not in "OU"
    elif _is_tensor(given):
        single = given.ndim < 4
    if not single and (not is_several(given) or hasattr(given, "read")):  # lines of an open file are no images
        raise ShapeError(f"images is {shown(given)}; an image is given as {TAKEN}, and several in a list.")
    several: list[Any] = [given] if single else list(given)
    return several if channels == "rgb" else [_swapped(image, number) for number, image in enumerate(several)]


def few_at_a_time(
    images: Iterable[ImageLike], channels: Channels = "rgb", *, names: Sequence[str] | None = None
) -> Iterator[list[Image.Image]]:
    """Yield images as RGB pictures in order: at most 64 at a time, and no further one beyond 16 million pixels.

    A list is emptied when the next one is asked for: whoever wants to keep a picture takes it out.

    Args:
        images: of any kind.
        channels: the order of arrays and tensors.
        names: what messages call them; by default their paths, or their places.

    Raises:
        ImageError, ShapeError: as `to_rgb`.
    """
    held: list[Image.Image] = []
    total = 0
    for number, image in enumerate(images):
        held.append(to_rgb(image, name=name_of(image, number, names), channels=channels))
        total += held[-1].width * held[-1].height
        if len(held) >= _HELD or total >= _HELD_PIXELS:
            yield held
            held.clear()
            total = 0
    if held:
        yield held


def name_of(image: ImageLike, number: int, names: Sequence[str] | None = None) -> str:
    """Return what messages call an image of several: its name, else its path, else its place."""
    if names is not None:
        return f"'{names[number]}'"
    return f"'{image}'" if isinstance(image, str | Path) else f"images[{number}]"


def hash_pixels(picture: Image.Image) -> str:
    """Return the sha256 of shape and RGB pixels: the same for a file, a PIL image, an array and a tensor of them."""
    pixels: np.ndarray = np.ascontiguousarray(np.asarray(picture))
    digest = hashlib.sha256(f"{pixels.dtype.str} {pixels.shape}".encode())
    digest.update(pixels.data)
    return digest.hexdigest()


def file_behind(image: ImageLike) -> bytes | Path | None:
    """Return what a PIL image was opened from: its bytes where it has not been decoded yet, or its file; or None.

    Whether the file still holds that picture has to be looked at: the image may have been changed since.
    """
    if not isinstance(image, ImageFile.ImageFile):
        return None
    content = _unread(image)
    if content is not None:
        return content
    file = getattr(image, "filename", "")
    return Path(file) if file and isinstance(file, str) else None


def open_file(source: str | Path | _BYTES, max_pixels: int, error: _Refusal, called: str) -> Image.Image:
    """Read the header of a file, or of its bytes, and refuse it by size.

    Raises:
        error: it is missing, empty, no image, or too large.
    """
    try:
        image = Image.open(source if isinstance(source, str | Path) else io.BytesIO(source))
    # Pillow warns from 89 million pixels on and raises from twice that; where a caller makes warnings errors, both
    # arrive here. (Silencing the warning here would change the filters of other threads, which decode images too.)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as cause:
        raise error(f"{called} is too large: {cause} Scale it down, or cut the person out of it.") from cause
    except FileNotFoundError as cause:
        raise error(f"{called} does not exist. Look at the path, or at the list that names it.") from cause
    except UnidentifiedImageError as cause:
        size = Path(source).stat().st_size if isinstance(source, str | Path) else len(source)
        kind = "is empty" if size == 0 else "is not an image that can be read"
        raise error(f"{called} {kind}. Copy it again, convert it to PNG or JPEG, or remove it.") from cause
    except _DAMAGE as cause:
        if isinstance(source, str | Path) and Path(source).is_dir():
            raise error(
                f"{called} is a folder, and an image is wanted. Give the images in it: "
                f"sorted(Path({str(source)!r}).rglob('*.jpg')); `occluded-reid index` takes whole folders."
            ) from cause
        reason = (cause.strerror if isinstance(cause, OSError) else None) or cause
        raise error(f"{called} cannot be opened: {reason}. Look at the file and its permissions.") from cause
    try:
        _require_size(image.size, max_pixels, error, called)
    except error:
        image.close()
        raise
    return image


def decode(image: Image.Image, called: str, error: _Refusal) -> None:
    """Decode an image.

    Raises:
        error: it is damaged or cut short.
    """
    try:
        image.load()
    except _DAMAGE as cause:
        raise error(f"{called} is damaged or truncated: {cause}. Copy or make it again, or remove it.") from cause


def _from_pil(image: Image.Image, called: str, max_pixels: int) -> Image.Image:
    _require_size(image.size, max_pixels, ImageError, called)
    large = image.width * image.height > _LARGE
    content = _unread(image) if large and isinstance(image, ImageFile.ImageFile) else None
    if content is None:
        decode(image, called, ImageError)
        return _plain(image, called)
    # A photograph that was opened and not yet decoded is decoded beside it: a caller's list of them stays small.
    with open_file(content, max_pixels, ImageError, called) as beside:
        same = (beside.size, beside.mode) == (image.size, image.mode)
        if same:
            decode(beside, called, ImageError)
            return _plain(beside, called)
    decode(image, called, ImageError)  # draft() has chosen another size
    return _plain(image, called)


def _unread(image: ImageFile.ImageFile) -> bytes | None:
    """The bytes of an image that has been opened and not decoded; None where they are not to be had any more."""
    file = getattr(image, "fp", None)
    if not image.tile or file is None or getattr(image, "closed", False):
        return None
    try:
        if image.tell() != 0 or not file.seekable():
            return None
        place = file.tell()
        try:
            file.seek(0)
            return bytes(file.read())
        finally:
            file.seek(place)
    except (AttributeError, OSError, ValueError, EOFError):
        return None


def _plain(image: Image.Image, called: str) -> Image.Image:
    """A decoded image of any mode as upright RGB that carries nothing but its pixels."""
    if image.mode.startswith("I") or image.mode == "F":
        return _turned(_from_deep_grey(image, called), image)
    clear = image.has_transparency_data
    if image.mode == "RGB" and not clear and type(image) is Image.Image and not image.info:
        return image
    layer = _converted(image, "RGBA" if clear else "RGB", called)
    if clear:
        layer = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return _turned(layer, image)


def _converted(image: Image.Image, mode: str, called: str) -> Image.Image:
    try:
        return image.convert(mode)
    except ValueError as cause:
        raise ImageError(f"{called} has colour mode {image.mode}, which is not read. Save it as RGB.") from cause


def _turned(layer: Image.Image, image: Image.Image) -> Image.Image:
    """A copy of an image's pixels as its EXIF says they stand upright; damaged EXIF says nothing about it."""
    try:
        value = image.getexif().get(0x0112)
    except _DAMAGE:
        value = None
    turn = _UPRIGHT.get(value) if isinstance(value, int) else None
    upright = layer if turn is None else layer.transpose(turn)
    upright.info = {}  # else it would be turned again by whoever converts it next
    return upright


def _from_deep_grey(image: Image.Image, called: str) -> Image.Image:
    """Scale grey of more than 8 bits to 8; Pillow's own conversion would clip at 255."""
    values = np.asarray(image)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ImageError(f"{called} holds pixels that are NaN or infinite. Save it as an 8- or 16-bit image.")
    whites = (1.0, 255.0, 65535.0) if image.mode == "F" else (65535.0,)
    top = float(values.max(initial=0))
    white = next((white for white in whites if top <= white), max(top, 2.0**31 - 1))
    grey = np.empty(values.shape, dtype=np.uint8)
    for start in range(0, len(values), _ROWS):
        part = values[start : start + _ROWS].astype(np.float64)
        grey[start : start + _ROWS] = (part.clip(0, white) * (255.0 / white)).round()
    return Image.fromarray(grey).convert("RGB")


def _from_array(image: Any, called: str, channels: Channels, max_pixels: int) -> Image.Image:
    """An array or a tensor."""
    if 0 in image.shape:
        raise ImageError(
            f"{called} has no pixels: its shape is {tuple(image.shape)}. A box outside of its frame cuts out nothing; "
            "leave it out."
        )
    array = _from_tensor(image, called) if _is_tensor(image) else image
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ShapeError(
            f"{called} is an array of {array.dtype} {array.shape}; wanted uint8 array (H, W, 3), or (H, W) for grey, "
            "(H, W, 4) with transparency. Scale floats to 0 … 255 and cast them to uint8; colours come last."
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    _require_size((array.shape[1], array.shape[0]), max_pixels, ImageError, called)
    if channels == "bgr" and array.ndim == 3:
        array = array[..., _swap(array.shape[2])]
    return _plain(Image.fromarray(np.ascontiguousarray(array)), called)


def _from_tensor(tensor: Any, called: str) -> np.ndarray:
    """A tensor as a uint8 array (H, W) or (H, W, C); shape and type are looked at by whoever takes the array."""
    import torch

    if tensor.dtype != torch.uint8 and not tensor.is_floating_point():
        raise ShapeError(f"{called} is a tensor of {tensor.dtype}; give uint8, or floats in [0, 1].")
    tensor = tensor.detach()
    if tensor.is_floating_point():
        low, high = tensor.amin().item(), tensor.amax().item()
        if not (low >= 0.0 and high <= 1.0):  # NaN is not
            raise ShapeError(
                f"{called} is a tensor of {tensor.dtype} in {low:g} … {high:g}; floats must lie in [0, 1]. Undo the "
                "normalisation, divide by 255, or cast to uint8."
            )
        tensor = (tensor.float() * 255).round().to(torch.uint8)
    if tensor.ndim == 2:
        return np.asarray(tensor.cpu().numpy())
    axis = _channel_axis(tensor)
    if axis is None:
        both = tensor.ndim == 3 and tensor.shape[0] in (1, 3) and tensor.shape[-1] in (1, 3)
        raise ShapeError(
            f"{called} is a tensor of shape {tuple(tensor.shape)}, "
            + ("which may be (C, H, W) or (H, W, C)" if both else "wanted (C, H, W) or (H, W, C) with 1 or 3 channels")
            + ". Give an array (H, W, 3) instead: tensor.permute(1, 2, 0).numpy() where the colours come first."
        )
    return np.asarray((tensor if axis == 2 else tensor.permute(1, 2, 0)).cpu().numpy())


def _channel_axis(tensor: Any) -> int | None:
    """Where the colours of a tensor lie, 0 or 2; None where that cannot be told."""
    if tensor.ndim != 3 or (tensor.shape[0] in (1, 3)) == (tensor.shape[2] in (1, 3)):
        return None
    return 0 if tensor.shape[0] in (1, 3) else 2


def _swapped(image: Any, number: int) -> Any:
    """A "bgr" array or tensor in the order R, G, B; what is neither in shape nor in type is left to be refused."""
    if isinstance(image, np.ndarray):
        return image[..., _swap(image.shape[2])] if image.ndim == 3 and image.shape[2] in (3, 4) else image
    if _is_tensor(image):
        axis = _channel_axis(image)
        return image if axis is None else image.flip(axis)
    raise ShapeError(
        f"channels='bgr' is about arrays and tensors, and images[{number}] is {_kind(image)}, which says the order of "
        "its colours itself. Give such images in a call of their own, without channels."
    )


def _swap(count: int) -> list[int]:
    return [2, 1, 0, *range(3, count)] if count >= 3 else list(range(count))


def _require_size(size: tuple[int, int], max_pixels: int, error: _Refusal, called: str) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise error(f"{called} has no pixels: its size is {width}×{height}. Leave it out.")
    if width * height > max_pixels:
        raise error(
            f"{called} has {width}×{height} pixels; at most {max_pixels} are opened. "
            "Scale it down, or cut the person out of it."
        )


def _is_tensor(image: object) -> bool:
    torch = sys.modules.get("torch")  # whoever has a tensor has imported it
    return torch is not None and isinstance(image, torch.Tensor)


def _called(image: object) -> str:
    return f"'{image}'" if isinstance(image, str | Path) else f"the image ({_kind(image)})"


def _kind(image: object) -> str:
    if isinstance(image, str | Path):
        return "a file"
    if isinstance(image, _BYTES):
        return "the bytes of a file"
    if isinstance(image, Image.Image):
        return "a PIL image"
    if isinstance(image, np.ndarray):
        return "an array"
    return "a tensor" if _is_tensor(image) else f"of type {type(image).__name__}"
