"""Things a server should say no to, each with a name."""

import base64
import io
import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any

from PIL import Image, PngImagePlugin

GOOD: dict[str, Any] = {
    "version": 1, "prompt": "a dog", "width": 512, "height": 512,
    "instances": [{"caption": "a dog", "box": [10, 10, 200, 200]}],
}  # fmt: skip


def scene(**changes: Any) -> str:
    return json.dumps({**GOOD, **changes})


def instance(**places: Any) -> str:
    return scene(instances=[{"caption": "a dog", **places}])


def png(width: int = 8, height: int = 8, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_claiming(width: int, height: int) -> bytes:
    """A tiny file whose header promises a huge picture."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


def png_with_notes(notes: dict[str, str], *, zipped: bool = False) -> bytes:
    info = PngImagePlugin.PngInfo()
    for name, text in notes.items():
        info.add_itxt(name, text, zip=zipped)
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def scenes() -> Iterator[tuple[str, str]]:
    """Texts that are no scene the studio may draw."""
    yield "empty", ""
    yield "null", "null"
    yield "number", "3"
    yield "array", "[]"
    yield "not json", "{" * 50
    yield "deep", "[" * 100_000
    yield "deep objects", '{"a":' * 50_000
    yield "long number", '{"version": ' + "9" * 10_000 + "}"
    yield "nan", scene().replace("512", "NaN", 1)
    yield "infinity", instance(box=[0, 0, 1, 1]).replace("[0, 0, 1, 1]", "[0, 0, Infinity, 1]")
    yield "key twice", '{"version": 1, "version": 1}'
    yield "no prompt", json.dumps({key: value for key, value in GOOD.items() if key != "prompt"})
    yield "blank prompt", scene(prompt=" \n")
    yield "prompt object", scene(prompt={"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}})
    yield "half a surrogate", '{"version": 1, "prompt": "\\ud800", "width": 512, "height": 512, "instances": []}'
    yield "long prompt", scene(prompt="x" * 100_000)
    yield "unknown key", scene(**{"__proto__": 1})
    yield "other version", scene(version=2)
    yield "no width", scene(width=None)
    yield "huge canvas", scene(width=8192, height=8192, instances=[])
    yield "canvas beyond all", scene(width=10**30)
    yield "narrow canvas", scene(width=2048, height=64, instances=[])
    yield "negative canvas", scene(width=-512)
    yield "too many instances", scene(instances=GOOD["instances"] * 65)
    yield "far too many instances", scene(instances=GOOD["instances"] * 5000)
    yield "no place", scene(instances=[{"caption": "a dog"}])
    yield "blank caption", scene(instances=[{"caption": "", "point": [1, 1]}])
    yield "box outside", instance(box=[600, 600, 700, 700])
    yield "box of no size", instance(box=[10, 10, 10, 10])
    yield "box of text", instance(box="0 0 1 1")
    yield "box of booleans", instance(box=[True, True, False, False])
    yield "box of huge numbers", instance(box=[0, 0, 1e308, 1e308])
    yield "point outside", instance(point=[-1, 1])
    yield "point of three", instance(point=[1, 1, 1])
    yield "stroke of one", instance(scribble=[[1, 1]])
    yield "stroke too long", instance(scribble=[[1, 1]] * 10_001)
    yield "mask of another size", instance(mask={"size": [4, 4], "counts": "0@"})
    yield "mask without end", instance(mask={"size": [512, 512], "counts": "o" * 1_000_000})
    yield "mask of nothing", instance(mask={"size": [512, 512], "counts": "PPPP8"})
    yield "mask beyond its size", instance(mask={"size": [512, 512], "counts": [0, 10**9]})
    yield "mask file", instance(mask={"png": "../../etc/passwd"})
    yield "mask file of root", instance(mask={"png": "/etc/passwd"})
    yield "mask address", instance(mask={"png": "http://127.0.0.1:9/x.png"})
    yield "mask that is no png", instance(mask={"png": "data:image/png;base64,AAAA"})
    bomb = base64.b64encode(png_claiming(60_000, 60_000)).decode()
    yield "mask bomb", instance(mask={"png": "data:image/png;base64," + bomb})
    yield "layer beyond all", instance(point=[1, 1], z_order=10**12)
    yield "coco", json.dumps({"images": [], "annotations": []})


def files() -> Iterator[tuple[str, bytes]]:
    """Files that are neither scene nor picture, or pretend to be."""
    yield "nothing but zeros", b"\0" * 100
    yield "program", b"\x7fELF" + b"\0" * 64
    yield "page", b"<html><script>alert(1)</script></html>"
    yield "svg", b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    yield "pickle", b"\x80\x04\x95\x0b\x00\x00\x00"
    yield "zip", b"PK\x03\x04" + b"\0" * 64
    yield "gif", b"GIF89a" + b"\0" * 64
    yield "tiff", b"II*\0" + b"\0" * 64
    yield "text", b"hello"
    yield "utf-16 json", json.dumps(GOOD).encode("utf-16")
    yield "bytes that are no text", b"{\xff\xfe}"
    yield "cut off png", png()[:20]
    yield "png without data", png()[:40]
    yield "png with a flipped bit", png(64, 64)[:60] + b"\xff" + png(64, 64)[61:]
    yield "png of no size", png_claiming(0, 0)
    yield "png bomb", png_claiming(60_000, 60_000)
    yield "png wider than it can be", png_claiming(2**31 - 1, 1)
    yield "png with text bomb", png_with_notes({"instancediffusion:scene": " " * 80_000_000}, zipped=True)
    yield "png with a bad scene", png_with_notes({"instancediffusion:scene": '{"version": 9}'})
    yield "png with a deep scene", png_with_notes({"instancediffusion:scene": "[" * 100_000})
    yield "png with a scene that is no json", png_with_notes({"instancediffusion:scene": "{"})
    yield (
        "png with a scene that reads a file",
        png_with_notes({"instancediffusion:scene": instance(mask={"png": "a.png"})}),
    )
    yield "jpeg that is none", b"\xff\xd8\xff" + b"\0" * 200
    yield "webp that is none", b"RIFF\0\0\0\0WEBPVP8 " + b"\0" * 64


FILE_DATA = {
    "path": "/etc/passwd",
    "meta": {"_type": "gradio.FileData"},
    "orig_name": "x",
    "url": "http://127.0.0.1:9/",
}


def calls() -> Iterator[tuple[str, str, list[Any]]]:
    """Operations with arguments they must not take."""
    text = json.dumps(GOOD)
    yield "file as scene", "check", [FILE_DATA, None]
    yield "file as options", "submit", [text, FILE_DATA, "s" * 20]
    yield "file as data", "open_file", [FILE_DATA, 512, 512]
    yield "number as scene", "check", [3, None]
    yield "no base64", "open_file", ["%%%%", 512, 512]
    yield "huge canvas for a file", "open_file", ["AAAA", 10**9, 10**9]
    yield "text as canvas", "open_file", ["AAAA", "512", 512]
    yield "too few arguments", "submit", [text]
    yield "other format", "convert", [text, "../native"]
    yield "steps without end", "submit", [text, {"settings": {"num_inference_steps": 10**9}}, "s" * 20]
    yield "pictures without end", "submit", [text, {"pictures": 10**9}, "s" * 20]
    yield "picture without end", "submit", [text, {"settings": {"height": 8192, "width": 8192}}, "s" * 20]
    yield "refiner", "submit", [text, {"settings": {"refiner_strength": 1}}, "s" * 20]
    yield (
        "grid without end",
        "submit",
        [text, {"grid": {"x": {"setting": "seed", "values": list(range(9999))}}}, "s" * 20],
    )
    yield "options of another kind", "submit", [text, ["fast"], "s" * 20]
    yield "no session", "submit", [text, None, ""]
    yield "session as path", "save_draft", ["../../../../tmp/x", "{}"]
    yield "session of null bytes", "save_draft", ["\0" * 20, "{}"]
    yield "draft that is none", "save_draft", ["s" * 20, "[]"]
    yield "draft too large", "save_draft", ["s" * 20, json.dumps({"a": "x" * (9 << 20)})]
    yield "run as path", "result", ["../../../etc"]
    yield "run with null byte", "result", ["20261124-000000-abcdef\0"]
    yield "run of another kind", "result", [{"a": 1}]
    yield "before as path", "results", [10, "../.."]
    yield "limit without end", "results", [10**9, None]
    yield "example as path", "example", ["../../../pyproject"]
    yield "job that is none", "cancel", ["nobody"]
    yield "job of another kind", "job", [["x"]]


def paths() -> Iterator[str]:
    """Addresses that would lead out, or into what the studio does not offer."""
    yield "gradio_api/file=/etc/passwd"
    yield "gradio_api/file=../../../../etc/passwd"
    yield "gradio_api/file=http://127.0.0.1:9/"
    yield "gradio_api/file/etc/passwd"
    yield "file=/etc/passwd"
    yield "gradio_api/proxy=http://127.0.0.1:9/"
    yield "gradio_api/stream/a/b/1/playlist-file"
    yield "gradio_api/custom_component/1/client/component/index.js"
    yield "studio/runs/../../../etc/passwd"
    yield "studio/runs/%2e%2e/%2e%2e/etc/passwd"
    yield "studio/runs/..%2f..%2fetc%2fpasswd"
    yield "studio/runs/20261124-000000-abcdef/manifest.json"
    yield "studio/runs/20261124-000000-abcdef/..%2f..%2fdrafts"
    yield "studio/runs/20261124-000000-abcdef.zip"
    yield "studio/runs/....//....//etc/passwd"
    yield "studio/editor/../operations.py"
    yield "studio/editor/..%2foperations.py"
    yield "studio/editor/index.html"
    yield "studio/editor/%00.js"
    yield "studio/examples/..%2f..%2fpyproject.png"
    yield "studio/jobs/nobody/0.png"
    yield "studio/jobs/nobody/99999999999999.png"
    yield "static/../../etc/passwd"
    yield "assets/..%2f..%2f..%2fetc/passwd"
    yield "svelte/../../etc/passwd"
    yield "monitoring"
    yield "gradio_api/openapi.json"
    yield "pwa_icon"
