"""Image files of every kind, good and bad."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image


def picture(width: int = 90, height: int = 60, *, seed: int = 0, mode: str = "RGB") -> Image.Image:
    """Patches of strong colours, some of them finer than what they will be resized to."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (height // 6 + 2, width // 6 + 2, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    noise = random.integers(-40, 41, smooth.shape)
    return Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8)).convert(mode)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png(width: int, height: int, depth: int, colours: int, rows: bytes) -> bytes:
    """A PNG chunk by chunk, of kinds that Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def good_files() -> dict[str, bytes]:
    """Of every format and colour mode that is used, among them odd, tiny and long ones."""
    turned = Image.Exif()
    turned[0x0112] = 6  # orientation
    clear = picture(mode="RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    two = {"save_all": True, "append_images": [picture(seed=9)]}
    files = {f"jpeg-{s}.jpg": encoded(picture(seed=s), "JPEG", subsampling=s) for s in (0, 1, 2)}
    sizes = ((61, 61), (47, 90), (301, 200), (500, 375), (7, 5), (1, 1), (400, 3))
    for seed, (width, height) in enumerate(sizes):
        one = picture(width, height, seed=seed)
        files[f"{width}x{height}.jpg"] = encoded(one, "JPEG", quality=90)
        files[f"{width}x{height}.png"] = encoded(one, "PNG")
    return files | {
        "progressive.jpg": encoded(picture(), "JPEG", progressive=True),
        "restarts.jpg": encoded(picture(), "JPEG", restart_marker_blocks=3),
        "rgb.jpg": encoded(picture(), "JPEG", keep_rgb=True),
        "grey.jpg": encoded(picture(mode="L"), "JPEG"),
        "turned.jpg": encoded(picture(), "JPEG", exif=turned),
        "comment.jpg": encoded(picture(), "JPEG", comment=b"\xff\xd9 and no end"),
        "two-views.jpg": encoded(picture(), "MPO", **two),
        "trailing.jpg": encoded(picture(), "JPEG") + b"bytes of a camera",
        "misnamed.jpeg": encoded(picture(), "PNG"),
        "grey.png": encoded(picture(mode="L"), "PNG"),
        "bits.png": encoded(picture(mode="1"), "PNG"),
        "palette.png": encoded(picture(mode="P"), "PNG"),
        "clear.png": encoded(clear, "PNG"),
        "clear-grey.png": encoded(clear.convert("LA"), "PNG"),
        "clear-palette.png": encoded(picture(mode="P"), "PNG", transparency=3),
        "plain.webp": encoded(picture(), "WEBP", lossless=True),
        "plain.bmp": encoded(picture(), "BMP"),
        "still.gif": encoded(picture(), "GIF"),
        "plain.tif": encoded(picture(), "TIFF", compression="tiff_lzw"),
    }


def bad_files() -> dict[str, tuple[bytes, str]]:
    """Name -> content, and the reason for which it is skipped."""
    whole = encoded(picture(), "JPEG", quality=90)
    scan = whole.index(b"\xff\xda") + 100
    deep = Image.fromarray(np.full((9, 9), 3000, np.uint16))
    two = {"save_all": True, "append_images": [picture(seed=9)]}
    portable = encoded(picture(), "PNG")
    return {
        "empty.jpg": (b"", "empty"),
        "text.jpg": (b"<html>not found</html>", "no image of a known format"),
        "psd.png": (b"8BPS\x00\x01" + bytes(40), "no image of a known format"),
        "half.jpg": (whole[: len(whole) // 2], "truncated"),
        "no-end.jpg": (whole[:-2], "truncated"),
        "only-a-header.jpg": (whole[:200], "truncated"),
        "half.png": (portable[: len(portable) // 2], "truncated"),
        "half.webp": (encoded(picture(), "WEBP")[:300], "corrupt"),
        "marker.jpg": (whole[:scan] + b"\xff\x75" + whole[scan + 2 :], "corrupt"),
        "no-scan.jpg": (whole[: whole.index(b"\xff\xda")] + b"\xff\xd9", "corrupt"),
        "table.jpg": (whole.replace(b"\xff\xc4\x00", b"\xff\xc4\x00\x03\xff", 1), "corrupt"),
        "noise.png": (portable[:60] + bytes(len(portable) - 80) + portable[-20:], "corrupt"),
        "print.jpg": (encoded(picture(mode="CMYK"), "JPEG"), "CMYK"),
        "print.tif": (encoded(picture(mode="CMYK"), "TIFF"), "CMYK"),
        "deep.png": (encoded(deep, "PNG"), "16-bit"),
        "deep.tif": (encoded(deep, "TIFF"), "16-bit"),
        "deep-colours.png": (png(4, 4, 16, 2, bytes(4 * 25)), "16-bit"),
        "deep-clear.png": (png(4, 4, 16, 6, bytes(4 * 33)), "16-bit"),
        "moving.gif": (encoded(picture(), "GIF", **two), "animated"),
        "moving.png": (encoded(picture(), "PNG", **two), "animated"),
        "moving.webp": (encoded(picture(), "WEBP", **two), "animated"),
        "pages.tif": (encoded(picture(), "TIFF", **two), "animated"),
        "bomb.png": (png(30_000, 30_000, 1, 0, b""), "too large"),
        "small-bomb.png": (png(10_000, 9_000, 1, 0, b""), "too large"),
        "lab.tif": (encoded(picture(mode="LAB"), "TIFF"), "of an unusual colour mode"),
    }
