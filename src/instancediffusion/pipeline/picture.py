"""PNG files that carry how they were made; see `instancediffusion.scene.notes`, which needs no torch."""

from instancediffusion.scene.notes import PREFIX, notes_of, png_bytes, read_notes

__all__ = ["PREFIX", "notes_of", "png_bytes", "read_notes"]
