// Results: every picture ever made here, looked at closely, beside another, or taken back into the editor.

import { $, h, iconButton, say } from "./dom.js";
import { call } from "./server.js";
import { paintObjects } from "./painter.js";
import { fromScene } from "./scene.js";

const PAGE = 24;

export class Results {
  constructor({ edit }) {
    this.edit = edit;
    this.runs = [];
    this.marked = [];
    this.overlay = false;
    this.zoom = 1;
    $("#more-results").addEventListener("click", () => this.load());
    $("#compare").addEventListener("click", () => this.compare());
    $("#close-viewer").addEventListener("click", () => $("#viewer").close());
    $("#viewer").addEventListener("click", (event) => { if (event.target === $("#viewer")) $("#viewer").close(); });
  }

  /** List anew from the top. */
  async reload() {
    this.runs = [];
    $("#results").replaceChildren();
    await this.load();
  }

  async load() {
    try {
      const before = this.runs.at(-1)?.id ?? null, found = await call("results", PAGE, before);
      this.runs.push(...found);
      $("#results").append(...found.map((run) => this.card(run)));
      $("#more-results").hidden = found.length < PAGE;
      $("#no-results").hidden = this.runs.length > 0;
    } catch (error) {
      say(error.message, "error");
    }
  }

  card(run) {
    const first = run.pictures[0], many = run.pictures.length;
    const mark = h("input", { type: "checkbox", "aria-label": `Compare “${run.prompt}”`, title: "Choose two to compare", onchange: () => this.mark(run.id, mark.checked) });
    return h("li", { class: "card" },
      h("button", { type: "button", class: "look", onclick: () => this.open(run.id) },
        h("img", { src: first.url, alt: `Look at “${run.prompt}”`, loading: "lazy" }), many > 1 ? h("span", { class: "badge" }, run.grid ? `grid of ${many}` : `${many} pictures`) : null),
      h("div", { class: "card-foot" }, h("span", { class: "card-text", title: run.prompt }, run.prompt), mark),
      h("p", { class: "muted" }, `${when(run.finished)} · ${run.model}`));
  }

  mark(id, on) {
    this.marked = on ? [...this.marked, id].slice(-2) : this.marked.filter((other) => other !== id);
    document.querySelectorAll("#results input[type=checkbox]").forEach((box, k) => { box.checked = this.marked.includes(this.runs[k].id); });
    $("#compare").disabled = this.marked.length !== 2;
  }

  async open(id, index = 0) {
    try {
      this.sides = [{ run: await call("result", id), index }];
      this.zoom = 1;
      this.show();
    } catch (error) {
      say(error.message, "error");
    }
  }

  async compare() {
    try {
      const runs = await Promise.all(this.marked.map((id) => call("result", id)));
      this.sides = runs.map((run) => ({ run, index: 0 }));
      this.zoom = 1;
      this.show();
    } catch (error) {
      say(error.message, "error");
    }
  }

  show() {
    const viewer = $("#viewer"), single = this.sides.length === 1;
    $("#viewer-title").textContent = single ? this.sides[0].run.prompt : "Side by side";
    const toggle = h("input", { type: "checkbox", id: "overlay", checked: this.overlay, onchange: () => { this.overlay = toggle.checked; this.show(); } });
    const scale = (factor) => () => { this.zoom = Math.min(8, Math.max(1, this.zoom * factor)); this.show(); };
    $("#viewer-tools").replaceChildren(
      h("label", { class: "toggle" }, toggle, "Show the scene"),
      iconButton("minus", "Smaller", scale(0.5), { disabled: this.zoom <= 1 }),
      h("span", { class: "muted zoomed" }, `${this.zoom} ×`),
      iconButton("plus", "Larger", scale(2), { disabled: this.zoom >= 8 }));
    $("#sides").replaceChildren(...this.sides.map((side) => this.side(side)));
    $("#sides").classList.toggle("pair", !single);
    if (!viewer.open) viewer.showModal();
  }

