// The document that is drawn: plain data that is never changed in place, so that undo is keeping the old one.
//
// doc = {width, height, prompt, negative, objects, front, loose}
// object = {id, caption, colour, visible, locked, tie, z, box, point, scribble, mask, negative, reference}; mask is {counts}, others as in files.
// `front` lists the ids with a layer, nearest first; `loose` those without. `tie`: on the same layer as the one before.
// `z` is the number its file gave the layer; it is kept as long as the order of the numbers is that of the list.

import { boundsOfBits, boundsOfPoints, clamp, remap, remapBits, resizeBits, tidy } from "./geometry.js";
import { decode, encode } from "./rle.js";

export const KINDS = ["box", "point", "scribble", "mask"];
const FORMAT_VERSION = 1;

let counter = 0;
const newId = () => `o${Date.now().toString(36)}${(counter++).toString(36)}`;

export function emptyDocument(width = 512, height = 512) {
  return { width, height, prompt: "", negative: "", objects: [], front: [], loose: [] };
}

export const objectOf = (doc, id) => doc.objects.find((object) => object.id === id) || null;
export const kindsOf = (object) => KINDS.filter((kind) => object[kind]);
/** Every id, the one that is drawn on top first. */
export const stackOf = (doc) => [...doc.loose, ...doc.front];

/** Read a scene of the native format that the server has checked. */
export function fromScene(scene) {
  const doc = emptyDocument(scene.width, scene.height);
  const objects = (scene.instances || []).map((item, index) => ({
    id: newId(), caption: item.caption, colour: index, visible: true, locked: false, tie: false, z: item.z_order ?? null,
    box: item.box || null, point: item.point || null, scribble: item.scribble || null,
    mask: item.mask ? { counts: canonical(item.mask.counts, scene.width, scene.height) } : null,
    negative: item.negative || "", reference: item.reference || null,
  }));
  const ranked = objects.map((object, index) => ({ object, z: scene.instances[index].z_order }));
  const front = ranked.filter(({ z }) => z !== undefined && z !== null).sort((a, b) => b.z - a.z);
  front.forEach((entry, k) => { entry.object.tie = k > 0 && front[k - 1].z === entry.z; });
  const loose = ranked.filter(({ z }) => z === undefined || z === null);
  return {
    ...doc, prompt: scene.prompt, negative: scene.negative_prompt || "", objects,
    front: front.map(({ object }) => object.id), loose: loose.map(({ object }) => object.id),
  };
}

const canonical = (counts, width, height) => (typeof counts === "string" ? counts : encode(decode(counts, width, height), width, height));

/** Write the native format. Nothing drawn gives a file that is refused: blanks are filled in. */
export function toScene(doc) {
  const layers = layersOf(doc);
  const instances = doc.objects.filter((object) => kindsOf(object).length).map((object) => {
    const item = { caption: captionOf(doc, object) };
    for (const kind of ["box", "point", "scribble"]) if (object[kind]) item[kind] = object[kind];
    if (object.mask) item.mask = { size: [doc.height, doc.width], counts: object.mask.counts };
    if (object.id in layers) item.z_order = layers[object.id];
    if (object.negative?.trim()) item.negative = object.negative;
    if (object.reference) item.reference = object.reference;
    return item;
  });
  const scene = { version: FORMAT_VERSION, prompt: promptOf(doc), width: doc.width, height: doc.height, instances };
  if (doc.negative.trim()) scene.negative_prompt = doc.negative;
  return scene;
}

/** The layer of each object that has one: its number in the file, or 0 for the farthest and so on. */
export function layersOf(doc) {
  const layers = {}, front = doc.front.map((id) => objectOf(doc, id));
  const inOrder = ({ z, tie }, k) => Number.isInteger(z) && (k === 0 || (tie ? z === front[k - 1].z : z < front[k - 1].z));
  if (front.every(inOrder)) return Object.fromEntries(front.map(({ id, z }) => [id, z]));
  let layer = 0;
  for (let k = doc.front.length - 1; k >= 0; k--) {
    layers[doc.front[k]] = layer;
    if (!objectOf(doc, doc.front[k]).tie) layer++;
  }
  return layers;
}

