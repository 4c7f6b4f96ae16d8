// The canvas: the visible part of the document, zoom and pan, and handing pointers on to the tools.

import { clamp } from "./geometry.js";
import { h } from "./dom.js";
import { paintObjects } from "./painter.js";
import { startGesture, hover, paintHandles, partOf } from "./tools.js";

const LEAST = 0.1, MOST = 16;

export class CanvasView {
  constructor(stage, store) {
    this.store = store;
    this.stage = stage;
    this.canvas = h("canvas", { tabindex: "0", role: "application", "aria-label": "Drawing area. Objects are listed under Layers, where they can be chosen and moved with the keyboard." });
    stage.append(this.canvas);
    this.scale = 1;
    this.offset = [0, 0];
    this.pointers = new Map();
    this.reach = 9; // how near a handle is taken, in pixels of the screen; fingers reach farther
    this.gesture = null;
    this.cursor = null;
    this.guides = [];
    this.held = false; // space bar: the hand, while it is held
    this.fitted = true;
    this.picture = null; // the reference, loaded
    store.subscribe(() => this.refresh());
    new ResizeObserver(() => this.resize()).observe(stage);
    const on = (name, action, options) => this.canvas.addEventListener(name, action, options);
    on("pointerdown", (event) => this.down(event));
    on("pointermove", (event) => this.move(event));
    on("pointerup", (event) => this.up(event));
    on("pointercancel", (event) => this.up(event, true));
    on("pointerleave", () => { this.cursor = null; this.refresh(); });
    on("dblclick", () => this.gesture?.finish?.());
    on("wheel", (event) => this.wheel(event), { passive: false });
    on("contextmenu", (event) => event.preventDefault());
    this.resize();
  }

  get unit() {
    return 1 / this.scale;
  }

  /** A position on the page in pixels of the scene; not kept on the canvas. */
  toScene(event) {
    const box = this.canvas.getBoundingClientRect();
    return [(event.clientX - box.left - this.offset[0]) / this.scale, (event.clientY - box.top - this.offset[1]) / this.scale];
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.stage;
    if (!width || !height) return;
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    if (this.fitted) this.fit();
    this.refresh();
  }

  /** Show the whole canvas. */
  fit() {
    const { clientWidth: width, clientHeight: height } = this.stage, { doc } = this.store, margin = 28;
    this.scale = clamp(Math.min((width - 2 * margin) / doc.width, (height - 2 * margin) / doc.height), LEAST, MOST);
    this.offset = [(width - this.scale * doc.width) / 2, (height - this.scale * doc.height) / 2];
    this.fitted = true;
    this.size = [doc.width, doc.height];
    this.refresh();
  }

  zoom(factor, at = [this.stage.clientWidth / 2, this.stage.clientHeight / 2]) {
    const scale = clamp(this.scale * factor, LEAST, MOST), change = scale / this.scale;
    this.offset = this.offset.map((value, k) => at[k] - (at[k] - value) * change);
    this.scale = scale;
    this.fitted = false;
    this.refresh();
  }

  pan(dx, dy) {
    this.offset = [this.offset[0] + dx, this.offset[1] + dy];
    this.fitted = false;
    this.refresh();
  }

  wheel(event) {
    event.preventDefault();
    const box = this.canvas.getBoundingClientRect();
    if (event.ctrlKey || event.metaKey) this.zoom(Math.exp(-event.deltaY * 0.01), [event.clientX - box.left, event.clientY - box.top]);
    else this.pan(event.shiftKey ? -event.deltaY : -event.deltaX, event.shiftKey ? 0 : -event.deltaY);
  }

