// The list of objects, nearest first: captions, order, what is visible and what is locked.

import { h, iconButton, say } from "./dom.js";
import { small } from "./files.js";
import { icon } from "./icons.js";
import { colourOf, css, inkOn } from "./painter.js";
import { captionOf, changeObject, duplicateObject, kindsOf, moveInStack, nudgeInStack, objectOf, removeObject, removePart } from "./scene.js";

const PALETTE = 12;
const LOOK_SIDE = 512; // image encoders see 224 to 336 pixels

export class Layers {
  constructor(root, store) {
    this.root = root;
    this.store = store;
    this.rows = new Map();
    this.lists = { front: h("ul", { class: "layers", id: "front", "aria-label": "Layers, nearest first" }), loose: h("ul", { class: "layers", id: "loose", "aria-label": "Objects on no layer" }) };
    this.empty = h("p", { class: "empty" }, "Nothing drawn yet. Choose a tool on the left and draw on the canvas, or take an example.");
    this.looseTitle = h("h3", { class: "divider", title: "The model decides who covers whom (no z_order)" }, "No order");
    root.append(this.empty, this.lists.front, this.looseTitle, this.lists.loose);
    store.subscribe((what) => {
      this.refresh();
      if (what === "new") this.focusCaption();
    });
    this.refresh();
  }

  refresh() {
    const { doc } = this.store;
    for (const [id, row] of this.rows) {
      if (!objectOf(doc, id)) {
        row.element.remove();
        this.rows.delete(id);
      }
    }
    for (const name of ["front", "loose"]) {
      doc[name].forEach((id, index) => {
        if (!this.rows.has(id)) this.rows.set(id, this.make(id));
        const { element } = this.rows.get(id);
        if (this.lists[name].children[index] !== element) this.put(name, index, element);
        this.update(id);
      });
    }
    this.empty.hidden = doc.objects.length > 0;
    this.looseTitle.hidden = !doc.objects.length || (!doc.loose.length && !this.dragged);
  }

  /** Put a row in its place; the keyboard's focus stays where it was. */
  put(name, index, element) {
    const focused = element.contains(document.activeElement) ? document.activeElement : null;
    this.lists[name].insertBefore(element, this.lists[name].children[index] ?? null);
    focused?.focus();
  }

  make(id) {
    const { store } = this, change = (what, key = null) => store.commit(changeObject(store.doc, id, what), key);
    const object = () => objectOf(store.doc, id);
    const grip = h("button", { type: "button", class: "icon grip", onkeydown: (event) => this.keys(event, id), onpointerdown: (event) => this.drag(event, id) });
    grip.append(icon("grip"));
    const swatch = h("button", { type: "button", class: "swatch", onclick: () => change({ colour: (object().colour + 1) % PALETTE }) });
    const caption = h("input", {
      type: "text", class: "caption", maxlength: "2000", spellcheck: "false",
      oninput: () => change({ caption: caption.value }, `caption ${id}`),
      onfocus: () => store.select(id, store.selection === id ? store.part : null),
      onkeydown: (event) => {
        if (event.key === "Enter" || event.key === "Escape") caption.blur();
        if (event.altKey && ["ArrowUp", "ArrowDown"].includes(event.key)) this.keys(event, id);
      },
    });
    const seen = iconButton("eye", "", () => change({ visible: !object().visible }));
    const locked = iconButton("unlock", "", () => change({ locked: !object().locked }));
    const parts = h("div", { class: "parts" });
    const copy = iconButton("copy", "Duplicate (Ctrl+D)", () => {
      const [doc, made] = duplicateObject(store.doc, id);
      store.commit(doc);
      store.select(made);
    });
    const remove = iconButton("trash", "Delete (Del)", () => store.commit(removeObject(store.doc, id)));
    const order = h("button", { type: "button", class: "quiet", onclick: () => {
      const front = store.doc.front.includes(id);
      store.commit(moveInStack(store.doc, id, front ? "loose" : "front", 0));
    } });
    const problems = h("ul", { class: "problems" });
    const negative = h("input", { type: "text", class: "negative", maxlength: "2000", spellcheck: "false", placeholder: "not to look like ...", oninput: () => change({ negative: negative.value }, `negative ${id}`) });
    const look = h("div", { class: "look-row" });
    const more = h("div", { class: "more" }, parts, negative, look, h("div", { class: "row-tools" }, order, copy, remove));
    const element = h("li", { class: "layer", "data-id": id, onpointerdown: (event) => {
      if (!event.target.closest("button, input")) store.select(id);
    } }, h("div", { class: "layer-head" }, grip, swatch, caption, seen, locked), problems, more);
    return { element, grip, swatch, caption, seen, locked, parts, negative, look, copy, remove, order, problems, more };
  }

