// Example scenes as thumbnails that load on a click.

import { $, h, say } from "./dom.js";
import { call } from "./server.js";
import { fromScene } from "./scene.js";

export class Examples {
  constructor({ opened }) {
    this.opened = opened;
    this.loaded = false;
  }

  async load() {
    if (this.loaded) return;
    this.loaded = true;
    try {
      const groups = Map.groupBy ? Map.groupBy(await call("examples"), (example) => example.group) : grouped(await call("examples"));
      $("#examples").replaceChildren(...[...groups].map(([group, list]) => h("section", {}, h("h2", {}, group), h("ul", { class: "cards" }, list.map((example) => this.card(example))))));
    } catch (error) {
      this.loaded = false;
      say(error.message, "error");
    }
  }

  card(example) {
    const name = example.name.replace(/_/g, " ");
    return h("li", { class: "card" },
      h("button", { type: "button", class: "look", "data-example": example.name, onclick: () => this.open(example.name) },
        h("img", { src: example.thumbnail, alt: `Open ${name}`, loading: "lazy" })),
      h("div", { class: "card-foot" }, h("span", { class: "card-text", title: example.prompt }, example.prompt)),
      h("p", { class: "muted" }, name));
  }

  async open(name) {
    try {
      const { scene } = await call("example", name);
      this.opened(fromScene(scene), {});
      say("Opened.");
    } catch (error) {
      say(error.message, "error");
    }
  }
}

function grouped(list) {
  const groups = new Map();
  for (const example of list) groups.set(example.group, [...(groups.get(example.group) ?? []), example]);
  return groups;
}
