"""HTML pages that need nothing beside themselves: pictures stand in the page."""

from __future__ import annotations

import base64
import io
from html import escape

from PIL import Image

THUMBNAIL_PX = 144

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2em auto; padding: 0 1em; color: #1b1f24; }
table { border-collapse: collapse; margin: .6em 0 1.4em; font-size: 13px; }
th, td { border: 1px solid #d0d7de; padding: .2em .5em; text-align: left; vertical-align: top; }
td.number { text-align: right; white-space: nowrap; }
.interval { color: #57606a; font-size: 11px; }
.bar { background: #0969da; height: 5px; }
figure { display: inline-block; margin: 0 4px 8px 0; width: 144px; vertical-align: top; }
figcaption { font-size: 11px; line-height: 1.25; overflow-wrap: anywhere; }
details { margin: .4em 0; }
"""


def page(title: str, body: str) -> str:
    """Return a whole page; `body` is HTML."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body>{body}</body></html>\n"
    )


def figure(image: Image.Image, caption: str) -> str:
    """Return a small picture with a caption, as HTML."""
    small = image.convert("RGB")
    small.thumbnail((THUMBNAIL_PX * 2, THUMBNAIL_PX * 2))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<figure><img width="{THUMBNAIL_PX}" alt="{escape(caption)}" src="data:image/jpeg;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
