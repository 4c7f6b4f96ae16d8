// The picture being made: asking for it, its progress and previews, and what can be done with it.

import { $, h, say, seconds } from "./dom.js";
import { call, follow, session } from "./server.js";
import { kindsOf, toScene } from "./scene.js";

export class PicturePanel {
  constructor(store, settings, { made, show, blocked }) {
    Object.assign(this, { store, settings, made, show, blocked });
    this.job = null;
    this.result = null;
    this.chosen = 0;
    $("#generate").addEventListener("click", () => this.generate());
    $("#cancel").addEventListener("click", () => this.cancel());
    this.reattach();
  }

  /** Follow what this browser asked for before the page was loaded anew. */
  async reattach() {
    try {
      const [newest] = (await call("jobs", session())).reverse();
      if (newest) await this.follow(newest.job);
    } catch (error) {
      say(error.message, "error");
    }
  }

  /** Draw anew only what has changed since the picture shown, or one object of it that has not. */
  async edit(redraw) {
    const picture = this.result.pictures[this.chosen], options = this.settings.options();
    delete options.grid;
    const edit = { run: this.result.id, file: picture.file, redraw };
    await this.generate({ ...options, pictures: 1, seed: redraw.length ? options.seed : picture.seed, edit });
  }

  /** The index of the chosen object among those that are sent; -1 without one. */
  chosenInstance() {
    const { doc, selected } = this.store;
    return selected ? doc.objects.filter((object) => kindsOf(object).length).indexOf(selected) : -1;
  }

  redrawChosen() {
    const index = this.chosenInstance();
    if (index < 0) return say("Choose an object first: on the canvas, or in the list.", "error");
    return this.edit([index]);
  }

  async generate(options = this.settings.options()) {
    const errors = this.store.problems.filter((problem) => problem.severity === "error");
    if (errors.length) return say(errors[0].message, "error");
    $("#generate").disabled = true;
    try {
      const { job } = await call("submit", JSON.stringify(toScene(this.store.doc)), options, session());
      await this.follow(job);
    } catch (error) {
      say(error.message, "error");
      this.idle();
    }
    return null;
  }

  async cancel() {
    if (!this.job) return;
    $("#cancel").disabled = true;
    try {
      await call("cancel", this.job);
    } catch (error) {
      say(error.message, "error");
    }
  }

  async follow(job) {
    this.job = job;
    $("#panel-picture").dataset.state = "working";
    $("#cancel").disabled = false;
    $("#generate").disabled = true;
    let last = null;
    try {
      for await (last of follow("watch", job)) this.progress(last);
      // A stream may break off; the job goes on without it.
      while (last && !["done", "failed", "cancelled"].includes(last.state)) {
        await new Promise((resolve) => setTimeout(resolve, 700));
        this.progress((last = await call("job", job)));
      }
    } catch (error) {
      say(error.message, "error");
    }
    this.idle();
    if (last?.state === "failed") say(last.error, "error");
    if (last?.state === "cancelled") say("Cancelled.");
    if (last?.result) {
      await this.load(last.result);
      this.made(last.result);
    } else if (this.result) this.showResult();
    else this.showEmpty();
  }

  idle() {
    this.job = null;
    $("#panel-picture").dataset.state = this.result ? "done" : "empty";
    $("#generate").disabled = Boolean(this.blocked());
  }

  progress(job) {
    const bar = $("#progress"), text = $("#progress-text");
    bar.value = job.share ?? 0;
    if (job.state === "queued") text.textContent = job.ahead > 0 ? `Waiting: ${job.ahead} before you` : "Starting";
    else if (job.state === "running") {
      const picture = job.pictures > 1 ? `Picture ${Math.min((job.pictures_done ?? 0) + 1, job.pictures)} of ${job.pictures} · ` : "";
      const left = job.seconds_left ? ` · ${seconds(job.seconds_left)} left` : "";
      text.textContent = job.steps ? `${picture}step ${job.step} of ${job.steps}${left}` : "Starting";
    } else text.textContent = "";
    if (job.previews.length && this.previewCount !== `${job.job} ${job.preview_count}`) {
      this.previewCount = `${job.job} ${job.preview_count}`;
      const shown = job.previews.map((source) => h("img", { src: source, alt: "Preview of the picture being made" }));
      $("#shown").replaceChildren(h("div", { class: shown.length > 1 ? "previews many" : "previews" }, shown));
      $("#shown").dataset.previews = String(Number($("#shown").dataset.previews || 0) + 1);
    }
  }

  async load(run) {
    this.result = await call("result", run);
    this.chosen = 0;
    this.showResult();
  }

  showEmpty() {
    $("#shown").replaceChildren(h("p", { class: "empty" }, "The picture appears here."));
    $("#strip").replaceChildren();
    $("#picture-tools").replaceChildren();
  }

  showResult() {
    const { result } = this, picture = result.pictures[this.chosen];
    $("#panel-picture").dataset.state = this.job ? "working" : "done";
    const image = h("img", { src: picture.url, alt: `Picture for “${result.prompt}”, seed ${picture.seed}`, width: picture.width, height: picture.height });
    $("#shown").replaceChildren(h("button", { type: "button", class: "look", "aria-label": "Look at the result closely", onclick: () => this.show(result.id, this.chosen) }, image));
    $("#strip").replaceChildren(...(result.pictures.length > 1 ? result.pictures.map((each, k) =>
      h("button", { type: "button", "aria-label": `Picture ${k + 1} of ${result.pictures.length}`, "aria-pressed": String(k === this.chosen), onclick: () => { this.chosen = k; this.showResult(); } },
        h("img", { src: each.url, alt: "" }))) : []));
    const fixed = this.settings.seed.fixed && this.settings.seed.value === picture.seed;
    $("#picture-tools").replaceChildren(
      h("span", { class: "muted" }, `Seed ${picture.seed}`),
      h("button", { type: "button", class: "quiet", id: "keep-seed", disabled: fixed, title: "Use this seed from now on", onclick: () => { this.settings.lockSeed(picture.seed); this.showResult(); } }, fixed ? "Kept" : "Keep seed"),
      h("button", { type: "button", class: "quiet", id: "keep-rest", title: "Draw anew only what you have changed; all else stays as it is", onclick: () => this.edit([]) }, "Keep the rest"),
      h("button", { type: "button", class: "quiet", id: "redraw-object", title: "Draw the chosen object anew; all else stays as it is", onclick: () => this.redrawChosen() }, "Redraw this object"),
      h("a", { class: "quiet", href: picture.url, download: `${result.id}_${picture.file}`, title: "Download the picture; it carries its scene" }, "PNG"),
      h("a", { class: "quiet", href: result.zip, download: "", title: "Download everything of this result" }, "Zip"),
    );
  }
}
