// Files in and out: opened, dropped, pasted, saved.

import { $, download, h, say } from "./dom.js";
import { call } from "./server.js";
import { addObject, changeObject, fromScene, toScene } from "./scene.js";

const REFERENCE_SIDE = 1024;

export class Files {
  constructor(store, view, settings, { opened }) {
    Object.assign(this, { store, view, settings, opened });
    const pick = $("#pick-file");
    $("#open").addEventListener("click", () => { pick.value = ""; pick.click(); });
    pick.addEventListener("change", () => this.take(pick.files));
    $("#pick-reference").addEventListener("change", (event) => this.setReference(event.target.files[0]));
    $("#save-native").addEventListener("click", () => this.save("native"));
    $("#save-published").addEventListener("click", () => this.save("official"));
    document.addEventListener("paste", (event) => this.paste(event));
    // What is dragged from the page itself (a picture, marked text) is no file.
    document.addEventListener("dragstart", (event) => event.preventDefault());
    document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
    document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dropping"); });
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      document.body.classList.remove("dropping");
      this.take(event.dataTransfer.files.length ? event.dataTransfer.files : textFile(event.dataTransfer.getData("text/plain")));
    });
  }

  paste(event) {
    if (event.target.closest?.("input, textarea") && !event.clipboardData.files.length) return;
    const text = event.clipboardData.getData("text/plain");
    const files = event.clipboardData.files.length ? event.clipboardData.files : textFile(text);
    if (!files.length) return;
    event.preventDefault();
    this.take(files);
  }

  async take(files) {
    for (const file of files) await this.read(file);
  }

  /** Let the server say what a file is; a file it refuses changes nothing. */
  async read(file) {
    const { doc } = this.store, most = this.settings.about.limits.upload_bytes;
    if (file.size > most) return this.refused(file, [`it is larger than ${most >> 20} MB`]);
    try {
      const found = await call("open_file", await base64(file), doc.width, doc.height);
      if (found.kind === "refused") this.refused(file, found.problems.map(({ path, message, fix }) => `${path === "$" ? "" : `${path}: `}${message}${fix ? `; ${fix}` : ""}`));
      else if (found.kind === "scene") this.openScene(found, file.name);
      else if (found.kind === "mask") this.addMask(found.mask, file.name);
      else {
        await this.setReference(file);
        say(`${file.name} is shown under the drawing: ${found.reason}.`);
      }
    } catch (error) {
      this.refused(file, error.message.split("\n"));
    }
    return null;
  }

  openScene(found, name) {
    this.opened(fromScene(found.scene), found);
    const mended = found.problems.filter((problem) => problem.severity === "warning" && !problem.message.startsWith("the model"));
    say(mended.length ? `${name}: opened; ${mended.length} things were mended: ${mended[0].message}` : `${name}: opened.`);
  }

  addMask(mask, name) {
    const { store } = this, { selected } = store;
    if (selected && store.addTo && !selected.locked) store.commit(changeObject(store.doc, selected.id, { mask: { counts: mask.counts } }));
    else {
      const [doc, id] = addObject(store.doc, { mask: { counts: mask.counts } }, { caption: name.replace(/\.png$/i, "").replace(/[_-]+/g, " ").slice(0, 80) });
      store.commit(doc);
      store.select(id, "mask");
      store.tell("new");
    }
  }

  /** Say what is wrong with a file, all of it. */
  refused(file, problems) {
    const dialog = $("#refused");
    $("#refused-name").textContent = `${file.name || "What was pasted"} cannot be used`;
    $("#refused-problems").replaceChildren(...problems.slice(0, 30).map((problem) => h("li", {}, problem)));
    if (!dialog.open) dialog.showModal();
  }

  async setReference(file) {
    if (!file) return;
    try {
      this.showReference({ src: await small(file, REFERENCE_SIDE), opacity: this.store.reference?.opacity ?? 0.6 });
    } catch {
      this.refused(file, ["it is no picture this browser can show"]);
    }
  }

  /** Put a picture under the drawing, or take it away. */
  showReference(reference) {
    this.view.picture = null;
    this.store.set({ reference });
    if (reference) {
      const image = new Image();
      image.onload = () => { this.view.picture = image; this.view.refresh(); };
      image.src = reference.src;
    }
    this.store.tell("reference");
  }

  async save(format) {
    $("#save-menu").removeAttribute("open");
    try {
      const scene = JSON.stringify(toScene(this.store.doc));
      download(format === "native" ? "scene.json" : "scene_published.json", await call("convert", scene, format), "application/json");
    } catch (error) {
      say(error.message, "error");
    }
  }
}

/** A picture as a JPEG data URI of at most `side` pixels, what is transparent on white. */
export async function small(file, side) {
  const bitmap = await createImageBitmap(file), scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
  const canvas = h("canvas", { width: Math.max(1, Math.round(bitmap.width * scale)), height: Math.max(1, Math.round(bitmap.height * scale)) });
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/jpeg", 0.9);
}

const textFile = (text) => (text.trim() ? [new File([text], "", { type: "application/json" })] : []);

/** The bytes of a file in base64. */
export async function base64(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  let text = "";
  for (let k = 0; k < bytes.length; k += 0x8000) text += String.fromCharCode(...bytes.subarray(k, k + 0x8000));
  return btoa(text);
}