export const captionOf = (doc, object) => object.caption.trim() ? object.caption : `object ${doc.objects.indexOf(object) + 1}`;

/** The prompt, or one made of the captions while none is written. */
export function promptOf(doc) {
  if (doc.prompt.trim()) return doc.prompt;
  const captions = [...new Set(doc.objects.map((object) => captionOf(doc, object)))];
  if (!captions.length) return "a picture";
  return captions.length > 1 ? `${captions.slice(0, -1).join(", ")} and ${captions.at(-1)}` : captions[0];
}

/** Add an object in front of all others; returns [doc, id]. */
export function addObject(doc, places, { caption = "" } = {}) {
  const used = new Set(doc.objects.map((object) => object.colour));
  let colour = 0;
  while (used.has(colour)) colour++;
  const object = { id: newId(), caption, colour, visible: true, locked: false, tie: false, z: null, box: null, point: null, scribble: null, mask: null, ...places };
  const front = [object.id, ...doc.front];
  return [{ ...doc, objects: [...doc.objects, object], front }, object.id];
}

export function changeObject(doc, id, change) {
  return { ...doc, objects: doc.objects.map((object) => (object.id === id ? { ...object, ...change } : object)) };
}

export function removeObject(doc, id) {
  const next = doc.front.indexOf(id) + 1;
  // The one that shared a layer with it, and came after it, starts the layer now.
  const kept = next && !objectOf(doc, id).tie && doc.front[next] ? changeObject(doc, doc.front[next], { tie: false }) : doc;
  return {
    ...kept, objects: kept.objects.filter((object) => object.id !== id),
    front: kept.front.filter((other) => other !== id), loose: kept.loose.filter((other) => other !== id),
  };
}

/** Take one kind of location from an object; the object goes with its last one. */
export function removePart(doc, id, kind) {
  const object = objectOf(doc, id);
  return kindsOf(object).length > 1 ? changeObject(doc, id, { [kind]: null }) : removeObject(doc, id);
}

export function duplicateObject(doc, id) {
  const object = objectOf(doc, id), shift = Math.round(0.03 * Math.min(doc.width, doc.height));
  const [added, copy] = addObject(doc, { ...places(moveObject(doc, object, shift, shift)), negative: object.negative, reference: object.reference }, { caption: object.caption });
  const list = doc.front.includes(id) ? "front" : "loose";
  return [moveInStack(added, copy, list, doc[list].indexOf(id)), copy];
}

const places = (object) => Object.fromEntries(KINDS.map((kind) => [kind, object[kind]]));

/** Put an object at a position of one of the two lists, `"front"` or `"loose"`. */
export function moveInStack(doc, id, list, index) {
  const without = removeObject(doc, id);
  const object = { ...objectOf(doc, id), tie: false };
  const order = [...without[list]];
  order.splice(clamp(index, 0, order.length), 0, id);
  const back = doc.objects.map((other) => (other.id === id ? object : objectOf(without, other.id)));
  const made = { ...without, objects: back, [list]: order };
  const after = list === "front" ? order[order.indexOf(id) + 1] : null;
  return after && objectOf(made, after).tie ? changeObject(made, after, { tie: false }) : made;
}

/** One step up or down the whole list, from layer to layer and between layers and no order. */
export function nudgeInStack(doc, id, step) {
  const list = doc.front.includes(id) ? "front" : "loose", at = doc[list].indexOf(id);
  if (list === "front" && step > 0 && at === doc.front.length - 1) return moveInStack(doc, id, "loose", 0);
  if (list === "loose" && step < 0 && at === 0) return moveInStack(doc, id, "front", doc.front.length);
  const next = at + step;
  return next < 0 || next >= doc[list].length ? doc : moveInStack(doc, id, list, next);
}

/** The layers the other way round. */
export function reverseLayers(doc) {
  const front = [...doc.front].reverse();
  let made = { ...doc, front };
  const ties = doc.front.map((id) => objectOf(doc, id).tie);
  front.forEach((id, k) => {
    // Two neighbours share a layer if the later of them, as it was, said so.
    made = changeObject(made, id, { tie: k > 0 && ties[doc.front.length - k] === true });
  });
  return made;
}

