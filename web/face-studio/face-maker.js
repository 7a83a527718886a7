/** The face maker: the project's own renderer with dice and sliders, as a source of faces and of style pictures. */

import { dice } from "./advanced.js";
import { openDialog } from "./dialog.js";
import { GROUPS, POSE } from "./face-traits.js";
import { show } from "./pictures.js";

/** @import { FaceChoices, MadeFace, Portrait } from "../engine/protocol.js" */
/** @import { Builder } from "./builder.js" */
/** @import { Group, Trait } from "./face-traits.js" */
/** @import { Key } from "./messages.js" */

/** Side of the picture while a slider moves, and of the one that is used, in pixels. */
const SKETCH = 128;
const FULL = 256;

/**
 * @typedef {object} FaceMakerOptions
 * @property {(seed: number) => Promise<MadeFace>} random
 * @property {(portrait: Portrait, size: number) => Promise<Uint8Array>} draw
 * @property {() => Promise<FaceChoices>} choices
 * @property {(png: Uint8Array) => void} useFace
 * @property {(png: Uint8Array) => void} useStyle
 * @property {(error: unknown) => void} fail tells the user
 */

/** One face under construction; it is kept while the page is open. */
export class FaceMaker {
  #builder;
  #root;
  #options;
  /** @type {Portrait | null} */
  #portrait = null;
  /** @type {FaceChoices} */
  #choices = { hair_styles: [], hair_colors: [], beards: [], glasses: [], styles: [], backgrounds: [] };
  /** @type {Group | "pose"} */
  #group = "face";
  /** @type {HTMLImageElement | null} */
  #image = null;
  /** Whether a sketch is being drawn, and whether the face has changed since. */
  #drawing = false;
  #stale = false;

  /**
   * @param {Builder} builder
   * @param {ParentNode} root where the dialog opens
   * @param {FaceMakerOptions} options
   */
  constructor(builder, root, options) {
    this.#builder = builder;
    this.#root = root;
    this.#options = options;
  }

  async open() {
    try {
      this.#choices = await this.#options.choices();
      if (!this.#portrait) {
        await this.#roll();
      }
      this.#show();
      void this.#draw();
    } catch (error) {
      this.#options.fail(error);
    }
  }

