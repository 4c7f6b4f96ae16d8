"""A data set made from a spec: scenes, pictures, what a detector sees of them, and what of it is written."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from PIL import Image

from instancediffusion import __version__
from instancediffusion.datasets import Example, Notes, bring_back, files_in, format_of, put_in_place, write_dataset
from instancediffusion.errors import InstanceDiffusionError, SettingsError
from instancediffusion.pipeline.picture_folder import (
    Make,
    Picture,
    PictureFolder,
    draw_paired,
    generate_pictures,
    paired,
)
from instancediffusion.pipeline.spread import generate_spread
from instancediffusion.ray_pool import RayOptions
from instancediffusion.runs import RunDirectory, atomic_path, fingerprint, write_atomic
from instancediffusion.settings import GenerationSettings

from .detection import Detection, Detector
from .filtering import Verdict, judge_picture, labelled
from .sampling import DrawnScene, SceneSampler
from .spec import DatasetSpec

CHUNK = 256
"""Scenes that are held in memory at a time."""

SPREAD_CHUNK = 20_000
"""The same where a cluster makes the pictures: each chunk opens its models anew."""

WORK_SUFFIX = ".making"
CARD, LINES = "README.md", "generation.jsonl"
LOOKED, NOTES, FRESH, ASIDE = ".looked.jsonl", ".notes.jsonl", ".new", ".old"
"""What may be lost without any harm; a store is not sent it."""
UNFILTERED = "no detector was given: nothing is filtered, labels are what the model was given"

MakePictures = Callable[[PictureFolder, Sequence[Picture]], list[tuple[Picture, Exception]]]
"""Makes pictures into their folder; returns those that could not be made, with the reason."""


@dataclass
class MadeDataset:
    """The results of making a data set.

    Attributes:
        folder: the data set.
        pictures: how many were made, now or before.
        kept: pictures in the data set.
        instances: in the data set.
        dropped: instances of kept pictures that are not.
        rejected: pictures that were made and left out.
        failed: scenes and pictures that could not be made, or looked at -> why.
        reasons: why instances and pictures were left out -> how many.
        work: pictures, detections and rejects, for the next run.
    """

    folder: Path
    work: Path
    pictures: int = 0
    kept: int = 0
    instances: int = 0
    dropped: int = 0
    rejected: int = 0
    failed: dict[int, str] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Entry:
    drawn: DrawnScene
    picture: Picture
    detections: list[Detection] | None
    verdict: Verdict


@dataclass(frozen=True)
class _Looked:
    """What is known of a picture that was made and looked at, so that its scene need not be drawn again.

    Attributes:
        key: of the picture in its folder.
        files: what the folder knows of its file.
        mark: changes whenever the picture or its labels do.
        line: what is told of it.
        rejected: whether it is left out.
        kept: instances that are kept.
        reasons: why the others are not.
    """

    key: str
    files: str
    mark: str
    line: str
    rejected: bool
    kept: int
    reasons: list[str]


def pipeline_pictures(
    open_pipeline: Callable[[], Any],
    settings: GenerationSettings,
    *,
    batch_size: int = 4,
    record: Mapping[str, Any] | None = None,
    written: Callable[[Path], None] = lambda _: None,
) -> MakePictures:
    """Make pictures in this process.

    Args:
        open_pipeline: loads the pipeline; called once, and only if a picture is missing.
        settings: of every picture.
        batch_size: most pictures in one call.
        record: more to keep in the manifest.
        written: called with the path of each picture.
    """
    opened: list[Any] = []

    def make(folder: PictureFolder, pictures: Sequence[Picture]) -> list[tuple[Picture, Exception]]:
        if not opened:
            opened.append(open_pipeline())
        draw = draw_paired(opened[0], settings)
        return generate_pictures(
            draw, folder, pictures, batch_size=batch_size, record=record or {}, written=written, cut=paired
        )

    return make


def spread_pictures(
    open_pipeline: Callable[[], Any],
    settings: GenerationSettings,
    options: RayOptions,
    *,
    batch_size: int = 4,
    record: Mapping[str, Any] | None = None,
    written: Callable[[Path], None] = lambda _: None,
) -> MakePictures:
    """Make pictures on a Ray cluster; see `pipeline_pictures`, and `pipeline.spread`."""
    open_ = partial(_paired_maker, open_pipeline)

    def make(folder: PictureFolder, pictures: Sequence[Picture]) -> list[tuple[Picture, Exception]]:
        jobs = [(folder, settings, pictures)]
        common: dict[str, Any] = {"batch_size": batch_size, "record": {"engine": "ray", **(record or {})}}
        return generate_spread(open_, jobs, options=options, written=written, cut=paired, **common)[0]

    return make


def _paired_maker(open_pipeline: Callable[[], Any]) -> Callable[[GenerationSettings], Make]:
    return partial(draw_paired, open_pipeline())


class DatasetMaker:
    """Makes a data set into a folder, and goes on with one that was begun.

    Beside the folder there is a second one, named with `.making`: every picture, its detections, and what was
    left out with the reason. The data set itself is written when all is there, and replaced as a whole.

    Args:
        spec: what is made.
        output: the folder of the data set.
        make: makes pictures, see `pipeline_pictures`.
        model: facts that decide the pictures, see `PictureFolder`.
        settings: of the pipeline, defaults filled in.
        detector: looks at the pictures; None filters nothing.
        format: of the data set.
        licence: of the pictures.
        spec_folder: what paths of the spec are relative to.
        replace: make pictures again that are there of another spec or model, and replace what is in the folder.
        chunk: scenes that are held in memory, and handed to `make`, at a time.
        say: called with a line of text on each step.

    Raises:
        SettingsError: the spec, the format or the folder cannot be used.
    """

    def __init__(
        self,
        spec: DatasetSpec,
        output: str | Path,
        make: MakePictures,
        *,
        model: Mapping[str, Any],
        settings: GenerationSettings,
        detector: Detector | None = None,
        format: str = "coco",
        licence: str = "",
        spec_folder: Path = Path(),
        replace: bool = False,
        chunk: int = CHUNK,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.spec, self.output, self.format = spec, Path(output), format_of(output, format).name
        self.work = self.output.with_name(self.output.name + WORK_SUFFIX)
        self.detector, self.licence, self.replace, self._say = detector, spec.licence or licence, replace, say
        self._make, self._model, self._settings = make, dict(model), settings
        self._sampler, self._chunk_size = SceneSampler(spec, spec_folder), chunk
        self._facts = None if detector is None else dict(detector.describe())
        shapes = {
            name: [[*one.shape, hashlib.sha256(one.tobytes()).hexdigest()] for one in shapes]
            for name, shapes in self._sampler.shapes.items()
        }
        self._base = {"model": self._model, "settings": settings.decisive(), "seen": self._facts, "shapes": shapes}
        bring_back(self.output, self.work / ASIDE)
        self._seen = RunDirectory(self.work / "detections", "detections")
        self._state = RunDirectory(self.work / "state", "dataset")
        self._check_folder()

    def go(self) -> MadeDataset:
        """Make what is missing, look at it, and write the data set.

        Raises:
            SettingsError: pictures of another spec or model are there, and `replace` was not asked for.
            SceneError: no picture is kept.
        """
        if self.detector is None:
            self._say(UNFILTERED)
        mark = self._fingerprint()
        done = self._state.item("written")
        if done is not None and done.fingerprint == mark and self._is_whole():
            self._say(f"{self.output}: everything is there already")
            reasons = Counter(done.record["reasons"])
            return MadeDataset(self.output, self.work, reasons=reasons, **{k: done.record[k] for k in _COUNTS})
        known = {} if self.replace else self._known()
        made = MadeDataset(self.output, self.work, pictures=len(known))
        missing = [number for number in range(self.spec.pictures) if number not in known]
        size = self._chunk_size
        chunks = (missing[start : start + size] for start in range(0, len(missing), size))
        numbers = {number for chunk in chunks for number in self._chunk(chunk, made)}
        self._seen.settle()
        self._write(sorted(numbers | known.keys()), known, made)
        # A picture that failed is tried again by the same command.
        self._state.put("written", _UNFINISHED if made.failed else mark, {}, _facts_of(made), replace=True)
        self._state.settle()
        return made

    # Scenes and pictures

    def _folder(self) -> PictureFolder:
        return PictureFolder(self.work / "pictures", self._model, self._settings, replace=self.replace)

    @cached_property
    def _pictures(self) -> RunDirectory:
        """All pictures, once they are made."""
        return RunDirectory(self.work / "pictures", "generate")

    def _chunk(self, chunk: Sequence[int], made: MadeDataset) -> Iterator[int]:
        """Make and look at some pictures; yields the numbers of those that are there and looked at."""
        drawn: dict[int, DrawnScene] = {}
        for number in chunk:
            try:
                drawn[number] = self._sampler.scene(number)
            except InstanceDiffusionError as error:
                made.failed[number] = _reason(error)
        pictures = {_picture(one).key: one for one in drawn.values()}
        folder = self._folder()
        pending, taken = folder.pending([_picture(one) for one in drawn.values()])
        if taken:
            raise SettingsError(
                f"{self.work}: holds pictures of another spec, model or settings, such as {taken[0][0].key}.png; "
                "choose another folder, or ask to replace them (--overwrite)"
            )
        failed = self._make(folder, pending) if pending else []
        for picture, reason in failed:
            made.failed[pictures.pop(picture.key).number] = _reason(reason)
        made.pictures += len(pictures)
        if self.detector is not None:
            self._look(folder, list(pictures.values()), made)
        yield from (one.number for one in pictures.values() if one.number not in made.failed)

    def _look(self, folder: PictureFolder, drawn: Sequence[DrawnScene], made: MadeDataset) -> None:
        """Let the detector look at pictures that it has not looked at; one that it cannot look at leaves the others."""
        marks = {one.number: self._seen_mark(folder, _picture(one)) for one in drawn}
        new = [one for one in drawn if not self._seen.is_complete(_picture(one).key, marks[one.number])]
        calls = [new[start : start + 8] for start in range(0, len(new), 8)]
        for batch in calls:  # grows while it is walked: pictures of batches that failed
            assert self.detector is not None
            try:
                images = [_open(folder.run.local(f"{_picture(one).key}.png")) for one in batch]
                found = self.detector.detect(images, self.spec.labels)
            except Exception as error:  # noqa: BLE001  whatever it is, the other pictures do not depend on it
                if len(batch) > 1:
                    calls += [[one] for one in batch]
                else:
                    made.failed[batch[0].number] = f"the detector failed: {_reason(error)}"
                continue
            for one, detections in zip(batch, found, strict=True):
                record = {"detections": [detection.to_dict() for detection in detections]}
                self._seen.put(_picture(one).key, marks[one.number], {}, record, replace=True)

    def _seen_mark(self, folder: PictureFolder, picture: Picture) -> str:
        item = folder.run.item(picture.key)
        return fingerprint("seen", None if item is None else item.files, self._facts, list(self.spec.labels))

    # What is kept

    def _recipe(self) -> str:
        """What decides everything of picture k but its number."""
        spec = {name: value for name, value in self.spec.to_dict().items() if name != "pictures"}
        return fingerprint(__version__, spec, self._base)

    def _known(self) -> dict[int, _Looked]:
        """What is known of pictures that were made and looked at, and are as they were then."""
        try:
            with open(self.work / LOOKED, encoding="utf-8") as lines:
                if json.loads(next(lines, "null")) != self._recipe():
                    return {}
                there = RunDirectory(self.work / "pictures", "generate").whole()
                found = {number: _Looked(*facts) for number, *facts in map(json.loads, lines)}
        except (OSError, ValueError, TypeError):  # not whole: then all is looked at again
            return {}
        kept = (number for number, one in found.items() if there.get(one.key) == one.files)
        return {number: found[number] for number in kept if number < self.spec.pictures}

    def _look_up(self, number: int, there: Mapping[str, str]) -> _Looked:
        entry = self._entry(number)
        verdict, key = entry.verdict, entry.picture.key
        seen = None if entry.detections is None else [one.to_dict() for one in entry.detections]
        mark = fingerprint(self._recipe(), number, there[key], seen)
        reasons = [_kind(reason) for reason in verdict.dropped.values()]
        return _Looked(key, there[key], mark, _line(entry), bool(verdict.rejected), len(verdict.kept), reasons)

    def _entry(self, number: int) -> _Entry:
        drawn = self._sampler.scene(number)
        picture = _picture(drawn)
        detections = None
        if self.detector is not None:
            item = self._seen.item(picture.key)
            assert item is not None, "every picture was looked at"
            detections = [Detection.from_dict(values) for values in item.record["detections"]]
        return _Entry(drawn, picture, detections, judge_picture(drawn, detections, self.spec))

    def _example(self, number: int) -> Example:
        entry = self._entry(number)
        path = self._pictures.local(f"{entry.picture.key}.png")
        named = {"image": path, "file_name": f"{number:08d}.png", "image_id": number + 1}
        return labelled(entry.drawn, entry.verdict, entry.detections, self.spec, **named)

    def _write(self, numbers: Sequence[int], known: Mapping[int, _Looked], made: MadeDataset) -> None:
        kept, rejects = dict[int, _Looked](), dict[int, _Looked]()
        with atomic_path(self.work / LOOKED) as temporary, open(temporary, "w", encoding="utf-8") as file:
            file.write(_json(self._recipe()) + "\n")
            there = self._pictures.whole() if len(known) < len(numbers) else {}
            for number in numbers:
                found = known[number] if number in known else self._look_up(number, there)
                file.write(_json([number, *vars(found).values()]) + "\n")
                made.reasons.update(found.reasons)
                (rejects if found.rejected else kept)[number] = found
        made.kept, made.rejected = len(kept), len(rejects)
        made.dropped = sum(len(one.reasons) for one in kept.values())
        made.instances = sum(one.kept for one in kept.values())
        failed = [_json({"number": number, "failed": reason}) for number, reason in sorted(made.failed.items())]
        self._put_rejects(rejects, failed, known)
        if not kept:
            raise SettingsError(
                f"{self.output}: none of {self.spec.pictures} pictures is kept ({_listed(made.reasons)}); loosen the "
                f"filter, or look at {self.work / 'rejected'}"
            )
        new = self.work / FRESH
        shutil.rmtree(new, ignore_errors=True)
        notes = Notes(self.work / NOTES, self.output, [one.mark for one in kept.values()])
        if self.replace:
            notes.file.unlink(missing_ok=True)
        write_dataset(_Kept(self.spec, list(kept), self._example), new, self.format, notes)
        write_atomic(new / LINES, "".join(f"{one.line}\n" for one in kept.values()))
        write_atomic(new / CARD, self._card(made))
        names = sorted(path.name for path in new.iterdir())  # noted before they are there, as `RunDirectory.put` does
        count = len(list(files_in(new)))
        self._state.put("names", fingerprint(names, count), {}, {"names": names, "files": count}, replace=True)
        self._state.put("written", _UNFINISHED, {}, _facts_of(made), replace=True)
        put_in_place(new, self.output, self.work / ASIDE)

    def _put_rejects(self, rejects: Mapping[int, _Looked], failed: Sequence[str], known: Mapping[int, _Looked]) -> None:
        """Keep what was left out aside: a line each, and a copy of each picture."""
        folder = self.work / "rejected"
        folder.mkdir(parents=True, exist_ok=True)
        names = {f"{one.key}.png": number for number, one in rejects.items()}
        there = {path.name for path in folder.iterdir()}
        for name in there - names.keys():
            (folder / name).unlink()
        for name, number in names.items():
            if number not in known or name not in there:
                shutil.copyfile(self._pictures.local(name), folder / name)
        write_atomic(
            folder / "rejected.jsonl",
            "".join(f"{line}\n" for line in (*(one.line for one in rejects.values()), *failed)),
        )

    # The folder

    def _check_folder(self) -> None:
        if self.output.exists() and not self.output.is_dir():
            raise SettingsError(f"{self.output}: is a file; name a folder")
        there = {path.name for path in self.output.iterdir()} if self.output.is_dir() else set()
        if strange := sorted(there - self._names()):
            raise SettingsError(
                f"{self.output}: holds {strange[0]!r}, which no earlier run of this command wrote; choose another "
                "folder, or move it away"
            )

    def _names(self) -> set[str]:
        """What this command wrote into the folder."""
        item = self._state.item("names")
        return set() if item is None else set(item.record["names"])

    def _is_whole(self) -> bool:
        item = self._state.item("names")
        if item is None or not self.output.is_dir() or {path.name for path in self.output.iterdir()} != self._names():
            return False
        return item.record.get("files") in (None, len(list(files_in(self.output))))

    def _fingerprint(self) -> str:
        return fingerprint(self.spec.to_dict(), self._base, self.format, self.licence)

    def _card(self, made: MadeDataset) -> str:
        """A card as the hub's data sets have it."""
        licence = self.licence or "unknown"
        plain = re.fullmatch(r"[A-Za-z0-9.\-]+", licence)
        head = [f"license: {licence.lower() if plain else 'other'}"]
        head += [] if plain else [f"license_name: {json.dumps(licence)}"]
        head += ["task_categories: [object-detection]", "tags: [synthetic]"]
        facts = {
            "pictures made": made.pictures,
            "pictures kept": f"{made.kept} ({made.instances} instances)",
            "left out": f"{made.rejected} pictures, {made.dropped} instances of the others ({_listed(made.reasons)})",
            "could not be made": len(made.failed),
            "filter": UNFILTERED if self._facts is None else f"`{_json(self._facts)}`",
            "model": f"`{_json(self._model)}`",
            "licence": licence,
            "format": f"`{self.format}`",
            "made by": f"instancediffusion {__version__}",
        }
        body = "\n".join(f"- {name}: {value}" for name, value in facts.items())
        blocks = {"spec": self.spec.to_dict(), "settings": self._settings.to_dict()}
        quoted = "\n\n".join(f"## {k}\n\n```json\n{json.dumps(v, indent=1)}\n```" for k, v in blocks.items())
        lines = f"Seed, prompt and captions of each picture are in `{LINES}`, a line each."
        return "---\n" + "\n".join(head) + f"\n---\n\n# {self.output.name}\n\n{body}\n\n{lines}\n\n{quoted}\n"


