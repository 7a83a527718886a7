/**
 * `<face-studio>`: choose faces, a style picture and words, and get a picture, all inside the tab. What it takes and tells stands at its
 * class, from where custom-elements.json has it. Its custom properties' defaults are in `styles.js`.
 */

import { urlOf } from "../engine/arguments.js";
import { defaultModel } from "../engine/client.js";
import { failure } from "../engine/protocol.js";
import { FaceStudio } from "../engine/session.js";
import { takeDrops } from "./drops.js";
import { chosenLook } from "./look.js";
import { chooseLanguage, loadLanguage } from "./messages.js";
import { Studio } from "./studio.js";
import { styles } from "./styles.js";
import { panelStyles } from "./styles.panels.js";

/** @import { BackendWish, GenerateRequest, Opened, Picture } from "../engine/protocol.js" */

/** @typedef {"auto" | "light" | "dark"} Theme */

// A server that renders the page imports this too, and has no elements.
const Base = /** @type {typeof HTMLElement} */ (globalThis.HTMLElement ?? class {});

/**
 * Choose faces, a style picture and words, and get a picture, all inside the tab.
 *
 * In a form, its value is the newest picture as a file, under its `name`.
 *
 * @customElement face-studio
 * @tagname face-studio
 *
 * @attr {string} [model] - URL of a model folder; default `models/mini/` beside the package's folders
 * @attr {"auto" | "webgpu" | "cpu"} [backend=auto] - what computes
 * @attr {"auto" | "light" | "dark"} [theme=auto] - its colours; `auto` follows the browser
 * @attr {string} [lang] - `en` or `de`; without it what its user chose counts, then the page's own `lang`, then English
 * @attr {string} [hub] - where published models are fetched that the user chooses; Hugging Face's hub without
 * @attr {boolean} [preload] - open the model at once instead of at the first picture
 * @attr {string} [name] - what its picture is called in a form's data
 * @attr {boolean} [disabled] - takes no input
 *
 * @fires {CustomEvent<Opened>} facestudio-ready - the model is open
 * @fires {CustomEvent<TimedProgress>} facestudio-progress - phase, step and steps, and where known `bytes` and `seconds_left`
 * @fires {CustomEvent<Uint8Array>} facestudio-preview - the PNG of the picture so far
 * @fires {CustomEvent<Picture>} facestudio-picture - one of several pictures is there
 * @fires {CustomEvent<Picture[]>} facestudio-result - all pictures of a request are there
 * @fires {CustomEvent<FaceStudioError>} facestudio-error - what went wrong
 *
 * @slot header - title and tagline
 * @slot footer - what stands below all
 *
 * @csspart studio - all of it
 * @csspart header - title, tagline and where it computes
 * @csspart engine - where it computes
 * @csspart controls - the form
 * @csspart people - the people panel
 * @csspart style - the style panel
 * @csspart words - the words panel
 * @csspart layout - the panel of places
 * @csspart start - the panel of the start picture
 * @csspart advanced - the panel of numbers
 * @csspart device - the panel of what is stored
 * @csspart generate - the button that makes a picture
 * @csspart cancel - the button that stops it
 * @csspart stage - picture and results
 * @csspart frame - what holds the picture
 * @csspart picture - the picture
 * @csspart notices - what was done otherwise than asked
 * @csspart error - what went wrong
 * @csspart download - the link to the file
 * @csspart results - the pictures so far
 * @csspart dialog - any dialog
 * @csspart footer - what stands below all
 *
 * @cssprop --facestudio-accent - buttons and what is chosen
 * @cssprop --facestudio-on-accent - text on it
 * @cssprop --facestudio-ink - text
 * @cssprop --facestudio-soft - text of less weight
 * @cssprop --facestudio-line - borders
 * @cssprop --facestudio-ground - behind all
 * @cssprop --facestudio-card - panels
 * @cssprop --facestudio-well - fields
 * @cssprop --facestudio-error - what went wrong
 * @cssprop --facestudio-radius - corners of panels
 * @cssprop --facestudio-font - family of the text
 */
export class FaceStudioElement extends Base {
  static observedAttributes = ["lang", "model", "backend"];
  static formAssociated = true;

  #root = this.attachShadow({ mode: "open" });
  #internals = this.attachInternals();
  /** The newest picture. @type {File | null} */
  #value = null;
  /** Whether another model or backend was asked for, and is not used yet. */
  #stale = false;
  /** @type {FaceStudio | null} */
  #session = null;
  /** @type {Studio | null} */
  #studio = null;
  #note = () => this.#studio?.note();
  #paste = (/** @type {ClipboardEvent} */ event) => this.#pasted(event);

