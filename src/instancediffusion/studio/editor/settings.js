// How the picture is made: preset, single settings, seed, number of pictures, grid.

import { $, h } from "./dom.js";

const REMEMBERED = "studio.settings.2"; // 1 had other presets by the same names

export class Settings {
  constructor(about, changed) {
    this.about = about;
    this.changed = changed;
    this.own = {}; // settings that were turned by hand
    this.additions = () => ({}); // options beside the settings
    this.preset = "default";
    this.seed = { fixed: false, value: 0 };
    this.pictures = 1;
    this.inputs = {};
    this.build();
    this.restore();
  }

  build() {
    const presets = $("#presets");
    for (const { name, label, help } of this.about.presets) {
      const input = h("input", { type: "radio", name: "preset", value: name, id: `preset-${name}`, checked: name === this.preset, onchange: () => this.choose(name) });
      presets.append(input, h("label", { for: `preset-${name}`, title: help }, label));
    }
    const list = $("#controls");
    for (const control of this.about.controls) list.append(this.field(control));
    $("#seed").addEventListener("change", (event) => {
      this.seed = { fixed: true, value: exactSeed(event.target.value) };
      this.show();
    });
    $("#seed-random").addEventListener("change", (event) => {
      this.seed.fixed = !event.target.checked;
      this.show();
    });
    const count = $("#pictures");
    count.max = this.about.limits.pictures;
    count.addEventListener("change", () => {
      this.pictures = Math.max(1, Math.min(Math.round(Number(count.value)) || 1, this.about.limits.pictures));
      this.show();
    });
    for (const side of ["x", "y"]) this.buildAxis(side);
    $("#reset-settings").addEventListener("click", () => {
      this.own = {};
      this.show();
    });
  }

  field(control) {
    const id = `setting-${control.name}`, help = `${control.help} In the paper: ${control.paper}.`;
    const set = (value) => {
      if (value === "") delete this.own[control.name];
      else this.own[control.name] = value;
      this.show();
    };
    if (control.choices) {
      const own = control.choices.find(({ value }) => value === control.default)?.label;
      const select = h("select", { id, title: help, onchange: () => set(select.value) },
        h("option", { value: "" }, own ? `${own} (usual)` : "the model's own"), control.choices.map(({ value, label }) => h("option", { value }, label)));
      this.inputs[control.name] = select;
      return h("div", { class: "field" }, h("label", { for: id, title: help }, control.label), select);
    }
    const input = h("input", { type: "range", id, title: help, min: control.low, max: control.high, step: control.step, oninput: () => set(Number(input.value)) });
    const shown = h("output", { for: id });
    this.inputs[control.name] = input;
    input.shown = shown;
    return h("div", { class: "field" }, h("label", { for: id, title: help }, control.label), input, shown);
  }

  buildAxis(side) {
    const select = $(`#grid-${side}`), values = $(`#grid-${side}-values`);
    select.append(h("option", { value: "" }, "nothing"), h("option", { value: this.about.order_axis }, "who is in front"));
    for (const { name, label } of this.about.controls) select.append(h("option", { value: name }, label));
    select.addEventListener("change", () => {
      const control = this.control(select.value);
      values.hidden = !control;
      if (control) values.value = suggested(control).join(", ");
      this.show();
    });
    values.addEventListener("change", () => this.show());
  }

  control(name) {
    return this.about.controls.find((control) => control.name === name);
  }

  choose(name) {
    this.preset = name;
    this.own = {};
    this.show();
  }

  /** The value a setting has as things stand. */
  value(name) {
    const preset = this.about.presets.find((each) => each.name === this.preset);
    return this.own[name] ?? preset.settings[name] ?? this.control(name).default;
  }

  axis(side) {
    const setting = $(`#grid-${side}`).value, control = this.control(setting);
    if (!setting) return null;
    if (!control) return { setting };
    const words = $(`#grid-${side}-values`).value.split(",").map((word) => word.trim()).filter(Boolean);
    return { setting, values: words.map((word) => (control.choices ? word : Number(word))) };
  }

  /** What the server is asked for. */
  options() {
    const x = this.axis("x"), y = this.axis("y"), grid = {};
    if (x) grid.x = x;
    if (y) grid.y = y;
    return {
      preset: this.preset, settings: { ...this.own }, seed: this.seed.fixed ? this.seed.value : null,
      pictures: this.pictures, ...(x || y ? { grid } : {}), ...this.additions(),
    };
  }

  lockSeed(value) {
    this.seed = { fixed: true, value };
    this.show();
  }

  /** Take over the settings a picture was made with. */
  take(settings) {
    this.preset = "default";
    this.own = {};
    for (const { name, default: usual } of this.about.controls) {
      if (settings?.[name] !== undefined && settings[name] !== null && settings[name] !== usual) this.own[name] = settings[name];
    }
    this.show();
  }

  show() {
    $(`#preset-${this.preset}`).checked = true;
    for (const [name, input] of Object.entries(this.inputs)) {
      if (input.shown) {
        const value = this.value(name);
        input.value = value;
        input.shown.textContent = input.step < 1 ? Number(value).toFixed(2).replace(/0$/, "") : value;
      } else input.value = this.own[name] ?? "";
      input.closest(".field").classList.toggle("own", name in this.own);
    }
    $("#seed").value = this.seed.fixed ? this.seed.value : "";
    $("#seed").disabled = !this.seed.fixed;
    $("#seed-random").checked = !this.seed.fixed;
    $("#pictures").value = this.pictures;
    $("#reset-settings").hidden = !Object.keys(this.own).length;
    const turned = Object.keys(this.own).length;
    $("#settings-count").textContent = turned ? `${turned} changed` : "";
    const grid = [this.axis("x"), this.axis("y")].filter(Boolean).length;
    $("#grid-count").textContent = grid ? "on" : "";
    try {
      localStorage.setItem(REMEMBERED, JSON.stringify({ preset: this.preset, own: this.own, seed: this.seed, pictures: this.pictures }));
    } catch { /* a full or closed store: settings are not remembered */ }
    this.changed();
  }

  restore() {
    try {
      const kept = JSON.parse(localStorage.getItem(REMEMBERED));
      if (kept && this.about.presets.some(({ name }) => name === kept.preset)) {
        const known = Object.entries(kept.own ?? {}).filter(([name]) => this.control(name));
        Object.assign(this, { preset: kept.preset, own: Object.fromEntries(known), seed: kept.seed ?? this.seed, pictures: Math.min(kept.pictures || 1, this.about.limits.pictures) });
      }
    } catch { /* damaged: start afresh */ }
    this.show();
  }
}

const MAX_SEED = 2n ** 64n - 1n;

/** A seed as it was written, to the last digit: a number where that is exact, else text; the server reads both. */
export function exactSeed(text) {
  const whole = /^\s*(\d+)/.exec(text)?.[1] ?? "0", seed = BigInt(whole) < MAX_SEED ? BigInt(whole) : MAX_SEED;
  return seed <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(seed) : String(seed);
}

/** Values to try of a setting: its choices, or three numbers around the usual one. */
function suggested(control) {
  if (control.choices) return control.choices.slice(0, 4).map(({ value }) => value);
  const { low, high, step, default: usual } = control, rounded = (value) => Number((Math.round(value / step) * step).toFixed(4));
  const span = high - low;
  const tries = [Math.max(low, usual - span / 3), usual, Math.min(high, usual + span / 3)].map(rounded);
  return [...new Set(tries.length > 1 && tries[0] === tries[1] ? [usual, rounded(low + span / 3), rounded(low + (2 * span) / 3)] : tries)];
}
