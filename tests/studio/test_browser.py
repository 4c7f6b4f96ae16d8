"""The page in Debian's Chromium: drawn on with a real mouse, against the real server and the real `mini`."""

import base64
import io
import json
import math
import os
import socket
import time
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from instancediffusion import Mask, Scene, load_scene
from instancediffusion.scene import check_scene
from tests.studio.conftest import required
from tests.studio.server import running

PANDA, CASTLE = (60, 180, 300, 480), (200, 90, 460, 400)


class Page:
    """The studio's page and what a person does on it; lengths are pixels of the scene."""

    def __init__(self, page, url):
        self.page, self.url = page, url
        self.trouble, self.outside, self.checks = [], [], 0
        page.on(
            "console",
            lambda message: self.trouble.append(message.text) if message.type in ("error", "warning") else None,
        )
        page.on("pageerror", lambda error: self.trouble.append(str(error)))
        page.on("request", self._note)
        for ended in ("requestfinished", "requestfailed"):
            page.on(ended, self._ended)

    def _note(self, request):
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and parts.netloc != urlsplit(self.url).netloc:
            self.outside.append(request.url)
        self.checks += parts.path.endswith("/run/check")

    def _ended(self, request):
        self.checks -= urlsplit(request.url).path.endswith("/run/check")

    def open(self):
        self.page.goto(self.url)
        self.page.wait_for_selector("body[data-ready]")
        return self

    def place(self, x, y):
        """Where a pixel of the scene is in the window."""
        self.page.wait_for_timeout(40)  # a frame, in which the view is drawn and told
        canvas = self.page.locator("#stage canvas")
        scale, left, top = map(float, canvas.get_attribute("data-view").split())
        box = canvas.bounding_box()
        return box["x"] + left + x * scale, box["y"] + top + y * scale

    def tool(self, name):
        self.page.click(f'#tools [data-tool="{name}"]')

    def drag(self, *points, steps=6):
        places = [self.place(*point) for point in points]
        self.page.mouse.move(*places[0])
        self.page.mouse.down()
        for place in places[1:]:
            self.page.mouse.move(*place, steps=steps)
        self.page.mouse.up()

    def click(self, x, y):
        self.page.mouse.click(*self.place(x, y))

    def box(self, x0, y0, x1, y1, caption=None):
        self.tool("box")
        self.drag((x0, y0), (x1, y1))
        if caption:
            self.type(caption)

    def type(self, caption):
        """Write the caption of what was just drawn: its field has the focus and all of it is marked."""
        self.page.keyboard.type(caption)
        self.page.keyboard.press("Enter")

    def captions(self):
        return [field.input_value() for field in self.page.locator("#front .caption").all()]

    def row(self, caption):
        rows = self.page.locator(".layer").all()
        return next(row for row in rows if row.locator(".caption").input_value() == caption)

    def saved(self, folder, button="#save-native") -> dict:
        """Save through the menu and read the file."""
        self.page.click("#save-button")
        with self.page.expect_download() as download:
            self.page.click(button)
        path = Path(folder) / download.value.suggested_filename
        download.value.save_as(path)
        load_scene(path)
        return json.loads(path.read_text())

    def drop(self, name, content, kind="application/json"):
        """Drop a file on the page."""
        self.page.evaluate(
            """([name, data, kind]) => {
                const how = {bubbles: true, cancelable: true};
                const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0)), transfer = new DataTransfer();
                transfer.items.add(new File([bytes], name, {type: kind}));
                document.querySelector("#stage").dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, ...how}));
            }""",
            [name, base64.b64encode(content).decode(), kind],
        )

    def steps(self, count):
        """Set the steps of the sampler, which the presets leave at more than a test needs."""
        self.page.locator("#making .fold summary").first.click()
        self.page.locator("#setting-num_inference_steps").fill(str(count))
        self.page.locator("#making .fold summary").first.click()

    def seed(self, value):
        if self.page.is_checked("#seed-random"):
            self.page.uncheck("#seed-random")
        self.page.fill("#seed", str(value))
        self.page.keyboard.press("Tab")

    def generate(self) -> bytes:
        """Press the button, wait for the picture, return it."""
        self.page.click("#generate:not([disabled])")
        self.page.wait_for_selector('#panel-picture[data-state="working"]')
        return self.picture()

    def picture(self) -> bytes:
        self.page.wait_for_selector('#panel-picture[data-state="done"] #shown .look img', timeout=90_000)
        source = self.page.get_attribute("#shown .look img", "src")
        return self.page.request.get(self.url.rstrip("/") + source).body()

    def until(self, condition, seconds=30):
        """Wait for an expression to be true. (Playwright's own waiting needs an `eval` the page's policy forbids.)"""
        limit = time.monotonic() + seconds
        while not self.page.evaluate(condition):
            assert time.monotonic() < limit, condition
            self.page.wait_for_timeout(20)

    def checked(self):
        """Wait until the server has checked what is drawn now."""
        self.page.wait_for_timeout(300)
        for _ in range(600):
            if not self.checks:
                break
            self.page.wait_for_timeout(50)
        self.page.wait_for_timeout(50)  # the page reads the answer


