/** The form as it was before a reload: noted while it changes, and recalled. */

/** @import { Memory } from "./memory.js" */
/** @import { Panels } from "./reuse.js" */

/** Milliseconds after a change until the form is noted. */
const NOTE_AFTER = 250;

export class FormMemory {
  #memory;
  #panels;
  /** Whether the form is what it was before the reload, and may be noted. */
  #recalled = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #noting;

  /**
   * @param {Memory} memory
   * @param {Panels} panels
   */
  constructor(memory, panels) {
    this.#memory = memory;
    this.#panels = panels;
  }

  /** Notes the form now. */
  note() {
    clearTimeout(this.#noting);
    if (this.#recalled) {
      const { words, advanced, layout, style, people } = this.#panels;
      this.#memory.noteForm({
        ...{ words: words.state, advanced: advanced.state, layout: layout.state },
        ...{ style: style.state, people: people.state },
      });
    }
  }

  /** Notes it once it rests. */
  noteSoon() {
    clearTimeout(this.#noting);
    this.#noting = setTimeout(() => this.note(), NOTE_AFTER);
  }

  /** The words, which need nothing else. */
  recallWords() {
    const { words } = /** @type {any} */ (this.#memory.form ?? {});
    if (words && typeof words.prompt === "string" && !this.#panels.words.state.prompt) {
      this.#panels.words.state = { prompt: words.prompt, alpha: Number(words.alpha) || 0 };
    }
  }

  /** The rest, once the samples are there that it may name. */
  recall() {
    const form = /** @type {any} */ (this.#memory.form);
    this.#recalled = true;
    if (!form) {
      return;
    }
    const { people, style, advanced, layout } = this.#panels;
    try {
      people.state = form.people;
      style.state = form.style;
      advanced.state = form.advanced;
      layout.write(form.layout.mode === "boxes" ? { boxes: form.layout.boxes } : "whole");
    } catch {
      // It is of another release: what it could say is said.
    }
  }
}
