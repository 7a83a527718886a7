/** The stage: the picture large, how far it is, what went wrong. */

import { cross } from "./dialog.js";
import { likenesses } from "./gallery.js";
import { isKey, rounded } from "./messages.js";
import { show } from "./pictures.js";

/** @import { Bytes, Failure, Notice } from "../engine/protocol.js" */
/** @import { Builder, Said } from "./builder.js" */
/** @import { Result } from "./gallery.js" */
/** @import { TimedProgress } from "../engine/session.js" */

/**
 * @typedef {object} StageOptions
 * @property {(result: Result) => void} reuse takes a result's settings over
 * @property {(result: Result) => void} start takes a result as start picture
 */

export class Stage {
  /** @type {HTMLElement} */
  node;
  #builder;
  #frame;
  #picture;
  #references;
  #empty;
  #chosen;
  #status;
  #bar;
  #doing;
  #left;
  #error;
  #errorTitle;
  #errorMessage;
  #errorRemedy;
  #errorCode;
  #actions;
  #made;
  #likeness;
  #notices;
  #compare;
  #download;
  /** @type {Result | null} */
  #shown = null;
  #comparing = false;

  /**
   * @param {Builder} builder
   * @param {StageOptions} options
   */
  constructor(builder, options) {
    this.#builder = builder;
    const h = builder.h.bind(builder);
    this.#chosen = h("div", { class: "chosen", attributes: { "aria-hidden": "true" } });
    this.#empty = h(
      "div",
      { class: "empty", id: "empty" },
      this.#chosen,
      h("p", { class: "empty-title", text: "stage.empty" }),
      h("p", { text: "stage.empty_hint" }),
    );
    this.#picture = h("img", { id: "picture", part: "picture", hidden: true, alt: "stage.picture" });
    this.#references = h("div", { class: "references", hidden: true });
    this.#frame = h("div", { class: "frame", part: "frame" }, this.#empty, this.#picture, this.#references);
    this.#bar = h("progress", { id: "bar", max: 1, value: 0, label: "stage.progress" });
    this.#doing = h("p", { id: "doing", attributes: { role: "status" } });
    this.#left = h("p", { class: "left", id: "left" });
    this.#status = h(
      "div",
      { class: "status", id: "status", hidden: true },
      this.#bar,
      h("div", { class: "ends" }, this.#doing, this.#left),
    );
    this.#errorTitle = h("p", { class: "error-title", id: "error-title" });
    this.#errorMessage = h("p", { id: "error-message" });
    this.#errorRemedy = h("p", { class: "remedy", id: "error-remedy" });
    this.#errorCode = h("code", { id: "error-code" });
    this.#error = h(
      "div",
      { class: "error", id: "error", part: "error", hidden: true, attributes: { role: "alert" } },
      this.#errorTitle,
      this.#errorMessage,
      this.#errorRemedy,
      this.#errorCode,
      h("button", { type: "button", class: "icon", label: "close", on: { click: () => this.clearError() } }, cross()),
    );
    this.#download = h("a", {
      class: "button primary",
      id: "download",
      download: "facestudio.png",
      part: "download",
      text: "stage.download",
    });
    this.#compare = h("button", {
      type: "button",
      id: "compare",
      text: "stage.compare",
      on: { click: () => this.#toggle() },
      attributes: { "aria-pressed": "false" },
    });
    const reuse = h("button", {
      type: "button",
      id: "reuse",
      text: "stage.reuse",
      on: { click: () => this.#shown && options.reuse(this.#shown) },
    });
    const start = h("button", {
      type: "button",
      id: "as-start",
      text: "stage.as_start",
      on: { click: () => this.#shown && options.start(this.#shown) },
    });
    this.#made = h("p", { class: "made", id: "made" });
    this.#likeness = h("p", { class: "made", id: "likeness", hidden: true });
    this.#notices = h("div", { class: "notices", id: "notices", part: "notices", hidden: true, attributes: { role: "status" } });
    this.#actions = h(
      "div",
      { class: "finished", id: "finished", hidden: true },
      h("div", { class: "row wrap" }, this.#download, this.#compare, reuse, start),
      this.#notices,
      this.#made,
      this.#likeness,
    );
    this.node = h("div", { class: "stage-main" }, this.#frame, h("div", { class: "below" }, this.#status, this.#error, this.#actions));
  }

  /**
   * Shows what the next picture will be made of, while there is none.
   * @param {(Bytes | null | undefined)[]} pictures
   */
  setChosen(pictures) {
    const h = this.#builder.h.bind(this.#builder);
    const images = pictures
      .filter((bytes) => bytes !== null && bytes !== undefined)
      .map((bytes) => {
        const image = h("img", { attributes: { alt: "" } });
        show(image, bytes);
        return image;
      });
    this.#chosen.replaceChildren(...images.flatMap((image, i) => (i > 0 ? [h("span", {}, "+"), image] : [image])));
  }

  /** @param {boolean} busy */
  setBusy(busy) {
    this.#status.hidden = !busy;
    this.#frame.classList.toggle("busy", busy);
    this.#actions.hidden = busy || !this.#shown;
    if (busy) {
      this.#bar.removeAttribute("value");
      this.#builder.say(this.#doing, { text: "phase.wait" });
      this.#left.replaceChildren();
    } else if (this.#shown) {
      this.show(this.#shown);
    } else {
      this.#picture.hidden = true;
      this.#empty.hidden = false;
    }
  }

  /**
   * @param {TimedProgress} progress
   * @param {number} count of pictures
   */
  setProgress({ phase, step, steps, picture = 0, preview, seconds_left, bytes, total_bytes }, count) {
    const drawn = phase === "denoise" ? picture * steps + step : step;
    const all = phase === "denoise" ? steps * count : steps;
    this.#status.hidden = false;
    this.#bar.max = Math.max(all, 1);
    this.#bar.value = drawn;
    /** @type {Said} */
    let text = `phase.${phase}`;
    if (bytes !== undefined && total_bytes !== undefined) {
      text = ["phase.fetch_count", { done: rounded(bytes / 1e6, 1), all: rounded(total_bytes / 1e6, 1) }];
    } else if (phase === "denoise") {
      text = count > 1 ? ["phase.denoise_many", { step, steps, n: picture + 1, count }] : ["phase.denoise_count", { step, steps }];
    }
    this.#builder.say(this.#doing, { text });
    if (seconds_left === undefined) {
      this.#left.replaceChildren();
      delete this.#left.dataset.say;
    } else {
      this.#builder.say(this.#left, { text: ["phase.left", { n: Math.max(1, Math.round(seconds_left)) }] });
    }
    if (preview) {
      this.#empty.hidden = true;
      this.#picture.hidden = false;
      this.#builder.say(this.#picture, { alt: "stage.preview" });
      show(this.#picture, preview);
    }
  }

  /** @param {Result} result */
  show(result) {
    this.#shown = result;
    const { png, settings, references = [], likeness, notices = [] } = result;
    this.#empty.hidden = true;
    this.#picture.hidden = false;
    this.#builder.say(this.#picture, { alt: settings.prompt ? ["stage.picture_of", { prompt: settings.prompt }] : "stage.picture" });
    show(this.#picture, png);
    this.#download.href = this.#picture.src;
    this.#download.download = `facestudio-${settings.seed}.png`;
    this.#builder.say(this.#made, {
      text: ["stage.made", { width: settings.width, height: settings.height, seed: String(settings.seed), steps: settings.steps }],
    });
    this.#notices.hidden = notices.length === 0;
    this.#notices.replaceChildren(...notices.map((notice) => this.#notice(notice)));
    this.#actions.hidden = !this.#status.hidden;
    const shown = references.flatMap((photo, i) =>
      photo ? [this.#reference(photo, references.length > 1 ? ["people.person", { n: i + 1 }] : "stage.reference")] : [],
    );
    this.#compare.hidden = shown.length === 0;
    this.#references.replaceChildren(...shown);
    this.#likeness.hidden = likeness === undefined;
    if (likeness !== undefined) {
      this.#builder.say(this.#likeness, {
        text: likeness.some((value) => value !== null) ? ["stage.likeness", { value: likenesses(likeness) }] : "stage.no_face",
      });
    }
    this.#place();
  }

  /** Shows a result again if it is the one that is shown. @param {Result} result */
  refresh(result) {
    if (result === this.#shown) {
      this.show(result);
    }
  }

  /** Forgets the picture that is shown, as when it was deleted. */
  clear() {
    this.#shown = null;
    this.#actions.hidden = true;
    this.#picture.hidden = true;
    this.#references.hidden = true;
    this.#empty.hidden = false;
    this.#frame.classList.remove("comparing");
  }

  /** @param {Failure} failure */
  setError({ code, fault, message, remedy }) {
    const key = `error.${code}`;
    this.#builder.say(this.#errorTitle, { text: isKey(key) ? key : `fault.${fault}` });
    this.#errorMessage.textContent = message;
    this.#errorRemedy.textContent = remedy;
    this.#errorCode.textContent = code;
    this.#error.hidden = false;
    this.#error.scrollIntoView({ block: "nearest" });
  }

  clearError() {
    this.#error.hidden = true;
  }

  #toggle() {
    this.#comparing = !this.#comparing;
    this.#place();
  }

  #place() {
    const beside = this.#comparing && this.#references.childElementCount > 0;
    this.#compare.setAttribute("aria-pressed", String(beside));
    this.#references.hidden = !beside;
    this.#frame.classList.toggle("comparing", beside);
  }

  /**
   * @param {Bytes} photo
   * @param {Said} text
   */
  #reference(photo, text) {
    const h = this.#builder.h.bind(this.#builder);
    const image = h("img", { alt: text });
    show(image, photo);
    return h("figure", { class: "reference" }, image, h("figcaption", { text }));
  }

  /** @param {Notice} notice */
  #notice({ code, message, values = {} }) {
    const key = `notice.${code}`;
    const item = this.#builder.h("p", { attributes: { "data-code": code } });
    if (isKey(key)) {
      this.#builder.say(item, { text: [key, values] });
    } else {
      item.textContent = message;
    }
    return item;
  }
}
