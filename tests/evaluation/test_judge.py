"""The judge: what it is taught, how cells become objects, that it learns, and that its training can be broken off."""

import numpy as np
import pytest
import torch
from PIL import Image

from instancediffusion.errors import CheckpointError, SettingsError
from instancediffusion.geometry import box_iou
from instancediffusion.projects.emoji_judge import Judge, JudgeConfig, JudgeLessons, JudgeTask, check_judge
from instancediffusion.projects.emoji_judge.grouping import group_cells
from instancediffusion.projects.emoji_judge.judge import cells_input, from_square, unknown_words
from instancediffusion.projects.emoji_judge.judge_task import with_words
from instancediffusion.projects.emoji_judge.label_maps import LessonPool, lesson_of, targets_of
from instancediffusion.projects.emoji_judge.losses import box_overlap, judge_loss, reading_loss
from instancediffusion.projects.emoji_judge.network import Answer, JudgeNetwork
from instancediffusion.projects.emoji_judge.objects import read_objects
from instancediffusion.projects.emoji_judge.reader import Reading, crops_of, told_corners, windows_around
from instancediffusion.projects.emoji_judge.recipe import JudgeRecipe, train_judge
from instancediffusion.projects.emoji_judge.windows import share_in, windows_of
from instancediffusion.training.checkpoint import load_checkpoint
from instancediffusion.training.config import OptimiserConfig, read_as

from .conftest import small_world, taught

SMALL = JudgeConfig(
    side_px=64, widths=(16, 24, 32, 32), depths=(1, 1, 1, 1), hidden=32, crop_px=32, crop_widths=(16, 24, 32)
)


def lessons_of(**options):
    return JudgeLessons(**{"side_px": 64, "pool": 200, "fresh": 1, "crops": 16, "first_seed": 1000, **options})


@pytest.fixture(scope="module")
def trained(world):
    return Judge(taught(JudgeTask(SMALL, lessons_of(), world, batch_size=8, half=False), 360, 4e-3), {"name": "small"})


def test_labels_are_what_the_picture_shows(world, samples):
    config = with_words(SMALL, world)
    targets = targets_of([lesson_of(sample, config) for sample in samples[:8]], config)
    for row, sample in enumerate(samples[:8]):
        for item in sample.instances:
            cells = torch.from_numpy(item.visible[2::4, 2::4].copy())
            assert (targets.there[row][cells] == 1).all()
            assert torch.allclose(targets.box[row][:, cells].T, torch.from_numpy(item.box))
    assert targets.weight[targets.there > 0].mean() == pytest.approx(1) and not targets.weight[targets.there == 0].any()


def test_labels_hold_whatever_size_the_picture_is_made_small_to(world, samples):
    config = with_words(JudgeConfig(side_px=32, crop_px=32), world)
    lessons = [lesson_of(sample, config) for sample in samples[:8]]
    targets = targets_of(lessons, config)
    shown = np.stack([lesson.ids for lesson in lessons]) > 0
    assert targets.there.shape == (8, 8, 8) and targets.object.shape == (8, 1, 16, 16)
    assert (targets.there.numpy() == shown[:, 4::8, 4::8]).all()
    assert targets.object.mean() == pytest.approx(shown.mean())


@pytest.mark.parametrize("shape", [(40, 100), (100, 40), (63, 64)])
def test_a_picture_that_is_not_square_is_looked_at_as_a_square_that_holds_it(shape):
    """It was squeezed into one, and at 2:1 a judge then named .67 of the world's own objects in place of .80."""
    height, width = shape
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    image, side = Image.fromarray(pixels), max(shape)
    top, left = (side - height) // 2, (side - width) // 2
    square = ((cells_input(image, side).permute(1, 2, 0) + 1) * 127.5).round().numpy().astype(np.uint8)
    assert np.array_equal(square[top : top + height, left : left + width], pixels)
    assert np.array_equal(square[:, 0], square[:, left]) and np.array_equal(square[0], square[top])
    whole = np.array([[left, top, left + width, top + height]]) / side
    assert from_square(whole, image)[0] == pytest.approx([0, 0, 1, 1])


def test_windows_hold_the_box_they_are_told_and_the_truth_of_it(world, samples):
    """A window is square, the box in its middle; what the reader should say of it, put back, is the lesson's truth."""
    config = with_words(SMALL, world)
    lessons = [lesson_of(sample, config) for sample in samples[:6]]
    images = [Image.fromarray(lesson.image) for lesson in lessons]
    told = lessons_of(jitter=0.0, empty=0.0, crops=24)
    crops, targets = windows_of(lessons, images, config, told, np.random.default_rng(0))
    assert torch.allclose(told_corners(crops[:, 3]), targets.box, atol=1.5 / 32)
    assert (targets.kind > 0).all() and (targets.box.mean(1) - 0.5).abs().max() < 0.05
    visible, whole = targets.mask[:, 0], targets.mask[:, 1]
    assert (visible <= whole + 1e-6).all()
    y, x = (torch.arange(16) + 0.5).div(16)[:, None], (torch.arange(16) + 0.5).div(16)
    for mask, box in zip(whole, targets.box, strict=True):
        inside = (x > box[0] - 0.05) & (x < box[2] + 0.05) & (y > box[1] - 0.05) & (y < box[3] + 0.05)
        assert mask[~inside].max() < 0.51 and mask.sum() > 0.3 * inside.sum()


