/**
 * `<face-studio>`: choose a face, a style picture and words, and get a picture, all inside the tab.
 *
 * Attributes: `model` (URL of a model folder; default `../models/mini/` beside this file's folder), `backend`
 * (`auto`, `webgpu` or `cpu`), `preload` (open the model at once instead of at the first picture).
 *
 * Events, which bubble and leave the shadow tree: `facestudio-ready` ({@link Opened}), `facestudio-progress`
 * ({@link Progress}), `facestudio-result` ({@link Picture}s), `facestudio-error` (`FaceStudioError`).
 *
 * Slots: `header`, `footer`. Parts: `studio`, `header`, `engine`, `controls`, `generate`, `cancel`, `stage`, `frame`,
 * `picture`, `error`, `download`, `footer`. Theme: the custom properties in `styles.js`.
 */

import { EngineClient } from "../engine/client.js";
import { FaceStudioError, toFailure } from "../engine/protocol.js";
import { Picker, show } from "./picker.js";
import { styles } from "./styles.js";
import { byId, markup } from "./template.js";

/** @import { BackendWish, GenerateRequest, Opened, Picture, Progress } from "../engine/protocol.js" */

/** Side of the sample pictures in pixels. */
const SAMPLE_SIZE = 192;

/** Seeds of the sample faces, chosen for variety. */
const SAMPLE_FACES = [3, 8, 14, 21, 27, 33];

/** The sample style pictures: renderer's style, seed, label. */
const SAMPLE_STYLES = /** @type {const} */ ([
  ["watercolor", 101, "Watercolor"],
  ["flat_cartoon", 102, "Cartoon"],
  ["ink_sketch", 103, "Ink sketch"],
  ["oil", 104, "Oil painting"],
  ["pop_art", 105, "Pop art"],
  ["pixel_art", 106, "Pixel art"],
  ["neon", 107, "Neon"],
]);

const EXAMPLES = [
  "a watercolor portrait, forest background",
  "an oil painting of a person in a red suit",
  "a neon portrait with a hat, city at night",
];

/** What the phases of a task are called. */
const PHASES = {
  engine: "Starting the engine",
  fetch: "Fetching the model",
  load: "Loading the model",
  encode: "Looking at your pictures",
  denoise: "Drawing",
  decode: "Developing the picture",
};

export class FaceStudioElement extends HTMLElement {
  #root = this.attachShadow({ mode: "open" });
  /** @type {EngineClient | null} */
  #engine = null;
  /** @type {Promise<Opened> | null} */
  #opened = null;
  /** @type {AbortController | null} */
  #task = null;
  /** @type {Picker | null} */
  #face = null;
  /** @type {Picker | null} */
  #style = null;

  connectedCallback() {
    if (this.#engine) {
      return;
    }
    this.#engine = new EngineClient();
    this.#root.adoptedStyleSheets = [styles];
    this.#root.replaceChildren(markup());
    this.#wire();
    void this.#begin();
  }

  disconnectedCallback() {
    // Moving the element disconnects and connects it at once: only a lasting absence ends the engine.
    setTimeout(() => {
      if (!this.isConnected) {
        this.#engine?.close();
        this.#engine = null;
        this.#opened = null;
      }
    });
  }

  /** The model folder's URL. */
  get model() {
    const beside = new URL("../models/mini/", import.meta.url).href;
    return new URL(this.getAttribute("model") ?? beside, document.baseURI).href;
  }

  /** @returns {BackendWish} */
  get backend() {
    const wish = this.getAttribute("backend");
    return wish === "webgpu" || wish === "cpu" ? wish : "auto";
  }