  constructor() {
    super();
    takeDrops(this, (data, take) => void this.#studio?.bring(data, take));
  }

  connectedCallback() {
    if (!this.#session) {
      this.#begin();
    }
  }

  disconnectedCallback() {
    // Moving the element disconnects and connects it at once: only a lasting absence ends the engine.
    setTimeout(() => {
      if (!this.isConnected) {
        this.#end();
      }
    });
  }

  #begin() {
    this.#root.adoptedStyleSheets = [styles(), panelStyles()];
    // As they are written: what is no URL and no backend is told of by name.
    this.#session = new FaceStudio({ model: this.model, backend: /** @type {any} */ (this.getAttribute("backend") ?? "auto") });
    this.#studio = new Studio(this.#root, this.#session, {
      lang: this.#language(),
      key: `${location.pathname} ${this.id || [...document.querySelectorAll("face-studio")].indexOf(this)}`,
      emit: (type, detail) => this.#emit(type, detail),
      look: (name, value) => this.setAttribute(name, value),
      hub: () => this.getAttribute("hub") ?? undefined,
    });
    this.#root.append(this.#studio.node);
    void this.#speak();
    document.addEventListener("paste", this.#paste);
    addEventListener("pagehide", this.#note);
    void this.#studio.begin(this.preload);
  }

  #end() {
    document.removeEventListener("paste", this.#paste);
    removeEventListener("pagehide", this.#note);
    this.#note();
    this.#session?.close();
    // The camera's dialog too: closing it stops the camera.
    this.#root.querySelectorAll("dialog").forEach((dialog) => dialog.close());
    this.#studio?.node.remove();
    this.#session = null;
    this.#studio = null;
  }

  /**
   * @param {string} name
   * @param {string | null} before
   * @param {string | null} after
   */
  attributeChangedCallback(name, before, after) {
    if (!this.#studio || before === after) {
      return;
    }
    if (name === "lang") {
      void this.#speak();
    } else if (!this.#stale) {
      // Both may be set, one after the other.
      this.#stale = true;
      queueMicrotask(() => {
        this.#stale = false;
        if (this.#session) {
          this.#end();
          this.#begin();
        }
      });
    }
  }

  /** @param {boolean} disabled */
  formDisabledCallback(disabled) {
    this.inert = disabled;
  }

  formResetCallback() {
    this.#setValue(null);
  }

  /** The newest picture, which is this element's value in a form; null before there is one. */
  get value() {
    return this.#value;
  }

  /** The form that it is in. */
  get form() {
    return this.#internals.form;
  }

  /**
   * The model folder's URL; what is no URL, as it is written.
   * @returns {string}
   */
  get model() {
    const model = this.getAttribute("model") ?? defaultModel();
    return urlOf(model, document.baseURI)?.href ?? model;
  }

  // Frameworks set properties where there are any. Another model or backend begins anew.
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

  /** @returns {Theme} */
  get theme() {
    const theme = this.getAttribute("theme");
    return theme === "light" || theme === "dark" ? theme : "auto";
  }

  /** @param {Theme | null | undefined} theme */
  set theme(theme) {
    this.#reflect("theme", theme);
  }

  /** @returns {boolean} */
  get preload() {
    return this.hasAttribute("preload");
  }

  /** @param {boolean | null | undefined} on */
  set preload(on) {
    this.toggleAttribute("preload", Boolean(on));
  }

  /** @returns {boolean} */
  get disabled() {
    return this.hasAttribute("disabled");
  }

  /** @param {boolean | null | undefined} on */
  set disabled(on) {
    this.toggleAttribute("disabled", Boolean(on));
  }

  /** @returns {string} */
  get name() {
    return this.getAttribute("name") ?? "";
  }

  /** @param {string | null | undefined} name */
  set name(name) {
    this.#reflect("name", name);
  }

  /**
   * Opens the model, once. Called by the first picture, or at once with the attribute `preload`.
   * @param {{ signal?: AbortSignal }} [options] aborting the signal ends it, and rejects with its reason
   * @returns {Promise<Opened>}
   */
  async load(options) {
    return this.#running().load(options);
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

  /** Says everything in the language that is wished now, once its words are there. */
  async #speak() {
    const studio = this.#studio;
    const lang = this.#language();
    await loadLanguage(lang);
    if (studio === this.#studio && lang === this.#language()) {
      studio?.retell(lang);
    }
  }

  #language() {
    return chooseLanguage(this.getAttribute("lang"), chosenLook().lang, document.documentElement.lang);
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
    const data = event.clipboardData;
    const inside = event.composedPath().includes(this);
    const alone = document.activeElement === document.body && document.querySelector("face-studio") === this;
    if (data && data.files.length > 0 && (inside || alone)) {
      event.preventDefault();
      void this.#studio?.bring(data);
    }
  }

  /** @param {File | null} value */
  #setValue(value) {
    this.#value = value;
    this.#internals.setFormValue(value);
  }

  /**
   * @param {string} type
   * @param {unknown} detail
   */
  #emit(type, detail) {
    if (type === "facestudio-picture") {
      const { png, seed } = /** @type {Picture} */ (detail);
      this.#setValue(new File([/** @type {BlobPart} */ (png)], `facestudio-${seed}.png`, { type: "image/png" }));
    }
    this.dispatchEvent(new CustomEvent(type, { detail, bubbles: true, composed: true }));
  }
}

if (globalThis.customElements && !customElements.get("face-studio")) {
  customElements.define("face-studio", FaceStudioElement);
}
