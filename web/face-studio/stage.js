/** The stage: the picture large, how far it is, what went wrong. */

import { cross } from "./drawings.js";
import { likenesses } from "./gallery.js";
import { isKey, rounded } from "./messages.js";
import { copyPicture, hasClipboard, show } from "./pictures.js";

/** @import { Bytes, Failure, Notice } from "../engine/protocol.js" */
/** @import { Builder, Said } from "./builder.js" */
/** @import { Result } from "./gallery.js" */
/** @import { TimedProgress } from "../engine/session.js" */

/**
 * @typedef {object} StageOptions
 * @property {(result: Result) => void} reuse takes a result's settings over
 * @property {(result: Result) => void} start takes a result as start picture
 * @property {(result: Result) => void} view shows a result as large as it gets
 * @property {(error: unknown) => void} fail tells the user
 */

export class Stage {
  /** @type {HTMLElement} */
  node;
  #builder;
  #frame;
  #picture;
  #references;
  #view;
  #told;
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
    this.#view = h(
      "button",
      {
        type: "button",
        class: "enlarge",
        id: "view",
        label: "stage.picture",
        hidden: true,
        on: { click: () => this.#shown && options.view(this.#shown) },
      },
      this.#picture,
    );
    this.#references = h("div", { class: "references", hidden: true });
    this.#frame = h("div", { class: "frame", part: "frame" }, this.#empty, this.#view, this.#references);
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
    const copy = h("button", { type: "button", id: "copy", hidden: !hasClipboard(), text: "stage.copy" });
    copy.addEventListener("click", () => {
      const png = this.#shown?.png;
      if (png) {
        copyPicture(png).then(() => builder.say(copy, { text: "stage.copied" }), options.fail);
        setTimeout(() => builder.say(copy, { text: "stage.copy" }), 2000);
      }
    });
    this.#told = h("div", { class: "notices told", id: "news", hidden: true, attributes: { role: "status" } });
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
      h("div", { class: "row wrap" }, this.#download, copy, this.#compare, reuse, start),
      this.#notices,
      this.#made,
      this.#likeness,
    );
    this.node = h(
      "div",
      { class: "stage-main" },
      this.#frame,
      h("div", { class: "below" }, this.#status, this.#error, this.#told, this.#actions),
    );
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
      this.#view.hidden = true;
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
    if (all > 0) {
      this.#bar.max = all;
      this.#bar.value = drawn;
    } else {
      // How much is to come is not known.
      this.#bar.removeAttribute("value");
    }
    /** @type {Said} */
    let text = `phase.${phase}`;
    if (bytes !== undefined && total_bytes !== undefined) {
      text = ["phase.fetch_count", { done: rounded(bytes / 1e6, 1), all: rounded(total_bytes / 1e6, 1) }];
    } else if (phase === "engine" && step > 1) {
      text = engineText(step, steps);
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
      this.#view.hidden = false;
      this.#picture.hidden = false;
      this.#name("stage.preview");
      show(this.#picture, preview);
    }
  }

  /** @param {Result} result */
  show(result) {
    this.#shown = result;
    const { png, settings, references = [], likeness, notices = [] } = result;
    this.#empty.hidden = true;
    this.#view.hidden = false;
    this.#picture.hidden = false;
    // At most twice its size: what is larger is a blur.
    this.#picture.style.maxWidth = settings.width ? `${2 * settings.width}px` : "";
    this.#picture.style.maxHeight = settings.height ? `${2 * settings.height}px` : "";
    this.#name(settings.prompt ? ["stage.picture_of", { prompt: settings.prompt }] : "stage.picture");
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

  /** Names the picture, and the button that it is. @param {Said} said */
  #name(said) {
    this.#builder.say(this.#picture, { alt: said });
    this.#builder.say(this.#view, { label: said });
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
    this.#view.hidden = true;
    this.#picture.hidden = true;
    this.#references.hidden = true;
    this.#empty.hidden = false;
    this.#frame.classList.remove("comparing");
  }

  /** @param {Failure} failure */
  setError({ code, fault, message, remedy }) {
    const key = `error.${code}`;
    this.#builder.say(this.#errorTitle, { text: isKey(key) ? key : `fault.${fault}` });
    this.#builder.say(this.#errorMessage, { text: ["explained.what", { code, message }] });
    this.#builder.say(this.#errorRemedy, { text: ["explained.remedy", { code, remedy }] });
    this.#errorCode.textContent = code;
    this.#error.hidden = false;
    this.#error.scrollIntoView({ block: "nearest" });
  }

  clearError() {
    this.#error.hidden = true;
  }

  /** Tells something that stops nothing. @param {Notice | null} notice */
  tell(notice) {
    this.#told.hidden = !notice;
    this.#told.replaceChildren(
      ...(notice
        ? [
            this.#notice(notice),
            this.#builder.h("button", { type: "button", class: "icon", label: "close", on: { click: () => this.tell(null) } }, cross()),
          ]
        : []),
    );
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

/**
 * How much of the engine has come: bytes, and how many there are, 0 where the server does not say.
 * @param {number} step
 * @param {number} steps
 * @returns {Said}
 */
export function engineText(step, steps) {
  const [done, all] = [rounded(step / 1e6, 1), rounded(steps / 1e6, 1)];
  return steps > 0 ? ["phase.engine_count", { done, all }] : ["phase.engine_bytes", { done }];
}
