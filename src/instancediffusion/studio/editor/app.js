// The page: puts its parts together.

import { Additions } from "./additions.js";
import { CanvasView } from "./canvas.js";
import { $, afterQuiet, h, iconButton, say, seconds } from "./dom.js";
import { Drafts } from "./drafts.js";
import { Examples } from "./examples.js";
import { Files } from "./files.js";
import { icon } from "./icons.js";
import { Layers } from "./layers.js";
import { PicturePanel } from "./picture.js";
import { Results } from "./results.js";
import { captionOf, duplicateObject, emptyDocument, fromScene, promptOf, removeObject, resizeDocument, reverseLayers, toScene } from "./scene.js";
import { call } from "./server.js";
import { Settings } from "./settings.js";
import { Store } from "./store.js";
import { nudge, placeInMiddle, stretch } from "./tools.js";

const TOOLS = [
  ["select", "Select and move", "V"], ["box", "Box", "B"], ["point", "Point", "P"], ["scribble", "Scribble", "S"],
  ["mask", "Mask brush", "M", "brush"], ["eraser", "Mask eraser", "E"], ["lasso", "Mask lasso", "L"], ["hand", "Move the view", "H"],
];
const HINTS = {
  select: "Click an object; drag it or its handles. Shift keeps shape or direction, Alt does not snap.",
  box: "Drag from corner to corner. Shift makes a square.",
  point: "Click where the object is.",
  scribble: "Draw a stroke over the object.",
  mask: "Paint the object. A chosen mask is painted on; [ and ] change the size.",
  eraser: "Rub out parts of the chosen mask.",
  lasso: "Click corners or draw around the object; the first corner, Enter or a double click closes it. Alt cuts out.",
  hand: "Drag the view. The space bar does it in every tool.",
};
const SIZES = [["1:1", 512, 512], ["4:3", 640, 480], ["3:4", 480, 640], ["3:2", 768, 512], ["2:3", 512, 768], ["16:9", 768, 432], ["9:16", 432, 768]];

async function start() {
  const store = new Store(), about = await call("about");
  const view = new CanvasView($("#stage"), store);
  const layers = new Layers($("#layers"), store);
  let panel = null;
  const validate = afterQuiet(250, () => check(store, settings, () => panel));
  const settings = new Settings(about, () => validate());
  const additions = new Additions(about, () => validate());
  settings.additions = () => additions.options();
  const opened = (doc, { seed, settings: used } = {}) => {
    store.commit(doc);
    store.select(null);
    if (seed !== undefined && seed !== null) settings.lockSeed(seed);
    if (used) settings.take(used);
    go("draw");
    view.fit();
  };
  const results = new Results({ edit: ({ scene, seed, settings: used, additions: added }) => {
    additions.take(added);
    opened(fromScene(scene), { seed, settings: used });
    say("Scene, seed and settings are back in the editor.");
  } });
  const files = new Files(store, view, settings, { opened });
  const examples = new Examples({ opened });
  const drafts = new Drafts(store);
  panel = new PicturePanel(store, settings, {
    made: () => { if (!$("#view-results").hidden) results.reload(); },
    show: (id, index) => results.open(id, index),
    blocked: () => store.problems.some((problem) => problem.severity === "error"),
  });
  $("#model").textContent = about.model;
  $("#model").title = `${about.model} on ${about.device}`;
  buildTools(store, view);
  buildText(store);
  buildCanvasSize(store, view, about);
  buildBar(store, view, files);
  buildTabs({ results: () => results.reload(), examples: () => examples.load() });
  buildKeys(store, view, panel);
  store.subscribe((what) => {
    refresh(store, view);
    if (what === "document" || what === "drawing") validate();
  });
  const draft = await drafts.restore();
  if (draft) {
    store.doc = draft.doc;
    store.changed();
    files.showReference(draft.reference ?? null);
    view.fit();
  }
  refresh(store, view);
  await validate.now();
  document.body.dataset.ready = "yes";
}

/** Ask the server what is wrong with the scene, and what it would cost. */
async function check(store, settings, panel) {
  const revision = store.revision;
  const cost = $("#cost");
  try {
    const answer = await call("check", JSON.stringify(toScene(store.doc)), settings.options());
    if (revision !== store.revision) return;
    store.problems = answer.problems;
    cost.textContent = answer.ok ? costOf(answer) : "";
  } catch (error) {
    if (revision !== store.revision) return;
    // What is wrong with the settings is wrong with the request, not with an object.
    store.problems = [{ path: "$", message: error.message, fix: "", severity: "error", instance: null }];
    cost.textContent = "";
  }
  document.body.dataset.checked = String(revision);
  showProblems(store);
  $("#generate").disabled = Boolean(panel()?.job) || store.problems.some((problem) => problem.severity === "error");
  store.tell("problems");
}

