// Run-length codes of bitmaps as COCO writes them: column by column, unset pixels first, five bits to a character.

/** Encode a bitmap (row-major bytes, 0 or not) of width x height as a compressed string. */
export function encode(bits, width, height) {
  const runs = [];
  let last = 0, length = 0;
  for (let x = 0; x < width; x++) {
    for (let y = 0, at = x; y < height; y++, at += width) {
      const bit = bits[at] ? 1 : 0;
      if (bit !== last) {
        runs.push(length);
        length = 0;
        last = bit;
      }
      length++;
    }
  }
  runs.push(length);
  let text = "";
  for (let i = 0; i < runs.length; i++) {
    let value = i > 2 ? runs[i] - runs[i - 2] : runs[i];
    for (let more = true; more; ) {
      let group = value & 0x1f;
      value >>= 5;
      more = group & 0x10 ? value !== -1 : value !== 0;
      if (more) group |= 0x20;
      text += String.fromCharCode(group + 48);
    }
  }
  return text;
}

/** Decode a compressed string, or plain run lengths, to a bitmap (row-major bytes, 0 or 1). */
export function decode(counts, width, height) {
  const runs = typeof counts === "string" ? runsOf(counts) : counts;
  const bits = new Uint8Array(width * height);
  let at = 0;
  const total = width * height;
  runs.forEach((run, index) => {
    const end = Math.min(at + run, total);
    if (index % 2) {
      for (let k = at; k < end; k++) bits[(k % height) * width + Math.floor(k / height)] = 1;
    }
    at = end;
  });
  return bits;
}

function runsOf(text) {
  const runs = [];
  for (let at = 0; at < text.length; ) {
    let value = 0, shift = 0, more = true;
    while (more && at < text.length) {
      const group = text.charCodeAt(at++) - 48;
      value |= (group & 0x1f) << shift;
      more = (group & 0x20) !== 0;
      shift += 5;
      if (!more && group & 0x10) value |= -1 << shift;
    }
    if (runs.length > 2) value += runs[runs.length - 2];
    runs.push(value);
  }
  return runs;
}
