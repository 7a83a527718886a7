/** The words panel: a prompt, examples of one, and how much the style picture counts against it (α). */

/** @import { Builder } from "./builder.js" */
/** @import { Key } from "./messages.js" */

/**
 * A field whose words are nobody else's: the browser neither keeps them, nor sends them to a spelling or writing service.
 */
export const UNWATCHED = /** @type {const} */ ({
  autocomplete: "off",
  spellcheck: false,
  attributes: { autocorrect: "off", writingsuggestions: "false" },
});

/** @type {Key[]} */
const EXAMPLES = ["words.example_1", "words.example_2", "words.example_3"];

export class Words {
  /** @type {HTMLElement} */
  node;
  #builder;
  #change;
  #prompt;
  #alpha;
  #stand;
  #style = false;

  /**
   * @param {Builder} builder
   * @param {() => void} change after every change
   */
  constructor(builder, change) {
    this.#builder = builder;
    this.#change = change;
    const h = builder.h.bind(builder);
    this.#prompt = h("textarea", { id: "prompt", name: "prompt", maxLength: 500, rows: 2, placeholder: "words.placeholder", ...UNWATCHED });
    this.#prompt.addEventListener("input", () => this.#changed());
    const examples = EXAMPLES.map((key) => {
      const use = () => {
        // Models read English.
        this.prompt = builder.t(key);
        this.#prompt.focus();
      };
      return h("button", { type: "button", class: "chip", text: key, on: { click: use } });
    });
    this.#alpha = h("input", { id: "alpha", name: "alpha", type: "range", min: "0", max: "1", step: "0.05", value: "0.5" });
    this.#alpha.addEventListener("input", () => this.#changed());
    this.#stand = h("p", { class: "hint", id: "alpha-stand" });
    this.node = h(
      "section",
      { class: "panel", id: "words", part: "words" },
      h("label", { class: "title", htmlFor: "prompt", text: "words.title" }),
      this.#prompt,
      h("div", { class: "chips", label: "words.examples", attributes: { role: "group" } }, ...examples),
      h(
        "div",
        { class: "balance" },
        h("label", { class: "label", htmlFor: "alpha", text: "alpha.title" }),
        this.#alpha,
        h(
          "div",
          { class: "ends", attributes: { "aria-hidden": "true" } },
          h("span", { text: "alpha.words" }),
          h("span", { text: "alpha.style" }),
        ),
        this.#stand,
      ),
    );
    this.#balance();
  }

  /** None where the model reads no words, whatever was typed before that was known. */
  get prompt() {
    return this.#prompt.disabled ? "" : this.#prompt.value.trim();
  }

  set prompt(text) {
    this.#prompt.value = text;
    this.#changed();
  }

  /** With one of the two alone there is nothing to balance. */
  get alpha() {
    if (this.#style && this.prompt) {
      return this.#alpha.valueAsNumber;
    }
    return this.#style ? 1 : 0;
  }

  set alpha(alpha) {
    this.#alpha.valueAsNumber = alpha;
    this.#changed();
  }

  /** What the tab may keep. */
  get state() {
    return { prompt: this.#prompt.value, alpha: this.#alpha.valueAsNumber };
  }

  set state({ prompt, alpha }) {
    this.#prompt.value = prompt;
    this.alpha = alpha;
  }

  /** Whether there are both, words and a style picture. */
  get balanced() {
    return this.#style && this.prompt !== "";
  }

  /** Tells whether a style picture is chosen. @param {boolean} style */
  setStyle(style) {
    this.#style = style;
    this.#balance();
  }

  /** Tells whether the model reads words at all. @param {boolean} words */
  setAbility(words) {
    if (this.#prompt.disabled === words) {
      this.#prompt.disabled = !words;
      this.#changed();
    }
  }

  #changed() {
    this.#balance();
    this.#change();
  }

  /** α can be moved only where there is something to balance; says in words where it stands. */
  #balance() {
    this.#alpha.disabled = !this.balanced;
    const percent = Math.round(this.#alpha.valueAsNumber * 100);
    if (this.balanced) {
      this.#builder.say(this.#stand, { text: ["alpha.stand", { style: percent, words: 100 - percent }] });
    } else {
      this.#builder.say(this.#stand, { text: this.#style ? "alpha.style_only" : this.prompt ? "alpha.words_only" : "alpha.nothing" });
    }
    this.#alpha.setAttribute("aria-valuetext", this.#stand.textContent ?? "");
  }
}
