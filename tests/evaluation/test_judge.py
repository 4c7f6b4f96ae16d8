"""The judge: what it is taught, how cells become objects, that it learns, and that its training can be broken off."""

import numpy as np
import pytest
import torch

from instancediffusion.cli.judge_recipe import JudgeRecipe, train_judge
from instancediffusion.errors import CheckpointError, SettingsError
from instancediffusion.evaluation import Judge, JudgeConfig, JudgeLessons, JudgeTask, check_judge
from instancediffusion.evaluation.judges.grouping import group_cells, spread
from instancediffusion.evaluation.judges.judge import unknown_words
from instancediffusion.evaluation.judges.lessons import LessonPool, lesson_of, targets_of
from instancediffusion.evaluation.judges.losses import box_overlap, judge_loss
from instancediffusion.evaluation.judges.network import Answer, JudgeNetwork
from instancediffusion.evaluation.judges.task import with_words
from instancediffusion.geometry import box_iou
from instancediffusion.training.checkpoint import load_checkpoint
from instancediffusion.training.config import OptimiserConfig, read_as

from .conftest import small_world

SMALL = JudgeConfig(side_px=64, widths=(16, 24, 32, 32), depths=(1, 1, 1, 1), hidden=32)


def small_task(world, **options):
    return JudgeTask(
        SMALL, JudgeLessons(pool=200, fresh=1, first_seed=1000), world, batch_size=8, half=False, **options
    )


@pytest.fixture(scope="module")
def trained(world):
    torch.set_num_threads(1)
    task = small_task(world)
    adam = torch.optim.AdamW(task.network.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, 4e-3, total_steps=420)
    for step in range(420):
        loss, _ = task.loss(step)
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
    return Judge(task.network, {"name": "small"})


def test_labels_are_what_the_picture_shows(world, samples):
    config = with_words(SMALL, world)
    lessons = [lesson_of(sample, config) for sample in samples[:8]]
    targets = targets_of(lessons)
    for row, sample in enumerate(samples[:8]):
        for item in sample.instances:
            cells = torch.from_numpy(item.visible[2::4, 2::4].copy())
            assert (targets.kind[row][cells] == 1 + config.kinds.index(item.name)).all()
            assert (targets.colour[row][cells] == (config.colours.index(item.colour) if item.colour else -1)).all()
            assert torch.allclose(targets.box[row][:, cells].T, torch.from_numpy(item.box))
    assert targets.weight[targets.kind > 0].mean() == pytest.approx(1) and not targets.weight[targets.kind == 0].any()


def perfect_answer(targets, config):
    def logits(labels, count):
        return 20.0 * torch.nn.functional.one_hot(labels.clamp(min=0), count).permute(0, 3, 1, 2).float()

    return Answer(
        logits(targets.kind, len(config.kinds) + 1),
        logits(targets.colour, len(config.colours)),
        logits(targets.facing, len(config.facings)),
        targets.box,
        torch.full(targets.kind.shape, 20.0),
        (targets.object - 0.5) * 40,
        torch.zeros(len(targets.kind), 4, *targets.kind.shape[1:]),
    )


def test_perfect_answer_loses_nothing_and_reads_as_the_truth(world, samples):
    config = with_words(SMALL, world)
    targets = targets_of([lesson_of(sample, config) for sample in samples[:12]])
    answer = perfect_answer(targets, config)
    loss, numbers = judge_loss(answer, targets)
    assert numbers["right"] == numbers["iou"] == pytest.approx(1)
    assert loss < 0.2  # cells that an object fills in part cannot be certain
    judge = Judge(JudgeNetwork(config))
    probability = answer.kind.softmax(1)
    for row, sample in enumerate(samples[:12]):
        seen = judge._read(answer, probability[row], row, (64, 64))
        assert sorted(item.name for item in seen.instances) == sorted(item.name for item in sample.instances)
        for item in sample.instances:
            best = max(range(len(seen.instances)), key=lambda k: box_iou(seen.instances[k].box, item.box)[0, 0])
            assert seen.instances[best].name == item.name
            union = seen.mask(best) | item.visible
            assert (seen.mask(best) & item.visible).sum() > 0.8 * union.sum()


def test_cells_are_grouped_by_the_boxes_they_name():
    rng = np.random.default_rng(0)
    truth = np.array([[0.1, 0.1, 0.5, 0.5], [0.3, 0.3, 0.7, 0.7], [0.6, 0.1, 0.7, 0.2]])
    owner = np.repeat([0, 1, 2], [60, 40, 10])
    boxes = np.clip(truth[owner] + rng.normal(0, 0.008, (110, 4)), 0, 1)
    order = rng.permutation(110)
    groups = group_cells(boxes[order], rng.uniform(0.4, 1, 110))
    assert len(groups) == 3
    for group in groups:
        (number,) = set(owner[order][group.cells])
        assert len(group.cells) == (60, 40, 10)[number]
        assert np.abs(group.box - truth[number]).max() < 0.01


def test_few_cells_are_no_object_and_none_are_none():
    assert group_cells(np.tile([0.1, 0.1, 0.3, 0.3], (3, 1)), np.ones(3)) == []
    assert group_cells(np.zeros((0, 4)), np.zeros(0)) == []