  down(event) {
    this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, event);
    this.reach = event.pointerType === "touch" ? 20 : 9;
    if (this.pointers.size === 2) {
      this.cancel();
      return;
    }
    if (this.pointers.size > 2 || event.button === 2) return;
    if (event.button === 1 || this.held || this.store.tool === "hand") {
      this.gesture = { hand: true, last: [event.clientX, event.clientY] };
    } else if (this.gesture?.press) {
      this.gesture.press(this.toScene(event), event);
    } else {
      this.gesture = startGesture(this, this.toScene(event), event);
    }
    this.refresh();
  }

  move(event) {
    const before = this.pointers.get(event.pointerId);
    if (before) this.pointers.set(event.pointerId, event);
    if (this.pointers.size === 2 && before) {
      this.pinch(event, before);
      return;
    }
    this.cursor = this.toScene(event);
    if (this.gesture?.hand) {
      this.pan(event.clientX - this.gesture.last[0], event.clientY - this.gesture.last[1]);
      this.gesture.last = [event.clientX, event.clientY];
    } else if (this.gesture) {
      // A browser may join several movements into one event; strokes want each.
      const events = event.getCoalescedEvents?.() ?? [];
      for (const each of events.length ? events : [event]) this.gesture.move?.(this.toScene(each), each);
    }
    this.refresh();
  }

  up(event, cancelled = false) {
    this.pointers.delete(event.pointerId);
    const gesture = this.gesture;
    if (!gesture) return;
    if (cancelled) this.cancel();
    else if (gesture.hand) this.gesture = null;
    else if (!gesture.up || gesture.up(this.toScene(event), event) !== "more") this.gesture = null;
    this.guides = [];
    this.refresh();
  }

  pinch(event, before) {
    const other = [...this.pointers.values()].find((pointer) => pointer.pointerId !== event.pointerId), box = this.canvas.getBoundingClientRect();
    const apart = (pointer) => Math.hypot(pointer.clientX - other.clientX, pointer.clientY - other.clientY);
    const middle = [(event.clientX + other.clientX) / 2 - box.left, (event.clientY + other.clientY) / 2 - box.top];
    this.zoom(apart(event) / Math.max(apart(before), 1), middle);
    this.pan((event.clientX - before.clientX) / 2, (event.clientY - before.clientY) / 2);
  }

  /** Give up what is being drawn. */
  cancel() {
    this.gesture?.cancel?.();
    this.gesture = null;
    this.guides = [];
    this.store.abandon();
    this.refresh();
  }

  refresh() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      this.draw();
    });
  }

  draw() {
    const { store, canvas, stage } = this, { doc } = store, context = canvas.getContext("2d"), ratio = window.devicePixelRatio || 1;
    if (this.fitted && (this.size?.[0] !== doc.width || this.size?.[1] !== doc.height)) this.fit();
    const style = getComputedStyle(stage);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, stage.clientWidth, stage.clientHeight);
    context.translate(...this.offset);
    context.scale(this.scale, this.scale);
    context.save();
    context.shadowColor = "rgb(20 30 60 / 0.16)";
    context.shadowBlur = 18 * ratio;
    context.shadowOffsetY = 3 * ratio;
    context.fillStyle = style.getPropertyValue("--paper");
    context.fillRect(0, 0, doc.width, doc.height);
    context.restore();
    context.save();
    context.beginPath();
    context.rect(0, 0, doc.width, doc.height);
    context.clip();
    if (this.picture && store.reference) {
      context.globalAlpha = store.reference.opacity;
      context.drawImage(this.picture, 0, 0, doc.width, doc.height);
      context.globalAlpha = 1;
    }
    paintObjects(context, doc, this.unit, { selection: store.selection });
    context.restore();
    const accent = style.getPropertyValue("--accent");
    this.paintGuides(context, accent);
    if (store.tool === "select" && !this.gesture?.drawing) paintHandles(context, this, accent);
    this.gesture?.paint?.(context, this.unit, accent);
    hover(context, this);
    canvas.dataset.view = [this.scale, ...this.offset].map((value) => value.toFixed(4)).join(" ");
    canvas.style.cursor = this.held || store.tool === "hand" ? "grab" : this.pointer();
  }

  pointer() {
    if (this.store.tool === "select") return partOf(this, this.cursor)?.cursor ?? "default";
    return ["mask", "eraser"].includes(this.store.tool) ? "none" : "crosshair";
  }

  paintGuides(context, accent) {
    const { doc } = this.store;
    context.strokeStyle = accent;
    context.lineWidth = this.unit;
    context.setLineDash([4 * this.unit, 4 * this.unit]);
    for (const [axis, at] of this.guides) {
      context.beginPath();
      if (axis === 0) context.moveTo(at, 0), context.lineTo(at, doc.height);
      else context.moveTo(0, at), context.lineTo(doc.width, at);
      context.stroke();
    }
    context.setLineDash([]);
  }
}