  side(side) {
    const { run, index } = side, picture = run.pictures[index], scene = run.scenes[picture.key];
    const choose = (k) => { side.index = k; this.show(); };
    const download = (href, name, text, title) => h("a", { class: "quiet", href, download: name, title }, text);
    return h("section", { class: run.grid ? "side gridded" : "side", "aria-label": run.prompt },
      h("div", { class: "frame", tabindex: "0", role: "group", "aria-label": "Picture" }, this.figure(picture, scene)),
      run.grid ? grid(run, index, choose) : strip(run, index, choose),
      h("p", { class: "about" }, this.sides.length > 1 ? h("strong", {}, run.prompt) : null, h("span", { class: "muted" }, ` seed ${picture.seed} · ${described(run, picture)}`)),
      h("div", { class: "actions" },
        h("button", { type: "button", class: "primary", onclick: () => this.take(run, picture) }, "Edit from here"),
        download(picture.url, `${run.id}_${picture.file}`, "PNG", "The picture; it carries its scene"),
        download(run.scene_url, `${run.id}.json`, "Scene", "The scene as it was drawn"),
        download(run.zip, "", "Zip", "Everything of this result")));
  }

  figure(picture, scene) {
    const image = h("img", { src: picture.url, alt: `Seed ${picture.seed}`, width: picture.width, height: picture.height });
    const figure = h("div", { class: "figure" }, image);
    // The whole picture fits the frame; zooming makes it that many times larger.
    figure.style.width = `calc(min(100cqw, 100cqh * ${picture.width / picture.height}) * ${this.zoom})`;
    figure.style.aspectRatio = `${picture.width} / ${picture.height}`;
    if (this.overlay) {
      const doc = fromScene(scene), canvas = h("canvas", { width: doc.width, height: doc.height, "aria-hidden": "true" });
      paintObjects(canvas.getContext("2d"), doc, Math.max(doc.width, doc.height) / 480);
      figure.append(canvas);
    }
    return figure;
  }

  take(run, picture) {
    $("#viewer").close();
    this.edit({ scene: run.scenes[picture.key], seed: picture.seed, settings: run.settings[picture.key], additions: run.request.options?.additions });
  }
}

function strip(run, index, choose) {
  if (run.pictures.length < 2) return null;
  return h("div", { class: "strip" }, run.pictures.map((picture, k) => thumbnail(picture, k, index, choose, `Seed ${picture.seed}`)));
}

function thumbnail(picture, k, index, choose, label) {
  return h("button", { type: "button", "aria-label": label, title: label, "aria-pressed": String(k === index), onclick: () => choose(k) }, h("img", { src: picture.url, alt: "" }));
}

function grid(run, index, choose) {
  const { x, y } = run.grid, columns = x ? x.values : [""], rows = y ? y.values : [""];
  const cell = (column, row) => h("td", {}, run.pictures.map((picture, k) => {
    if (picture.cell[0] !== column || picture.cell[1] !== row) return null;
    return thumbnail(picture, k, index, choose, [x && `${x.title} ${columns[column]}`, y && `${y.title} ${rows[row]}`, `seed ${picture.seed}`].filter(Boolean).join(", "));
  }));
  const titles = h("td", { class: "titles" }, x ? h("span", {}, `${x.title} →`) : null, y ? h("span", {}, `${y.title} ↓`) : null);
  const head = h("tr", {}, titles, columns.map((value) => h("th", { scope: "col" }, String(value))));
  return h("div", { class: "grid-scroll", tabindex: "0", role: "group", "aria-label": "Grid" }, h("table", { class: "grid" }, h("thead", {}, head),
    h("tbody", {}, rows.map((value, row) => h("tr", {}, h("th", { scope: "row" }, String(value)), columns.map((_, column) => cell(column, row)))))));
}

function described(run, picture) {
  const settings = run.settings[picture.key];
  return `${settings.num_inference_steps} steps · guidance ${settings.guidance_scale} · ${picture.width} × ${picture.height} px · ${run.model}`;
}

function when(text) {
  const date = new Date(text), today = new Date().toDateString() === date.toDateString();
  return new Intl.DateTimeFormat("en", today ? { hour: "2-digit", minute: "2-digit", hour12: false } : { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hour12: false }).format(date);
}
