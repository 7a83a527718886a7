/** The advanced panel: numbers of the sampler, seed, size, how many pictures, words to move away from. */

import { SAMPLERS } from "../engine/protocol.js";
import { drawing } from "./drawings.js";
import { samplerOf } from "./settings.js";
import { UNWATCHED } from "./words.js";

/** @import { Abilities, GenerateRequest } from "../engine/protocol.js" */
/** @import { Builder, Said } from "./builder.js" */

/** Shapes that are offered: name, and width and height over the model's own. */
const SHAPES = /** @type {const} */ ([
  ["portrait", 0.75, 1],
  ["landscape", 1, 0.75],
  ["large", 1.5, 1.5],
]);

/** The settings of this panel, as in a request. */
/** @typedef {Pick<GenerateRequest, "steps" | "guidance_scale" | "sampler" | "width" | "height" | "count" | "negative_prompt" | "seed" | "prompt_in_metadata">} Numbers */

export class Advanced {
  /** @type {HTMLDetailsElement} */
  node;
  #builder;
  #steps;
  #guidance;
  #sampler;
  #seed;
  #lock;
  #shape;
  #count;
  #negative;
  #words;
  /** @type {Abilities | null} */
  #abilities = null;
  /** A size that is asked for and is none of those on offer. */
  #other = "";
  /** Controls of the sampling whose value is somebody's choice, not the model's. @type {Set<Element>} */
  #chosen = new Set();