  /** Another random face, in the same pose and style. */
  async #roll() {
    const seed = crypto.getRandomValues(new Uint32Array(1))[0] ?? 0;
    const face = await this.#options.random(seed);
    const before = this.#portrait ?? { style: "photo", background: "plain", yaw: 0, pitch: 0, roll: 0, smile: 0.2 };
    this.#portrait = { ...before, face, seed };
  }

  #show() {
    const h = this.#builder.h.bind(this.#builder);
    this.#image = h("img", { class: "portrait", id: "maker-portrait", alt: "maker.portrait", width: FULL, height: FULL });
    const controls = h("div", { class: "maker-controls", id: "maker-controls" });
    const groups = /** @type {(Group | "pose")[]} */ ([...Object.keys(GROUPS), "pose"]);
    const tabs = groups.map((group) => {
      const choose = () => {
        this.#group = group;
        for (const tab of tabs) {
          tab.setAttribute("aria-pressed", String(tab.dataset.group === group));
        }
        this.#fill(controls);
      };
      return h("button", {
        type: "button",
        class: "chip",
        text: `maker.${group}`,
        on: { click: choose },
        attributes: { "aria-pressed": String(group === this.#group), "data-group": group },
      });
    });
    const roll = async () => {
      try {
        await this.#roll();
        this.#fill(controls);
        await this.#draw();
      } catch (error) {
        this.#options.fail(error);
      }
    };
    const use = async (/** @type {(png: Uint8Array) => void} */ take, /** @type {Partial<Portrait>} */ as) => {
      try {
        if (this.#portrait) {
          take(await this.#options.draw({ ...this.#portrait, ...as }, FULL));
        }
      } catch (error) {
        this.#options.fail(error);
      }
      close();
    };
    // An identity is read best from a photo; a style picture is what is seen.
    const asFace = () => void use(this.#options.useFace, { style: "photo", background: "plain" });
    const asStyle = () => void use(this.#options.useStyle, {});
    const close = openDialog(
      this.#builder,
      this.#root,
      { title: "maker.title", className: "maker" },
      h(
        "div",
        { class: "maker-body" },
        h(
          "div",
          { class: "maker-picture" },
          this.#image,
          h("button", { type: "button", id: "maker-dice", on: { click: () => void roll() } }, dice(), h("span", { text: "maker.dice" })),
        ),
        h(
          "div",
          { class: "maker-side" },
          h("div", { class: "chips", label: "maker.groups", attributes: { role: "group" } }, ...tabs),
          controls,
        ),
      ),
      h(
        "div",
        { class: "dialog-actions" },
        h("button", { type: "button", id: "use-style", text: "maker.use_style", on: { click: asStyle } }),
        h("button", { type: "button", class: "primary", id: "use-face", text: "maker.use_face", on: { click: asFace } }),
      ),
    );
    this.#fill(controls);
  }

  /**
   * The controls of the chosen group.
   * @param {HTMLElement} controls
   */
  #fill(controls) {
    const portrait = this.#portrait;
    if (!portrait) {
      return;
    }
    const { face } = portrait;
    if (this.#group === "pose") {
      const sliders = POSE.map(([name, low, high, step]) =>
        this.#slider(`maker.${name}`, portrait[name], { low, high, step }, (value) => {
          portrait[name] = value;
        }),
      );
      const style = this.#select("maker.style", portrait.style, this.#choices.styles, "style", (value) => {
        portrait.style = value;
      });
      const background = this.#select("maker.background", portrait.background, this.#choices.backgrounds, "background", (value) => {
        portrait.background = value;
      });
      controls.replaceChildren(style, background, ...sliders);
      return;
    }
    const extras = [];
    if (this.#group === "hair") {
      extras.push(
        this.#select("maker.hair_style", face.hair_style, this.#choices.hair_styles, "hair", (value) => {
          face.hair_style = value;
        }),
        this.#swatches(face),
      );
    } else if (this.#group === "jaw") {
      extras.push(
        this.#select("maker.beard", face.beard, this.#choices.beards, "beard", (value) => {
          face.beard = value;
        }),
      );
    } else if (this.#group === "glasses") {
      extras.push(
        this.#select("maker.glasses_shape", face.glasses ?? "none", ["none", ...this.#choices.glasses], "glasses", (value) => {
          face.glasses = value === "none" ? null : value;
        }),
        this.#frame(face),
      );
    }
    const sliders = GROUPS[this.#group].map((/** @type {Trait} */ trait) =>
      this.#slider(`trait.${trait}`, Number(face[trait]), { low: 0, high: 1, step: 0.01 }, (value) => {
        face[trait] = value;
      }),
    );
    controls.replaceChildren(...extras, ...sliders);
  }

  /**
   * @param {Key} key
   * @param {number} value
   * @param {{ low: number, high: number, step: number }} range
   * @param {(value: number) => void} set
   */
  #slider(key, value, { low, high, step }, set) {
    const h = this.#builder.h.bind(this.#builder);
    const input = h("input", { type: "range", min: String(low), max: String(high), step: String(step), value: String(value) });
    input.addEventListener("input", () => {
      set(input.valueAsNumber);
      void this.#draw();
    });
    return h("label", { class: "slider" }, h("span", { text: key }), input);
  }

  /**
   * @param {Key} key
   * @param {string} value
   * @param {readonly string[]} choices
   * @param {string} table first part of the choices' messages
   * @param {(value: string) => void} set
   */
  #select(key, value, choices, table, set) {
    const h = this.#builder.h.bind(this.#builder);
    const options = choices.map((name) => h("option", { value: name, text: /** @type {Key} */ (`${table}.${name}`) }));
    const select = h("select", {}, ...options);
    select.value = value;
    select.addEventListener("change", () => {
      set(select.value);
      void this.#draw();
    });
    return h("label", { class: "slider" }, h("span", { text: key }), select);
  }

  /** The hair's colours to choose from. @param {MadeFace} face */
  #swatches(face) {
    const h = this.#builder.h.bind(this.#builder);
    const swatches = this.#choices.hair_colors.map(([name, rgb]) => {
      const swatch = h("button", {
        type: "button",
        class: "swatch",
        label: /** @type {Key} */ (`color.${name}`),
        title: /** @type {Key} */ (`color.${name}`),
        attributes: { "aria-pressed": String(face.hair_color === name) },
      });
      swatch.style.setProperty("background", `rgb(${rgb.map((part) => Math.round(255 * part)).join(" ")})`);
      swatch.addEventListener("click", () => {
        face.hair_color = name;
        [face.hair_red, face.hair_green, face.hair_blue] = rgb;
        swatches.forEach((other) => other.setAttribute("aria-pressed", String(other === swatch)));
        void this.#draw();
      });
      return swatch;
    });
    return h("div", { class: "swatches", label: "maker.hair_color", attributes: { role: "group" } }, ...swatches);
  }

  /** The colour of the glasses' frame. @param {MadeFace} face */
  #frame(face) {
    const h = this.#builder.h.bind(this.#builder);
    const parts = [face.frame_red, face.frame_green, face.frame_blue];
    const hex = parts
      .map((part) =>
        Math.round(255 * Number(part))
          .toString(16)
          .padStart(2, "0"),
      )
      .join("");
    const input = h("input", { type: "color", value: `#${hex}` });
    input.addEventListener("input", () => {
      const value = Number.parseInt(input.value.slice(1), 16);
      face.frame_red = (value >> 16) / 255;
      face.frame_green = ((value >> 8) & 255) / 255;
      face.frame_blue = (value & 255) / 255;
      void this.#draw();
    });
    return h("label", { class: "slider" }, h("span", { text: "maker.frame" }), input);
  }

  /** Draws a sketch at once and the full picture when nothing moves any more; one drawing at a time. */
  async #draw() {
    this.#stale = true;
    if (this.#drawing) {
      return;
    }
    this.#drawing = true;
    try {
      let size = 0;
      while (this.#portrait && this.#image?.isConnected && (this.#stale || size < FULL)) {
        size = this.#stale ? SKETCH : FULL;
        this.#stale = false;
        const png = await this.#options.draw(this.#portrait, size);
        // A full picture that came too late is dropped.
        if (size === SKETCH || !this.#stale) {
          show(this.#image, png);
        }
      }
    } catch (error) {
      this.#options.fail(error);
    } finally {
      this.#drawing = false;
    }
  }
}
