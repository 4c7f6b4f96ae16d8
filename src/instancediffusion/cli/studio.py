"""`instancediffusion studio`: draw the scene, see the picture."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Any

import click

from instancediffusion.choices import precision_fact

from .libraries import quieten_libraries, uncollected
from .model_options import model_options


@click.command()
@model_options
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("studio"),
    show_default=True,
    help="Folder of the results and drafts; nothing outside it and --models is read, nothing outside it written.",
)
@click.option(
    "--models",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    multiple=True,
    help="Folder of LoRA files, textual inversions, IP-Adapters and ControlNets; repeatable. Default: OUTPUT/models.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to answer on.")
@click.option("--port", type=click.IntRange(0, 65535), default=7860, show_default=True, help="0 takes a free one.")
@click.option("--auth", metavar="USER:PASSWORD", envvar="INSTANCEDIFFUSION_STUDIO_AUTH", help="Ask for these.")
@click.option("--no-auth", is_flag=True, help="Let in everybody who reaches --host.")
@click.option("--open", "browser", is_flag=True, help="Open the page in the browser.")
@click.option("--max-minutes", type=click.FloatRange(min=0, min_open=True), help="Longest run of one job; 30.")
@click.option("--max-queue", type=click.IntRange(min=1), help="Most jobs waiting; 40.")
@click.option("--max-pictures", type=click.IntRange(min=1, max=64), help="Most pictures of one request; 16.")
def studio(
    model: str,
    adapter: str | None,
    variant: str | None,
    dtype: str,
    device: str | None,
    output: Path,
    models: tuple[Path, ...],
    host: str,
    port: int,
    auth: str | None,
    no_auth: bool,
    browser: bool,
    **bounds: Any,
) -> None:
    """Open a local page in which scenes are drawn and their pictures made.

    The page works offline. Every result is a folder like those `generate` writes, below OUTPUT/runs. An address that
    other machines reach needs --auth, or --no-auth if that is really meant. Press Ctrl-C to stop.
    """
    user = _user(auth)
    _check_host(host, user is not None, no_auth)
    with uncollected():
        quieten_libraries(bars=False)
        from instancediffusion.checkpoints import local_adapter, weights_sha256
        from instancediffusion.pipeline.loading import local_model
        from instancediffusion.pipeline.opening import open_pipeline
        from instancediffusion.studio import Engine, RunStore, Studio
        from instancediffusion.studio.app import load_gradio, serve

        load_gradio()  # first, so that its absence is reported before a model is loaded
    click.echo(f"loading {model} ...", err=True)
    folder = local_model(model, variant=variant)
    own = None if adapter is None else local_adapter(adapter, variant=variant)
    facts: dict[str, Any] = {"weights": weights_sha256(folder), "dtype": dtype, **precision_fact(device)}
    facts |= {"adapter": weights_sha256(own)} if own is not None else {}
    pipeline = open_pipeline(folder, own, dtype, device, variant)
    engine = Engine(pipeline, facts, model, _limits(bounds), RunStore(output))

    def started(url: str) -> None:
        click.echo(f"studio: {url}  (results in {output.resolve()}; Ctrl-C stops it)")
        if browser:
            webbrowser.open(url)

    serve(Studio(engine, models), host=host, port=port, auth=user, started=started)


def _user(auth: str | None) -> tuple[str, str] | None:
    if auth is None:
        return None
    name, _, password = auth.partition(":")
    if not name or not password:
        raise click.UsageError("--auth: write USER:PASSWORD, neither of them empty")
    return name, password


def _check_host(host: str, has_auth: bool, no_auth: bool) -> None:
    from instancediffusion.studio.guard import is_loopback

    if has_auth and no_auth:
        raise click.UsageError("--auth and --no-auth are both given; leave one of them out")
    if not is_loopback(host) and not has_auth and not no_auth:
        raise click.UsageError(
            f"--host: {host} can be reached from other machines; "
            "add --auth USER:PASSWORD, or --no-auth to let in everybody"
        )


def _limits(bounds: dict[str, Any]) -> Any:
    """The studio's bounds, but for those given."""
    from instancediffusion.studio import Limits

    given = {
        "run_seconds": None if bounds["max_minutes"] is None else 60 * bounds["max_minutes"],
        "queue": bounds["max_queue"],
        "pictures": bounds["max_pictures"],
    }
    return Limits(**{name: value for name, value in given.items() if value is not None})