@pytest.fixture
def make(studio, browser):
    contexts = []

    def opened(**options):
        context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 720}, "accept_downloads": True, **options}
        )
        context.set_default_timeout(20_000)
        contexts.append(context)
        return Page(context.new_page(), studio.url).open()

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture
def page(make):
    made = make()
    yield made
    assert made.trouble == []
    assert made.outside == []


def near(found, wanted, reach=2.0):
    assert np.abs(np.asarray(found, float) - np.asarray(wanted, float)).max() <= reach, (found, wanted)


def distance_to_path(point, path):
    """Distance of a point to a polyline."""
    best = math.inf
    for (ax, ay), (bx, by) in pairwise(path):
        length = (bx - ax) ** 2 + (by - ay) ** 2
        t = max(0, min(1, ((point[0] - ax) * (bx - ax) + (point[1] - ay) * (by - ay)) / length)) if length else 0
        best = min(best, math.hypot(point[0] - ax - t * (bx - ax), point[1] - ay - t * (by - ay)))
    return best


def test_everything_drawn_by_mouse_is_in_the_saved_scene(page, tmp_path):
    page.page.uncheck("#snap")
    page.page.fill("#prompt", "a panda before a castle")
    page.box(*CASTLE, caption="a castle")
    page.box(*PANDA, caption="a panda")
    page.tool("point")
    page.click(420, 60)
    page.type("a red balloon")
    stroke = [(40, 40), (90, 120), (150, 60), (200, 110)]
    page.tool("scribble")
    page.drag(*stroke, steps=10)
    page.type("a blue butterfly")
    page.tool("mask")
    size = int(page.page.input_value("#brush"))
    page.drag((330, 460), (480, 460), steps=12)
    page.type("green grass")
    scene = page.saved(tmp_path)

    assert scene["prompt"] == "a panda before a castle"
    by_name = {instance["caption"]: instance for instance in scene["instances"]}
    assert list(by_name) == ["a castle", "a panda", "a red balloon", "a blue butterfly", "green grass"]
    near(by_name["a castle"]["box"], CASTLE)
    near(by_name["a panda"]["box"], PANDA)
    near(by_name["a red balloon"]["point"], (420, 60))
    drawn = by_name["a blue butterfly"]["scribble"]
    near(drawn[0], stroke[0])
    near(drawn[-1], stroke[-1])
    assert max(distance_to_path(point, stroke) for point in drawn) <= 2
    assert max(distance_to_path(point, drawn) for point in stroke) <= 2
    bitmap = Mask(tuple(by_name["green grass"]["mask"]["size"]), by_name["green grass"]["mask"]["counts"]).array
    rows, columns = np.nonzero(bitmap)
    near(
        (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1),
        (330 - size / 2, 460 - size / 2, 480 + size / 2, 460 + size / 2),
    )
    near(bitmap.sum(), 150 * size + math.pi * size**2 / 4, 0.02 * bitmap.sum())
    # What was drawn later lies in front.
    assert [instance["z_order"] for instance in scene["instances"]] == [0, 1, 2, 3, 4]


def test_the_order_is_changed_by_mouse_and_by_keyboard(page, tmp_path):
    for k, name in enumerate(("a dog", "a cat", "a tree")):
        page.box(50 + 80 * k, 60, 250 + 80 * k, 300, caption=name)
    assert page.captions() == ["a tree", "a cat", "a dog"]
    grip, target = page.row("a dog").locator(".grip").bounding_box(), page.row("a tree").bounding_box()
    page.page.mouse.move(grip["x"] + 8, grip["y"] + 10)
    page.page.mouse.down()
    page.page.mouse.move(grip["x"] + 8, target["y"] + 2, steps=8)
    page.page.mouse.up()
    assert page.captions() == ["a dog", "a tree", "a cat"]
    page.row("a dog").locator(".grip").focus()
    page.page.keyboard.press("ArrowDown")
    assert page.captions() == ["a tree", "a dog", "a cat"]
    # The focus went with it, so that the next press goes on.
    page.page.keyboard.press("ArrowDown")
    assert page.captions() == ["a tree", "a cat", "a dog"]
    page.page.keyboard.press("ArrowDown")
    assert page.captions() == ["a tree", "a cat"]
    scene = page.saved(tmp_path)
    assert [instance.get("z_order") for instance in scene["instances"]] == [None, 0, 1]
    page.page.keyboard.press("Control+z")
    assert page.captions() == ["a tree", "a cat", "a dog"]
    page.page.click("#reverse")
    assert page.captions() == ["a dog", "a cat", "a tree"]


