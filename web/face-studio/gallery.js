/** The results: every picture of this visit, and those that were kept; strips of several side by side. */

import { cross } from "./drawings.js";
import { rounded } from "./messages.js";
import { show } from "./pictures.js";

/** @import { Bytes, GenerateRequest, Notice } from "../engine/protocol.js" */
/** @import { Builder, Said } from "./builder.js" */
/** @import { Settings } from "./settings.js" */

/**
 * One picture and what is known about it.
 * @typedef {object} Result
 * @property {Uint8Array} png
 * @property {Settings} settings
 * @property {GenerateRequest} [request] as it was sent; only of this visit
 * @property {(Bytes | undefined)[]} [references] a photo of each person; only of this visit
 * @property {(number | null)[]} [likeness] identity similarity with each person asked for; null where no face was found
 * @property {Notice[]} [notices] what was done otherwise than asked; only of this visit
 * @property {number} [kept] its id in the history
 * @property {boolean} [visit] whether it is of this visit, before and after a reload
 * @property {Said} [caption] in a strip
 */

/**
 * @typedef {object} GalleryOptions
 * @property {(result: Result) => void} open
 * @property {(result: Result) => void} remove
 * @property {(kind: "alpha" | "mix") => void} strip makes one
 * @property {(results: Result[]) => void} save downloads all
 */

/**
 * What fills the gap of a likeness: one number for each person.
 * @param {(number | null)[]} likeness
 */
export function likenesses(likeness) {
  return likeness.map((value) => (value === null ? "–" : rounded(value, 2)));
}

export class Gallery {
  /** @type {HTMLElement} */
  node;
  #builder;
  #options;
  #grid;
  #none;
  #buttons;
  #save;
  /** Newest first: single pictures and strips. @type {Result[][]} */
  #rows = [];

  /**
   * @param {Builder} builder
   * @param {GalleryOptions} options
   */
  constructor(builder, options) {
    this.#builder = builder;
    this.#options = options;
    const h = builder.h.bind(builder);
    this.#grid = h("ul", { class: "results", id: "results" });
    this.#none = h("p", { class: "hint", text: "results.none" });
    const strip = (/** @type {"alpha" | "mix"} */ kind) =>
      h("button", {
        type: "button",
        id: `strip-${kind}`,
        disabled: true,
        title: `strip.${kind}_hint`,
        text: `strip.${kind}`,
        on: { click: () => options.strip(kind) },
      });
    this.#buttons = { alpha: strip("alpha"), mix: strip("mix") };
    this.#save = h("button", {
      type: "button",
      id: "save-all",
      hidden: true,
      text: "results.save",
      on: { click: () => options.save(this.all) },
    });
    this.node = h(
      "section",
      { class: "gallery", part: "results", label: "results.title" },
      h(
        "div",
        { class: "gallery-head" },
        h("h2", { text: "results.title" }),
        h("div", { class: "row wrap" }, this.#save, this.#buttons.alpha, this.#buttons.mix),
      ),
      this.#none,
      this.#grid,
    );
  }

  /**
   * Which strips can be made now.
   * @param {{ alpha: boolean, mix: boolean }} possible
   */
  setStrips({ alpha, mix }) {
    this.#buttons.alpha.disabled = !alpha;
    this.#buttons.mix.disabled = !mix;
  }

  /**
   * Adds a picture before all others.
   * @param {Result} result
   */
  add(result) {
    this.put([result]);
    return result;
  }

  /**
   * Adds a row before all others, or shows anew what it holds; several with captions are a strip.
   * @param {Result[]} row
   */
  put(row) {
    if (!this.#rows.includes(row)) {
      this.#rows.unshift(row);
    }
    this.#build();
  }

  /** Shows anew what is known, as after a similarity came in. */
  update() {
    this.#build();
  }

  /** @param {Result} result */
  remove(result) {
    // In their places: a strip that is being made goes on with its row.
    for (const row of this.#rows) {
      row.splice(0, row.length, ...row.filter((other) => other !== result));
    }
    this.#rows = this.#rows.filter((row) => row.length > 0);
    this.#build();
  }

  /** Every result, the newest first. */
  get all() {
    return this.#rows.flat();
  }

  #build() {
    const h = this.#builder.h.bind(this.#builder);
    this.#none.hidden = this.#rows.length > 0;
    this.#save.hidden = this.all.length < 2;
    this.#grid.replaceChildren(
      ...this.#rows.flatMap((row) =>
        row.some(({ caption }) => caption)
          ? [h("li", { class: "strip" }, h("ul", { class: "strip-row" }, ...row.map((result) => this.#card(result))))]
          : row.map((result) => this.#card(result)),
      ),
    );
  }

  /** @param {Result} result */
  #card(result) {
    const h = this.#builder.h.bind(this.#builder);
    const { settings, caption, likeness } = result;
    const image = h("img", { attributes: { alt: "" } });
    show(image, result.png);
    const likenessText = likeness?.some((value) => value !== null)
      ? h("span", { text: ["results.likeness", { value: likenesses(likeness) }] })
      : null;
    return h(
      "li",
      { class: "result" },
      h(
        "button",
        {
          type: "button",
          class: "tile",
          label: ["results.open", { seed: String(settings.seed) }],
          on: { click: () => this.#options.open(result) },
        },
        image,
      ),
      h(
        "button",
        {
          type: "button",
          class: "icon over-tile",
          label: ["results.remove", { seed: String(settings.seed) }],
          on: { click: () => this.#options.remove(result) },
        },
        cross(),
      ),
      h(
        "div",
        { class: "result-text" },
        caption ? h("span", { text: caption }) : h("span", { text: ["results.seed", { seed: String(settings.seed) }] }),
        caption ? null : h("span", { text: ["results.settings", { steps: settings.steps, style: Math.round(100 * settings.alpha) }] }),
        likenessText,
      ),
    );
  }
}
