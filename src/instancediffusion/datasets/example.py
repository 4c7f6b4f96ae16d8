"""One labelled picture, and a collection of them: what training, evaluation and export have in common."""

from __future__ import annotations

import io
import stat
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from instancediffusion.errors import Problem, SceneError, SceneWarning
from instancediffusion.scene import Mask, Scene
from instancediffusion.scene.limits import MAX_SIDE_PX
from instancediffusion.scene.problem_report import Report
from instancediffusion.scene.reference import on_white

Pixels = npt.NDArray[np.uint8]
T = TypeVar("T")

MAX_PICTURE_BYTES = 256 << 20
_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp"}


@dataclass(frozen=True)
class Example:
    """A picture and what it shows.

    Attributes:
        scene: prompt and instances, with any subset of the kinds of location, with or without an order. Boxes and
            masks are of whole objects (amodal) as far as the annotations know them.
        image: the picture: a path, the bytes of a picture file, (H, W, 3) uint8 sRGB, or None if there is none.
        file_name: the picture's file, as the annotations name it.
        image_id: its number or text in the annotations.
        categories: the category of each instance; empty if each is its own caption.
        visible: for each instance the mask of its visible part, on the scene's canvas, or None; empty if unknown.

    Raises:
        ValueError: there is not one category, or not one visible mask, for each instance.
    """

    scene: Scene
    image: Path | bytes | Pixels | None = field(default=None, compare=False)
    file_name: str = ""
    image_id: int | str = 1
    categories: tuple[str, ...] = ()
    visible: tuple[Mask | None, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.scene.instances)
        for name in ("categories", "visible"):
            if len(getattr(self, name)) not in (0, count):
                raise ValueError(f"{name}: expected one for each of {count} instances, got {len(getattr(self, name))}")

    def category(self, index: int) -> str:
        """The category of an instance: its own, else its caption."""
        return self.categories[index] if self.categories else self.scene.instances[index].caption

    def pixels(self) -> Pixels:
        """Read the picture.

        A photograph that is stored turned (EXIF orientation) comes as it is seen, unless the scene's canvas has the
        size of what is stored: some tools annotate that. What is transparent shows white, and 16 bits become 8.

        Returns:
            (H, W, 3) uint8, sRGB.

        Raises:
            SceneError: there is no picture, or none that can be read, or a side of it is beyond 8192 pixels.
        """
        if isinstance(self.image, np.ndarray):
            return self.image
        from PIL import ImageOps

        with self._reading() as picture:
            turned = picture.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            stored = picture.size == (self.scene.width, self.scene.height) != picture.size[::-1]
            shown: Any = picture if turned and stored else ImageOps.exif_transpose(picture)
            return _seen(shown)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of `pixels()` in pixels, without reading them; see there for what it raises."""
        if isinstance(self.image, np.ndarray):
            return self.image.shape[1], self.image.shape[0]
        with self._reading() as picture:
            turned = picture.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            width, height = picture.size
        kept = not turned or (width, height) == (self.scene.width, self.scene.height)
        return (width, height) if kept else (height, width)

    def encoded(self) -> tuple[bytes, str]:
        """The picture as a file that every program reads upright: its own bytes where they do, else a new file.

        Returns:
            The bytes, and the suffix that goes with them: `.jpg`, `.png`, `.webp` or `.bmp`.
        """
        from PIL import Image

        kind = ""
        if not isinstance(self.image, np.ndarray):
            with self._reading() as picture:
                kind = picture.format or ""
                if kind in _SUFFIXES and picture.getexif().get(0x0112, 1) == 1:
                    data = self.image.read_bytes() if isinstance(self.image, Path) else self.image
                    return data or b"", _SUFFIXES[kind]
        out = io.BytesIO()
        jpeg = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
        Image.fromarray(self.pixels()).save(out, "JPEG" if jpeg else "PNG", **jpeg)
        return out.getvalue(), ".jpg" if jpeg else ".png"

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        """Open the picture. What Pillow raises on damaged ones is no list that could be written down."""
        with self._open() as picture:
            try:
                yield picture
            except Exception as error:  # noqa: BLE001
                raise self._refusal(f"cannot be read ({str(error)[:80] or type(error).__name__})") from None

    def _open(self) -> Any:
        from PIL import Image

        if self.image is None:
            raise self._refusal("cannot be found; name the folder of the pictures")
        try:
            if isinstance(self.image, Path):
                facts = self.image.stat()
                if not stat.S_ISREG(facts.st_mode):  # a pipe would be waited for
                    raise self._refusal("is no file")
                if facts.st_size > MAX_PICTURE_BYTES:
                    raise self._refusal(f"is larger than {MAX_PICTURE_BYTES >> 20} MB")
            assert not isinstance(self.image, np.ndarray)
            picture = Image.open(self.image if isinstance(self.image, Path) else io.BytesIO(self.image))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise self._refusal(f"cannot be read ({str(error)[:80]})") from None
        if max(picture.size) > MAX_SIDE_PX:
            size = picture.size
            picture.close()
            raise self._refusal(f"is {size[0]} x {size[1]} pixels; sides up to {MAX_SIDE_PX} are read")
        return picture

    def _refusal(self, message: str) -> SceneError:
        return SceneError(
            [Problem("$", f"the picture {message}", "leave it out, or replace it")], self.file_name or None
        )


def _seen(picture: Any) -> Pixels:
    """(H, W, 3) uint8 of a PIL image, as a viewer shows it; PIL's own conversion cuts 16 bits off at 255."""
    if picture.mode.startswith("I;16"):
        grey = (np.asarray(picture).astype(np.uint32) + 128) // 257
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
    return np.array(on_white(picture))


