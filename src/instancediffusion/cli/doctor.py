"""`instancediffusion doctor`: what is installed, which models are at hand, what would be slow."""

import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import click

from instancediffusion.diagnosis import diagnose, mini_vocabulary


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the diagnosis as JSON.")
@click.option("--vocabulary", is_flag=True, help="List what mini knows: objects, colours, backgrounds, words.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool, vocabulary: bool) -> None:
    """Say what is installed, which models are at hand, and what would be slow.

    Measures this machine's arithmetic for about a second. Exits with 1 if something that is needed is missing.
    Paste the output into a bug report.
    """
    if vocabulary:
        known = mini_vocabulary()
        click.echo(json.dumps(known, indent=2) if as_json else "\n".join(named(known)))
        return
    report = diagnose()
    click.echo(json.dumps(report, indent=2) if as_json else "\n".join(lines(report)))
    if not report["ok"]:
        ctx.exit(1)


def named(known: Mapping[str, list[str]]) -> Iterator[str]:
    """Write the vocabulary of a model as text, a paragraph for each kind of word."""
    for kind, words in known.items():
        yield textwrap.fill(
            ", ".join(words), width=110, initial_indent=f"{kind} ({len(words)}): ", subsequent_indent="  "
        )


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """Write a diagnosis as text, line by line."""
    yield f"instancediffusion {report['version']} on Python {report['python']}, {report['platform']}"
    yield ""
    yield "Packages"
    for name, package in report["packages"].items():
        found = package["version"] or "missing"
        remark = "" if package["ok"] else f"  <- {package['needs']} needed"
        if package["extra"] and not package["version"]:
            remark = f"  (optional: pip install 'instancediffusion[{package['extra']}]')"
        yield f"  {name:<16} {found}{remark}"
    yield ""
    yield "Devices"
    for device in report["devices"]:
        speeds = ", ".join(f"{name} {speed:,.0f} GFLOP/s" for name, speed in device["gflops"].items())
        memory = f", {device['memory_gib']:.1f} GiB" if device["memory_gib"] else ""
        yield f"  {device['name']:<16} {device['description']}{memory}{': ' if speeds else ''}{speeds}"
    yield ""
    yield "Models"
    for name, model in report["models"].items():
        state = f"at hand ({model['place']}, {model['mib']:,.0f} MiB)" if model["place"] else model["missing"]
        yield f"  {name:<16} {state}"
        if model["sha256"]:
            yield f"  {'':<16} sha256 of the weights {model['sha256']}"
    if report["notes"]:
        yield ""
        yield "Notes"
        for note in report["notes"]:
            yield f"  - {note}"
