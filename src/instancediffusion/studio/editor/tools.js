// What a pointer does on the canvas, tool by tool. A gesture is {move, up, cancel, paint}; `up` may ask for "more".

import { boxOf, clamp, distance, distanceToStroke, fillPolygon, paintSegment, simplify, snapShift, tidy } from "./geometry.js";
import { addObject, bitsOf, boundsOf, changeObject, kindsOf, maskFrom, moveObject, objectOf, removePart, stackOf, stretchPart } from "./scene.js";
import { colourOf, css, tintedBits } from "./painter.js";

const HANDLES = [[0, 0, "nwse"], [0.5, 0, "ns"], [1, 0, "nesw"], [1, 0.5, "ew"], [1, 1, "nwse"], [0.5, 1, "ns"], [0, 1, "nesw"], [0, 0.5, "ew"]];
const REACH = 7; // of snapping, in pixels of the screen
const STROKE_POINTS = 2000;

/** Start what the chosen tool does at a position. */
export function startGesture(view, at, event) {
  const start = { select: selecting, box: boxing, point: pointing, scribble: scribbling, mask: brushing, eraser: brushing, lasso: lassoing }[view.store.tool];
  return start ? start(view, at, event) : null;
}

const inside = (view, p) => [clamp(p[0], 0, view.store.doc.width), clamp(p[1], 0, view.store.doc.height)];
const tidyPoint = (p) => p.map(tidy);

// Locations of new shapes

/** Put a shape on the chosen object, or on a new one, and choose that. */
function place(store, kind, value, doc = store.doc) {
  if (receives(store, kind)) {
    store.commit(changeObject(doc, store.selection, { [kind]: value }));
    store.select(store.selection, kind);
  } else {
    const [added, id] = addObject(doc, { [kind]: value });
    store.commit(added);
    store.select(id, kind);
    store.tell("new");
  }
}

/** Whether what is drawn next goes to the chosen object. */
export function receives(store, kind) {
  const { selected } = store;
  if (!selected || selected.locked) return false;
  return store.addTo || (kind === "mask" && Boolean(selected.mask));
}

// Choosing, moving, resizing

/** What lies under a position: a handle of the chosen object, or a part of an object. */
export function partOf(view, at) {
  if (!at) return null;
  const { store } = view, { doc, selected } = store;
  const handles = selected && !selected.locked ? handlesOf(view) : [];
  const [handle] = handles.sort((a, b) => distance(a.place, at) - distance(b.place, at));
  if (handle && distance(handle.place, at) < view.reach * view.unit) return { ...handle, id: store.selection, cursor: `${handle.cursor}-resize` };
  const ids = stackOf(doc).filter((id) => objectOf(doc, id).visible && !objectOf(doc, id).locked);
  for (const id of ids) {
    const kind = hit(view, objectOf(doc, id), at);
    if (kind) return { id, kind, cursor: "move" };
  }
  return null;
}

function hit(view, object, at) {
  const { doc } = view.store, u = view.unit;
  if (object.point && distance(object.point, at) < 11 * u) return "point";
  if (object.scribble && distanceToStroke(at, object.scribble) < 8 * u) return "scribble";
  const [x, y] = at.map(Math.floor);
  if (object.mask && x >= 0 && y >= 0 && x < doc.width && y < doc.height && bitsOf(doc, object)[y * doc.width + x]) return "mask";
  if (object.box && at[0] > object.box[0] - 4 * u && at[0] < object.box[2] + 4 * u && at[1] > object.box[1] - 4 * u && at[1] < object.box[3] + 4 * u) return "box";
  return null;
}

/** The part the handles belong to: the one that was clicked, else the first that can be stretched. */
function stretched(store) {
  const { selected, part } = store;
  if (!selected || !selected.visible) return null;
  if (part && part !== "point" && selected[part]) return part;
  return ["box", "mask", "scribble"].find((kind) => selected[kind]) ?? null;
}

function handlesOf(view) {
  const { store } = view, kind = stretched(store);
  const bounds = kind && boundsOf(store.doc, store.selected, kind);
  if (!bounds) return [];
  return HANDLES.map(([u, v, cursor]) => ({ kind, u, v, cursor, place: [bounds[0] + u * (bounds[2] - bounds[0]), bounds[1] + v * (bounds[3] - bounds[1])] }));
}

