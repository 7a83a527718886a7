/** The style panel: a picture that says what the new one looks like, one's own or a sample. */

import { cross, drawing } from "./drawings.js";
import { keepFocus } from "./focus.js";
import { ADD } from "./picture-input.js";
import { acceptDrops } from "./drops.js";
import { readFile, show } from "./pictures.js";

/** @import { Bytes } from "../engine/protocol.js" */
/** @import { Builder, Said } from "./builder.js" */

/**
 * @typedef {object} StyleOptions
 * @property {(bytes: Uint8Array) => Promise<unknown>} inspect rejects if the bytes are no picture
 * @property {() => Promise<boolean>} allow whether a picture of the user's may be used
 * @property {(error: unknown) => void} fail tells the user
 * @property {() => void} change after every change
 */

/** @typedef {{ name: Said, png: Uint8Array }} Sample */

export class Style {
  /** @type {HTMLElement} */
  node;
  #builder;
  #options;
  #tiles;
  #warning;
  /** @type {Sample[]} */
  #samples = [];
  /** The user's own picture. @type {Bytes | null} */
  #own = null;
  /** The chosen picture's file. @type {Bytes | null} */
  #value = null;
  /** Whether anything was chosen, even "none". */
  #chosen = false;

  /**
   * @param {Builder} builder
   * @param {StyleOptions} options
   */
  constructor(builder, options) {
    this.#builder = builder;
    this.#options = options;
    const h = builder.h.bind(builder);
    this.#tiles = h("div", { class: "tiles", label: "style.choices", attributes: { role: "group" } });
    this.node = h(
      "section",
      { class: "panel", id: "style", part: "style", attributes: { "aria-labelledby": "style-title" } },
      h("h2", { id: "style-title", text: "style.title" }),
      h("p", { class: "hint", text: "style.hint" }),
      this.#tiles,
    );
    this.#warning = h("p", { class: "note", id: "style-warning", hidden: true, attributes: { role: "status" } });
    this.node.append(this.#warning);
    acceptDrops(this.node, (files) => void this.#take(files));
    this.#build();
  }

  /** The chosen picture's file, as far as the model reads any. */
  get value() {
    return this.node.hidden ? null : this.#value;
  }

  /** Every picture that is on offer. */
  get all() {
    return [...(this.#own ? [this.#own] : []), ...this.#samples.map(({ png }) => png)];
  }

  /** What the tab may keep: which sample is chosen, -1 for none; null where it is somebody's own. */
  get state() {
    return this.#value === null || this.isSample ? this.#chosenSample : null;
  }

  set state(sample) {
    if (sample !== null) {
      this.choose(this.#samples[sample]?.png ?? null);
    }
  }

  get #chosenSample() {
    return this.#samples.findIndex(({ png }) => png === this.#value);
  }

  /** Warns that it shows fewer people than are wanted; 0 of them for no warning. @param {number} n */
  warn(n) {
    this.#warning.hidden = n === 0;
    if (n > 0) {
      this.#builder.say(this.#warning, { text: ["style.few", { n }] });
    }
  }

  /** Whether the chosen picture is a sample: those show one person. */
  get isSample() {
    return this.#chosenSample >= 0;
  }

  /** Tells whether the model reads style pictures at all. @param {boolean} styles */
  setAbility(styles) {
    if (this.node.hidden === styles) {
      this.node.hidden = !styles;
      this.#options.change();
    }
  }

  /**
   * Adds a sample; the first one is chosen where nothing was yet.
   * @param {Sample} sample
   */
  addSample(sample) {
    this.#samples.push(sample);
    if (!this.#chosen) {
      this.choose(sample.png);
    } else {
      this.#build();
    }
  }

  /** @param {Bytes | null} bytes */
  choose(bytes) {
    this.#chosen = true;
    this.#value = bytes;
    if (bytes && !this.#samples.some(({ png }) => png === bytes)) {
      this.#own = bytes;
    }
    this.#build();
    this.#options.change();
  }

  /** @param {File[]} files */
  async #take([file]) {
    try {
      if (file && (await this.#options.allow())) {
        const bytes = await readFile(file);
        await this.#options.inspect(bytes);
        this.choose(bytes);
      }
    } catch (error) {
      this.#options.fail(error);
    }
  }

  #build() {
    const h = this.#builder.h.bind(this.#builder);
    const file = h("input", {
      type: "file",
      accept: "image/*",
      class: "hidden-input",
      label: "style.own",
      attributes: { "data-key": "style-file" },
    });
    file.addEventListener("change", () => void this.#take([...(file.files ?? [])]));
    const upload = h("label", { class: "tile dashed" }, file, drawing(ADD), h("span", { text: "style.upload" }));
    const tile = (/** @type {Said} */ label, /** @type {Bytes | null} */ bytes, /** @type {string} */ key) => {
      const image = h("img", { hidden: !bytes, attributes: { alt: "" } });
      if (bytes) {
        show(image, bytes);
      }
      return h(
        "button",
        {
          type: "button",
          class: "tile",
          label,
          title: label,
          on: { click: () => this.choose(bytes) },
          attributes: { "aria-pressed": String(this.#chosen && this.#value === bytes), "data-key": key },
        },
        image,
        bytes ? null : cross(),
      );
    };
    keepFocus(this.#tiles, () => {
      this.#tiles.replaceChildren(
        upload,
        tile("style.none", null, "style-none"),
        ...(this.#own ? [tile("style.yours", this.#own, "style-own")] : []),
        ...this.#samples.map(({ name, png }, i) => tile(name, png, `style-${i}`)),
      );
    });
  }
}