def test_undo_goes_all_the_way_back_and_redo_all_the_way_forth(page, tmp_path):
    page.box(50, 50, 150, 150, caption="a dog")
    page.tool("select")
    page.drag((100, 100), (200, 200))
    page.page.keyboard.press("Delete")
    page.tool("point")
    page.click(300, 300)
    page.type("a cat")
    after = page.saved(tmp_path)
    count = 0
    while page.page.is_enabled("#undo"):
        page.page.click("#undo")
        count += 1
    assert page.page.locator(".layer").count() == 0
    assert count == 6  # box, caption, move, delete, point, caption: typing a caption is one step
    for _ in range(count):
        page.page.keyboard.press("Control+Shift+z")
    assert page.page.is_disabled("#redo")
    assert page.saved(tmp_path) == after
    page.page.click("#undo")
    page.box(10, 10, 60, 60)
    assert page.page.is_disabled("#redo")


def test_objects_are_moved_resized_nudged_doubled_locked_and_hidden(page, tmp_path):
    page.page.uncheck("#snap")
    page.box(100, 100, 200, 200, caption="a dog")
    page.tool("select")
    page.drag((150, 150), (250, 180))
    near(page.saved(tmp_path)["instances"][0]["box"], (200, 130, 300, 230))
    page.drag((300, 230), (360, 300))
    near(page.saved(tmp_path)["instances"][0]["box"], (200, 130, 360, 300))
    page.click(250, 200)
    page.page.keyboard.press("ArrowRight")
    page.page.keyboard.press("Shift+ArrowDown")
    near(page.saved(tmp_path)["instances"][0]["box"], (201, 140, 361, 310))
    page.page.keyboard.press("Control+d")
    assert page.captions() == ["a dog", "a dog"]
    first = page.page.locator("#front .layer").nth(1)
    first.locator(".caption").click()
    page.page.keyboard.press("Escape")
    first.get_by_label("Lock a dog").click()
    page.page.locator("#front .layer").nth(0).get_by_label("Hide a dog").click()
    page.drag((250, 200), (50, 50))
    boxes = [instance["box"] for instance in page.saved(tmp_path)["instances"]]
    near(boxes[0], (201, 140, 361, 310))
    near(boxes[1], (216, 155, 376, 325))
    # Nothing leaves the canvas, however far it is dragged.
    first.get_by_label("Unlock a dog").click()
    page.drag((250, 200), (5, 500), steps=12)
    x0, y0, x1, y1 = page.saved(tmp_path)["instances"][0]["box"]
    assert 0 <= x0 < x1 <= 512
    assert 0 <= y0 < y1 <= 512
    near((x1 - x0, y1 - y0), (160, 170))


def test_shapes_snap_to_each_other(page, tmp_path):
    page.box(100, 100, 200, 200, caption="a dog")
    page.box(300, 103, 400, 250, caption="a cat")
    assert page.saved(tmp_path)["instances"][1]["box"][1] in (103, 100)
    page.tool("select")
    page.drag((350, 150), (350, 148), (353, 150), steps=2)
    boxes = [instance["box"] for instance in page.saved(tmp_path)["instances"]]
    assert any(abs(boxes[1][k] - line) < 0.11 for k in (1, 3) for line in (100, 150, 200, 256))


def test_one_object_may_have_several_kinds_and_lose_them_one_by_one(page, tmp_path):
    page.box(100, 100, 300, 300, caption="a panda")
    page.tool("point")
    page.page.check("#add-to")
    page.click(200, 200)
    page.tool("lasso")
    for corner in ((120, 120), (280, 120), (200, 280)):
        page.click(*corner)
    page.page.keyboard.press("Enter")
    (instance,) = page.saved(tmp_path)["instances"]
    assert {"box", "point", "mask"} <= instance.keys()
    triangle = Mask(tuple(instance["mask"]["size"]), instance["mask"]["counts"])
    near(triangle.area, 160 * 160 / 2, 250)
    for kind in ("box", "mask"):
        page.page.get_by_label(f"Remove the {kind}").click()
    (instance,) = page.saved(tmp_path)["instances"]
    assert set(instance) == {"caption", "point", "z_order"}
    page.page.get_by_label("Remove the point").click()
    assert page.page.locator(".layer").count() == 0


def test_masks_are_rubbed_out_and_a_free_lasso_fills(page, tmp_path):
    page.tool("lasso")
    ring = [(256 + 100 * math.cos(t / 12 * math.pi), 256 + 100 * math.sin(t / 12 * math.pi)) for t in range(24)]
    page.drag(*ring, steps=2)
    page.type("a ball")
    mask = page.saved(tmp_path)["instances"][0]["mask"]
    area = Mask(tuple(mask["size"]), mask["counts"]).area
    near(area, math.pi * 100**2, 0.04 * area)
    page.tool("eraser")
    page.drag((256, 130), (256, 380), steps=12)
    mask = page.saved(tmp_path)["instances"][0]["mask"]
    bitmap = Mask(tuple(mask["size"]), mask["counts"]).array
    assert not bitmap[250:260, 250:260].any()
    assert bitmap[256, 180]
    for y in range(150, 380, 20):
        page.drag((140, y), (372, y), steps=4)
    assert page.page.locator(".layer").count() == 0  # nothing of it is left, and so nothing of the object