def test_objects_grow_into_nothing_only():
    labels = np.zeros((5, 5), np.uint8)
    labels[2, 1], labels[2, 2] = 1, 2
    grown = spread(labels)
    assert grown[2, 1] == 1 and grown[2, 2] == 2 and grown[2, 0] == 1 and grown[2, 3] == 2 and grown[0, 4] == 0


def test_overlap_of_boxes():
    a = torch.tensor([[0.0, 0.0, 0.4, 0.4], [0.0, 0.0, 0.1, 0.1]])
    b = torch.tensor([[0.2, 0.0, 0.6, 0.4], [0.9, 0.9, 1.0, 1.0]])
    iou, generalised = box_overlap(a, b)
    assert iou.tolist() == pytest.approx([1 / 3, 0]) and generalised.tolist() == pytest.approx([1 / 3, -0.98])


def test_a_step_sees_the_same_whatever_was_before(world):
    config, lessons = with_words(SMALL, world), JudgeLessons(pool=9, fresh=2, first_seed=50)
    first, second = LessonPool(world, config, lessons), LessonPool(world, config, lessons)
    for step in range(6):
        chosen = first.at(step, 4, torch.Generator().manual_seed(step))
    again = second.at(5, 4, torch.Generator().manual_seed(5))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(chosen, again, strict=True))
    assert len(first._kept) <= 9


def test_judge_learns_what_stands_where(trained, world):
    scores = {name: score.value for name, score in check_judge(trained, world, 60, 7).items()}
    assert scores["kind"] > 0.93 and scores["missed"] < 0.08, scores
    assert scores["box_iou"] > 0.7 and scores["mask_iou"] > 0.65, scores
    assert scores["colour"] > 0.8 and scores["facing"] > 0.8, scores


def test_pictures_are_judged_one_by_one_and_at_any_size(trained, samples):
    images = [sample.image for sample in samples[:3]]
    together, alone = trained.look(images), trained.look(images[1:2])[0]
    assert np.array_equal(together[1].labels, alone.labels)
    assert np.allclose(together[1].features, alone.features, atol=1e-5)
    large = trained.look([np.kron(images[1], np.ones((2, 2, 1), np.uint8))])[0]
    assert large.labels.shape == (128, 128)
    assert (large.labels[::2, ::2] == alone.labels).mean() > 0.9


def test_saved_judges_judge_alike(trained, samples, tmp_path):
    trained.save(tmp_path / "judge")
    again = Judge.load(tmp_path / "judge")
    a, b = trained.look([samples[0].image])[0], again.look([samples[0].image])[0]
    assert np.array_equal(a.labels, b.labels) and np.array_equal(a.features, b.features)
    assert again.describe()["name"] == "small" and len(again.sha256) == 64
    with pytest.raises(CheckpointError, match="no judge"):
        Judge.load(tmp_path)
    (tmp_path / "judge" / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="damaged"):
        Judge.load(tmp_path / "judge")


def test_unknown_words_are_named(trained, world):
    assert unknown_words(trained, world) == []
    judge = Judge(JudgeNetwork(JudgeConfig(kinds=("disc",), colours=("red",))))
    assert unknown_words(judge, world) == ["arrow", "gem", "green", "blue"]


def test_bad_settings_are_refused(world):
    with pytest.raises(SettingsError, match="multiple of 32"):
        JudgeConfig(side_px=100)
    with pytest.raises(SettingsError, match="side_px"):
        JudgeTask(JudgeConfig(side_px=128), JudgeLessons(), world, batch_size=2)


def test_recipe_of_the_repository_is_small_enough(repository):
    recipe = read_as(JudgeRecipe, repository / "recipes" / "judge.toml")
    kinds = tuple(f"kind {k}" for k in range(300))
    network = JudgeNetwork(JudgeConfig(**{**recipe.network.to_dict(), "kinds": kinds, "colours": ("red",) * 10}))
    assert sum(p.numel() for p in network.parameters()) < 4e6


def tiny_recipe():
    run = OptimiserConfig(
        steps=6, batch_size=3, warmup=2, checkpoint_every=2, log_every=3, precision="fp32", preview_every=6
    )
    return JudgeRecipe("tiny", SMALL, JudgeLessons(pool=12, fresh=1, first_seed=500), run)


def test_stopped_training_ends_with_the_same_bits(tmp_path):
    world = small_world()
    whole = train_judge(tiny_recipe(), tmp_path / "a", tmp_path / "a" / "judge", world=world, checks=4)
    train_judge(tiny_recipe(), tmp_path / "b", tmp_path / "b" / "judge", world=world, checks=4, stop_after=3)
    broken = train_judge(tiny_recipe(), tmp_path / "b", tmp_path / "b" / "judge", world=world, checks=4)
    for (name, a), b in zip(whole.network.state_dict().items(), broken.network.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    states = [load_checkpoint(tmp_path / run / "checkpoint.pt")["modules"]["judge"] for run in ("a", "b")]
    assert all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values(), strict=True))
    assert whole.card["accuracy"]["composites"] == 4 and whole.card["steps"] == 6
    assert (tmp_path / "a" / "preview-000006.png").exists()
    assert Judge.load(tmp_path / "b" / "judge").card == broken.card
