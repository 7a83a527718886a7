/** Asks once, before the first real photo is used, whether its people agree. Remembered until the page is left. */

import { openDialog } from "./dialog.js";

/** @import { Builder } from "./builder.js" */
/** @import { Key } from "./messages.js" */

/** @type {Key[]} */
const LINES = ["consent.local", "consent.parts", "consent.marked", "consent.words", "consent.honest"];

export class Consent {
  #builder;
  #root;
  #given = false;

  /**
   * @param {Builder} builder
   * @param {ParentNode} root
   */
  constructor(builder, root) {
    this.#builder = builder;
    this.#root = root;
  }

  /** @returns {Promise<boolean>} whether photos may be used */
  ask() {
    if (this.#given) {
      return Promise.resolve(true);
    }
    const h = this.#builder.h.bind(this.#builder);
    return new Promise((resolve) => {
      const agree = () => {
        this.#given = true;
        close();
      };
      const close = openDialog(
        this.#builder,
        this.#root,
        { title: "consent.title", className: "narrow", closed: () => resolve(this.#given) },
        h("p", { text: "consent.agree" }),
        h("ul", {}, ...LINES.map((text) => h("li", { text }))),
        h(
          "div",
          { class: "dialog-actions" },
          h("button", { type: "button", text: "consent.no", on: { click: () => close() } }),
          h("button", { type: "button", class: "primary", id: "consent-yes", text: "consent.yes", on: { click: agree } }),
        ),
      );
    });
  }
}
