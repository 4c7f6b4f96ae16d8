// What the page knows: the document with its history, and what is chosen. Everything else is drawn from it.

import { emptyDocument, objectOf } from "./scene.js";

export class Store {
  constructor() {
    this.doc = emptyDocument();
    this.past = [];
    this.future = [];
    this.base = null; // the document before a gesture that is still going on
    this.selection = null;
    this.part = null;
    this.tool = "select";
    this.addTo = false;
    this.brush = 36;
    this.snap = true;
    this.problems = [];
    this.reference = null; // {src, opacity}
    this.revision = 0;
    this.listeners = new Set();
  }

  subscribe(listener) {
    this.listeners.add(listener);
  }

  tell(what = "view") {
    for (const listener of this.listeners) listener(what);
  }

  /** Change what is chosen, or a tool's setting; not part of the history. */
  set(change) {
    Object.assign(this, change);
    this.tell("view");
  }

  select(id, part = null) {
    if (id === this.selection && part === this.part) return;
    this.set({ selection: id, part });
  }

  get selected() {
    return this.selection ? objectOf(this.doc, this.selection) : null;
  }

  /** Show a document while a gesture goes on. */
  show(doc) {
    this.base ??= this.doc;
    this.doc = doc;
    this.tell("drawing");
  }

  /** Keep a document as a step of the history. With a `key`, steps of the same key become one. */
  commit(doc, key = null) {
    const before = this.base ?? this.doc;
    this.base = null;
    if (doc === before) {
      this.doc = doc;
      this.tell("view");
      return;
    }
    if (!key || key !== this.lastKey) this.past.push(before);
    this.lastKey = key;
    this.future = [];
    this.doc = doc;
    this.changed();
  }

  /** Forget a gesture. */
  abandon() {
    if (!this.base) return;
    this.doc = this.base;
    this.base = null;
    this.tell("drawing");
  }

  undo() {
    this.abandon();
    if (!this.past.length) return;
    this.future.push(this.doc);
    this.doc = this.past.pop();
    this.lastKey = null;
    this.changed();
  }

  redo() {
    this.abandon();
    if (!this.future.length) return;
    this.past.push(this.doc);
    this.doc = this.future.pop();
    this.lastKey = null;
    this.changed();
  }

  changed() {
    this.revision++;
    if (this.selection && !objectOf(this.doc, this.selection)) [this.selection, this.part] = [null, null];
    if (this.selected && this.part && !this.selected[this.part]) this.part = null;
    this.tell("document");
  }
}