def test_what_the_page_encodes_is_what_coco_decodes(page):
    coco = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    sizes = [(9, 4, 0.5), (40, 60, 0.1), (64, 64, 0.9), (300, 200, 0.5), (17, 1, 0.5), (1, 33, 0.5)]
    noise = [rng.random((height, width)) < share for height, width, share in sizes]
    for bitmap in (np.zeros((5, 7), bool), np.ones((3, 4), bool), np.ones((1, 1), bool), *noise):
        height, width = bitmap.shape
        counts, back = page.page.evaluate(
            """async ([bits, width, height]) => {
                const {encode, decode} = await import("/studio/editor/rle.js");
                const counts = encode(Uint8Array.from(bits), width, height);
                return [counts, [...decode(counts, width, height)]];
            }""",
            [bitmap.astype(int).ravel().tolist(), width, height],
        )
        assert counts.encode() == coco.encode(np.asfortranarray(bitmap.astype(np.uint8)))["counts"]
        assert np.array_equal(np.array(back).reshape(height, width), bitmap)


def test_layers_are_in_the_order_of_the_list_whatever_is_done_to_it(page):
    stories = page.page.evaluate(
        """async () => {
            const scene = await import("/studio/editor/scene.js");
            let seed = 1;
            const random = (n) => (seed = (seed * 48271) % 2147483647) % n, stories = [];
            for (let story = 0; story < 60; story++) {
                let doc = scene.emptyDocument(), ids = () => doc.objects.map((object) => object.id);
                for (let k = 0; k < 4; k++) {
                    const z = [null, 0, 1, 1, 5][random(5)], item = {caption: `thing ${k}`, point: [k, k]};
                    if (z !== null) item.z_order = z;
                    const before = scene.toScene(doc);
                    doc = {...doc, ...scene.fromScene({...before, instances: [...before.instances, item]})};
                }
                for (let step = 0; step < 12; step++) {
                    const id = ids()[random(ids().length)];
                    const list = ["front", "loose"][random(2)];
                    doc = [
                        () => scene.addObject(doc, {point: [9, 9]}, {caption: `new ${story} ${step}`})[0],
                        () => id ? scene.removeObject(doc, id) : doc,
                        () => id ? scene.duplicateObject(doc, id)[0] : doc,
                        () => id ? scene.moveInStack(doc, id, list, random(6)) : doc,
                        () => id ? scene.nudgeInStack(doc, id, random(2) ? 1 : -1) : doc,
                        () => scene.reverseLayers(doc),
                    ][random(6)]();
                    const index = (id) => doc.objects.findIndex((object) => object.id === id);
                    stories.push({
                        scene: scene.toScene(doc), front: doc.front.map(index), loose: doc.loose.map(index),
                        ties: doc.front.map((id) => scene.objectOf(doc, id).tie),
                        back: scene.toScene(scene.fromScene(scene.toScene(doc))),
                    });
                }
            }
            return stories;
        }"""
    )
    assert any(any(story["ties"]) for story in stories)
    for story in stories:
        layers = [instance.z_order for instance in Scene.from_dict(story["scene"]).instances]
        assert sorted(story["front"] + story["loose"]) == list(range(len(layers)))
        assert all(layers[index] is None for index in story["loose"])
        for (near_one, far_one), tied in zip(pairwise(story["front"]), story["ties"][1:], strict=True):
            assert layers[near_one] == layers[far_one] if tied else layers[near_one] > layers[far_one]
        assert story["back"] == story["scene"]


def test_no_gesture_makes_a_file_that_is_refused(page, tmp_path):
    rng = np.random.default_rng(1)
    tools = ["select", "box", "point", "scribble", "mask", "eraser", "lasso"]
    for step in range(45):
        page.tool(tools[int(rng.integers(len(tools)))])
        points = [tuple(rng.uniform(-60, 572, 2)) for _ in range(int(rng.integers(1, 4)))]
        if rng.random() < 0.2:
            points = [points[0], (points[0][0] + 1, points[0][1])]
        page.drag(*points, steps=3)
        if rng.random() < 0.3:
            page.page.keyboard.press(
                ["Delete", "Control+z", "Control+d", "Shift+ArrowRight", "Alt+ArrowLeft"][step % 5]
            )
    page.tool("select")
    page.saved(tmp_path)
    checked = check_scene(tmp_path / "scene.json")
    assert checked.problems == ()
    assert len(checked.scene.instances) >= 3


