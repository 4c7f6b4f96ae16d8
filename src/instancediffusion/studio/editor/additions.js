// What is added to the model: LoRA files, textual inversions, an IP-Adapter, ControlNets with their pictures.

import { $, h, iconButton, say } from "./dom.js";
import { base64 } from "./files.js";
import { call } from "./server.js";

const REMEMBERED = "studio.additions";
const KINDS = {
  lora: { label: "LoRA", list: "model-files", weight: true },
  textual_inversion: { label: "Textual inversion", list: "model-files" },
  control: { label: "Control", list: "model-folders", weight: true, picture: "The picture it follows" },
  ip_adapter: { label: "IP-Adapter", list: "model-files", weight: true, picture: "The picture it looks at everywhere; objects may have their own" },
};

export class Additions {
  constructor(about, changed) {
    Object.assign(this, { about, changed, entries: [] });
    for (const [kind, { label }] of Object.entries(KINDS)) {
      $("#add-additions").append(h("button", { type: "button", class: "quiet", "data-kind": kind, onclick: () => this.add(kind) }, `+ ${label}`));
    }
    $("#additions-fold").addEventListener("toggle", () => { if ($("#additions-fold").open) this.list(); });
    try {
      this.entries = (JSON.parse(localStorage.getItem(REMEMBERED)) ?? []).filter(({ kind }) => kind in KINDS);
    } catch { /* damaged: start afresh */ }
    this.show();
  }

  /** Ask which files there are. */
  async list() {
    try {
      const { files, folders, places } = await call("additions");
      for (const [id, names] of [["#model-files", files], ["#model-folders", folders]]) $(id).replaceChildren(...names.map((value) => h("option", { value })));
      $("#additions-place").textContent = `Files in ${places.join(" or ")}`;
    } catch (error) {
      say(error.message, "error");
    }
  }

  add(kind) {
    this.entries.push({ kind, path: "", weight: 1, picture: null, name: "" });
    this.show();
    $("#additions").lastElementChild.querySelector("input").focus();
  }

  /** What the server is asked for, as it names it. */
  options() {
    const asked = {};
    for (const { kind, path, weight, picture } of this.entries) {
      const entry = { path, ...(KINDS[kind].weight ? { weight } : {}), ...(KINDS[kind].picture && picture ? { picture } : {}) };
      if (kind === "ip_adapter") asked[kind] = entry;
      else asked[kind] = [...(asked[kind] ?? []), entry];
    }
    return this.entries.length ? { additions: asked } : {};
  }

  /** Take over those of a result. */
  take(asked) {
    this.entries = Object.entries(asked ?? {}).filter(([kind, own]) => kind in KINDS && own).flatMap(([kind, own]) =>
      [own].flat().map((entry) => ({ kind, path: entry.path, weight: entry.weight ?? 1, picture: entry.picture ?? null, name: "kept" })));
    this.show();
  }

  show() {
    $("#additions").replaceChildren(...this.entries.map((entry, k) => this.row(entry, k)));
    $('#add-additions [data-kind="ip_adapter"]').disabled = this.entries.some(({ kind }) => kind === "ip_adapter");
    this.keep();
  }

  keep() {
    $("#additions-count").textContent = this.entries.length ? String(this.entries.length) : "";
    try {
      localStorage.setItem(REMEMBERED, JSON.stringify(this.entries));
    } catch { /* a full or closed store: they are not remembered */ }
    this.changed();
  }

  row(entry, k) {
    const { label, list, weight, picture } = KINDS[entry.kind], number = this.entries.filter(({ kind }, j) => kind === entry.kind && j <= k).length;
    const name = `${label} ${number}`;
    const change = (what) => { Object.assign(entry, what); this.keep(); };
    const path = h("input", { type: "text", list, value: entry.path, placeholder: list === "model-files" ? "file" : "folder", "aria-label": `${name}: path`, spellcheck: "false", onchange: () => change({ path: path.value.trim() }) });
    const parts = [path];
    if (weight) {
      const amount = h("input", { type: "number", step: "0.05", value: String(entry.weight), "aria-label": `${name}: weight`, title: "Weight", onchange: () => change({ weight: amount.value === "" ? 1 : Number(amount.value) }) });
      parts.push(amount);
    }
    if (picture) {
      const file = h("input", { type: "file", accept: "image/png,image/jpeg,image/webp", hidden: true, "aria-label": `${name}: picture`, onchange: () => this.upload(entry, file.files[0]) });
      parts.push(file, h("button", { type: "button", class: "quiet", title: picture, onclick: () => { file.value = ""; file.click(); } }, entry.picture ? entry.name || "picture" : "Picture ..."));
    }
    const remove = iconButton("close", `Remove ${name}`, () => { this.entries.splice(k, 1); this.show(); });
    return h("div", { class: "addition", role: "group", "aria-label": name }, h("span", { class: "muted" }, label), parts, remove);
  }

  async upload(entry, file) {
    if (!file) return;
    const most = this.about.limits.upload_bytes;
    try {
      if (file.size > most) throw new Error(`${file.name}: it is larger than ${most >> 20} MB`);
      const { id, name } = await call("keep_picture", await base64(file), file.name);
      Object.assign(entry, { picture: id, name });
      this.show();
    } catch (error) {
      say(error.message, "error");
    }
  }
}
