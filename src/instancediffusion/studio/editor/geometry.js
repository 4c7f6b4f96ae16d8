// Lengths are pixels of the scene's canvas, x to the right, y down. Bitmaps are row-major bytes.

export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
export const tidy = (value) => Math.round(value * 10) / 10;
export const distance = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);

/** The box of two corners in any order, kept on the canvas and at least one pixel wide and high. */
export function boxOf(a, b, width, height) {
  const x0 = clamp(Math.min(a[0], b[0]), 0, width - 1), y0 = clamp(Math.min(a[1], b[1]), 0, height - 1);
  const x1 = clamp(Math.max(a[0], b[0]), x0 + 1, width), y1 = clamp(Math.max(a[1], b[1]), y0 + 1, height);
  return [x0, y0, x1, y1].map(tidy);
}

export function boundsOfPoints(points) {
  const xs = points.map((p) => p[0]), ys = points.map((p) => p[1]);
  return [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
}

/** The box of a bitmap's set pixels, or null if there are none. */
export function boundsOfBits(bits, width, height) {
  let x0 = width, y0 = height, x1 = -1, y1 = -1;
  for (let y = 0; y < height; y++) {
    for (let x = 0, at = y * width; x < width; x++, at++) {
      if (!bits[at]) continue;
      if (x < x0) x0 = x;
      if (x > x1) x1 = x;
      if (y < y0) y0 = y;
      y1 = y;
    }
  }
  return x1 < 0 ? null : [x0, y0, x1 + 1, y1 + 1];
}

/** A stroke with fewer points, none of the old ones farther than `tolerance` from it (Douglas and Peucker). */
export function simplify(points, tolerance) {
  if (points.length < 3) return points;
  const keep = new Uint8Array(points.length);
  keep[0] = keep[points.length - 1] = 1;
  const stack = [[0, points.length - 1]];
  while (stack.length) {
    const [first, last] = stack.pop();
    let worst = 0, at = -1;
    for (let i = first + 1; i < last; i++) {
      const away = distanceToSegment(points[i], points[first], points[last]);
      if (away > worst) [worst, at] = [away, i];
    }
    if (worst > tolerance) {
      keep[at] = 1;
      stack.push([first, at], [at, last]);
    }
  }
  return points.filter((_, i) => keep[i]);
}

export function distanceToSegment(p, a, b) {
  const dx = b[0] - a[0], dy = b[1] - a[1], length = dx * dx + dy * dy;
  const t = length ? clamp(((p[0] - a[0]) * dx + (p[1] - a[1]) * dy) / length, 0, 1) : 0;
  return Math.hypot(p[0] - a[0] - t * dx, p[1] - a[1] - t * dy);
}

export function distanceToStroke(p, points) {
  let least = points.length ? distance(p, points[0]) : Infinity;
  for (let i = 1; i < points.length; i++) least = Math.min(least, distanceToSegment(p, points[i - 1], points[i]));
  return least;
}

/** Set (or clear) the pixels whose centres lie within `radius` of the segment from a to b. */
export function paintSegment(bits, width, height, a, b, radius, value) {
  const x0 = Math.max(0, Math.floor(Math.min(a[0], b[0]) - radius)), x1 = Math.min(width - 1, Math.ceil(Math.max(a[0], b[0]) + radius));
  const y0 = Math.max(0, Math.floor(Math.min(a[1], b[1]) - radius)), y1 = Math.min(height - 1, Math.ceil(Math.max(a[1], b[1]) + radius));
  for (let y = y0; y <= y1; y++) {
    for (let x = x0; x <= x1; x++) {
      if (distanceToSegment([x + 0.5, y + 0.5], a, b) <= radius) bits[y * width + x] = value;
    }
  }
}

/** Set (or clear) the pixels whose centres lie inside a polygon (even-odd rule). */
export function fillPolygon(bits, width, height, points, value) {
  const [, top, , bottom] = boundsOfPoints(points);
  for (let y = Math.max(0, Math.floor(top)); y <= Math.min(height - 1, Math.ceil(bottom)); y++) {
    const centre = y + 0.5, cuts = [];
    points.forEach(([ax, ay], i) => {
      const [bx, by] = points[(i + 1) % points.length];
      if (ay <= centre !== by <= centre) cuts.push(ax + ((centre - ay) / (by - ay)) * (bx - ax));
    });
    cuts.sort((p, q) => p - q);
    for (let k = 0; k + 1 < cuts.length; k += 2) {
      const from = Math.max(0, Math.ceil(cuts[k] - 0.5)), to = Math.min(width - 1, Math.floor(cuts[k + 1] - 0.5));
      for (let x = from; x <= to; x++) bits[y * width + x] = value;
    }
  }
}

/** A bitmap moved and scaled so that what filled `from` fills `to` (nearest pixel). */
export function remapBits(bits, width, height, from, to) {
  const made = new Uint8Array(width * height);
  const sx = (from[2] - from[0]) / (to[2] - to[0]), sy = (from[3] - from[1]) / (to[3] - to[1]);
  for (let y = Math.max(0, Math.floor(to[1])); y < Math.min(height, Math.ceil(to[3])); y++) {
    const v = Math.floor(from[1] + (y + 0.5 - to[1]) * sy);
    if (v < 0 || v >= height) continue;
    for (let x = Math.max(0, Math.floor(to[0])); x < Math.min(width, Math.ceil(to[2])); x++) {
      const u = Math.floor(from[0] + (x + 0.5 - to[0]) * sx);
      if (u >= 0 && u < width) made[y * width + x] = bits[v * width + u];
    }
  }
  return made;
}

/** The same bitmap on a canvas of another size. */
export function resizeBits(bits, width, height, newWidth, newHeight) {
  const made = new Uint8Array(newWidth * newHeight);
  for (let y = 0; y < newHeight; y++) {
    const v = Math.floor(((y + 0.5) * height) / newHeight);
    for (let x = 0; x < newWidth; x++) made[y * newWidth + x] = bits[v * width + Math.floor(((x + 0.5) * width) / newWidth)];
  }
  return made;
}

/** Map a point from one box to another. */
export const remap = (p, from, to) => [
  tidy(to[0] + ((p[0] - from[0]) / Math.max(from[2] - from[0], 1e-9)) * (to[2] - to[0])),
  tidy(to[1] + ((p[1] - from[1]) / Math.max(from[3] - from[1], 1e-9)) * (to[3] - to[1])),
];

/** The shift within `reach` that brings one of `values` onto one of `lines`, and the line; [0, null] if none is near. */
export function snapShift(values, lines, reach) {
  let best = reach, shift = 0, line = null;
  for (const value of values) {
    for (const candidate of lines) {
      const away = Math.abs(candidate - value);
      if (away < best) [best, shift, line] = [away, candidate - value, candidate];
    }
  }
  return [shift, line];
}