  /** @param {Builder} builder */
  constructor(builder) {
    this.#builder = builder;
    const h = builder.h.bind(builder);
    this.#steps = this.#slider("steps", "1", "50", "1", "25");
    this.#guidance = this.#slider("guidance", "1", "8", "0.5", "3");
    this.#count = this.#slider("count", "1", "8", "1", "1");
    this.#sampler = h(
      "select",
      { id: "sampler" },
      ...Object.entries(SAMPLERS).map(([value, name]) => h("option", { value, text: ["advanced.named", { name }] })),
    );
    for (const control of this.#samplings()) {
      control.addEventListener("input", () => this.#chosen.add(control));
    }
    this.#seed = h("input", { id: "seed", type: "number", min: "0", max: "4294967295", step: "1", inputMode: "numeric" });
    this.#lock = h("input", { id: "lock", type: "checkbox" });
    this.#seed.addEventListener("input", () => {
      this.#lock.checked = true;
    });
    this.#shape = h("select", { id: "shape" });
    this.#negative = h("input", { id: "negative", type: "text", maxLength: 500, ...UNWATCHED });
    this.#words = h("input", { id: "words-in-file", type: "checkbox", checked: true });
    const roll = () => this.roll();
    this.roll();
    this.node = h(
      "details",
      { class: "panel", id: "advanced", part: "advanced" },
      h("summary", {}, h("span", { text: "advanced.title" })),
      h(
        "div",
        { class: "folded" },
        this.#count.row,
        h("div", {}, h("label", { class: "label", htmlFor: "shape", text: "advanced.shape" }), this.#shape),
        h(
          "div",
          {},
          h("label", { class: "label", htmlFor: "seed", text: "advanced.seed" }),
          h(
            "div",
            { class: "row" },
            this.#seed,
            h(
              "button",
              { type: "button", class: "icon framed", id: "dice", label: "advanced.dice", title: "advanced.dice", on: { click: roll } },
              dice(),
            ),
          ),
          h("label", { class: "check", htmlFor: "lock" }, this.#lock, h("span", { text: "advanced.lock" })),
          h("p", { class: "hint", text: "advanced.seed_hint" }),
        ),
        this.#steps.row,
        this.#guidance.row,
        h("div", {}, h("label", { class: "label", htmlFor: "sampler", text: "advanced.sampler" }), this.#sampler),
        h("div", {}, h("label", { class: "label", htmlFor: "negative", text: "advanced.negative" }), this.#negative),
        h("label", { class: "check", htmlFor: "words-in-file" }, this.#words, h("span", { text: "advanced.words_in_file" })),
        h("p", { class: "hint", text: "advanced.words_in_file_hint" }),
      ),
    );
    this.#buildShapes();
  }

  /** Another seed. */
  roll() {
    this.#seed.value = String(crypto.getRandomValues(new Uint32Array(1))[0]);
  }

  /** Tells what the model makes: its sizes, and how it samples where nobody has chosen otherwise. @param {Abilities} abilities */
  setAbilities(abilities) {
    this.#abilities = abilities;
    if (!this.#chosen.has(this.#steps.input)) {
      this.#steps.set(abilities.steps);
    }
    if (!this.#chosen.has(this.#guidance.input)) {
      this.#guidance.set(abilities.guidance_scale);
    }
    if (!this.#chosen.has(this.#sampler)) {
      this.#sampler.value = abilities.sampler;
    }
    this.#buildShapes();
    this.#negative.disabled = !abilities.words;
  }

  /**
   * The numbers for the next pictures; a seed that is not locked is rolled anew.
   * @returns {Numbers}
   */
  read() {
    if (!this.#lock.checked) {
      this.roll();
    }
    const seed = this.#seed.valueAsNumber;
    const negative = this.#negative.disabled ? "" : this.#negative.value.trim();
    const [width, height] = this.#shape.value.split("x").map(Number);
    return {
      steps: this.#steps.input.valueAsNumber,
      guidance_scale: this.#guidance.input.valueAsNumber,
      sampler: samplerOf(this.#sampler.value),
      seed: Number.isSafeInteger(seed) && seed >= 0 ? seed : 0,
      count: this.#count.input.valueAsNumber,
      ...(negative ? { negative_prompt: negative } : {}),
      ...(this.#words.checked ? {} : { prompt_in_metadata: false }),
      ...(width && height ? { width, height } : {}),
    };
  }

  /**
   * Takes the numbers of a picture, to make it again: its seed is locked, and it is one picture.
   * @param {Numbers} numbers
   */
  write({ steps, guidance_scale, sampler, seed, negative_prompt, width, height }) {
    for (const control of this.#samplings()) {
      this.#chosen.add(control);
    }
    this.#steps.set(steps ?? 25);
    this.#guidance.set(guidance_scale ?? 3);
    this.#count.set(1);
    this.#sampler.value = samplerOf(sampler);
    this.#seed.value = String(seed ?? 0);
    this.#lock.checked = true;
    this.#negative.value = negative_prompt ?? "";
    this.#other = width && height ? `${width}x${height}` : "";
    this.#buildShapes();
    this.#shape.value = this.#own === this.#other ? "" : this.#other;
  }

  /** What the tab may keep: every control as it stands. */
  get state() {
    return {
      values: Object.fromEntries(this.#kept().map((control) => [control.id, control.value])),
      checked: [this.#lock.checked, this.#words.checked],
      chosen: this.#samplings().flatMap((control) => (this.#chosen.has(control) ? [control.id] : [])),
    };
  }

  set state({ values, checked: [lock = false, words = true], chosen }) {
    this.#other = values.shape ?? "";
    this.#buildShapes();
    for (const control of this.#kept()) {
      const value = values[control.id];
      // What the model decides is left to it.
      if (value !== undefined && (!this.#samplings().includes(control) || chosen.includes(control.id))) {
        control.value = value;
        control.dispatchEvent(new Event("input"));
      }
    }
    this.#lock.checked = lock;
    this.#words.checked = words;
  }

  #kept() {
    return [...this.#samplings(), this.#count.input, this.#seed, this.#shape, this.#negative];
  }

  /** The model's own size, as the list has it. */
  get #own() {
    const { width, height } = this.#abilities ?? {};
    return `${width}x${height}`;
  }

  /** The controls of how pictures are sampled, for which a model has its own values. */
  #samplings() {
    return [this.#steps.input, this.#guidance.input, this.#sampler];
  }

  /** The sizes near the model's own; before a model is open, only that. */
  #buildShapes() {
    const h = this.#builder.h.bind(this.#builder);
    const { width, height, multiple } = this.#abilities ?? {};
    const chosen = this.#shape.value;
    const options = [h("option", { value: "", text: width && height ? ["shape.own", { width, height }] : "shape.default" })];
    if (width && height && multiple) {
      // Twice the multiple, so that the UNet can halve the latents.
      const fit = (/** @type {number} */ side) => Math.max(Math.round(side / (2 * multiple)), 1) * 2 * multiple;
      for (const [name, across, down] of SHAPES) {
        const [w, d] = [fit(width * across), fit(height * down)];
        options.push(h("option", { value: `${w}x${d}`, text: [`shape.${name}`, { width: w, height: d }] }));
      }
    }
    if (this.#other && this.#other !== this.#own && !options.some(({ value }) => value === this.#other)) {
      const [w = 0, d = 0] = this.#other.split("x").map(Number);
      options.push(h("option", { value: this.#other, text: ["shape.other", { width: w, height: d }] }));
    }
    this.#shape.replaceChildren(...options);
    this.#shape.value = options.some(({ value }) => value === chosen) ? chosen : "";
  }

  /**
   * @param {"steps" | "guidance" | "count"} name
   * @param {string} min
   * @param {string} max
   * @param {string} step
   * @param {string} value
   */
  #slider(name, min, max, step, value) {
    const h = this.#builder.h.bind(this.#builder);
    const input = h("input", { id: name, type: "range", min, max, step, value });
    const output = h("output", { attributes: { for: name } }, value);
    const update = () => {
      output.value = input.value;
    };
    input.addEventListener("input", update);
    /** @type {Said} */
    const text = `advanced.${name}`;
    const row = h("div", {}, h("div", { class: "ends strong" }, h("label", { class: "label", htmlFor: name, text }), output), input);
    const set = (/** @type {number} */ to) => {
      input.valueAsNumber = to;
      update();
    };
    return { row, input, set };
  }
}

/** The mark of buttons that draw lots. */
export function dice() {
  return drawing("M3 3h10v10H3zM5.5 5.500h.01M10.500 10.500h.01M8 8h.01M10.500 5.500h.01M5.500 10.500h.01");
}
