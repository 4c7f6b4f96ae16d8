"""The sprites (assets) of the built-in world: fetched once, checked, rendered, cached.

The art comes from the sets of `ART_SETS`, as npm packages hold them. It is never part of this package; `build_art`
fetches it with the user's own `npm`, or reads packed files that are already there.
"""

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from instancediffusion.errors import InstanceDiffusionError
from instancediffusion.runs import atomic_path, cache_folder

from .art_sets import ART_SETS, NOTO, OWN, ArtSet
from .drawings import DRAWINGS
from .kinds import Drawing, ObjectKind

SPRITE_SIDE = 256
"""Longer side of a cached sprite, in pixels."""

_FORMAT = "sprites-3"
_MAX_SVG = 2_000_000
Sprite = NDArray[np.uint8]


class ArtError(InstanceDiffusionError):
    """The art of a world cannot be fetched, read or drawn."""


def art_file(kinds: Iterable[ObjectKind], cache: str | Path | None = None) -> Path:
    """Return where the sprites of these classes are, or will be, cached. The name is a hash of all that shapes them."""
    drawings = _drawings(kinds)
    wanted = sorted((one.icon, one.specks, DRAWINGS.get(one.icon.removeprefix("own:"))) for one in drawings)
    pinned = sorted((name, ART_SETS[name].sha256) for name in {one.art_set for one in drawings})
    digest = hashlib.sha256(json.dumps([_FORMAT, SPRITE_SIDE, pinned, wanted]).encode()).hexdigest()[:12]
    return cache_folder(cache) / f"world-{digest}" / "sprites.npz"


def build_art(kinds: Iterable[ObjectKind], cache: str | Path | None = None, art: Sequence[str | Path] = ()) -> Path:
    """Fetch the art, render every sprite of every class, and write them.

    Args:
        kinds: the object classes to render.
        cache: folder to write into; see `cache_folder`.
        art: packed art sets (`.tgz` of their npm packages) that are already there; the pinned versions of all others
            are fetched with `npm pack`.

    Returns:
        The file written. An existing one is replaced atomically.

    Raises:
        ArtError: no npm, no network, another file than a pinned one, a missing icon, or no `resvg-py`.
    """
    kinds = tuple(kinds)
    drawings = _drawings(kinds)
    here = dict(_recognised(Path(path)) for path in art)
    sprites: dict[str, Sprite] = {}
    for name in dict.fromkeys(one.art_set for one in drawings):
        art_set = ART_SETS[name]
        icons: dict[str, Any] = {"icons": {}}
        if art_set is not OWN:
            icons = _read_icons(here[name] if name in here else _checked(_fetch(art_set), art_set))
        if art_set in (NOTO, OWN):
            icons["icons"] = DRAWINGS | icons["icons"]
        for one in drawings:
            if one.art_set == name:
                sprites[one.icon] = draw_icon(icons, one.icon.rpartition(":")[2], specks=one.specks)
    path = art_file(kinds, cache)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **sprites)
    return path


def load_art(
    kinds: Iterable[ObjectKind], cache: str | Path | None = None, only: Iterable[ObjectKind] | None = None
) -> dict[str, Sprite]:
    """Read the cached sprites: icon -> (H, W, 4) uint8 with straight alpha, tightly cropped.

    Args:
        kinds: the object classes the cache was built for.
        cache: the folder they were built into.
        only: those of them to read, perhaps with fewer sprites; None reads all.

    Raises:
        ArtError: they are not there, or the file is damaged.
    """
    kinds = tuple(kinds)
    path = art_file(kinds, cache)
    if not path.is_file():
        raise ArtError(f"{path}: the world's sprites are not built yet; run `instancediffusion world build`")
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {one.icon: stored[one.icon] for one in _drawings(kinds if only is None else only)}
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise ArtError(f"{path}: damaged ({error}); run `instancediffusion world build` again") from error


def _drawings(kinds: Iterable[ObjectKind]) -> list[Drawing]:
    return [drawing for kind in kinds for drawing in kind.drawings]


