/** The device panel: what is stored on this machine, and how to delete it. */

import { keepsHistory, switchHistory } from "./history.js";
import { rounded } from "./messages.js";

/** @import { Builder } from "./builder.js" */

/**
 * @typedef {object} DeviceOptions
 * @property {() => Promise<unknown>} forget deletes the stored model files
 * @property {() => Promise<number>} stored bytes of the stored model files
 * @property {() => void} models shows other models
 * @property {() => void} cleared the history was deleted
 * @property {(error: unknown) => void} fail tells the user
 */

export class Device {
  /** @type {HTMLDetailsElement} */
  node;
  #builder;
  #options;
  #model;

  /**
   * @param {Builder} builder
   * @param {DeviceOptions} options
   */
  constructor(builder, options) {
    this.#builder = builder;
    this.#options = options;
    const h = builder.h.bind(builder);
    const history = h("input", { type: "checkbox", id: "keep", checked: keepsHistory() });
    history.addEventListener("change", async () => {
      try {
        await switchHistory(history.checked);
        if (!history.checked) {
          options.cleared();
        }
      } catch (error) {
        history.checked = keepsHistory();
        options.fail(error);
      }
    });
    this.#model = h("p", { id: "stored", text: "device.model" });
    const forget = h("button", { type: "button", id: "forget", text: "device.forget" });
    forget.addEventListener("click", async () => {
      try {
        await options.forget();
        builder.say(this.#model, { text: "device.forgotten" });
      } catch (error) {
        options.fail(error);
      }
    });
    this.node = h(
      "details",
      { class: "panel", id: "device", part: "device" },
      h("summary", {}, h("span", { text: "device.title" })),
      h(
        "div",
        { class: "folded" },
        h("label", { class: "check", htmlFor: "keep" }, history, h("span", { text: "device.keep" })),
        h("p", { class: "hint", text: "device.keep_hint" }),
        this.#model,
        h(
          "div",
          { class: "row" },
          h("button", { type: "button", id: "models", text: "device.models", on: { click: options.models } }),
          forget,
        ),
        h("p", { class: "hint", text: "device.visit" }),
        h("p", { class: "hint", text: "device.photos" }),
      ),
    );
    this.node.addEventListener("toggle", () => void this.update());
  }

  /** Says anew how much is stored. */
  async update() {
    try {
      const bytes = await this.#options.stored();
      this.#builder.say(this.#model, { text: ["device.stored", { n: rounded(bytes / 1e6, 1) }] });
    } catch (error) {
      this.#options.fail(error);
    }
  }
}