function costOf(answer) {
  const size = `${answer.size[1]} × ${answer.size[0]} px`, count = answer.pictures > 1 ? `${answer.pictures} pictures, ` : "";
  return `${count}${size}${answer.seconds ? `, about ${seconds(answer.seconds)}` : ""}`;
}

function showProblems(store) {
  const general = store.problems.filter((problem) => problem.instance === null);
  const text = (problem) => problem.message + (problem.fix ? `; ${problem.fix}` : "");
  const prompt = general.filter((problem) => problem.path === "$.prompt"), rest = general.filter((problem) => problem.path !== "$.prompt");
  $("#prompt-problems").replaceChildren(...prompt.map((problem) => h("li", { class: problem.severity }, text(problem))));
  $("#general-problems").replaceChildren(...rest.map((problem) => h("li", { class: problem.severity }, text(problem))));
}

function buildTools(store, view) {
  const bar = $("#tools");
  for (const [name, label, key, picture] of TOOLS) {
    bar.append(iconButton(picture ?? name, `${label} (${key})`, () => choose(store, view, name), { "data-tool": name, "aria-keyshortcuts": key, "aria-pressed": "false" }));
  }
  const history = [
    iconButton("undo", "Undo (Ctrl+Z)", () => store.undo(), { id: "undo" }),
    iconButton("redo", "Redo (Ctrl+Shift+Z)", () => store.redo(), { id: "redo" }),
  ];
  bar.append(h("hr"), ...history);
}

function choose(store, view, tool) {
  view.cancel();
  store.set({ tool });
}

function buildText(store) {
  const prompt = $("#prompt"), negative = $("#negative");
  prompt.addEventListener("input", () => store.commit({ ...store.doc, prompt: prompt.value }, "prompt"));
  negative.addEventListener("input", () => store.commit({ ...store.doc, negative: negative.value }, "negative"));
}

function buildCanvasSize(store, view, about) {
  const { min_side_px: least, max_side_px: most } = about.limits, select = $("#size"), width = $("#width"), height = $("#height");
  for (const [name, w, hgt] of SIZES) select.append(h("option", { value: `${w}x${hgt}` }, name));
  select.append(h("option", { value: "" }, "other"));
  const set = (w, hgt) => {
    const sides = [w, hgt].map((side) => Math.max(least, Math.min(most, Math.round(side) || least)));
    const long = Math.floor(about.limits.max_aspect * Math.min(...sides));
    const [newWidth, newHeight] = sides.map((side) => Math.min(side, long));
    store.commit(resizeDocument(store.doc, newWidth, newHeight));
    view.fit();
  };
  select.addEventListener("change", () => { if (select.value) set(...select.value.split("x").map(Number)); });
  for (const input of [width, height]) {
    Object.assign(input, { min: least, max: most });
    input.addEventListener("change", () => set(Number(width.value), Number(height.value)));
  }
}

function buildBar(store, view, files) {
  const zoom = $("#zoom");
  zoom.append(iconButton("minus", "Zoom out (-)", () => view.zoom(0.8)), h("span", { id: "scale", class: "muted" }), iconButton("plus", "Zoom in (+)", () => view.zoom(1.25)), iconButton("fit", "Fit (0)", () => view.fit()));
  const on = (id, name, action) => $(id).addEventListener(name, action);
  on("#brush", "input", () => store.set({ brush: Number($("#brush").value) }));
  on("#snap", "change", () => store.set({ snap: $("#snap").checked }));
  on("#add-to", "change", () => store.set({ addTo: $("#add-to").checked }));
  on("#reverse", "click", () => store.commit(reverseLayers(store.doc)));
  on("#clear", "click", () => { store.commit({ ...emptyDocument(store.doc.width, store.doc.height) }); say("Cleared. Undo brings it back."); });
  on("#reference-opacity", "input", () => { store.set({ reference: { ...store.reference, opacity: Number($("#reference-opacity").value) } }); store.tell("reference"); });
  on("#reference-remove", "click", () => files.showReference(null));
  on("#reference-add", "click", () => $("#pick-reference").click());
  for (const [id, name] of [["#open", "open"], ["#save-button", "save"], ["#reference-add", "image"], ["#reverse", "swap"], ["#clear", "trash"], ["#help", "help"]]) $(id).prepend(icon(name));
  on("#help", "click", () => $("#help-dialog").showModal());
  document.addEventListener("click", (event) => { if (!event.target.closest("#save-menu")) $("#save-menu").removeAttribute("open"); });
  for (const button of document.querySelectorAll("dialog [data-close]")) button.addEventListener("click", () => button.closest("dialog").close());
}

