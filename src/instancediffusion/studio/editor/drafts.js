// The draft: kept in this browser at once, and on the server a moment later, so that neither's end loses it.

import { afterQuiet } from "./dom.js";
import { call, session } from "./server.js";

const KEY = "studio.draft", VERSION = 1;

export class Drafts {
  constructor(store) {
    this.store = store;
    this.ready = false;
    this.send = afterQuiet(800, (text) => call("save_draft", session(), text).catch(() => { /* the browser's own copy remains */ }));
    store.subscribe((what) => { if (this.ready && (what === "document" || what === "reference")) this.keep(); });
  }

  keep() {
    const { doc, reference } = this.store;
    const text = JSON.stringify({ version: VERSION, saved: Date.now(), doc, reference });
    try {
      localStorage.setItem(KEY, text);
    } catch {
      localStorage.removeItem(KEY); // full: the server's copy is the newer one then
    }
    this.send(text);
  }

  /** Bring back the newer of the two; returns it, or null. */
  async restore() {
    const mine = parsed(localStorage.getItem(KEY));
    let theirs = null;
    try {
      theirs = parsed(await call("load_draft", session()));
    } catch { /* no server copy */ }
    const newest = !theirs || (mine && mine.saved >= theirs.saved) ? mine : theirs;
    this.ready = true;
    return newest;
  }
}

function parsed(text) {
  try {
    const draft = JSON.parse(text);
    return draft?.version === VERSION && Array.isArray(draft.doc?.objects) && Array.isArray(draft.doc.front) && Array.isArray(draft.doc.loose) ? draft : null;
  } catch {
    return null;
  }
}