def draw_icon(icons: dict[str, Any], name: str, *, specks: bool = True, side: int = SPRITE_SIDE) -> Sprite:
    """Render one icon of an icon set, crop it to its content, and scale its longer side to `side` pixels.

    Args:
        icons: an icon set in Iconify's JSON form (`icons`, `aliases`, `width`, `height`).
        name: the icon, or one of its aliases.
        specks: keep small loose parts.
        side: longer side of the result, in pixels.

    Returns:
        (H, W, 4) uint8, straight alpha.
    """
    try:
        import resvg_py
    except ImportError as error:
        raise ArtError("rendering the sprites needs resvg-py; run `pip install 'instancediffusion[world]'`") from error
    name = icons.get("aliases", {}).get(name, {}).get("parent", name)
    icon = icons["icons"].get(name)
    if icon is None:
        raise ArtError(f"the art has no icon named {name!r}; build the world from the pinned art sets")
    width, height = (icon.get(key, icons.get(key, 16)) for key in ("width", "height"))
    body = icon["body"]
    if len(body) > _MAX_SVG:
        raise ArtError(f"the icon {name!r} is larger than {_MAX_SVG} characters; it should be a small one")
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{icon.get("left", 0)} {icon.get("top", 0)} {width} {height}">{body}</svg>'
    )
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=2 * side, height=2 * side, skip_system_fonts=True))
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGBA")).copy()
    if not specks:
        pixels[~_main_parts(pixels[..., 3] > 64)] = 0
    ys, xs = np.nonzero(pixels[..., 3] > 24)
    if not len(ys):
        raise ArtError(f"the icon {name!r} is empty")
    cropped = Image.fromarray(pixels[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1])
    scale = side / max(cropped.size)
    size = (max(1, round(cropped.width * scale)), max(1, round(cropped.height * scale)))
    return np.asarray(cropped.resize(size, Image.Resampling.LANCZOS)).copy()


def _fetch(art_set: ArtSet) -> bytes:
    """Fetch a pinned package with the user's npm."""
    npm = shutil.which("npm")
    if npm is None:
        raise ArtError(f"npm is not installed; install Node.js, or pass `--art` with a packed {art_set.pinned}")
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", art_set.pinned, "--ignore-scripts", "--silent"]
        try:
            subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=300)
        except (subprocess.SubprocessError, OSError) as error:
            said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
            raise ArtError(f"`npm pack {art_set.pinned}` failed: {said[-1] if said else error}") from error
        (packed,) = Path(folder).glob("*.tgz")
        return packed.read_bytes()


def _checked(packed: bytes, art_set: ArtSet) -> bytes:
    """Return the packed file if it is the pinned one."""
    digest = hashlib.sha256(packed).hexdigest()
    if digest != art_set.sha256:
        raise ArtError(f"the packed art has sha256 {digest[:16]}..., not that of {art_set.pinned}; fetch it again")
    return packed


def _recognised(path: Path) -> tuple[str, bytes]:
    """Read a packed file, and say which art set it is."""
    packed = path.read_bytes()
    digest = hashlib.sha256(packed).hexdigest()
    fetched = {name: art_set for name, art_set in ART_SETS.items() if art_set is not OWN}
    for name, art_set in fetched.items():
        if digest == art_set.sha256:
            return name, packed
    names = ", ".join(one.pinned for one in fetched.values())
    raise ArtError(f"{path}: its sha256 {digest[:16]}... is that of none of {names}; fetch one of them with `npm pack`")


def _read_icons(packed: bytes) -> dict[str, Any]:
    """Read the icon set out of the packed file, without unpacking anything to disk."""
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
        member = archive.extractfile("package/icons.json")
        if member is None:
            raise ArtError("the packed art has no icons.json")
        icons: dict[str, Any] = json.load(member)
    return icons


def _main_parts(filled: NDArray[np.bool_], fraction: float = 0.03) -> NDArray[np.bool_]:
    """Keep the connected components of at least `fraction` of the largest one's area, found on a coarse grid."""
    step = 4
    height, width = (-(-n // step) for n in filled.shape)
    padded: NDArray[np.bool_] = np.zeros((height * step, width * step), bool)
    padded[: filled.shape[0], : filled.shape[1]] = filled
    coarse = np.asarray(padded.reshape(height, step, width, step).any((1, 3)))
    labels = np.zeros(coarse.shape, int)
    for start in zip(*np.nonzero(coarse), strict=True):
        if labels[start]:
            continue
        label, stack = labels.max() + 1, [start]
        while stack:
            y, x = stack.pop()
            if 0 <= y < height and 0 <= x < width and coarse[y, x] and not labels[y, x]:
                labels[y, x] = label
                stack += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
    counts = np.bincount(labels.ravel())
    counts[0] = 0
    large = np.flatnonzero(counts >= fraction * counts.max())
    kept = np.isin(labels, large).repeat(step, 0).repeat(step, 1)
    return kept[: filled.shape[0], : filled.shape[1]]