export function paintHandles(context, view, accent) {
  const { store } = view, u = view.unit, kind = stretched(store);
  if (!kind || !store.selected) return;
  const [x0, y0, x1, y1] = boundsOf(store.doc, store.selected, kind);
  context.strokeStyle = accent;
  context.lineWidth = u;
  context.strokeRect(x0, y0, x1 - x0, y1 - y0);
  if (store.selected.locked) return;
  for (const { place: [x, y] } of handlesOf(view)) {
    context.fillStyle = "#fff";
    context.beginPath();
    context.roundRect(x - 4.5 * u, y - 4.5 * u, 9 * u, 9 * u, 2 * u);
    context.fill();
    context.stroke();
  }
}

function selecting(view, at, event) {
  const { store } = view, found = partOf(view, at);
  if (found && "u" in found) return stretching(view, found);
  const mine = store.selected && store.selected.visible && !store.selected.locked && hit(view, store.selected, at);
  if (!mine) store.select(found?.id ?? null, found?.kind ?? null);
  return store.selected && (mine || found) ? moving(view, at, mine ? found : null, mine) : null;
}

function moving(view, start, topmost, kind) {
  const { store } = view, { doc, selected } = store, from = boundsOf(doc, selected);
  let moved = false;
  return {
    move(at, event) {
      let dx = at[0] - start[0], dy = at[1] - start[1];
      if (!moved && Math.hypot(dx, dy) < 3 * view.unit) return;
      moved = true;
      if (event.shiftKey) Math.abs(dx) > Math.abs(dy) ? (dy = 0) : (dx = 0);
      [dx, dy] = snapped(view, event, [from[0] + dx, from[1] + dy, from[2] + dx, from[3] + dy], [dx, dy], store.selection);
      store.show(changeObject(doc, selected.id, moveObject(doc, selected, dx, dy)));
    },
    up() {
      if (moved) store.commit(store.doc);
      // A click on the chosen object where another lies over it chooses that one.
      else if (topmost && topmost.id) store.select(topmost.id, topmost.kind);
      else store.select(store.selection, kind || store.part);
    },
  };
}

function stretching(view, handle) {
  const { store } = view, { doc, selected } = store, from = boundsOf(doc, selected, handle.kind);
  return {
    move(at, event) {
      const p = handleTarget(view, at, event, handle);
      const to = [...from];
      if (handle.u === 0) to[0] = p[0];
      if (handle.u === 1) to[2] = p[0];
      if (handle.v === 0) to[1] = p[1];
      if (handle.v === 1) to[3] = p[1];
      if (event.shiftKey && handle.u !== 0.5 && handle.v !== 0.5) keepShape(to, from, handle);
      const box = boxOf(to.slice(0, 2), to.slice(2), doc.width, doc.height);
      store.show(changeObject(doc, selected.id, stretchPart(doc, selected, handle.kind, box)));
    },
    up: () => store.commit(store.doc),
  };
}

function handleTarget(view, at, event, handle) {
  const p = inside(view, at), lines = snapLines(view, view.store.selection);
  view.guides = [];
  if (!view.store.snap || event.altKey) return p;
  return p.map((value, axis) => {
    if ((axis ? handle.v : handle.u) === 0.5) return value;
    const [shift, line] = snapShift([value], lines[axis], REACH * view.unit);
    if (line !== null) view.guides.push([axis, line]);
    return value + shift;
  });
}

function keepShape(to, from, handle) {
  const ratio = (from[3] - from[1]) / Math.max(from[2] - from[0], 1e-6), height = Math.abs(to[2] - to[0]) * ratio;
  if (handle.v === 0) to[1] = to[3] - height;
  else to[3] = to[1] + height;
}

/** The lines shapes snap to, of each axis: edges and middle of the canvas and of the other objects. */
function snapLines(view, except) {
  const { doc } = view.store, lines = [[0, doc.width / 2, doc.width], [0, doc.height / 2, doc.height]];
  for (const object of doc.objects) {
    if (object.id === except || !object.visible || !object.box) continue;
    const [x0, y0, x1, y1] = object.box;
    lines[0].push(x0, (x0 + x1) / 2, x1);
    lines[1].push(y0, (y0 + y1) / 2, y1);
  }
  return lines;
}