const shown = {};
function buildTabs(loaders) {
  Object.assign(shown, loaders);
  for (const tab of document.querySelectorAll("#tabs [role=tab]")) {
    tab.addEventListener("click", () => go(tab.dataset.view));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key], tabs = [...document.querySelectorAll("#tabs [role=tab]")];
      if (step) tabs[(tabs.indexOf(tab) + step + tabs.length) % tabs.length].focus();
    });
  }
}

function go(name) {
  for (const tab of document.querySelectorAll("#tabs [role=tab]")) {
    const on = tab.dataset.view === name;
    tab.setAttribute("aria-selected", String(on));
    tab.tabIndex = on ? 0 : -1;
    $(`#view-${tab.dataset.view}`).hidden = !on;
  }
  shown[name]?.();
}

function buildKeys(store, view, panel) {
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input:not([type=checkbox], [type=range], [type=radio]), textarea, select"), command = event.ctrlKey || event.metaKey;
    if (document.querySelector("dialog[open]") || $("#view-draw").hidden) return;
    if (command && event.key === "Enter") return panel.generate();
    if (typing) return null;
    const done = command ? commandKey(store, event) : plainKey(store, view, event);
    if (done) event.preventDefault();
    return null;
  });
  document.addEventListener("keyup", (event) => {
    if (event.key === " ") { view.held = false; view.refresh(); }
  });
}

function commandKey(store, event) {
  const key = event.key.toLowerCase();
  if (key === "z") event.shiftKey ? store.redo() : store.undo();
  else if (key === "y") store.redo();
  else if (key === "d" && store.selected) {
    const [doc, id] = duplicateObject(store.doc, store.selection);
    store.commit(doc);
    store.select(id);
  } else return false;
  return true;
}

function plainKey(store, view, event) {
  const { key } = event, step = event.shiftKey ? 10 : 1;
  const arrow = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[key];
  const tool = TOOLS.find(([, , letter]) => letter.toLowerCase() === key.toLowerCase());
  const free = !event.target.closest("button, summary, [role=tab], input");
  if (arrow && store.selected && free) (event.altKey ? stretch : nudge)(store, ...arrow);
  else if (tool && !event.altKey) choose(store, view, tool[0]);
  else if ((key === "Delete" || key === "Backspace") && store.selected && !store.selected.locked) store.commit(removeObject(store.doc, store.selection));
  else if (key === "Escape") view.gesture ? view.cancel() : store.select(null);
  else if (key === "Enter" && view.gesture?.finish) view.gesture.finish();
  else if (key === "Enter" && event.target === view.canvas) return placeInMiddle(store);
  else if (key === " " && free) { view.held = true; view.refresh(); }
  else if (key === "[" || key === "]") store.set({ brush: Math.max(2, Math.min(200, Math.round(store.brush * (key === "]" ? 1.2 : 1 / 1.2)))) });
  else if (key === "0") view.fit();
  else if (key === "+" || key === "=") view.zoom(1.25);
  else if (key === "-") view.zoom(0.8);
  else return false;
  return true;
}

/** Bring the controls in line with what is known. */
function refresh(store, view) {
  const { doc, tool, selected } = store, set = (id, name, value) => { if ($(id)[name] !== value) $(id)[name] = value; };
  for (const button of document.querySelectorAll("#tools [data-tool]")) button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
  set("#undo", "disabled", !store.past.length);
  set("#redo", "disabled", !store.future.length);
  set("#prompt", "value", doc.prompt);
  set("#prompt", "placeholder", doc.objects.length ? promptOf(doc) : "The whole picture in words");
  set("#negative", "value", doc.negative);
  set("#width", "value", String(doc.width));
  set("#height", "value", String(doc.height));
  $("#size").value = SIZES.some(([, w, hgt]) => w === doc.width && hgt === doc.height) ? `${doc.width}x${doc.height}` : "";
  set("#scale", "textContent", `${Math.round(view.scale * 100)} %`);
  set("#hint", "textContent", HINTS[tool]);
  set("#brush", "value", String(store.brush));
  set("#brush-size", "textContent", `${store.brush} px`);
  $("#brush-field").hidden = !["mask", "eraser"].includes(tool);
  const draws = ["box", "point", "scribble", "mask", "lasso"].includes(tool);
  $("#add-field").hidden = !(draws && selected);
  set("#add-name", "textContent", selected ? `Add to “${captionOf(doc, selected)}”` : "");
  set("#add-to", "checked", store.addTo);
  set("#snap", "checked", store.snap);
  $("#reference-tools").hidden = !store.reference;
  $("#reference-add").hidden = Boolean(store.reference);
  if (store.reference) set("#reference-opacity", "value", String(store.reference.opacity));
  set("#reverse", "disabled", doc.front.length < 2);
  set("#clear", "disabled", !doc.objects.length);
  set("#count", "textContent", doc.objects.length ? String(doc.objects.length) : "");
}

start().catch((error) => say(`The studio could not start: ${error.message}`, "error"));
