"""What a request for files of pictures comes to: which pictures there are, by what each is made, which are missing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from instancediffusion.additions import Additions, file_fact
from instancediffusion.errors import SettingsError
from instancediffusion.pipeline.editing import read_source
from instancediffusion.pipeline.picture_folder import Picture, PictureFolder
from instancediffusion.pipeline.requests import resolve_seeds
from instancediffusion.scene.inputs import Input
from instancediffusion.settings import GenerationSettings

_MOST_FOLDERS = 1000  # folders in which the source of an edit is looked for


@dataclass(frozen=True)
class Job:
    """Pictures of a folder that are made with the same settings and additions.

    Attributes:
        folder: where they go.
        settings: their settings.
        additions: what is added to their scenes.
        pictures: all of them.
        pending: those that are missing.
        taken: those whose file name something else has, and what.
    """

    folder: PictureFolder
    settings: GenerationSettings
    additions: Additions
    pictures: Sequence[Picture]
    pending: Sequence[Picture]
    taken: Sequence[tuple[Picture, Exception]]


@dataclass(frozen=True)
class Plan:
    """Pictures of some scenes.

    Attributes:
        inputs: the scenes; one from a picture of ours brings the seeds and settings it was made with.
        settings: from the settings a picture stands on, and the names of the LoRA files in use, to its own.
        additions: what is added to all of them.
        seeds: of each scene; empty: its own, else 0.
        num_images: pictures of each scene, where one seed is given.
    """

    inputs: Sequence[Input]
    settings: Callable[[GenerationSettings, Iterable[str]], GenerationSettings]
    additions: Additions
    seeds: tuple[int, ...] = ()
    num_images: int | None = None

    @cached_property
    def edits(self) -> Mapping[str, Path | None]:
        """By the source of an edited picture, the picture it was made from; None if that is not to be found."""
        return {item.source: found_edit(item) for item in self.inputs if "edit" in item.model}

    def jobs(
        self,
        output: Path,
        facts: Mapping[str, Any],
        defaults: GenerationSettings,
        *,
        refiner: str | None = None,
        overwrite: bool = False,
    ) -> list[Job]:
        """The pictures in a folder, those that are made alike together.

        Args:
            output: the folder.
            facts: what decides them beside settings and additions, for the manifest; see `PictureFolder`.
            defaults: the model's own settings.
            refiner: name of what goes over each.
            overwrite: replace pictures that are there with other settings.

        Raises:
            SettingsError: see `pictures`.
        """
        found = []
        for settings, additions, pictures in self.pictures(defaults):
            model = {**facts, **additions.facts(), **({"refiner": refiner} if settings.refiner_strength else {})}
            folder = PictureFolder(output, model, settings, replace=overwrite)
            found.append(Job(folder, settings, additions, pictures, *folder.pending(pictures)))
        return found

    def doubts(self, facts: Mapping[str, Any]) -> Iterator[str]:
        """Say which pictures that are to be made again were made by something else, and so will be others."""
        edits = self.edits
        for item in self.inputs:
            if not item.model:
                continue
            given = {**facts, **self._additions_of(item).facts()}
            stated = {name: value for name, value in item.model.items() if name in ("weights", "dtype", "adapter")}
            other = [name for name, value in stated.items() if facts.get(name) != value]
            other += [name for name in ("adapter",) if name in facts and stated and name not in stated]
            missing = sorted(item.model.keys() - stated.keys() - given.keys() - {"refiner"})
            if "edit" in missing and edits.get(item.source) is None:
                name = _name_of(item.model["edit"]) or "another picture"
                text = f"is an edit of {name}, which is not in its folder, in one beside it, or here; it is drawn whole"
                yield f"{item.source}: {text}; put it there, or give --edit"
                missing = [name for name in missing if name not in ("edit", "redraw")]
            for names, text in ((other, "was made with other {}"), (missing, "was made with {}, not given now")):
                if names:
                    text = text.format(" and ".join(names))
                    yield f"{item.source}: {text}: the picture will be another"

    def _additions_of(self, item: Input) -> Additions:
        """What is added to a scene: a picture that was made by an edit, or with layers, is made so again.

        Raises:
            SettingsError: a picture made by an edit is asked for with layers.
        """
        source = self.edits.get(item.source)
        if source is not None and self.additions.edit is None and self.additions.image is None:
            if self.additions.layers:
                raise SettingsError(f"layers: {item.source} was made by --edit, which makes none; leave them out")
            stated = item.model.get("redraw")
            redraw = [number for number in (stated if isinstance(stated, list) else ()) if isinstance(number, int)]
            return replace(self.additions, edit=source, redraw=tuple(redraw))
        if item.model.get("layers") is True and self.additions.edit is None:
            return replace(self.additions, layers=True)
        return self.additions

    def pictures(self, defaults: GenerationSettings) -> list[tuple[GenerationSettings, Additions, list[Picture]]]:
        """The pictures, by the settings and additions they are made with: a picture of ours brings its own."""
        loras = tuple(lora.source for lora in self.additions.loras if lora.weight)
        groups: dict[str, tuple[GenerationSettings, Additions, list[Picture]]] = {}
        edited, edited_seeds = self._edited()
        for item in self.inputs:
            stated = edited | item.settings
            usable = {name: value for name, value in stated.items() if name in defaults.to_dict()}
            settings = self.settings(defaults.replace(**usable), loras)
            first = self.seeds or item.seeds or edited_seeds or (0,)
            seeds = resolve_seeds(list(first) if len(first) > 1 else first[0], self.num_images)
            additions = self._additions_of(item)
            own = [str(additions.edit), additions.redraw, additions.layers]
            key = json.dumps([settings.to_dict(), own], sort_keys=True)
            pictures = groups.setdefault(key, (settings, additions, []))[2]
            pictures += [Picture(item.name, item.scene, seed) for seed in seeds]
        return list(groups.values())

    def _edited(self) -> tuple[dict[str, Any], tuple[int, ...]]:
        """Settings and seed of the picture that is edited: the part drawn anew starts from the noise of the rest."""
        if self.additions.edit is None:
            return {}, ()
        source = read_source(self.additions.edit)
        settings = {k: v for k, v in source.settings.items() if k not in ("height", "width", "strength")}
        if source.seed is None:
            return settings, ()
        # What is drawn anew from the same scene and the same noise would come out as it was.
        return settings, ((source.seed + 1) % 2**64 if self.additions.redraw else source.seed,)


def found_edit(item: Input) -> Path | None:
    """The picture that an edited one was made from, identified by its hash.

    It is looked for by its name in the edited one's folder, in the folders beside that, and in the working directory.
    """
    noted = item.model["edit"]
    name, wanted = _name_of(noted), noted.get("sha256") if isinstance(noted, Mapping) else None
    own = Path(item.source).resolve().parent if Path(item.source).is_file() else Path.cwd()
    try:
        beside = sorted(path for path in own.parent.iterdir() if path.is_dir())
    except OSError:
        beside = []
    for folder in dict.fromkeys([own, own.parent, *beside[:_MOST_FOLDERS], Path.cwd()]):
        path = folder / name
        if name and path.is_file() and file_fact(path)["sha256"] == wanted:
            return path
    return None


def _name_of(noted: object) -> str:
    """The name of a file in notes; these may come from anywhere, so only the last part of a path is taken."""
    name = noted.get("file") if isinstance(noted, Mapping) else None
    return Path(name).name if isinstance(name, str) and "\0" not in name else ""


def check_sizes(pipeline: Any, jobs: Sequence[Job]) -> None:
    """Raise `SettingsError` if no picture has a size that can be made, before anything is written."""
    errors, count = [], 0
    for job in jobs:
        for picture in job.pending:
            count += 1
            try:
                pipeline.picture_size(picture.scene, job.settings)
            except SettingsError as error:
                errors.append(error)
    if errors and len(errors) == count:
        raise errors[0]