def test_windows_at_the_edge_are_grey_outside():
    image = Image.fromarray(np.full((40, 40, 3), 255, np.uint8))
    box = np.array([[0.0, 0.0, 0.5, 0.25]])
    crops, windows = crops_of(image, box, 32)
    assert windows_around(box, (40, 40))[0].tolist() == pytest.approx([-3, -8, 23, 18])
    assert windows[0].tolist() == pytest.approx([-3, -8, 23, 18])
    assert crops[0, 0, 0, 0].abs() < 0.01 and crops[0, 0, -1, -1] == 1  # above and left of the picture; within
    assert crops[0, 3].sum() == pytest.approx(32 * 32 * 20 * 10 / 26**2, rel=0.06)
    assert share_in(np.ones((40, 40), bool), windows[0], 26).sum() == pytest.approx(23 * 18)


def test_windows_without_object_are_taught_as_such(world, samples):
    config = with_words(SMALL, world)
    lessons = [lesson_of(sample, config) for sample in samples[:6]]
    images = [Image.fromarray(lesson.image) for lesson in lessons]
    _, targets = windows_of(lessons, images, config, lessons_of(empty=0.999, crops=30), np.random.default_rng(0))
    empty = targets.kind == 0
    assert empty.sum() > 10 and not targets.mask[empty].any() and (targets.colour[empty] == -1).all()


def perfect_answer(targets):
    return Answer(
        20.0 * torch.nn.functional.one_hot(targets.there, 2).permute(0, 3, 1, 2).float(),
        targets.box,
        torch.full(targets.there.shape, 20.0),
        (targets.object - 0.5) * 40,
        torch.zeros(len(targets.there), 4, *targets.there.shape[1:]),
    )


def perfect_reading(targets, config):
    def logits(labels, count):
        return 20.0 * torch.nn.functional.one_hot(labels.clamp(min=0), count).float()

    kinds, colours, facings = config.words
    return Reading(
        logits(targets.kind, kinds),
        logits(targets.colour, colours),
        logits(targets.facing, facings),
        targets.box,
        (targets.mask - 0.5) * 40,
    )


def test_perfect_answers_lose_nothing(world, samples):
    config = with_words(SMALL, world)
    lessons = [lesson_of(sample, config) for sample in samples[:12]]
    targets = targets_of(lessons, config)
    loss, numbers = judge_loss(perfect_answer(targets), targets)
    assert numbers["found"] == numbers["iou"] == pytest.approx(1)
    assert loss < 0.2  # cells that an object fills in part cannot be certain
    images = [Image.fromarray(lesson.image) for lesson in lessons]
    _, windows = windows_of(lessons, images, config, lessons_of(empty=0.3), np.random.default_rng(1))
    loss, numbers = reading_loss(perfect_reading(windows, config), windows)
    assert numbers["read_right"] == numbers["read_iou"] == pytest.approx(1)
    assert loss < 0.2


