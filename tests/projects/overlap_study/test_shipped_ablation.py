"""What the documentation says of the parts of the shipped model, held to the pictures it draws."""

import os
from pathlib import Path

import pytest
from tests.conftest import ROOT

from instancediffusion.checkpoints import model_defaults
from instancediffusion.pipeline import InstanceDiffusionPipeline
from instancediffusion.pipeline.loading import local_model
from instancediffusion.projects.emoji_judge import Judge
from instancediffusion.projects.overlap_study.ablation import WHOLE, AblationRun, rows_for
from instancediffusion.projects.overlap_study.design import study_world
from instancediffusion.projects.overlap_study.flip_and_grid import flip_cells
from instancediffusion.projects.overlap_study.study_metrics import summary

JUDGE = Path(os.environ.get("INSTANCEDIFFUSION_JUDGE", ROOT / "runs" / "judge" / "judge"))

HELPS = {"no_gates": "class", "no_attention": "class", "no_relative_values": "class", "no_scaleu": "class"}
"""Rows without a part that the documentation says helps -> what it helps."""

LAYOUTS = 12


@pytest.mark.slow
def test_parts_of_the_shipped_model_do_what_is_said_of_them(tmp_path):
    folder = local_model("mini")
    pipeline = InstanceDiffusionPipeline.from_pretrained(folder)
    if not JUDGE.is_dir():
        pytest.skip(f"{JUDGE}: no judge there; train one with `instancediffusion judge train recipes/judge.toml`")
    pipeline.set_progress_bar_config(disable=True)
    names = (*HELPS, "order_in_visibility", "order_in_tokens", "order_nowhere", "order_withheld")
    rows, left = rows_for(pipeline.adapter, model_defaults(folder), names)
    assert not left, "the documentation speaks of a part that the model lacks"
    cells = list(flip_cells(study_world(256), LAYOUTS, ("box",)))
    run = AblationRun(tmp_path / "ablation", cells, rows, model_defaults(folder), Judge.load(JUDGE))
    run.make(pipeline, run.missing(), lambda count: None)
    found = {name: summary(list(run.measured(name, lambda count: None))) for name in rows}
    best = summary([row for which, row in run.composites(lambda count: None) if which == "composites"])
    # The judge has to be worth asking.
    assert best["class"].value > 0.7 and best["pair_right"].value > 0.85
    # Nothing follows the layout without the gated layers.
    assert found["no_gates"]["class"].value <= 0.15
    for name, measure in HELPS.items():
        assert found[name][measure].value < found[WHOLE][measure].value, name
    # The order is drawn, by visibility; where visibility does not know it, or nothing does, it is not there.
    for name in (WHOLE, "order_in_visibility"):
        assert found[name]["pair_right"].low > 0.25, name
    for name in ("order_in_tokens", "order_nowhere", "order_withheld"):
        assert found[name]["pair_right"].high < found[WHOLE]["pair_right"].value, name
        assert found[name]["pair_right"].low <= 0.25, name