@dataclass(frozen=True)
class _Kept:
    """The kept pictures as a data set."""

    spec: DatasetSpec
    numbers: Sequence[int]
    example: Callable[[int], Example]

    @property
    def categories(self) -> Mapping[int | str, str]:
        return {number: one.name for number, one in enumerate(self.spec.classes, 1)}

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Example:
        return self.example(self.numbers[index])


def _picture(drawn: DrawnScene) -> Picture:
    return Picture(f"{drawn.number:08d}", drawn.scene, drawn.seed)


def _open(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _line(entry: _Entry) -> str:
    """What is recorded of a picture."""
    drawn, verdict = entry.drawn, entry.verdict
    instances = [
        {"caption": one.caption, "category": name, "z_order": one.z_order, "kept": index in verdict.kept}
        | ({"reason": verdict.dropped[index]} if index in verdict.dropped else {})
        for index, (one, name) in enumerate(zip(drawn.scene.instances, drawn.categories, strict=True))
    ]
    facts = {"number": drawn.number, "seed": drawn.seed, "prompt": drawn.scene.prompt, "background": drawn.background}
    file = {"rejected": verdict.rejected, "picture": f"{entry.picture.key}.png"} if verdict.rejected else {}
    file = file or {"file_name": f"{drawn.number:08d}.png"}
    return _json(file | facts | {"instances": instances})


def _kind(reason: str) -> str:
    """A reason without its numbers."""
    return reason.partition(" 0.")[0]


def _listed(reasons: Counter[str]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in reasons.most_common(8)) or "nothing"


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


_UNFINISHED = "unfinished"
_COUNTS = ("pictures", "kept", "instances", "dropped", "rejected")


def _facts_of(made: MadeDataset) -> dict[str, Any]:
    return {name: getattr(made, name) for name in _COUNTS} | {"reasons": dict(made.reasons)}
