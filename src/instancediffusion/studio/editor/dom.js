// Small helpers for building the page.

import { icon } from "./icons.js";

/** Make an element: h("button", {class: "x", onclick: f, "aria-label": "y"}, "text", child). */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "disabled") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A button that is an icon; its label is read aloud and shown as a tooltip. */
export function iconButton(name, label, onclick, attributes = {}) {
  const button = h("button", { type: "button", class: "icon", "aria-label": label, title: label, onclick, ...attributes });
  button.append(icon(name));
  return button;
}

export const $ = (selector, root = document) => root.querySelector(selector);

let timer = 0;
/** Say something for a few seconds at the foot of the page; screen readers say it, too. */
export function say(text, kind = "note") {
  const box = $("#say");
  box.textContent = text;
  box.dataset.kind = kind;
  box.classList.add("shown");
  clearTimeout(timer);
  timer = setTimeout(() => box.classList.remove("shown"), kind === "error" ? 9000 : 4000);
}

/** Call `action` once things have been quiet for `wait` ms. */
export function afterQuiet(wait, action) {
  let waiting = 0;
  const later = (...values) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => action(...values), wait);
  };
  later.now = (...values) => {
    clearTimeout(waiting);
    return action(...values);
  };
  return later;
}

/** Offer a file for download. */
export function download(name, content, type) {
  const link = h("a", { href: URL.createObjectURL(new Blob([content], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

export const seconds = (value) => value >= 90 ? `${Math.round(value / 60)} min` : `${Math.max(1, Math.round(value))} s`;