def test_drawing_without_a_pointer(page, tmp_path):
    page.page.locator("#stage canvas").focus()
    for key in ("b", "Enter"):
        page.page.keyboard.press(key)
    page.type("a panda")
    page.page.locator("#stage canvas").focus()
    for key in ("Shift+ArrowLeft", "ArrowUp", "Alt+Shift+ArrowRight", "Alt+ArrowUp"):
        page.page.keyboard.press(key)
    (instance,) = page.saved(tmp_path)["instances"]
    assert instance["caption"] == "a panda"
    assert instance["box"] == [192 - 10, 192 - 1, 320 - 10 + 10, 320 - 1 - 1]


def test_a_draft_survives_a_restart_of_the_server(browser, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    context = browser.new_context(viewport={"width": 1280, "height": 720}, accept_downloads=True)
    with running(tmp_path / "root", "--port", port) as server:
        page = Page(context.new_page(), server.url).open()
        page.box(*PANDA, caption="a panda")
        before = page.saved(tmp_path)
        page.page.wait_for_timeout(1500)
    page.page.evaluate("localStorage.removeItem('studio.draft')")
    with running(tmp_path / "root", "--port", port):
        assert page.open().saved(tmp_path) == before
    context.close()


def test_the_picture_comes_with_previews_and_follows_the_order(page, shots):
    page.page.fill("#prompt", "a panda and a castle in a meadow")
    page.box(*CASTLE, caption="a castle")
    page.box(*PANDA, caption="a panda")
    page.seed(3)
    first = page.generate()
    assert int(page.page.get_attribute("#shown", "data-previews")) >= 2
    page.steps(3)  # fewer than the model's own
    quick = page.generate()
    again = page.generate()
    assert quick == again
    assert quick != first
    page.page.click("#reverse")
    swapped = page.generate()
    assert swapped != quick
    page.page.screenshot(path=shots / "studio_picture.png")


def test_the_rest_is_kept_and_an_object_is_drawn_anew(page, shots):
    def pixels(data):
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)

    def pressed(button):
        page.page.click(button)
        page.page.wait_for_selector('#panel-picture[data-state="working"]')
        return pixels(page.picture())

    page.box(*CASTLE, caption="a castle")
    page.box(20, 300, 180, 500, caption="a panda")
    page.seed(3)
    page.steps(4)
    first = pixels(page.generate())
    share = first.shape[0] / 512
    x0, y0, x1, y1 = (round(v * share) for v in (20, 300, 180, 500))
    outside = np.ones(first.shape[:2], dtype=bool)
    outside[y0 - 2 : y1 + 2, x0 - 2 : x1 + 2] = False
    page.page.check("#seed-random")
    anew = pressed("#redraw-object")
    assert (anew[outside] == first[outside]).all()
    assert (anew != first).any()
    page.page.screenshot(path=shots / "studio_edit.png")
    page.page.keyboard.press("Escape")
    page.page.click("#redraw-object")
    page.page.wait_for_selector("#say.shown")
    assert "Choose an object" in page.page.inner_text("#say")
    page.box(400, 410, 500, 500, caption="a ball")
    kept = pressed("#keep-rest")
    above = round(400 * share)
    assert (kept[:above] == anew[:above]).all()
    assert (kept[above:] != anew[above:]).any()


def test_additions_and_the_looks_of_an_object(page, studio, tmp_path, shots):
    page.box(*CASTLE, caption="a castle")
    Image.new("RGB", (900, 300), "teal").save(tmp_path / "look.png")
    page.page.set_input_files(".look-row input", tmp_path / "look.png")
    page.page.fill(".negative", "a tower")
    page.page.wait_for_selector(".look-row img")
    saved = page.saved(tmp_path)["instances"][0]
    look = Image.open(io.BytesIO(base64.b64decode(saved["reference"].partition(",")[2])))
    assert (look.size, saved["negative"]) == ((512, 171), "a tower")
    page.until("document.querySelector('.layer .problems').innerText.includes('no IP-Adapter')")

    page.page.click("#additions-fold summary")
    page.page.click('#add-additions [data-kind="control"]')
    page.page.fill(".addition input[type=text]", "edges")
    page.page.set_input_files(".addition input[type=file]", tmp_path / "look.png")
    page.page.wait_for_selector(".addition button:has-text('look.png')")
    page.until("document.querySelector('#general-problems').innerText.includes('control[0].path: there is no')")
    assert page.page.is_disabled("#generate")
    assert list((studio.root / "pictures").glob("*/look.png"))
    page.page.screenshot(path=shots / "studio_additions.png")
    page.page.reload()  # they are remembered
    page.page.wait_for_selector("body[data-ready]")
    page.page.click("#additions-fold summary")
    assert page.page.input_value(".addition input[type=text]") == "edges"
    page.page.click(".addition button.icon")
    page.page.click(".layer .caption")
    page.page.click(".look-row button.icon")
    page.until("!document.querySelector('#generate').disabled")
    assert "reference" not in page.saved(tmp_path)["instances"][0]


