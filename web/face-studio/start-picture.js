/** The start picture panel: draw over a picture instead of from noise, and hold its background. */

import { PictureInput } from "./picture-input.js";

/** @import { Bytes, GenerateRequest } from "../engine/protocol.js" */
/** @import { Builder } from "./builder.js" */
/** @import { PictureInputOptions } from "./picture-input.js" */

export class StartPicture {
  /** @type {HTMLDetailsElement} */
  node;
  #input;
  #strength;
  #hold;

  /**
   * @param {Builder} builder
   * @param {Omit<PictureInputOptions, "label" | "prompt">} options
   */
  constructor(builder, options) {
    const h = builder.h.bind(builder);
    const change = () => {
      this.#update();
      options.change();
    };
    this.#strength = h("input", { type: "range", id: "strength", min: "0.05", max: "1", step: "0.05", value: "0.6" });
    this.#hold = h("input", { type: "checkbox", id: "hold" });
    this.#input = new PictureInput(builder, { ...options, change, label: "start.label", prompt: "picture.choose" });
    this.#strength.addEventListener("input", options.change);
    this.#hold.addEventListener("change", options.change);
    this.node = h(
      "details",
      { class: "panel", id: "start", part: "start" },
      h("summary", {}, h("span", { text: "start.title" })),
      h(
        "div",
        { class: "folded" },
        h("p", { class: "hint", text: "start.hint" }),
        this.#input.node,
        h(
          "div",
          {},
          h("label", { class: "label", htmlFor: "strength", text: "start.strength" }),
          this.#strength,
          h(
            "div",
            { class: "ends", attributes: { "aria-hidden": "true" } },
            h("span", { text: "start.keep" }),
            h("span", { text: "start.renew" }),
          ),
        ),
        h("label", { class: "check", htmlFor: "hold" }, this.#hold, h("span", { text: "start.hold" })),
        h("p", { class: "hint", text: "start.hold_hint" }),
      ),
    );
    this.#update();
  }

  /**
   * Starts from a picture, as one of the results.
   * @param {Uint8Array} png
   */
  use(png) {
    this.#input.set(png);
    this.node.open = true;
  }

  /**
   * As a recipe has it.
   * @param {Bytes | null} image
   * @param {number} [strength]
   * @param {boolean} [hold]
   */
  write(image, strength, hold = false) {
    if (strength !== undefined) {
      this.#strength.valueAsNumber = strength;
    }
    this.#hold.checked = hold;
    this.#input.set(image);
    this.node.open ||= image !== null;
  }

  /** The chosen picture. */
  get picture() {
    return this.#input.value;
  }

  /**
   * The part of a request that it decides; empty without a picture.
   * @returns {Pick<GenerateRequest, "init" | "background">}
   */
  read() {
    const image = this.#input.value;
    if (!image) {
      return {};
    }
    const init = { image, strength: this.#strength.valueAsNumber };
    return this.#hold.checked ? { init, background: "hold" } : { init };
  }

  #update() {
    const without = !this.#input.value;
    this.#strength.disabled = without;
    this.#hold.disabled = without;
  }
}