  update(id) {
    const { store } = this, { doc } = store, object = objectOf(doc, id), row = this.rows.get(id);
    const name = captionOf(doc, object), rgb = colourOf(object.colour), number = doc.objects.indexOf(object) + 1;
    const chosen = store.selection === id;
    row.element.classList.toggle("chosen", chosen);
    row.element.classList.toggle("unseen", !object.visible);
    row.element.classList.toggle("tied", object.tie && doc.front.includes(id));
    row.swatch.style.background = css(rgb);
    row.swatch.style.color = inkOn(rgb);
    row.swatch.textContent = number;
    label(row.swatch, `${number}: change the colour of ${name}`);
    label(row.grip, `Move ${name} in the order: drag, or press the arrow keys`);
    row.caption.setAttribute("aria-label", `Caption of object ${number}`);
    row.caption.placeholder = `object ${number}: say what it is`;
    if (row.caption.value !== object.caption) row.caption.value = object.caption;
    swap(row.seen, object.visible ? "eye" : "eyeoff", `${object.visible ? "Hide" : "Show"} ${name}`, !object.visible);
    swap(row.locked, object.locked ? "lock" : "unlock", `${object.locked ? "Unlock" : "Lock"} ${name}`, object.locked);
    label(row.copy, `Duplicate ${name} (Ctrl+D)`);
    label(row.remove, `Delete ${name} (Del)`);
    row.negative.setAttribute("aria-label", `What ${name} is not to look like`);
    if (row.negative.value !== (object.negative || "")) row.negative.value = object.negative || "";
    this.showLook(row, id, name);
    const front = doc.front.includes(id);
    row.order.textContent = front ? "No order" : "Give it a layer";
    row.order.title = front ? "Take it off the layers: the model decides who covers whom" : "Put it in front of all others";
    row.more.hidden = !chosen;
    row.parts.replaceChildren(...kindsOf(object).map((kind) => this.chip(id, kind)));
    this.showProblems(row, number - 1);
  }

  /** The picture of what an object is to look like, for models with an IP-Adapter. */
  showLook(row, id, name) {
    const { store } = this, { reference } = objectOf(store.doc, id), key = reference ?? "none";
    if (row.shownLook === key + name) return;
    row.shownLook = key + name;
    const change = (value) => store.commit(changeObject(store.doc, id, { reference: value }));
    const file = h("input", { type: "file", accept: "image/*", hidden: true, "aria-label": `Picture of ${name}`, onchange: async () => {
      try {
        if (file.files[0]) change(await small(file.files[0], LOOK_SIDE));
      } catch {
        say("It is no picture this browser can show.", "error");
      }
    } });
    const pick = h("button", { type: "button", class: "quiet", title: "A picture of what it is to look like; needs an IP-Adapter under Additions", onclick: () => { file.value = ""; file.click(); } }, reference ? "Another picture" : "Picture of it ...");
    const shown = reference ? [h("img", { src: reference, alt: `What ${name} is to look like` }), iconButton("close", `Remove the picture of ${name}`, () => change(null))] : [];
    row.look.replaceChildren(file, ...shown, pick);
  }

  chip(id, kind) {
    const { store } = this, chosen = store.part === kind;
    const remove = h("button", { type: "button", "aria-label": `Remove the ${kind}`, title: `Remove the ${kind}`, onclick: () => store.commit(removePart(store.doc, id, kind)) });
    remove.append(icon("close"));
    const pick = h("button", { type: "button", class: "name", "aria-pressed": String(chosen), onclick: () => store.select(id, kind) }, kind);
    return h("span", { class: "chip" }, pick, remove);
  }

  showProblems(row, index) {
    const mine = this.store.problems.filter((problem) => problem.instance === index);
    const text = (problem) => problem.message + (problem.fix ? `; ${problem.fix}` : "");
    row.problems.replaceChildren(...mine.map((problem) => h("li", { class: problem.severity }, text(problem))));
    row.problems.hidden = !mine.length;
    row.element.classList.toggle("wrong", mine.some((problem) => problem.severity === "error"));
  }

  focusCaption() {
    const row = this.rows.get(this.store.selection);
    if (!row) return;
    row.element.scrollIntoView({ block: "nearest" });
    row.caption.focus({ preventScroll: true });
    row.caption.select();
  }

  keys(event, id) {
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    this.store.select(id, this.store.part);
    this.store.commit(nudgeInStack(this.store.doc, id, step));
    this.rows.get(id).element.scrollIntoView({ block: "nearest" });
  }

  /** Drag a row with mouse, pen or finger. */
  drag(event, id) {
    if (event.button) return;
    event.preventDefault();
    const { store } = this, { grip, element } = this.rows.get(id);
    grip.focus();
    this.dragged = id;
    store.select(id, store.part);
    element.classList.add("dragged");
    this.refresh();
    const start = store.doc;
    // Heard on the whole page: a row that is put elsewhere in the list loses the pointer.
    const move = (moved) => {
      if (moved.pointerId !== event.pointerId) return;
      const target = this.targetAt(moved.clientY, id);
      if (target) store.show(moveInStack(start, id, target.list, target.index));
    };
    const end = (ended) => {
      if (ended.pointerId !== event.pointerId) return;
      document.removeEventListener("pointermove", move);
      for (const name of ["pointerup", "pointercancel"]) document.removeEventListener(name, end);
      this.dragged = null;
      element.classList.remove("dragged");
      if (ended.type === "pointercancel") store.abandon();
      else store.commit(sameOrder(start, store.doc) ? start : store.doc);
      this.refresh();
    };
    document.addEventListener("pointermove", move);
    for (const name of ["pointerup", "pointercancel"]) document.addEventListener(name, end);
  }

  /** Which list, and which place in it, a height on the page means. */
  targetAt(y, id) {
    const divider = this.looseTitle.getBoundingClientRect();
    const list = y > divider.top + divider.height / 2 ? "loose" : "front";
    const others = [...this.lists[list].children].filter((element) => element.dataset.id !== id);
    const index = others.filter((element) => {
      const box = element.getBoundingClientRect();
      return y > box.top + box.height / 2;
    }).length;
    return { list, index };
  }
}

const sameOrder = (a, b) => a.front.join() === b.front.join() && a.loose.join() === b.loose.join();

function label(button, text) {
  button.setAttribute("aria-label", text);
  button.title = text;
}

function swap(button, name, text, on) {
  label(button, text);
  button.classList.toggle("on", on);
  if (button.dataset.icon !== name) {
    button.dataset.icon = name;
    button.replaceChildren(icon(name));
  }
}