def test_cancel_stops_soon_and_the_next_picture_comes(page):
    page.box(*PANDA, caption="a panda")
    page.steps(100)
    page.page.click("#generate")
    page.until("/step \\d+ of/.test(document.querySelector('#progress-text').textContent)")
    page.page.click("#cancel")
    page.page.wait_for_selector('#panel-picture[data-state="empty"]')
    page.page.wait_for_selector("#say.shown")
    assert "Cancelled" in page.page.inner_text("#say")
    page.steps(4)
    assert page.generate().startswith(b"\x89PNG")


def test_a_reload_restores_draft_and_settings_and_follows_the_job(page, tmp_path):
    page.box(*PANDA, caption="a panda")
    page.page.fill("#prompt", "a panda at home")
    page.page.click("label[for=preset-fast]")
    before = page.saved(tmp_path)
    page.steps(40)
    page.page.click("#generate")
    page.page.wait_for_selector('#panel-picture[data-state="working"]')
    page.open()
    assert page.page.is_checked("#preset-fast")
    assert page.saved(tmp_path) == before
    page.page.wait_for_selector('#panel-picture[data-state="working"]')
    assert page.picture().startswith(b"\x89PNG")


def test_a_draft_also_comes_back_from_the_server(page, tmp_path):
    page.box(*PANDA, caption="a panda")
    page.page.wait_for_timeout(1500)
    before = page.saved(tmp_path)
    page.page.evaluate("localStorage.removeItem('studio.draft')")
    page.open()
    assert page.saved(tmp_path) == before


def test_scenes_are_dropped_pasted_and_refused(page, examples, tmp_path):
    page.drop("demo.json", (examples / "demo.json").read_bytes())
    page.page.wait_for_selector(".layer >> nth=3")
    scene = page.saved(tmp_path)
    assert Scene.from_dict(scene) == load_scene(examples / "demo.json")
    published = page.saved(tmp_path, "#save-published")
    assert "annos" in published

    bad = json.loads((examples / "demo.json").read_text())
    bad["instances"][1]["box"] = [900, 900, 950, 950]
    bad["instances"][2]["caption"] = ""
    page.drop("bad.json", json.dumps(bad).encode())
    page.page.wait_for_selector("#refused[open]")
    told = page.page.inner_text("#refused")
    assert "$.instances[1].box" in told
    assert "$.instances[2].caption" in told
    page.page.click("#refused [data-close]")
    assert page.saved(tmp_path) == scene

    page.drop("notes.txt", b"hello", "text/plain")
    page.page.wait_for_selector("#refused[open]")
    assert "neither a scene" in page.page.inner_text("#refused")
    page.page.keyboard.press("Escape")
    page.page.evaluate(
        """(text) => {
            const transfer = new DataTransfer(), how = {bubbles: true, cancelable: true};
            transfer.setData("text/plain", text);
            document.body.dispatchEvent(new ClipboardEvent("paste", {clipboardData: transfer, ...how}));
        }""",
        json.dumps(published),
    )
    page.until("document.querySelector('#say').textContent.includes('opened')")
    assert page.saved(tmp_path)["instances"] == scene["instances"]
    page.page.click("#undo")
    page.page.click("#undo")
    assert page.page.locator(".layer").count() == 0


def test_masks_references_and_generated_pictures_are_dropped(page, tmp_path):
    from PIL import Image

    from instancediffusion.scene.notes import png_bytes
    from tests.tiny_pipeline import scene_of

    bitmap = np.zeros((512, 512), np.uint8)
    bitmap[100:200, 50:300] = 255
    Image.fromarray(bitmap).save(tmp_path / "red_ball.png")
    page.drop("red_ball.png", (tmp_path / "red_ball.png").read_bytes(), "image/png")
    page.page.wait_for_selector(".layer")
    page.page.keyboard.press("Enter")
    (instance,) = page.saved(tmp_path)["instances"]
    assert instance["caption"] == "red ball"
    assert np.array_equal(Mask(tuple(instance["mask"]["size"]), instance["mask"]["counts"]).array, bitmap > 0)

    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (60, 80, 3), np.uint8)).save(tmp_path / "photo.png")
    page.drop("photo.png", (tmp_path / "photo.png").read_bytes(), "image/png")
    page.page.wait_for_selector("#reference-tools:not([hidden])")
    assert len(page.saved(tmp_path)["instances"]) == 1

    notes = {"scene": scene_of(3).to_dict(), "seed": 2**53 + 1, "settings": {"guidance_scale": 2.5}}
    page.drop("made.png", png_bytes(Image.new("RGB", (8, 8)), notes), "image/png")
    page.page.wait_for_selector(".layer >> nth=2")
    assert Scene.from_dict(page.saved(tmp_path)) == scene_of(3)
    assert page.page.input_value("#seed") == "9007199254740993"
    page.seed(2**64 - 1)
    assert page.page.input_value("#seed") == "18446744073709551615"
    assert page.page.input_value("#setting-guidance_scale") == "2.5"


