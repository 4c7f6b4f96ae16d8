// A document on a 2D context whose units are the scene's pixels. `unit` is the length of one pixel of the screen.

import { bitsOf, captionOf, objectOf, stackOf } from "./scene.js";

const GOLDEN = 0.6180339887498949;
const SHADES = [[0.85, 0.78], [0.95, 0.55], [0.55, 0.88], [0.75, 0.66]];

/** The colour with a number as [r, g, b], 0..255: the same the overlays of the command line use. */
export function colourOf(index) {
  const [saturation, value] = SHADES[index % SHADES.length], hue = (0.02 + index * GOLDEN) % 1;
  const sector = Math.floor(hue * 6), rest = hue * 6 - sector;
  const p = value * (1 - saturation), q = value * (1 - rest * saturation), t = value * (1 - (1 - rest) * saturation);
  const rgb = [[value, t, p], [q, value, p], [p, value, t], [p, q, value], [t, p, value], [value, p, q]][sector % 6];
  return rgb.map((channel) => Math.round(channel * 255));
}

export const css = (rgb, alpha = 1) => `rgb(${rgb.join(" ")} / ${alpha})`;

/** Black or white, whichever reads better on a colour (relative luminance, WCAG 2). */
export function inkOn(rgb) {
  const [r, g, b] = rgb.map((c) => (c <= 10 ? c / 3294.6 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.25 ? "#202124" : "#ffffff";
}

/** Draw all objects from back to front. */
export function paintObjects(context, doc, unit, { selection = null, labels = true } = {}) {
  const order = [...stackOf(doc)].reverse().map((id) => objectOf(doc, id)).filter((object) => object.visible);
  for (const object of order) paintObject(context, doc, object, unit, object.id === selection);
  if (labels) for (const object of order) paintLabel(context, doc, object, unit, object.id === selection);
}

function paintObject(context, doc, object, unit, chosen) {
  const colour = colourOf(object.colour);
  context.lineJoin = context.lineCap = "round";
  if (object.mask) {
    context.globalAlpha = chosen ? 0.6 : 0.45;
    context.drawImage(tinted(doc, object, colour), 0, 0);
    context.globalAlpha = 1;
  }
  if (object.box) {
    const [x0, y0, x1, y1] = object.box;
    context.fillStyle = css(colour, chosen ? 0.2 : 0.12);
    context.fillRect(x0, y0, x1 - x0, y1 - y0);
    context.strokeStyle = css(colour);
    context.lineWidth = (chosen ? 2.5 : 1.75) * unit;
    context.strokeRect(x0, y0, x1 - x0, y1 - y0);
  }
  if (object.scribble) {
    context.beginPath();
    object.scribble.forEach(([x, y], k) => (k ? context.lineTo(x, y) : context.moveTo(x, y)));
    for (const [style, width] of [["#fff", 6], [css(colour), 3.5]]) {
      context.strokeStyle = style;
      context.lineWidth = (width + (chosen ? 1 : 0)) * unit;
      context.stroke();
    }
  }
  if (object.point) {
    const [x, y] = object.point;
    for (const [style, radius] of [["#fff", 9], [css(colour), 7], ["#fff", 2.5]]) {
      context.fillStyle = style;
      context.beginPath();
      context.arc(x, y, (radius + (chosen ? 1 : 0)) * unit, 0, 2 * Math.PI);
      context.fill();
    }
  }
}

const tints = new Map();
const TINTED_PIXELS = 32e6;
function tinted(doc, object, colour) {
  const key = `${doc.width}x${doc.height}:${colour}:${object.mask.counts}`;
  if (!tints.has(key)) {
    while (tints.size && (tints.size + 1) * doc.width * doc.height > TINTED_PIXELS) tints.delete(tints.keys().next().value);
    tints.set(key, tintedBits(bitsOf(doc, object), doc.width, doc.height, colour));
  }
  return tints.get(key);
}

export function tintedBits(bits, width, height, colour) {
  const canvas = new OffscreenCanvas(width, height), context = canvas.getContext("2d");
  const image = context.createImageData(width, height), pixels = new Uint32Array(image.data.buffer);
  const value = (255 << 24) | (colour[2] << 16) | (colour[1] << 8) | colour[0];
  for (let k = 0; k < bits.length; k++) if (bits[k]) pixels[k] = value;
  context.putImageData(image, 0, 0);
  return canvas;
}

function paintLabel(context, doc, object, unit, chosen) {
  const [x, y] = anchorOf(doc, object, unit), colour = colourOf(object.colour), size = 12 * unit;
  context.font = `${chosen ? 600 : 500} ${size}px system-ui, sans-serif`;
  const whole = captionOf(doc, object), text = whole.length > 30 ? `${whole.slice(0, 28)}…` : whole;
  const width = context.measureText(text).width + 10 * unit, height = 18 * unit;
  const left = Math.max(0, Math.min(x, doc.width - width)), top = Math.max(0, Math.min(y, doc.height - height));
  context.fillStyle = css(colour, chosen ? 1 : 0.9);
  context.beginPath();
  context.roundRect(left, top, width, height, 4 * unit);
  context.fill();
  context.fillStyle = inkOn(colour);
  context.textBaseline = "middle";
  context.fillText(text, left + 5 * unit, top + height / 2 + 0.5 * unit);
}

const anchors = new WeakMap();
function anchorOf(doc, object, unit) {
  if (object.box) return [object.box[0], object.box[1]];
  if (object.point) return [object.point[0] + 12 * unit, object.point[1] - 9 * unit];
  if (object.scribble) return [object.scribble[0][0] + 6 * unit, object.scribble[0][1] - 26 * unit];
  if (!anchors.has(object.mask)) {
    const bits = bitsOf(doc, object), first = bits.indexOf(1);
    anchors.set(object.mask, [first % doc.width, Math.floor(first / doc.width)]);
  }
  return anchors.get(object.mask);
}
