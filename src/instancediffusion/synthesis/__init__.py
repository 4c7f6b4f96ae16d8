"""Labelled pictures out of nothing but a spec: scenes drawn at random, pictures made, filtered by a detector, written.

`DatasetMaker` is the way in; `instancediffusion dataset make` loads the model and calls it.
"""

from .detection import ClassesDetector, Detection, Detector, JudgeDetector, WordsDetector, load_detector
from .filtering import Verdict, judge_picture, labelled
from .making import DatasetMaker, MadeDataset, pipeline_pictures, spread_pictures
from .sampling import DrawnScene, NoRoomError, SceneSampler
from .spec import ClassSpec, DatasetSpec, FilterSpec, read_spec

__all__ = [
    "ClassSpec",
    "ClassesDetector",
    "DatasetMaker",
    "DatasetSpec",
    "Detection",
    "Detector",
    "DrawnScene",
    "FilterSpec",
    "JudgeDetector",
    "MadeDataset",
    "NoRoomError",
    "SceneSampler",
    "Verdict",
    "WordsDetector",
    "judge_picture",
    "labelled",
    "load_detector",
    "pipeline_pictures",
    "read_spec",
    "spread_pictures",
]
