"""Every bound of the studio in one module: nothing a visitor sends may cost more than these."""

from __future__ import annotations

from dataclasses import dataclass

from instancediffusion.errors import InstanceDiffusionError


class RefusedError(InstanceDiffusionError):
    """A request beyond a bound, or for something that does not exist; the message says which and what to do."""


@dataclass(frozen=True)
class Limits:
    """The bounds of one studio.

    Attributes:
        body_bytes: largest body of any HTTP request.
        upload_bytes: largest file that is read (a body carries it in base64).
        draft_bytes: largest draft.
        drafts: drafts kept on disk; the oldest go first.
        min_side_px: shortest side of a canvas.
        max_side_px: longest side of a canvas.
        max_aspect: largest ratio of a canvas's sides.
        image_pixels: largest picture that is unpacked, in pixels.
        picture_pixels: largest picture that is generated, in pixels.
        instances: most instances of a scene.
        text_chars: longest prompt or caption.
        steps: most steps of the sampler.
        pictures: most pictures of one request, all items of a grid counted.
        rows: most NFE of one request; it bounds the work, whatever the settings.
        queue: most jobs waiting, everybody's together.
        jobs_of_session: most jobs one browser may have waiting or running.
        run_seconds: longest time a job may run.
        finished_jobs: finished jobs that are remembered; their results stay on disk.
        additions: most LoRA files of one request; the same for textual inversions and controls.
        kept_pictures: uploaded pictures kept on disk; those not used for longest go first.
        watchers: most connections that follow jobs.
        in_flight: most HTTP requests being answered at once.
        page: most results in one listing.
    """

    body_bytes: int = 24 << 20
    upload_bytes: int = 16 << 20
    draft_bytes: int = 8 << 20
    drafts: int = 500
    min_side_px: int = 64
    max_side_px: int = 2048
    max_aspect: float = 4.0
    image_pixels: int = 4096 * 4096
    picture_pixels: int = 1024 * 1024
    instances: int = 64
    text_chars: int = 2000
    steps: int = 200
    pictures: int = 16
    rows: int = 40_000
    queue: int = 40
    jobs_of_session: int = 4
    run_seconds: float = 1800.0
    finished_jobs: int = 100
    additions: int = 8
    kept_pictures: int = 64
    watchers: int = 128
    in_flight: int = 256
    page: int = 60
