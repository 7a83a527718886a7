/** Choosing a picture: a file, a drop, or one of some samples. */

import { MAX_IMAGE_BYTES } from "../engine/protocol.js";

/**
 * @typedef {object} PickerOptions
 * @property {string} name of the radio group, unique in the element
 * @property {string} prompt what the empty drop area says
 * @property {string} label what the file input is called
 * @property {string} [none] label of a choice without a picture; no such choice if left out
 * @property {(bytes: Uint8Array) => Promise<unknown>} inspect rejects if the bytes are no picture
 * @property {(error: unknown) => void} fail tells the user
 * @property {() => void} change after every new choice
 */

/** A group of controls inside a fieldset; `value` is the chosen picture's file. */
export class Picker {
  /** @type {Uint8Array | null} */
  value = null;
  #options;
  #samples;
  #drop;
  #image;
  /** Counts choices, so that a slow check cannot overtake a later choice. */
  #choice = 0;

  /**
   * @param {HTMLFieldSetElement} fieldset
   * @param {PickerOptions} options
   */
  constructor(fieldset, options) {
    this.#options = options;
    const body = element("div", "picker");
    this.#drop = element("label", "drop");
    const file = element("input", "hidden-input");
    file.type = "file";
    file.accept = "image/*";
    file.setAttribute("aria-label", options.label);
    const caption = element("span");
    caption.textContent = options.prompt;
    this.#image = element("img");
    this.#image.alt = "";
    this.#image.hidden = true;
    this.#drop.append(file, caption, this.#image);
    this.#samples = element("div", "samples");
    this.#samples.setAttribute("role", "radiogroup");
    this.#samples.setAttribute("aria-label", `${options.label}: samples`);
    body.append(this.#drop, this.#samples);
    fieldset.append(body);

    file.addEventListener("change", () => {
      const [chosen] = file.files ?? [];
      // The same file may be chosen again after it changed.
      file.value = "";
      void this.#take(chosen);
    });
    this.#drop.addEventListener("dragover", (event) => {
      event.preventDefault();
      this.#drop.classList.add("over");
    });
    this.#drop.addEventListener("dragleave", () => this.#drop.classList.remove("over"));
    this.#drop.addEventListener("drop", (event) => {
      event.preventDefault();
      this.#drop.classList.remove("over");
      void this.#take(event.dataTransfer?.files[0]);
    });
    if (options.none) {
      const none = element("span", "none");
      none.textContent = options.none;
      this.#addChoice(none, options.none, null);
    }
  }

  /**
   * Adds a sample; the first one is chosen where nothing was yet.
   * @param {string} label
   * @param {Uint8Array} png
   */
  addSample(label, png) {
    const image = element("img");
    image.alt = "";
    show(image, png);
    const input = this.#addChoice(image, label, png);
    if (this.#choice === 0) {
      input.checked = true;
      this.#set(png);
    }
  }

  /**
   * @param {HTMLElement} face
   * @param {string} label
   * @param {Uint8Array | null} bytes
   */
  #addChoice(face, label, bytes) {
    const choice = element("label");
    choice.title = label;
    const input = element("input", "hidden-input");
    input.type = "radio";
    input.name = this.#options.name;
    input.setAttribute("aria-label", label);
    input.addEventListener("change", () => this.#set(bytes));
    choice.append(input, face);
    this.#samples.append(choice);
    return input;
  }

  /** @param {File | undefined} file */
  async #take(file) {
    if (!file) {
      return;
    }
    const choice = ++this.#choice;
    try {
      if (file.size > MAX_IMAGE_BYTES) {
        throw {
          code: "image-too-large",
          fault: "input",
          message: `${file.name} has ${Math.round(file.size / 2 ** 20)} MiB`,
          remedy: `choose a picture of at most ${MAX_IMAGE_BYTES / 2 ** 20} MiB`,
        };
      }
      const bytes = new Uint8Array(await file.arrayBuffer());
      await this.#options.inspect(bytes);
      if (choice === this.#choice) {
        for (const input of this.#samples.querySelectorAll("input")) {
          input.checked = false;
        }
        this.#set(bytes);
      }
    } catch (error) {
      this.#options.fail(error);
    }
  }

  /** @param {Uint8Array | null} bytes */
  #set(bytes) {
    this.#choice += 1;
    this.value = bytes;
    this.#image.hidden = !bytes;
    if (bytes) {
      show(this.#image, bytes);
    }
    this.#options.change();
  }
}

/**
 * Shows an encoded picture; the one before is let go.
 * @param {HTMLImageElement} image
 * @param {Uint8Array} bytes
 * @returns {string} its URL
 */
export function show(image, bytes) {
  if (image.src.startsWith("blob:")) {
    URL.revokeObjectURL(image.src);
  }
  image.src = URL.createObjectURL(new Blob([/** @type {BlobPart} */ (bytes)]));
  return image.src;
}

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {string} [className]
 */
function element(tag, className) {
  const made = document.createElement(tag);
  if (className) {
    made.className = className;
  }
  return made;
}
