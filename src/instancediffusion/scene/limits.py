"""Bounds that every scene keeps, so that no file can make a program work or allocate without end."""

FORMAT_VERSION = 1
MIN_SIDE_PX, MAX_SIDE_PX = 16, 8192
MAX_LENGTH_PX = 1e9  # beyond it sums of lengths would lose pixels, or overflow
MAX_INSTANCES = 1000
MAX_SCRIBBLE_POINTS = 10_000
MAX_POLYGON_POINTS = 20_000
MAX_Z_ORDER = 1_000_000
MAX_PROBLEMS = 10_000  # listed for one file
MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_REFERENCE_BYTES = 16 * 1024 * 1024
MAX_REFERENCE_PX = 4096  # on each side
MAX_COCO_BYTES = 1024 * 1024 * 1024  # the annotations of COCO's own training set are 450 MB

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
"""Of files that are looked for beside annotations."""
