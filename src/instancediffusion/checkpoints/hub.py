"""Models of the hub: only what is needed of a repository, and from the cache where the hub cannot be reached."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from instancediffusion.checkpoints.families import check_family
from instancediffusion.checkpoints.index import INDEX, components_of, read_index
from instancediffusion.checkpoints.variants import adapter_variant, choose_variant, files_to_load
from instancediffusion.errors import ModelError

CHECKPOINTS = (".safetensors", ".ckpt", ".pth", ".pt")
HUB_OPTIONS = ("revision", "cache_dir", "token", "local_files_only", "force_download")
"""The options of a loading call that say where and how to download."""

_Result = TypeVar("_Result")
# The root of the errors of the HTTP library that the hub's client uses (requests once, httpx now).
_HTTP_ERROR: type[Exception] = HfHubHTTPError.__bases__[0]


def download_file(repository: str, name: str, **hub: Any) -> Path:
    """The local path of one file of a repository.

    Args:
        repository: owner/name.
        name: path of the file in there.
        hub: `HUB_OPTIONS`.

    Raises:
        ModelError: there is no such repository, revision or file, it cannot be read, or the hub cannot be reached and
            the file is not in the cache.
    """
    return Path(_asked(repository, lambda: hf_hub_download(repository, name, **hub), name))


def download_pipeline(repository: str, *, variant: str | None = None, given: Collection[str] = (), **hub: Any) -> Path:
    """The local folder of a pipeline's repository, with all that loading it needs.

    Args:
        repository: owner/name.
        variant: see `choose_variant`.
        given: components that are not needed, as the caller has them.
        hub: `HUB_OPTIONS`.

    Raises:
        ModelError: see `download_file`, `choose_variant` and `check_family`; or it is no pipeline.
    """
    try:
        index = download_file(repository, INDEX, **hub)
    except NoSuchFileError:
        raise ModelError(_not_a_pipeline(repository, hub)) from None
    folder = index.parent
    stated = read_index(folder)
    check_family(stated, repository)
    needed = [name for name in components_of(stated) if name not in given]
    # The commit of the index, so that all files are of one commit.
    hub = {**hub, "revision": folder.name}
    try:
        files = list_files(repository, **hub)
    except UnreachableError:
        return _complete(folder, needed, repository)
    inside = {name: _inside(files, f"{name}/") for name in needed}
    chosen = choose_variant(inside, variant, repository)
    wanted = [f"{name}/{f}" for name in needed for f in files_to_load(name, inside[name], chosen, repository)]
    # What stands beside the components: the index and the card.
    wanted += [f for f in _inside(files, "") if f.endswith((".json", ".md", ".txt"))]
    return _download_all(repository, wanted, hub, folder)


def download_adapter(repository: str, *, variant: str | None = None, **hub: Any) -> Path:
    """The local folder of an adapter's repository, or of the adapter in a pipeline's.

    A repository that holds nothing but checkpoints (the published one, or the three spliced files) gives the folder
    with those.

    Args:
        repository: owner/name.
        variant: see `adapter_variant`.
        hub: `HUB_OPTIONS`.

    Raises:
        ModelError: see `download_file` and `choose_variant`; or it holds no adapter.
    """
    unreachable: UnreachableError | None = None
    for prefix in ("", "adapter/"):
        try:
            config = download_file(repository, f"{prefix}config.json", **hub)
        except NoSuchFileError:
            continue
        except UnreachableError as error:  # the cache may hold the other
            unreachable = error
            continue
        if json.loads(config.read_text(encoding="utf-8")).get("_class_name") != "InstanceAdapter":
            continue
        root = config.parents[1] if prefix else config.parent
        hub = {**hub, "revision": root.name}
        try:
            names = _inside(list_files(repository, **hub), prefix)
        except UnreachableError:
            return config.parent
        chosen = adapter_variant(names, variant, repository)
        wanted = [prefix + f for f in files_to_load("adapter", names, chosen, repository)]
        _download_all(repository, wanted, hub, root)
        return config.parent
    if unreachable is not None:
        raise unreachable
    weights = [name for name in _inside(list_files(repository, **hub), "") if name.endswith(CHECKPOINTS)]
    if len(weights) not in (1, 3):
        raise ModelError(f"adapter: {repository} holds no adapter (no config.json of an InstanceAdapter)")
    return _download_all(repository, weights, hub, Path())


def download_parts(repository: str, anchor: str, parts: Collection[str], **hub: Any) -> Path:
    """The local folder of a repository, with the file `anchor` and those that match one of the patterns `parts`.

    Raises:
        ModelError: see `download_file`.
    """
    folder = download_file(repository, anchor, **hub).parents[anchor.count("/")]
    try:
        files = list_files(repository, **hub)
    except UnreachableError:
        return folder
    return _download_all(repository, [f for f in files if any(fnmatch(f, part) for part in parts)], hub, folder)


def _download_all(repository: str, files: Sequence[str], hub: Mapping[str, Any], folder: Path) -> Path:
    """Download files of a repository; returns its local folder, `folder` where there is nothing to download.

    One by one: which commit a file is of, and so where it lands, is what the hub says when it is asked for that file.
    """
    for name in files:
        folder = download_file(repository, name, **hub).parents[name.count("/")]
    return folder


def list_files(repository: str, **hub: Any) -> list[str]:
    """The paths of all files of a repository.

    Raises:
        UnreachableError: the hub cannot be reached, or is not to be asked (`local_files_only`).
        ModelError: no such repository or revision.
    """
    if hub.get("local_files_only"):
        raise UnreachableError(f"model: the files of {repository} cannot be listed without the hub")
    api = HfApi(token=hub.get("token"))
    revision = hub.get("revision")
    # One request that is not repeated: without a network, listing by pages would wait for half a minute.
    info = _asked(repository, lambda: api.model_info(repository, revision=revision))
    names = [sibling.rfilename for sibling in info.siblings or ()]
    return names or _asked(repository, lambda: api.list_repo_files(repository, revision=revision))


def _inside(files: Collection[str], prefix: str) -> list[str]:
    """The names of the files directly in a folder of a repository."""
    rests = [name[len(prefix) :] for name in files if name.startswith(prefix)]
    return [rest for rest in rests if "/" not in rest]


class NoSuchFileError(ModelError):
    """The repository is there, and this file is not in it."""


class UnreachableError(ModelError):
    """The hub cannot be reached, and the cache does not hold what is asked for."""


def _asked(repository: str, call: Callable[[], _Result], name: str = "") -> _Result:
    """Run one call to the hub; what goes wrong is reported in words that name the fix."""
    try:
        return call()
    except GatedRepoError as error:
        raise ModelError(
            f"model: {repository} is gated; accept its terms on its page, then `hf auth login` or pass token="
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"model: there is no repository {repository!r} on the hub, or it is private; check the name, or pass token="
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"revision: {repository} has no such branch, tag or commit; check revision=") from error
    except HFValidationError as error:
        raise ModelError(f"model: {repository!r} is neither a folder, a file nor a hub id (owner/name)") from error
    except LocalEntryNotFoundError as error:
        raise UnreachableError(
            f"model: {repository} cannot be downloaded and is not in the cache{f' ({name})' if name else ''}; "
            "connect to the network once, or give a folder"
        ) from error
    except EntryNotFoundError as error:
        raise NoSuchFileError(f"model: {repository} has no file {name}") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        raise UnreachableError(f"model: {repository} cannot be downloaded (the hub answers {status})") from error
    except (OSError, _HTTP_ERROR) as error:  # no connection, a full disk
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UnreachableError(f"model: {repository} cannot be downloaded ({reason})") from error


def _complete(folder: Path, needed: Collection[str], repository: str) -> Path:
    """The cached folder, if no component is missing altogether."""
    missing = [name for name in needed if not (folder / name).is_dir()]
    if missing:
        raise ModelError(
            f"model: the cache lacks {', '.join(missing)} of {repository} and the hub cannot be reached; "
            "connect to the network once"
        )
    return folder


def _not_a_pipeline(repository: str, hub: Mapping[str, Any]) -> str:
    """What a repository without `model_index.json` is instead, and how to use it."""
    try:
        files = _inside(list_files(repository, **hub), "")
    except ModelError:
        files = []
    if "config.json" in files:
        return (
            f"model: {repository} holds one component, not a pipeline (there is no {INDEX}); "
            "an adapter goes with a base model: pass it as adapter="
        )
    weights = [name for name in files if name.endswith(CHECKPOINTS)]
    if weights:
        return f"model: {repository} holds no {INDEX}; to load a file of it, name it as {repository}/{weights[0]}"
    return f"model: {repository} holds no {INDEX}; give the repository of a whole pipeline"