function snapped(view, event, bounds, shift, except) {
  view.guides = [];
  if (!view.store.snap || event.altKey) return shift;
  const lines = snapLines(view, except);
  return shift.map((value, axis) => {
    const low = bounds[axis], high = bounds[axis + 2];
    const [more, line] = snapShift([low, (low + high) / 2, high], lines[axis], REACH * view.unit);
    if (line !== null) view.guides.push([axis, line]);
    return value + more;
  });
}

// Drawing

function boxing(view, start) {
  const { store } = view, { doc } = store;
  const corner = (at, event) => handleTarget(view, at, event, { u: 0, v: 0 });
  const first = inside(view, start);
  let last = first, colour = colourOf(store.addTo && store.selected ? store.selected.colour : nextColour(doc));
  return {
    drawing: true,
    move(at, event) {
      last = corner(at, event);
      if (event.shiftKey) {
        const side = Math.max(Math.abs(last[0] - first[0]), Math.abs(last[1] - first[1]));
        last = inside(view, [first[0] + side * Math.sign(last[0] - first[0]), first[1] + side * Math.sign(last[1] - first[1])]);
      }
    },
    up() {
      // A click without a drag is no box.
      if (Math.min(Math.abs(last[0] - first[0]), Math.abs(last[1] - first[1])) >= 2) place(store, "box", boxOf(first, last, doc.width, doc.height));
    },
    paint(context, unit) {
      context.strokeStyle = css(colour);
      context.fillStyle = css(colour, 0.15);
      context.lineWidth = 2 * unit;
      const [x0, y0, x1, y1] = boxOf(first, last, doc.width, doc.height);
      context.fillRect(x0, y0, x1 - x0, y1 - y0);
      context.strokeRect(x0, y0, x1 - x0, y1 - y0);
      context.fillStyle = "#fff";
    },
  };
}

function nextColour(doc) {
  const used = new Set(doc.objects.map((object) => object.colour));
  let colour = 0;
  while (used.has(colour)) colour++;
  return colour;
}

function pointing(view, start) {
  let at = start;
  return {
    drawing: true,
    move: (p) => { at = p; },
    up: () => place(view.store, "point", tidyPoint(inside(view, at))),
    paint(context, unit, accent) {
      context.fillStyle = accent;
      context.beginPath();
      context.arc(...inside(view, at), 7 * unit, 0, 2 * Math.PI);
      context.fill();
    },
  };
}

function scribbling(view, start) {
  const { store } = view, points = [inside(view, start)];
  return {
    drawing: true,
    move(at) {
      const p = inside(view, at);
      if (distance(p, points.at(-1)) >= 0.5 * view.unit && points.length < 20000) points.push(p);
    },
    up() {
      const stroke = simplify(points, 0.75).slice(0, STROKE_POINTS).map(tidyPoint);
      // A dot is no stroke.
      if (stroke.length > 1 && stroke.some((p) => distance(p, stroke[0]) >= 1)) place(store, "scribble", stroke);
    },
    paint(context, unit, accent) {
      strokeOf(context, points, accent, 3.5 * unit);
    },
  };
}

function strokeOf(context, points, style, width) {
  context.strokeStyle = style;
  context.lineWidth = width;
  context.lineCap = context.lineJoin = "round";
  context.beginPath();
  points.forEach(([x, y], k) => (k ? context.lineTo(x, y) : context.moveTo(x, y)));
  if (points.length === 1) context.lineTo(points[0][0] + 0.01, points[0][1]);
  context.stroke();
}

function brushing(view, start, event) {
  const { store } = view, { doc } = store, erases = store.tool === "eraser";
  if (erases && !store.selected?.mask) return null;
  const goes = erases || receives(store, "mask");
  const bits = goes && store.selected.mask ? bitsOf(doc, store.selected).slice() : new Uint8Array(doc.width * doc.height);
  const colour = colourOf(goes ? store.selected.colour : nextColour(doc)), radius = store.brush / 2;
  const paint = (a, b) => paintSegment(bits, doc.width, doc.height, a, b, radius, erases ? 0 : 1);
  let last = start, picture = null;
  paint(start, start);
  return {
    drawing: true,
    move(at) {
      paint(last, at);
      [last, picture] = [at, null];
      if (erases) store.show(masked(doc, store.selection, bits) ?? doc);
    },
    up() {
      if (erases) {
        const made = masked(doc, store.selection, bits);
        store.commit(made ?? removePart(doc, store.selection, "mask"));
      } else {
        const mask = maskFrom(doc, bits);
        if (mask) place(store, "mask", mask, doc);
      }
    },
    cancel: () => store.abandon(),
    paint(context) {
      if (erases) return;
      picture ??= tintedBits(bits, doc.width, doc.height, colour);
      context.globalAlpha = 0.6;
      context.drawImage(picture, 0, 0);
      context.globalAlpha = 1;
    },
  };
}