def test_captions_like_nothing_the_model_draws_are_told_on_their_object(page):
    page.box(*PANDA, caption="a dog")
    page.box(*CASTLE, caption="a gryphon")
    page.checked()
    assert "draws nothing like it" in page.row("a gryphon").locator(".problems").inner_text()
    assert page.row("a dog").locator(".problems").is_hidden()
    page.row("a gryphon").locator(".caption").fill("a horse")
    page.page.wait_for_selector(".layer .problems li", state="detached")


def test_a_setting_that_cannot_be_used_blocks_the_button_and_says_why(page):
    page.box(*PANDA, caption="a panda")
    page.page.click("#grid-fold summary")
    page.page.select_option("#grid-x", "z_order")
    page.page.wait_for_selector("#generate[disabled]")
    assert "no order to swap" in page.page.inner_text("#general-problems")
    page.page.select_option("#grid-x", "")
    page.page.wait_for_selector("#generate:not([disabled])")


def test_the_canvas_takes_other_shapes_and_everything_keeps_its_share(page, tmp_path):
    page.box(0, 0, 256, 512, caption="a panda")
    page.tool("mask")
    page.drag((400, 256), (402, 256))
    page.type("a ball")
    page.page.select_option("#size", "768x432")
    scene = page.saved(tmp_path)
    assert (scene["width"], scene["height"]) == (768, 432)
    near(scene["instances"][0]["box"], (0, 0, 384, 432))
    assert scene["instances"][1]["mask"]["size"] == [432, 768]
    page.page.fill("#width", "9000")
    page.page.keyboard.press("Tab")
    scene = page.saved(tmp_path)
    assert scene["width"] <= 4 * scene["height"]
    page.checked()
    assert page.page.is_enabled("#generate")


def test_examples_results_grid_compare_and_edit_from_here(page, shots, tmp_path):
    page.page.click("#tab-examples")
    page.page.wait_for_selector("[data-example=demo]")
    page.page.wait_for_load_state("networkidle")
    page.page.screenshot(path=shots / "studio_examples.png")
    page.page.click("[data-example=test4_bbox_polar_bear_iceberg_igloo]")
    page.page.wait_for_selector(".layer >> nth=2")
    assert page.row("a vast iceberg floating in the chilly sea").is_visible()
    page.page.click("#tab-examples")
    page.page.click("[data-example=demo]")
    page.page.wait_for_selector(".layer >> nth=3")
    page.steps(4)
    page.page.click("#grid-fold summary")
    page.page.select_option("#grid-x", "guidance_scale")
    page.page.fill("#grid-x-values", "1, 3, 6")
    page.page.select_option("#grid-y", "z_order")
    page.checked()
    page.page.wait_for_selector("#cost:has-text('6 pictures')")
    page.generate()
    assert page.page.locator("#strip button").count() == 6
    page.page.select_option("#grid-x", "")
    page.page.select_option("#grid-y", "")
    page.page.click("#grid-fold summary")
    page.seed(11)
    page.page.fill("#prompt", "a panda and a castle")
    page.generate()

    page.page.click("#tab-results")
    page.page.wait_for_selector("#results .card >> nth=1")
    page.page.locator("#results .look").nth(1).click()
    page.page.wait_for_selector("#viewer[open] .grid img")
    assert page.page.locator("#viewer .grid img").count() == 6
    page.page.check("#overlay")
    page.page.wait_for_selector("#viewer .figure canvas")
    page.page.screenshot(path=shots / "studio_grid.png")
    page.page.click("#close-viewer")
    boxes = page.page.locator("#results input[type=checkbox]")
    boxes.nth(0).check()
    boxes.nth(1).check()
    page.page.click("#compare")
    page.page.wait_for_selector("#viewer[open] .side >> nth=1")
    page.page.screenshot(path=shots / "studio_compare.png")
    page.page.click("#viewer .side:first-child .primary")
    assert page.page.is_visible("#view-draw")
    assert page.page.input_value("#prompt") == "a panda and a castle"
    assert page.page.input_value("#seed") == "11"
    assert page.page.input_value("#setting-num_inference_steps") == "4"


