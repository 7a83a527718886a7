/** One picture that may be chosen, dropped or removed: a start picture, a picture to take the layout from. */

import { cross, drawing } from "./drawings.js";
import { acceptDrops } from "./drops.js";
import { readFile, show } from "./pictures.js";

/** @import { Bytes } from "../engine/protocol.js" */
/** @import { Builder, Said } from "./builder.js" */

/** The mark of controls that add a picture. */
export const ADD = "M8 3v10M3 8h10";

/**
 * @typedef {object} PictureInputOptions
 * @property {Said} label what the file input is called
 * @property {Said} prompt what the empty area says
 * @property {(bytes: Uint8Array) => Promise<unknown>} inspect rejects if the bytes are no picture
 * @property {() => Promise<boolean>} allow whether a picture of the user's may be used
 * @property {(error: unknown) => void} fail tells the user
 * @property {() => void} change after every change
 */

export class PictureInput {
  /** The chosen picture's file. @type {Bytes | null} */
  value = null;
  /** @type {HTMLElement} */
  node;
  #options;
  #image;
  #remove;

  /**
   * @param {Builder} builder
   * @param {PictureInputOptions} options
   */
  constructor(builder, options) {
    this.#options = options;
    const h = builder.h.bind(builder);
    const file = h("input", { type: "file", accept: "image/*", class: "hidden-input", label: options.label });
    this.#image = h("img", { hidden: true, attributes: { alt: "" } });
    const drop = h("label", { class: "drop" }, file, drawing(ADD), h("span", { text: options.prompt }), this.#image);
    this.#remove = h(
      "button",
      { type: "button", class: "icon over-tile", label: "picture.remove", hidden: true, on: { click: () => this.set(null) } },
      cross(),
    );
    this.node = h("div", { class: "picture-input" }, drop, this.#remove);
    file.addEventListener("change", () => {
      const files = [...(file.files ?? [])];
      // The same file may be chosen again after it changed.
      file.value = "";
      void this.#take(files);
    });
    acceptDrops(drop, (files) => void this.#take(files));
  }

  /** @param {File[]} files */
  async #take([file]) {
    try {
      if (file && (await this.#options.allow())) {
        const bytes = await readFile(file);
        await this.#options.inspect(bytes);
        this.set(bytes);
      }
    } catch (error) {
      this.#options.fail(error);
    }
  }

  /** @param {Bytes | null} bytes */
  set(bytes) {
    this.value = bytes;
    this.#image.hidden = !bytes;
    this.#remove.hidden = !bytes;
    if (bytes) {
      show(this.#image, bytes);
    }
    this.#options.change();
  }
}
