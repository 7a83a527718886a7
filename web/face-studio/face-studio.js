/**
 * `<face-studio>`: choose faces, a style picture and words, and get a picture, all inside the tab.
 *
 * Attributes
 * - `model`: URL of a model folder; default `../models/mini/` beside this file's folder
 * - `backend`: `auto` (default), `webgpu` or `cpu`
 * - `theme`: `auto` (default), `light` or `dark`
 * - `lang`: `en` or `de`; without it the page's own `lang` counts, then English
 * - `preload`: open the model at once instead of at the first picture
 *
 * Methods: `load()`, `generate(request, { signal })`, `cancel()`, `unload()`; `request` is a {@link GenerateRequest}.
 *
 * Events, which bubble and leave the shadow tree; `detail` is
 * - `facestudio-ready`: {@link Opened}, the model is open
 * - `facestudio-progress`: {@link TimedProgress}: phase, step, steps, and where known `bytes` and `seconds_left`
 * - `facestudio-preview`: the PNG of the picture so far, a `Uint8Array`
 * - `facestudio-result`: the finished {@link Picture}s
 * - `facestudio-error`: a `FaceStudioError`
 *
 * Slots: `header` (title and tagline), `footer`.
 *
 * Parts: `studio`, `header`, `engine`, `controls`, `people`, `style`, `words`, `layout`, `start`, `advanced`, `device`,
 * `generate`, `cancel`, `stage`, `frame`, `picture`, `error`, `download`, `results`, `dialog`, `footer`.
 *
 * Custom properties: `--facestudio-accent`, `-on-accent`, `-ink`, `-soft`, `-line`, `-ground`, `-card`, `-well`, `-error`,
 * `-radius`, `-font`; their defaults are in `styles.js`.
 */

import { urlOf } from "../engine/arguments.js";
import { failure } from "../engine/protocol.js";
import { DEFAULT_MODEL, FaceStudio } from "../engine/session.js";
import { chooseLanguage } from "./messages.js";
import { pictureFiles } from "./pictures.js";
import { Studio } from "./studio.js";
import { styles } from "./styles.js";
import { panelStyles } from "./styles.panels.js";

/** @import { BackendWish, GenerateRequest, Opened, Picture } from "../engine/protocol.js" */
/** @import { TimedProgress } from "../engine/session.js" */

export class FaceStudioElement extends HTMLElement {
  static observedAttributes = ["lang", "theme"];

  #root = this.attachShadow({ mode: "open" });
  /** @type {FaceStudio | null} */
  #session = null;
  /** @type {Studio | null} */
  #studio = null;
  #paste = (/** @type {ClipboardEvent} */ event) => this.#pasted(event);

  connectedCallback() {
    if (this.#session) {
      return;
    }
    this.#root.adoptedStyleSheets = [styles, panelStyles];
    // As they are written: what is no URL and no backend is told of by name.
    this.#session = new FaceStudio({ model: this.model, backend: /** @type {any} */ (this.getAttribute("backend") ?? "auto") });
    this.#studio = new Studio(this.#root, this.#session, {
      lang: this.#language(),
      emit: (type, detail) => this.#emit(type, detail),
    });
    this.#root.append(this.#studio.node);
    document.addEventListener("paste", this.#paste);
    void this.#studio.begin(this.hasAttribute("preload"));
  }

  disconnectedCallback() {
    // Moving the element disconnects and connects it at once: only a lasting absence ends the engine.
    setTimeout(() => {
      if (!this.isConnected) {
        document.removeEventListener("paste", this.#paste);
        this.#session?.close();
        // The camera's dialog too: closing it stops the camera.
        this.#root.querySelectorAll("dialog").forEach((dialog) => dialog.close());
        this.#studio?.node.remove();
        this.#session = null;
        this.#studio = null;
      }
    });
  }

  /** @param {string} name */
  attributeChangedCallback(name) {
    if (name === "lang") {
      this.#studio?.retell(this.#language());
    }
  }

  /**
   * The model folder's URL; what is no URL, as it is written.
   * @returns {string}
   */
  get model() {
    const model = this.getAttribute("model") ?? DEFAULT_MODEL;
    return urlOf(model, document.baseURI)?.href ?? model;
  }

  // React sets properties where there are any. A model or backend that is set later counts when the element is
  // inserted again.
  /** @param {string | URL | null | undefined} url */
  set model(url) {
    this.#reflect("model", url);
  }

  /** @returns {BackendWish} */
  get backend() {
    const wish = this.getAttribute("backend");
    return wish === "webgpu" || wish === "cpu" ? wish : "auto";
  }

  /** @param {BackendWish | null | undefined} wish */
  set backend(wish) {
    this.#reflect("backend", wish);
  }

  /**
   * Opens the model, once. Called by the first picture, or at once with the attribute `preload`.
   * @returns {Promise<Opened>}
   */
  async load() {
    return this.#running().load();
  }

  /**
   * Makes pictures and shows them; what the form does too. Aborting `signal` cancels within one step.
   * @param {GenerateRequest} request
   * @param {{ signal?: AbortSignal }} [options]
   * @returns {Promise<Picture[]>}
   */
  async generate(request, options) {
    return this.#running().generate(request, options);
  }

  /** Stops everything that is under way: pictures, and the opening of the model. */
  cancel() {
    this.#session?.cancel();
  }

  /** Frees the model and its memory; the next picture opens it again. */
  unload() {
    this.#session?.unload();
    this.#studio?.unloaded();
  }

  #running() {
    if (!this.#studio) {
      throw failure("input", "element-detached", "this <face-studio> is not in a document", "add it to the page first");
    }
    return this.#studio;
  }

  #language() {
    return chooseLanguage(this.getAttribute("lang"), document.documentElement.lang);
  }

  /**
   * @param {string} name
   * @param {string | URL | null | undefined} value none removes the attribute
   */
  #reflect(name, value) {
    if (value === null || value === undefined) {
      this.removeAttribute(name);
    } else {
      this.setAttribute(name, String(value));
    }
  }

  /** A pasted picture becomes a face, if it is meant for this element. @param {ClipboardEvent} event */
  #pasted(event) {
    const files = pictureFiles(event.clipboardData);
    const inside = event.composedPath().includes(this);
    const alone = document.activeElement === document.body && document.querySelector("face-studio") === this;
    if (files.length > 0 && (inside || alone)) {
      event.preventDefault();
      void this.#studio?.addFaces(files);
    }
  }

  /**
   * @param {string} type
   * @param {unknown} detail
   */
  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail, bubbles: true, composed: true }));
  }
}

if (!customElements.get("face-studio")) {
  customElements.define("face-studio", FaceStudioElement);
}