  /**
   * Opens the model, once. Called by the first picture, or at once with the attribute `preload`.
   * @returns {Promise<Opened>}
   */
  open() {
    this.#opened ??= this.#running()
      .open({ model: this.model, backend: this.backend, onProgress: (progress) => this.#progress(progress) })
      .then(
        (opened) => {
          this.#tell(opened);
          return opened;
        },
        (error) => {
          this.#opened = null;
          throw error;
        },
      );
    return this.#opened;
  }

  /**
   * Makes pictures; the stage shows the first. The form calls this too.
   * @param {GenerateRequest} request
   * @returns {Promise<Picture[]>}
   */
  async generate(request) {
    const engine = this.#running();
    if (this.#task) {
      throw new FaceStudioError({
        code: "engine-busy",
        fault: "input",
        message: "a picture is being made already",
        remedy: "wait for it, or cancel it",
      });
    }
    const task = new AbortController();
    this.#task = task;
    this.#busy(true);
    try {
      await this.open();
      const pictures = await engine.generate(request, {
        signal: task.signal,
        onProgress: (progress) => this.#progress(progress),
      });
      this.#finish(pictures);
      return pictures;
    } catch (error) {
      if (toFailure(error).fault === "internal") {
        // The worker may be gone, and the model with it.
        this.#opened = null;
      }
      throw error;
    } finally {
      this.#task = null;
      this.#busy(false);
    }
  }

  /** Stops the picture that is being made. */
  cancel() {
    this.#task?.abort();
  }

  #running() {
    if (!this.#engine) {
      throw new Error("the element is not in a document");
    }
    return this.#engine;
  }

  /**
   * @template {HTMLElement} T
   * @param {string} id
   * @param {new () => T} type
   */
  #get(id, type) {
    return byId(this.#root, id, type);
  }

  #wire() {
    const shared = {
      inspect: (/** @type {Uint8Array} */ bytes) => this.#running().inspect(bytes),
      fail: (/** @type {unknown} */ error) => this.#fail(error),
      change: () => {
        this.#clearError();
        this.#balance();
      },
    };
    this.#face = new Picker(this.#get("face", HTMLFieldSetElement), {
      ...shared,
      name: "face",
      prompt: "Choose or drop a photo",
      label: "Face photo",
    });
    this.#style = new Picker(this.#get("style", HTMLFieldSetElement), {
      ...shared,
      name: "style",
      prompt: "Choose or drop a picture",
      label: "Style picture",
      none: "none",
    });

    const prompt = this.#get("prompt", HTMLTextAreaElement);
    for (const text of EXAMPLES) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = text;
      button.addEventListener("click", () => {
        prompt.value = text;
        this.#balance();
        prompt.focus();
      });
      this.#get("examples", HTMLElement).append(button);
    }

    prompt.addEventListener("input", () => this.#balance());

    const seed = this.#get("seed", HTMLInputElement);
    const roll = () => {
      seed.value = String(crypto.getRandomValues(new Uint32Array(1))[0]);
    };
    roll();
    this.#get("dice", HTMLButtonElement).addEventListener("click", roll);

    for (const id of ["steps", "guidance"]) {
      const input = this.#get(id, HTMLInputElement);
      const value = this.#get(`${id}-value`, HTMLOutputElement);
      const update = () => {
        value.value = input.value;
      };
      update();
      input.addEventListener("input", update);
    }

    this.#get("alpha", HTMLInputElement).addEventListener("input", () => this.#balance());
    this.#balance();

    this.#root.querySelector("form")?.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#clearError();
      // On a narrow screen the stage lies below the form.
      this.#get("empty", HTMLElement).parentElement?.scrollIntoView({ block: "nearest" });
      this.generate(this.#request()).catch((error) => this.#fail(error));
    });
    this.#get("cancel", HTMLButtonElement).addEventListener("click", () => this.cancel());
  }

  /** Fills the sample galleries, then opens the model if that is wanted now. */
  async #begin() {
    const engine = this.#running();
    try {
      const draw = (/** @type {number} */ seed, /** @type {string} */ style) =>
        engine.render({ seed, style, size: SAMPLE_SIZE });
      for (const [i, seed] of SAMPLE_FACES.entries()) {
        this.#face?.addSample(`Sample face ${i + 1} (a made-up person)`, await draw(seed, "photo"));
      }
      for (const [style, seed, label] of SAMPLE_STYLES) {
        this.#style?.addSample(label, await draw(seed, style));
      }
      if (!this.#opened) {
        this.#get("engine", HTMLElement).textContent = "ready to start";
      }
      if (this.hasAttribute("preload")) {
        await this.open();
        if (!this.#task) {
          this.#busy(false);
        }
      }
    } catch (error) {
      if (this.#engine === engine) {
        this.#fail(error);
      }
    }
  }

  /** α can be moved only where both a style picture and words are given; says in words where it stands. */
  #balance() {
    const slider = this.#get("alpha", HTMLInputElement);
    const style = Boolean(this.#style?.value);
    const words = this.#get("prompt", HTMLTextAreaElement).value.trim() !== "";
    slider.disabled = !(style && words);
    const percent = Math.round(slider.valueAsNumber * 100);
    const balance = `${percent} % style picture, ${100 - percent} % words`;
    const text = style && words ? balance : style ? "the style picture: there are no words" : "the words: there is no style picture";
    slider.setAttribute("aria-valuetext", text);
    slider.title = text;
  }

  /** What the form asks for. @returns {GenerateRequest} */
  #request() {
    const number = (/** @type {string} */ id) => this.#get(id, HTMLInputElement).valueAsNumber;
    const prompt = this.#get("prompt", HTMLTextAreaElement).value.trim();
    const alpha = number("alpha");
    const face = this.#face?.value;
    const style = this.#style?.value;
    const seed = number("seed");
    return {
      people: face ? [{ identities: [{ photos: [face] }] }] : [],
      ...(style ? { style } : {}),
      prompt,
      // With one of the two alone there is nothing to balance.
      alpha: style && prompt ? alpha : style ? 1 : 0,
      seed: Number.isSafeInteger(seed) && seed >= 0 ? seed : 0,
      steps: number("steps"),
      guidance_scale: number("guidance"),
    };
  }

  /** @param {Opened} opened */
  #tell(opened) {
    const { choice, model, version } = opened;
    const badge = this.#get("engine", HTMLElement);
    badge.dataset.backend = choice.backend;
    badge.textContent = choice.backend === "webgpu" ? `WebGPU · ${choice.adapter}` : `CPU · ${choice.reason}`;
    badge.title = `${choice.reason}; model ${model} ${version}`;
    this.#emit("facestudio-ready", opened);
  }

  /** @param {Progress} progress */
  #progress(progress) {
    const { phase, step, steps, preview } = progress;
    this.#get("status", HTMLElement).hidden = false;
    const bar = this.#get("bar", HTMLProgressElement);
    bar.max = Math.max(steps, 1);
    bar.value = step;
    const megabytes = (/** @type {number} */ bytes) => (bytes / 1e6).toFixed(1);
    const count =
      phase === "fetch"
        ? `: ${megabytes(step)} of ${megabytes(steps)} MB`
        : steps > 1
          ? `: step ${step} of ${steps}`
          : "…";
    this.#get("doing", HTMLElement).textContent = PHASES[phase] + count;
    if (preview) {
      this.#show(preview, "The picture so far");
    }
    this.#emit("facestudio-progress", progress);
  }

  /** @param {Picture[]} pictures */
  #finish(pictures) {
    const [picture] = pictures;
    if (picture) {
      const link = this.#get("download", HTMLAnchorElement);
      link.href = this.#show(picture.png, "The finished picture");
      link.download = `facestudio-${picture.seed}.png`;
      this.#get("made", HTMLElement).textContent = `${picture.width} × ${picture.height}, seed ${picture.seed}`;
      this.#get("finished", HTMLElement).hidden = false;
    }
    this.#emit("facestudio-result", pictures);
  }

  /**
   * @param {Uint8Array} png
   * @param {string} alt
   */
  #show(png, alt) {
    const image = this.#get("picture", HTMLImageElement);
    this.#get("empty", HTMLElement).hidden = true;
    image.hidden = false;
    image.alt = alt;
    return show(image, png);
  }

  /** @param {boolean} busy */
  #busy(busy) {
    this.#get("generate", HTMLButtonElement).disabled = busy;
    this.#get("cancel", HTMLButtonElement).hidden = !busy;
    this.#get("status", HTMLElement).hidden = !busy;
    if (busy) {
      this.#get("finished", HTMLElement).hidden = true;
    }
  }

  /** @param {unknown} thrown */
  #fail(thrown) {
    const failure = toFailure(thrown);
    if (!this.#task) {
      this.#get("status", HTMLElement).hidden = true;
    }
    if (failure.fault !== "cancelled") {
      this.#get("error-message", HTMLElement).textContent = failure.message;
      this.#get("error-remedy", HTMLElement).textContent = failure.remedy;
      this.#get("error-code", HTMLElement).textContent = failure.code;
      const box = this.#get("error", HTMLElement);
      box.hidden = false;
      box.scrollIntoView({ block: "nearest" });
    }
    this.#emit("facestudio-error", new FaceStudioError(failure));
  }

  #clearError() {
    this.#get("error", HTMLElement).hidden = true;
  }

  /**
   * @param {string} type
   * @param {unknown} detail
   */
  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail, bubbles: true, composed: true }));
  }
}

customElements.define("face-studio", FaceStudioElement);
