"""Old names, which go with the next release: what is imported by one is found where it is now, with a warning."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

ROOT = __name__.rpartition(".")[0]

MODULES = {
    "adapter.backbones.base": "adapter.backbones.backbone",
    "adapter.fourier": "adapter.unifusion",
    "annotation.models.loading": "annotation.models.pinning",
    "annotation.objects": "annotation.selection",
    "annotation.order": "annotation.depth_order",
    "annotation.pictures": "annotation.unlabelled_pictures",
    "annotation.run": "annotation.annotation_run",
    "annotation.settings": "annotation.annotation_settings",
    "annotation.stages": "annotation.protocols",
    "checkpoints.names": "checkpoints.tensor_names",
    "checkpoints.official": "checkpoints.published",
    "conditioning.extents": "conditioning.regions",
    "conditioning.order": "conditioning.visibility",
    "datasets.files": "datasets.file_access",
    "datasets.registry": "datasets.dataset_format",
    "evaluation.judges": "projects.emoji_judge",
    "evaluation.judges.config": "projects.emoji_judge.judge_config",
    "evaluation.judges.lessons": "projects.emoji_judge.label_maps",
    "evaluation.judges.task": "projects.emoji_judge.judge_task",
    "evaluation.layouts": "projects.emoji_judge.layouts",
    "evaluation.orders.requests": "evaluation.orders.overlapping",
    "evaluation.suites.pictures": "evaluation.suites.found_pictures",
    "evaluation.suites.report": "evaluation.suites.suite_report",
    "evaluation.suites.run": "evaluation.suites.suite_run",
    "pipeline.folder": "pipeline.picture_folder",
    "pipeline.hub": "pipeline.hub_mixin",
    "pipeline.picture": "scene.notes",
    "pipeline.single_file": "pipeline.components",
    "pipeline.vocabulary": "pipeline.familiar",
    "rendering.colours": "rendering.palette",
    "scene.examples": "scene.files",
    "scene.formats.coco.keys": "scene.formats.coco.coco_scene",
    "scene.formats.registry": "scene.formats.scene_format",
    "scene.locations.base": "scene.locations.kind",
    "scene.report": "scene.problem_report",
    "scene.text": "scene.json_text",
    "studies": "projects.overlap_study",
    "studies.markdown": "projects.overlap_study.study_report",
    "studies.measures": "projects.overlap_study.study_metrics",
    "studies.metrics": "projects.overlap_study.study_metrics",
    "studies.parts": "projects.overlap_study.model_parts",
    "studies.report": "projects.overlap_study.study_report",
    "studies.run": "projects.overlap_study.study_run",
    "studio.limits": "studio.bounds",
    "studio.requests": "studio.page_requests",
    "studio.scenes": "studio.scene_checks",
    "studio.seeds": "studio.store",
    "training.base": "training.base_model",
    "training.dataset": "training.dataset_scenes",
    "training.frozen": "training.checkpoint",
    "training.language.reading": "training.language.reading_task",
    "training.language.start": "training.language.distilled",
    "training.language.words": "training.language.words_task",
    "training.loop": "training.fit",
    "training.relative": "training.relative_task",
    "training.scenes": "training.drawn_scenes",
    "training.scoring": "training.preview",
    "training.seeds": "training.task",
    "training.start": "training.pretrained",
    "training.text": "training.text_model",
    "worlds": "projects.emoji_world",
    "worlds.catalogue.outdoors": "projects.emoji_world.catalogue.landscape",
    "worlds.catalogue.palettes": "projects.emoji_world.colours",
    "worlds.export": "projects.emoji_world.coco_export",
    "worlds.fillers": "projects.emoji_world.captions",
    "worlds.sheets": "projects.emoji_world.contact_sheets",
    "worlds.spec": "projects.emoji_world.world_spec",
    "worlds.words": "scene.english",
}
"""Modules by their old names, and where what they held is now; what stands in a package has moved with it."""

NAMES = {
    "evaluation": {
        "GROUPS": "projects.emoji_judge",
        "Judge": "projects.emoji_judge",
        "JudgeConfig": "projects.emoji_judge",
        "JudgeLessons": "projects.emoji_judge",
        "JudgeTask": "projects.emoji_judge",
        "Layout": "projects.emoji_judge",
        "check_judge": "projects.emoji_judge",
        "layout_of": "projects.emoji_judge",
        "layouts": "projects.emoji_judge",
    },
}
"""By package, names that it had, and where they are now."""


def new_name(module: str) -> str | None:
    """Where a module is now, by its name below the root; None if it did not move."""
    package, rest = module, ""
    while package:
        if package in MODULES:
            return MODULES[package] + rest
        package, _, last = package.rpartition(".")
        rest = f".{last}{rest}"
    return None


def old_names(module: str) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package some of whose names have moved."""
    moved = NAMES[module.removeprefix(f"{ROOT}.")]

    def find(name: str) -> Any:
        if name not in moved:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home = f"{ROOT}.{moved[name]}"
        _warn(f"{module}.{name}", f"{home}.{name}")
        return getattr(import_module(home), name)

    return find


def _warn(old: str, new: str) -> None:
    """Warn at the line that names it: the caller of the caller."""
    warnings.warn(f"{old} is now {new}; the old name goes with the next release", FutureWarning, 3)


class _Named(ModuleType):
    """An old module in whose package there was a function of the same name: both are found there."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call the function."""
        return getattr(self, self.__name__.rpartition(".")[2])(*args, **options)


class OldModules:
    """Finds and fills modules by their old names; see `sys.meta_path`."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:  # noqa: ARG002
        """Find an old name."""
        if not name.startswith(f"{ROOT}.") or new_name(name.removeprefix(f"{ROOT}.")) is None:
            return None
        # Every one may have modules below it, which are found here, too.
        return ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave it to the import system."""

    def exec_module(self, module: ModuleType) -> None:
        """Fill the old module with what the new one has."""
        home = f"{ROOT}.{new_name(module.__name__.removeprefix(f'{ROOT}.'))}"
        new = import_module(home)
        _warn(module.__name__, home)
        package, _, last = module.__name__.rpartition(".")
        if last in NAMES.get(package.removeprefix(f"{ROOT}."), ()):
            module.__class__ = _Named  # the import system sets it in the package, in place of the function there
        module.__dict__.update({key: value for key, value in vars(new).items() if not key.startswith("__")})


def install() -> None:
    """Let old names be found, before folders that an old checkout has left behind."""
    if not any(type(finder).__name__ == OldModules.__name__ for finder in sys.meta_path):
        sys.meta_path.insert(0, OldModules())