/** The document with a mask on an object; null if the bitmap is empty. */
function masked(doc, id, bits) {
  const mask = maskFrom(doc, bits);
  return mask ? changeObject(doc, id, { mask }) : null;
}

/** A polygon: click corner after corner, or drag freely; the first corner, Enter or a double click closes it. */
function lassoing(view, start, event) {
  const { store } = view, { doc } = store, corners = [start], cuts = event.altKey;
  let free = false, at = start;
  const finish = () => {
    if (corners.length < 3) return;
    const goes = cuts ? Boolean(store.selected?.mask) : receives(store, "mask");
    if (cuts && !goes) return;
    const bits = goes && store.selected.mask ? bitsOf(doc, store.selected).slice() : new Uint8Array(doc.width * doc.height);
    fillPolygon(bits, doc.width, doc.height, corners, cuts ? 0 : 1);
    const mask = maskFrom(doc, bits);
    if (mask) place(store, "mask", mask, doc);
    else if (cuts) store.commit(removePart(doc, store.selection, "mask"));
  };
  return {
    drawing: true,
    press(p) {
      at = p;
      if (corners.length > 2 && distance(p, corners[0]) < 12 * view.unit) {
        this.closed = true;
        return;
      }
      corners.push(p);
    },
    move(p, moveEvent) {
      at = p;
      if (moveEvent.buttons && distance(p, corners.at(-1)) > 2 * view.unit) {
        if (corners.length === 1 || free) {
          free = true;
          corners.push(p);
        }
      }
    },
    up() {
      if (!free && !this.closed) return "more";
      finish();
      return null;
    },
    finish() {
      finish();
      view.gesture = null;
      view.refresh();
    },
    paint(context, unit, accent) {
      context.fillStyle = "rgb(90 120 230 / 0.15)";
      context.beginPath();
      [...corners, at].forEach(([x, y], k) => (k ? context.lineTo(x, y) : context.moveTo(x, y)));
      context.fill();
      strokeOf(context, [...corners, at], accent, 1.5 * unit);
      context.beginPath();
      context.arc(...corners[0], 5 * unit, 0, 2 * Math.PI);
      context.fillStyle = "#fff";
      context.fill();
      context.stroke();
    },
  };
}

/** The brush where the pointer is. */
export function hover(context, view) {
  const { store, cursor } = view;
  if (!cursor || !["mask", "eraser"].includes(store.tool)) return;
  for (const [style, extra] of [["rgb(255 255 255 / 0.9)", 1], ["rgb(20 25 40 / 0.8)", 0]]) {
    context.strokeStyle = style;
    context.lineWidth = view.unit;
    context.beginPath();
    context.arc(...cursor, store.brush / 2 + extra * view.unit, 0, 2 * Math.PI);
    context.stroke();
  }
}

/** Draw without a pointer: a box or a point in the middle, to be moved and stretched by the arrow keys. */
export function placeInMiddle(store) {
  const { width, height } = store.doc, [x, y] = [width / 2, height / 2];
  if (store.tool === "box") place(store, "box", boxOf([x - width / 8, y - height / 8], [x + width / 8, y + height / 8], width, height));
  else if (store.tool === "point") place(store, "point", tidyPoint([x, y]));
  else return false;
  return true;
}

/** Move the lower right corner of the chosen object's box. */
export function stretch(store, dx, dy) {
  const { doc, selected } = store;
  if (!selected?.box || selected.locked) return;
  const [x0, y0, x1, y1] = selected.box;
  const box = [x0, y0, clamp(tidy(x1 + dx), Math.min(x0 + 1, doc.width), doc.width), clamp(tidy(y1 + dy), Math.min(y0 + 1, doc.height), doc.height)];
  store.commit(changeObject(doc, selected.id, { box }), `stretch ${selected.id}`);
}

/** Move the chosen object by whole pixels. */
export function nudge(store, dx, dy) {
  const { doc, selected } = store;
  if (!selected || selected.locked || !kindsOf(selected).length) return;
  store.commit(changeObject(doc, selected.id, moveObject(doc, selected, dx, dy)), `nudge ${selected.id}`);
}