/** The box around one kind of location, or around all of an object. */
export function boundsOf(doc, object, kind = null) {
  const found = (kind ? [kind] : kindsOf(object)).map((name) => boundsOfPart(doc, object, name)).filter(Boolean);
  if (!found.length) return null;
  return [0, 1, 2, 3].map((k) => (k < 2 ? Math.min : Math.max)(...found.map((box) => box[k])));
}

function boundsOfPart(doc, object, kind) {
  if (!object[kind]) return null;
  if (kind === "box") return object.box;
  if (kind === "point") return [...object.point, ...object.point];
  if (kind === "scribble") return boundsOfPoints(object.scribble);
  return boundsOfBits(bitsOf(doc, object), doc.width, doc.height);
}

const cache = new Map();
const CACHED_PIXELS = 64e6;
/** The bitmap of an object's mask. Do not change it: it is shared. */
export function bitsOf(doc, object) {
  const key = `${doc.width}x${doc.height}:${object.mask.counts}`;
  if (!cache.has(key)) {
    while (cache.size && (cache.size + 1) * doc.width * doc.height > CACHED_PIXELS) cache.delete(cache.keys().next().value);
    cache.set(key, decode(object.mask.counts, doc.width, doc.height));
  }
  return cache.get(key);
}

export function maskFrom(doc, bits) {
  return boundsOfBits(bits, doc.width, doc.height) ? { counts: encode(bits, doc.width, doc.height) } : null;
}

/** An object moved by (dx, dy), as far as it stays on the canvas. */
export function moveObject(doc, object, dx, dy) {
  const bounds = boundsOf(doc, object);
  if (!bounds) return object;
  const x = clamp(dx, -bounds[0], doc.width - bounds[2]), y = clamp(dy, -bounds[1], doc.height - bounds[3]);
  const shift = (p) => [clamp(tidy(p[0] + x), 0, doc.width), clamp(tidy(p[1] + y), 0, doc.height)];
  return {
    ...object,
    box: object.box && [...shift(object.box.slice(0, 2)), ...shift(object.box.slice(2))],
    point: object.point && shift(object.point),
    scribble: object.scribble && object.scribble.map(shift),
    mask: object.mask && (maskFrom(doc, shiftBits(doc, object, Math.round(x), Math.round(y))) || object.mask),
  };
}

function shiftBits(doc, object, x, y) {
  const whole = [0, 0, doc.width, doc.height];
  return x || y ? remapBits(bitsOf(doc, object), doc.width, doc.height, whole, [x, y, doc.width + x, doc.height + y]) : bitsOf(doc, object);
}

/** An object whose part of one kind fills another box. */
export function stretchPart(doc, object, kind, to) {
  const from = boundsOf(doc, object, kind);
  if (kind === "box") return { ...object, box: to };
  if (kind === "scribble") {
    return { ...object, scribble: object.scribble.map((p) => remap(p, from, to).map((v, k) => clamp(v, 0, k ? doc.height : doc.width))) };
  }
  const mask = maskFrom(doc, remapBits(bitsOf(doc, object), doc.width, doc.height, from, to));
  return mask ? { ...object, mask } : object;
}

/** The document on a canvas of other sides; all keeps its fraction of them. */
export function resizeDocument(doc, width, height) {
  const from = [0, 0, doc.width, doc.height], to = [0, 0, width, height];
  const point = (p) => remap(p, from, to);
  const objects = doc.objects.map((object) => {
    let mask = null;
    if (object.mask) {
      const bits = resizeBits(bitsOf(doc, object), doc.width, doc.height, width, height);
      mask = boundsOfBits(bits, width, height) ? { counts: encode(bits, width, height) } : null;
    }
    let box = object.box && [...point(object.box.slice(0, 2)), ...point(object.box.slice(2))];
    if (box) box = [Math.min(box[0], width - 1), Math.min(box[1], height - 1), Math.max(box[2], box[0] + 1), Math.max(box[3], box[1] + 1)];
    const kept = { ...object, box, point: object.point && point(object.point), scribble: object.scribble && object.scribble.map(point), mask };
    // A mask too thin for the new canvas stays as a point.
    if (!kindsOf(kept).length) kept.point = point(boundsOf(doc, object).slice(0, 2));
    return kept;
  });
  return { ...doc, width, height, objects };
}