class PerfectReader(torch.nn.Module):
    """Reads what is known of the told boxes of one sample."""

    def __init__(self, sample, config) -> None:
        super().__init__()
        self.lesson, self.config, self.looks = lesson_of(sample, config), config, 0

    def forward(self, crops):
        self.looks += 1
        rows = []
        image = Image.fromarray(self.lesson.image)
        for number in range(len(self.lesson.boxes)):
            told = JudgeLessons(side_px=64, crops=1, empty=0.0, jitter=0.0)
            only = type(self.lesson)(
                self.lesson.image,
                np.where(self.lesson.ids == number + 1, 1, 0).astype(np.uint8),
                self.lesson.traits[number : number + 1],
                self.lesson.boxes[number : number + 1],
                self.lesson.wholes[number : number + 1],
            )
            rows.append(windows_of([only], [image], self.config, told, np.random.default_rng(0))[1])
        parts = [perfect_reading(row, self.config) for row in rows]
        names = ("kind", "colour", "facing", "box", "mask")
        return Reading(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def test_readings_are_put_back_into_the_picture(world, samples):
    config = with_words(SMALL, world)
    for sample in samples[:12]:
        reader = PerfectReader(sample, config)
        boxes = [(np.asarray(item.box, float), 0.9) for item in sample.instances]
        found = read_objects(reader, config, [Image.fromarray(sample.image)], [boxes])[0].seen(None)
        assert reader.looks == 2
        assert sorted(item.name for item in found.instances) == sorted(item.name for item in sample.instances)
        for item in sample.instances:
            best = max(range(len(found.instances)), key=lambda k: box_iou(found.instances[k].box, item.box)[0, 0])
            seen = found.instances[best]
            assert seen.name == item.name and np.abs(seen.box - item.box).max() < 0.01
            assert item.colour in (None, seen.colour) and item.facing in (None, seen.facing)
            union = found.mask(best) | item.visible
            assert (found.mask(best) & item.visible).sum() > 0.75 * union.sum()
            assert (found.wholes[best] & item.amodal).sum() > 0.75 * (found.wholes[best] | item.amodal).sum()


def test_an_object_that_is_proposed_twice_is_one(world, samples):
    config = with_words(SMALL, world)
    sample = next(one for one in samples if len(one.instances) == 1)
    box = np.asarray(sample.instances[0].box, float)
    reader = PerfectReader(sample, config)
    reader.lesson = type(reader.lesson)(
        reader.lesson.image,
        reader.lesson.ids,
        *(np.concatenate([part, part]) for part in (reader.lesson.traits, reader.lesson.boxes, reader.lesson.wholes)),
    )
    found = read_objects(reader, config, [Image.fromarray(sample.image)], [[(box, 0.9), (box, 0.5)]])[0]
    assert len(found.instances) == 1 and found.instances[0].confidence == pytest.approx(0.9, abs=0.01)
    # Boxes that are told are looked at once, in their order; who has no pixel left is not there.
    reader.looks = 0
    told = read_objects(reader, config, [Image.fromarray(sample.image)], [[(box, 0.5), (box, 0.9)]], told=True)[0]
    assert reader.looks == 1 and [item.confidence for item in told.instances] == pytest.approx([0.5], abs=0.01)
    assert read_objects(reader, config, [Image.fromarray(sample.image)], [[]])[0].seen(None).instances == ()


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


def test_overlap_of_boxes():
    a = torch.tensor([[0.0, 0.0, 0.4, 0.4], [0.0, 0.0, 0.1, 0.1]])
    b = torch.tensor([[0.2, 0.0, 0.6, 0.4], [0.9, 0.9, 1.0, 1.0]])
    iou, generalised = box_overlap(a, b)
    assert iou.tolist() == pytest.approx([1 / 3, 0]) and generalised.tolist() == pytest.approx([1 / 3, -0.98])


def test_a_step_sees_the_same_whatever_was_before(world):
    config, lessons = with_words(SMALL, world), lessons_of(pool=9, fresh=2, first_seed=50)
    first, second = LessonPool(world, config, lessons), LessonPool(world, config, lessons)
    for step in range(6):
        chosen = first.at(step, 4, torch.Generator().manual_seed(step))
    again = second.at(5, 4, torch.Generator().manual_seed(5))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(chosen, again, strict=True))
    assert len(first._kept) <= 9


def test_judge_learns_what_stands_where(trained, world):
    scores = {name: score.value for name, score in check_judge(trained, world, 60, 7).items()}
    assert scores["kind"] > 0.93 and scores["missed"] < 0.1, scores
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


def test_told_boxes_are_read_and_nothing_else(trained, world):
    """What is in the boxes is named at least as well as what has to be found; where they hold nothing, nothing is."""
    samples = [world.sample(900 + k) for k in range(30)]
    boxes = [np.array([item.box for item in sample.instances], float) for sample in samples]
    read = trained.read([sample.image for sample in samples], boxes)
    right = [
        any(one.name == item.name and box_iou(one.box, item.box)[0, 0] > 0.5 for one in seen.instances)
        for sample, seen in zip(samples, read, strict=True)
        for item in sample.instances
    ]
    assert np.mean(right) > 0.9
    grey = np.full((64, 64, 3), 128, np.uint8)
    nothing = trained.read([grey] * 30, boxes)
    assert sum(len(seen.instances) for seen in nothing) < 0.5 * sum(map(len, boxes))
    assert trained.read([grey], [np.zeros((0, 4))])[0].instances == ()


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
        JudgeTask(JudgeConfig(), JudgeLessons(), world, batch_size=2)
    with pytest.raises(SettingsError, match="multiple of 16"):
        JudgeConfig(crop_px=40)
    with pytest.raises(SettingsError, match="empty"):
        JudgeLessons(empty=1.0)


def test_recipe_of_the_repository_is_small_enough(repository):
    recipe = read_as(JudgeRecipe, repository / "recipes" / "judge.toml")
    kinds = tuple(f"kind {k}" for k in range(300))
    network = JudgeNetwork(JudgeConfig(**{**recipe.network.to_dict(), "kinds": kinds, "colours": ("red",) * 10}))
    assert sum(p.numel() for p in network.parameters()) < 4.5e6


def tiny_recipe():
    run = OptimiserConfig(
        steps=6, batch_size=3, warmup=2, checkpoint_every=2, log_every=3, precision="fp32", preview_every=6
    )
    return JudgeRecipe("tiny", SMALL, lessons_of(pool=12, crops=4, first_seed=500), run)


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
