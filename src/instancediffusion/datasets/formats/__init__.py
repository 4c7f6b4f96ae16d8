"""The formats that are known from the start; each module registers one, in the order in which a path is tried."""

from . import webdataset, imagefolder, yolo, cvat, label_studio, coco, labelme, voc, native  # noqa: F401, I001
