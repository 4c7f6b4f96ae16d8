"""Model cards, and pushing to the hub with one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi, ModelCard, ModelCardData

TAGS = ("instancediffusion", "layout-to-image", "diffusers")
ADAPTER_SUMMARY = "An InstanceDiffusion adapter: a caption, a location and a layer for each object of a picture."
ADAPTER_USAGE = """
from instancediffusion import InstanceDiffusionPipeline, load_scene

pipe = InstanceDiffusionPipeline.from_pretrained("a model of the same family", adapter="{name}")
image = pipe(load_scene("scene.json"), seed=0).images[0]
"""


def model_card(
    repository: str, summary: str, usage: str, facts: Sequence[tuple[str, str]], base: str | None
) -> ModelCard:
    """A card that tells what a repository holds and how to load it.

    Args:
        repository: owner/name.
        summary: one sentence.
        usage: Python that loads it.
        facts: (name, value) rows of a table.
        base: hub id of the model it was made from, if there is one.
    """
    data = ModelCardData(
        library_name="instancediffusion", pipeline_tag="text-to-image", tags=list(TAGS), base_model=base or None
    )
    table = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts)]
    text = [
        "---",
        data.to_yaml(),
        "---",
        "",
        f"# {repository.split('/')[-1]}",
        "",
        summary,
        "",
        "```python",
        usage.strip(),
        "```",
        "",
        *table,
    ]
    return ModelCard("\n".join(text) + "\n")


class PublishedWithCard:
    """`push_to_hub` for what has `save_pretrained` and a card of its own."""

    def _card(self, repository: str) -> ModelCard:
        raise NotImplementedError

    def push_to_hub(
        self,
        repo_id: str,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        create_pr: bool = False,
        safe_serialization: bool = True,
        variant: str | None = None,
        subfolder: str | None = None,
    ) -> str:
        """Publish on the hub, with a card that tells how to load it; arguments as in diffusers.

        Returns:
            The address of the commit.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(  # type: ignore[attr-defined]
                folder, safe_serialization=safe_serialization, variant=variant
            )
            return publish(
                folder,
                repo_id,
                self._card(repo_id),
                token=token,
                private=private,
                create_pr=create_pr,
                commit_message=commit_message,
                subfolder=subfolder,
            )


def publish(
    folder: str | os.PathLike[str],
    repository: str,
    card: ModelCard,
    *,
    token: str | bool | None = None,
    private: bool | None = None,
    create_pr: bool = False,
    commit_message: str | None = None,
    subfolder: str | None = None,
) -> str:
    """Upload a folder to a repository of the hub, which is created if need be.

    Args:
        folder: what to upload; the card is written into it.
        repository: owner/name.
        card: becomes `README.md`, unless the repository has one: that may have been edited.
        token: see `huggingface_hub`; None takes the one of `hf auth login`.
        private: of a new repository.
        create_pr: open a pull request in place of a commit.
        commit_message: None says what was uploaded.
        subfolder: where in the repository; a part of something else gets no card.

    Returns:
        The address of the commit.
    """
    api = HfApi(token=token)
    name = api.create_repo(repository, private=private, exist_ok=True).repo_id
    if subfolder is None and not api.file_exists(name, "README.md"):
        card.save(Path(folder) / "README.md")
    done = api.upload_folder(
        repo_id=name,
        folder_path=Path(folder),
        path_in_repo=subfolder,
        commit_message=commit_message or "Upload with instancediffusion",
        create_pr=create_pr,
    )
    return str(done)
