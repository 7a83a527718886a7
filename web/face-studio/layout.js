/** The layout panel: where each person goes, in boxes, painted, or as in a picture. */

import { failure } from "../engine/protocol.js";
import { BoxCanvas } from "./box-canvas.js";
import { columns } from "./boxes.js";
import { BrushCanvas } from "./brush-canvas.js";
import { PictureInput } from "./picture-input.js";

/** @import { Bytes, GenerateRequest } from "../engine/protocol.js" */
/** @import { Box } from "./boxes.js" */
/** @import { Builder } from "./builder.js" */
/** @import { PictureInputOptions } from "./picture-input.js" */

/** @typedef {"whole" | "boxes" | "brush" | "content"} LayoutMode */

const MODES = /** @type {const} */ (["whole", "boxes", "brush", "content"]);

export class LayoutPanel {
  /** @type {HTMLDetailsElement} */
  node;
  #builder;
  #change;
  #modes;
  #boxes;
  #brush;
  #content;
  #painted;
  #views;
  #count = 1;
  /** Boxes for people of whom some are still missing. @type {Box[] | null} */
  #wanted = null;
  /** @type {LayoutMode} */
  #mode = "whole";

  /**
   * @param {Builder} builder
   * @param {Omit<PictureInputOptions, "label" | "prompt">} options
   */
  constructor(builder, options) {
    this.#builder = builder;
    this.#change = options.change;
    const h = builder.h.bind(builder);
    this.#boxes = new BoxCanvas(builder, options.change);
    this.#brush = new BrushCanvas(builder, options.change);
    this.#content = new PictureInput(builder, { ...options, label: "layout.content_label", prompt: "picture.choose" });
    this.#modes = MODES.map((mode) =>
      h("button", {
        type: "button",
        class: "segment",
        text: `layout.${mode}`,
        on: { click: () => this.setMode(mode) },
        attributes: { "data-mode": mode },
      }),
    );
    this.#painted = h("div", { class: "chips", label: "layout.whose", attributes: { role: "group" } });
    const size = h("input", { type: "range", id: "brush-size", min: "8", max: "120", step: "4", value: String(this.#brush.size) });
    size.addEventListener("input", () => {
      this.#brush.size = size.valueAsNumber;
    });
    const erase = h("button", { type: "button", class: "chip", text: "layout.erase", attributes: { "aria-pressed": "false" } });
    erase.addEventListener("click", () => {
      this.#brush.erasing = !this.#brush.erasing;
      erase.setAttribute("aria-pressed", String(this.#brush.erasing));
    });
    const clear = h("button", { type: "button", class: "chip", text: "layout.clear", on: { click: () => this.#brush.clear() } });
    const again = () => {
      this.#boxes.set(columns(this.#count));
      this.#change();
    };
    const reset = h("button", { type: "button", class: "chip", text: "layout.reset", on: { click: again } });
    this.#views = {
      whole: h("p", { class: "hint", text: "layout.whole_hint" }),
      boxes: h(
        "div",
        { class: "view" },
        h("div", { class: "plane" }, this.#boxes.node),
        h("div", { class: "row wrap" }, reset),
        h("p", { class: "hint", id: "box-keys", text: "layout.box_keys" }),
      ),
      brush: h(
        "div",
        { class: "view" },
        this.#painted,
        h("div", { class: "plane" }, this.#brush.node),
        h("div", { class: "row" }, h("label", { htmlFor: "brush-size", text: "layout.size" }), size),
        h("div", { class: "row wrap" }, erase, clear),
        h("p", { class: "hint", id: "brush-keys", text: "layout.brush_keys" }),
      ),
      content: h("div", { class: "view" }, this.#content.node, h("p", { class: "hint", text: "layout.content_hint" })),
    };
    this.node = h(
      "details",
      { class: "panel", id: "layout", part: "layout" },
      h("summary", {}, h("span", { text: "layout.title" })),
      h(
        "div",
        { class: "folded" },
        h("div", { class: "segments", label: "layout.title", attributes: { role: "group" } }, ...this.#modes),
        ...Object.values(this.#views),
      ),
    );
    this.#update();
  }

  /** Tells how many people there are; the whole picture is for one alone. @param {number} count */
  setCount(count) {
    if (count !== this.#count) {
      this.#count = count;
      if (count > 1 && this.#mode === "whole") {
        this.#mode = "boxes";
        this.node.open = true;
      } else if (count < 2 && this.#mode === "boxes") {
        this.#mode = "whole";
      }
      this.#update();
    }
  }

  /** @param {LayoutMode} mode */
  setMode(mode) {
    this.#mode = mode;
    this.#update();
    this.#change();
  }

  /**
   * As a recipe or the tab's memory has it; for the people that there are.
   * @param {"whole" | { boxes: Box[] } | { content: Bytes | null }} layout
   */
  write(layout) {
    if (layout === "whole") {
      // Several people cannot be everywhere: they keep their boxes.
      this.setMode(this.#count > 1 ? "boxes" : "whole");
    } else if ("boxes" in layout) {
      this.#wanted = layout.boxes.map((box) => ({ ...box }));
      this.setMode("boxes");
    } else {
      this.#content.set(layout.content);
      this.setMode("content");
    }
  }

  /** Masks as they were painted, where they are known. @param {Bytes[]} masks */
  async paint(masks) {
    this.setMode("brush");
    await this.#brush.write(masks);
    this.#change();
  }

  /** What the tab may keep: no picture. */
  get state() {
    return { mode: this.#mode, boxes: this.#boxes.boxes };
  }

  /**
   * As a request wants it; fails where something is missing.
   * @param {{ width?: number, height?: number }} size of the picture, where it is not the model's own
   * @returns {Promise<GenerateRequest["layout"]>}
   */
  async read({ width, height }) {
    if (this.#mode === "boxes") {
      return { boxes: this.#boxes.boxes };
    }
    if (this.#mode === "brush") {
      const [empty] = this.#brush.empty;
      if (empty !== undefined) {
        throw missing(this.#builder.t(["layout.unpainted", { n: empty + 1 }]), this.#builder.t("layout.unpainted_remedy"));
      }
      return { masks: await this.#brush.masks(width, height) };
    }
    if (this.#mode === "content") {
      if (!this.#content.value) {
        throw missing(this.#builder.t("layout.no_content"), this.#builder.t("layout.no_content_remedy"));
      }
      return { content: this.#content.value };
    }
    return "whole";
  }

  #update() {
    const h = this.#builder.h.bind(this.#builder);
    // Nobody is drawn everywhere, as one person is.
    const people = Math.max(this.#count, 1);
    this.#boxes.setCount(people);
    // As soon as there are as many people as boxes that are wanted.
    if (this.#wanted?.length === people) {
      this.#boxes.set(this.#wanted);
      this.#wanted = null;
    }
    this.#brush.setCount(people);
    for (const button of this.#modes) {
      button.setAttribute("aria-pressed", String(button.dataset.mode === this.#mode));
      button.disabled = button.dataset.mode === "whole" && people > 1;
    }
    for (const [mode, view] of Object.entries(this.#views)) {
      view.hidden = mode !== this.#mode;
    }
    const paint = (/** @type {number} */ i) => {
      this.#brush.person = i;
      this.#update();
    };
    this.#painted.replaceChildren(
      ...Array.from({ length: people }, (_, i) =>
        h(
          "button",
          {
            type: "button",
            class: "chip",
            on: { click: () => paint(i) },
            attributes: { "aria-pressed": String(i === this.#brush.person) },
          },
          h("span", { class: `dot person-${i}` }),
          h("span", { text: ["people.person", { n: i + 1 }] }),
        ),
      ),
    );
  }
}

/**
 * @param {string} message
 * @param {string} remedy
 */
function missing(message, remedy) {
  return failure("input", "region-missing", message, remedy);
}