@runtime_checkable
class SceneDataset(Protocol):
    """Labelled pictures by number.

    Attributes:
        categories: id -> name of the categories that the annotations declare, in their order; empty if they do not.
    """

    @property
    def categories(self) -> Mapping[int | str, str]:
        """See above."""
        ...

    def __len__(self) -> int:
        """How many entries there are; single ones may turn out to be of no use when they are read."""
        ...

    def __getitem__(self, index: int, /) -> Example:
        """Read an entry.

        Raises:
            SceneError: it cannot be used, with every problem. What was mended comes as a `SceneWarning`.
            IndexError: there is none of that number.
        """
        ...


class LazyDataset(Generic[T]):
    """Entries that are read when they are asked for.

    Args:
        source: what the data set is called in messages.
        entries: what is known of each before it is read.
        read: reads one, noting its problems; None = it cannot be used.
        categories: see `SceneDataset`.
    """

    def __init__(
        self,
        source: str,
        entries: Sequence[T],
        read: Callable[[Report, T], Example | None],
        categories: Mapping[int | str, str] | None = None,
    ) -> None:
        self.source, self._entries, self._read = source, entries, read
        self.categories: Mapping[int | str, str] = dict(categories or {})

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Example:
        number = range(len(self))[index]
        report = Report(lenient=True)
        example = self._read(report, self._entries[number])
        where = f"{self.source}: entry {number}"
        if example is None:
            raise SceneError([*report.problems, Problem("$", "cannot be used", "mend it, or leave it out")], where)
        report.settle(where, stacklevel=4)
        return example


@dataclass(frozen=True)
class Subset:
    """Some entries of a data set, by their numbers."""

    dataset: SceneDataset
    indices: Sequence[int]

    @property
    def categories(self) -> Mapping[int | str, str]:
        """Those of the whole."""
        return self.dataset.categories

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Example:
        return self.dataset[self.indices[index]]


def usable(dataset: SceneDataset) -> Iterator[tuple[int, Example]]:
    """Numbers and examples of the entries that can be used; the others are named in a `SceneWarning` and left out."""
    for index in range(len(dataset)):
        try:
            example = dataset[index]
        except SceneError as error:
            warnings.warn(f"{error}: left out", SceneWarning, stacklevel=2)
        else:
            yield index, example
