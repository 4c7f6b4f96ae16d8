"""A data set made from a spec: scenes, pictures, what a detector sees of them, and what of it is written."""

from __future__ import annotations

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
from instancediffusion.datasets import Example, format_of, write_dataset
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
from instancediffusion.runs import RunDirectory, fingerprint, write_atomic
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
        made = MadeDataset(self.output, self.work)
        numbers = [number for chunk in self._chunks() for number in self._chunk(chunk, made)]
        self._seen.settle()
        self._write(numbers, made)
        # A picture that failed is tried again by the same command.
        self._state.put("written", _UNFINISHED if made.failed else mark, {}, _facts_of(made), replace=True)
        self._state.settle()
        return made

    # Scenes and pictures

    def _chunks(self) -> Iterator[range]:
        size = self._chunk_size
        return (range(k, min(k + size, self.spec.pictures)) for k in range(0, self.spec.pictures, size))

    def _folder(self) -> PictureFolder:
        return PictureFolder(self.work / "pictures", self._model, self._settings, replace=self.replace)

    @cached_property
    def _pictures(self) -> RunDirectory:
        """All pictures, once they are made."""
        return RunDirectory(self.work / "pictures", "generate")

    def _chunk(self, chunk: range, made: MadeDataset) -> Iterator[int]:
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

    def _write(self, numbers: Sequence[int], made: MadeDataset) -> None:
        kept, lines, rejects = [], list[str](), list[str]()
        for number in numbers:
            entry = self._entry(number)
            (rejects if entry.verdict.rejected else lines).append(_line(entry))
            made.reasons.update(_kind(reason) for reason in entry.verdict.dropped.values())
            if entry.verdict.rejected:
                made.rejected += 1
                continue
            made.dropped += len(entry.verdict.dropped)
            made.instances += len(entry.verdict.kept)
            kept.append(number)
        rejects += [_json({"number": number, "failed": reason}) for number, reason in sorted(made.failed.items())]
        self._put_rejects(rejects)
        if not kept:
            raise SettingsError(
                f"{self.output}: none of {self.spec.pictures} pictures is kept ({_listed(made.reasons)}); loosen the "
                f"filter, or look at {self.work / 'rejected'}"
            )
        made.kept = len(kept)
        new = self.work / "new"
        shutil.rmtree(new, ignore_errors=True)
        write_dataset(_Kept(self.spec, kept, self._example), new, self.format)
        write_atomic(new / LINES, "\n".join(lines) + "\n")
        write_atomic(new / CARD, self._card(made))
        old = self.work / "old"
        shutil.rmtree(old, ignore_errors=True)
        names = sorted(path.name for path in new.iterdir())  # noted before they are there, as `RunDirectory.put` does
        self._state.put("names", fingerprint(names), {}, {"names": names}, replace=True)
        self._state.put("written", _UNFINISHED, {}, _facts_of(made), replace=True)
        if self.output.exists():
            self.output.rename(old)
        new.rename(self.output)
        shutil.rmtree(old, ignore_errors=True)

    def _put_rejects(self, lines: Sequence[str]) -> None:
        """Keep what was left out aside: a line each, and a copy of each picture."""
        folder = self.work / "rejected"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for line in lines:
            values = json.loads(line)
            if "picture" in values:
                shutil.copyfile(self._pictures.local(values["picture"]), folder / values["picture"])
        write_atomic(folder / "rejected.jsonl", "".join(f"{line}\n" for line in lines))

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
        return self.output.is_dir() and {path.name for path in self.output.iterdir()} == self._names()

    def _fingerprint(self) -> str:
        decisive = self._settings.decisive()
        return fingerprint(self.spec.to_dict(), self._model, decisive, self._facts, self.format, self.licence)

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