def test_a_tablet_is_enough(make, shots):
    made = make(viewport={"width": 1024, "height": 768}, has_touch=True)
    made.tool("box")
    start, end = made.place(100, 100), made.place(300, 320)
    session = made.page.context.new_cdp_session(made.page)

    def touch(kind, *points):
        session.send(
            "Input.dispatchTouchEvent",
            {"type": kind, "touchPoints": [{"x": x, "y": y, "id": k} for k, (x, y) in enumerate(points)]},
        )

    touch("touchStart", start)
    for k in range(1, 6):
        touch("touchMove", (start[0] + (end[0] - start[0]) * k / 5, start[1] + (end[1] - start[1]) * k / 5))
    touch("touchEnd")
    assert made.page.locator(".layer").count() == 1
    made.page.keyboard.type("a panda")
    before = made.page.get_attribute("#stage canvas", "data-view")
    middle = made.place(256, 256)
    touch("touchStart", (middle[0] - 40, middle[1]), (middle[0] + 40, middle[1]))
    for k in range(1, 5):
        touch("touchMove", (middle[0] - 40 - 15 * k, middle[1]), (middle[0] + 40 + 15 * k, middle[1]))
    touch("touchEnd")
    made.page.wait_for_timeout(100)
    after = made.page.get_attribute("#stage canvas", "data-view")
    assert float(after.split()[0]) > 1.4 * float(before.split()[0])
    assert made.page.locator(".layer").count() == 1
    for control in ("#generate", "#prompt", "#open", "#tools [data-tool=lasso]"):
        box = made.page.locator(control).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 1024
        assert box["y"] + box["height"] <= 768
    made.page.screenshot(path=shots / "studio_tablet.png")
    assert made.trouble == []


def axe_source() -> str:
    path = os.environ.get("AXE_CORE") or Path(__file__).parents[2] / "build/axe/node_modules/axe-core/axe.min.js"
    if not Path(path).is_file():
        if required():
            pytest.fail(f"{path} is missing; .ci/run fetches it: npm install --prefix build/axe axe-core@4")
        pytest.skip("axe-core is not there: npm install --prefix build/axe axe-core@4")
    return Path(path).read_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(make, scheme, examples):
    # Without transitions: a message that is fading has no contrast of its own.
    source, made = axe_source(), make(color_scheme=scheme, reduced_motion="reduce")

    def faults():
        made.page.wait_for_timeout(250)
        made.page.evaluate(source)
        found = made.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            (fault["id"], node["target"], node.get("failureSummary", "")[:200])
            for fault in found["violations"]
            if fault["impact"] in ("serious", "critical")
            for node in fault["nodes"]
        ]

    assert faults() == []
    made.drop("demo.json", (examples / "panda_balloons.json").read_bytes())
    made.page.wait_for_selector(".layer >> nth=3")
    made.row("a panda").locator(".caption").fill("a gryphon")
    for fold in made.page.locator("#view-draw .fold summary").all():
        fold.click()
    made.page.wait_for_selector(".layer .problems li")
    assert faults() == []
    made.page.click("#tab-examples")
    made.page.wait_for_selector("[data-example=demo]")
    assert faults() == []
    made.page.click("#tab-draw")
    made.steps(3) if not made.page.is_visible("#setting-num_inference_steps") else made.page.locator(
        "#setting-num_inference_steps"
    ).fill("3")
    made.generate()
    assert faults() == []
    made.page.click("#tab-results")
    made.page.wait_for_selector("#results .card")
    assert faults() == []
    made.page.locator("#results .look").first.click()
    made.page.wait_for_selector("#viewer[open]")
    assert faults() == []
    made.page.click("#close-viewer")
    assert made.trouble == []


def test_everything_is_reached_by_keyboard(page):
    page.box(*PANDA, caption="a panda")
    seen = set()
    for _ in range(60):
        page.page.keyboard.press("Tab")
        seen.add(
            page.page.evaluate("((e) => e.id || e.dataset.tool || e.className || e.tagName)(document.activeElement)")
        )
    assert {"tab-draw", "select", "prompt", "caption", "generate", "open", "save-button", "CANVAS"} <= seen
    page.page.locator("#tab-draw").focus()
    page.page.keyboard.press("ArrowRight")
    page.page.keyboard.press("Enter")
    assert page.page.is_visible("#view-results")


def test_screenshots_for_the_documentation(page, shots, examples):
    page.drop("panda_balloons.json", (examples / "panda_balloons.json").read_bytes())
    page.page.wait_for_selector(".layer >> nth=3")
    page.seed(0)
    page.page.click("label[for=preset-faithful]")
    page.checked()
    page.page.click("#generate:not([disabled])")
    page.until("document.querySelector('#progress').value > 0.5")
    page.page.screenshot(path=shots / "studio_running.png")
    page.picture()
    page.row("a panda").locator(".caption").click()
    page.page.keyboard.press("Enter")
    page.page.mouse.move(600, 60)
    page.page.wait_for_selector("#say:not(.shown)")
    page.page.wait_for_timeout(250)
    page.page.screenshot(path=shots / "studio_editor.png")
    page.page.click("#tab-results")
    page.page.wait_for_selector("#results .card")
    page.page.wait_for_load_state("networkidle")
    page.page.screenshot(path=shots / "studio_results.png")
    for name in ("editor", "running", "results"):
        assert (shots / f"studio_{name}.png").stat().st_size > 20_000
