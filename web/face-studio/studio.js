/** The interface: puts the panels together, asks the session for pictures, and shows what comes. */

import { optionsOf, requestOf } from "../engine/arguments.js";
import { failure, toError } from "../engine/protocol.js";
import { countOf } from "../engine/session.js";
import { Advanced } from "./advanced.js";
import { Builder } from "./builder.js";
import { Consent } from "./consent.js";
import { Device } from "./device.js";
import { Gallery } from "./gallery.js";
import { dropKept, keep, readHistory } from "./history.js";
import { LayoutPanel } from "./layout.js";
import { rounded } from "./messages.js";
import { People } from "./people.js";
import { facesOf, fromPerson } from "./person.js";
import { SAMPLE_FACES, SAMPLE_SIZE, SAMPLE_STYLES } from "./samples.js";
import { settingsFrom, settingsOf } from "./settings.js";
import { Stage } from "./stage.js";
import { StartPicture } from "./start-picture.js";
import { alphaStrip, mixStrip } from "./strips.js";
import { Style } from "./style.js";
import { Words } from "./words.js";

/** @import { GenerateRequest, Opened, Picture } from "../engine/protocol.js" */
/** @import { Said } from "./builder.js" */
/** @import { Result } from "./gallery.js" */
/** @import { FaceStudio, TimedProgress } from "../engine/session.js" */

/** Steps between previews. */
const PREVIEW_EVERY = 3;

/**
 * @typedef {object} StudioOptions
 * @property {string} lang
 * @property {(type: string, detail: unknown) => void} emit tells the page
 */

export class Studio {
  /** @type {HTMLElement} */
  node;
  #builder;
  #session;
  #emit;
  #people;
  #style;
  #words;
  #layout;
  #start;
  #advanced;
  #device;
  /** @type {import("./face-maker.js").FaceMaker | null} */
  #maker = null;
  #stage;
  #gallery;
  #badge;
  #generate;
  #cancel;

  /**
   * @param {ShadowRoot} root
   * @param {FaceStudio} session
   * @param {StudioOptions} options
   */
  constructor(root, session, { lang, emit }) {
    this.#session = session;
    this.#emit = emit;
    const builder = new Builder(lang);
    this.#builder = builder;
    const consent = new Consent(builder, root);
    const shared = {
      root,
      inspect: (/** @type {Uint8Array} */ bytes) => session.inspect(bytes),
      allow: () => consent.ask(),
      fail: (/** @type {unknown} */ error) => this.#fail(error),
      change: () => this.#changed(),
    };
    this.#people = new People(builder, {
      ...shared,
      faces: async (bytes) => {
        if (!session.opened) {
          // What is no picture opens no model.
          await session.inspect(bytes);
          await this.load();
        }
        return session.faces(bytes);
      },
      make: () => void this.#makeFace(root),
    });
    this.#style = new Style(builder, shared);
    this.#words = new Words(builder, shared.change);
    this.#layout = new LayoutPanel(builder, shared);
    this.#start = new StartPicture(builder, shared);
    this.#advanced = new Advanced(builder);
    this.#device = new Device(builder, {
      ...shared,
      forget: () => session.forget(),
      stored: async () => (await session.stored()).bytes,
      cleared: () => this.#historyCleared(),
    });
    this.#stage = new Stage(builder, {
      reuse: (result) => this.#reuse(result),
      start: (result) => this.#start.use(result.png),
    });
    this.#gallery = new Gallery(builder, {
      open: (result) => {
        this.#stage.show(result);
        this.#stage.node.scrollIntoView({ block: "nearest" });
      },
      remove: (result) => void this.#remove(result),
      strip: (kind) => void this.#strip(kind),
    });
    const h = builder.h.bind(builder);
    this.#badge = h("p", { class: "badge", id: "engine", part: "engine", text: "engine.starting", attributes: { role: "status" } });
    this.#generate = h("button", { type: "submit", class: "primary large", id: "generate", part: "generate", text: "generate" });
    this.#cancel = h("button", {
      type: "button",
      class: "large",
      id: "cancel",
      part: "cancel",
      hidden: true,
      text: "cancel",
      on: { click: () => session.cancel() },
    });
    this.node = this.#assemble();
    this.#changed();
  }

  /** Draws the samples, shows what was kept, and opens the model if that is wanted now. @param {boolean} preload */
  async begin(preload) {
    try {
      const draw = (/** @type {number} */ seed, /** @type {string} */ style) => this.#session.render({ seed, style, size: SAMPLE_SIZE });
      for (const seed of SAMPLE_FACES) {
        this.#people.addSample(await draw(seed, "photo"));
      }
      for (const [style, seed, name] of SAMPLE_STYLES) {
        this.#style.addSample({ name, png: await draw(seed, style) });
      }
    } catch (error) {
      this.#fail(error);
    }
    try {
      for (const { id, png, settings } of await readHistory((error) => this.#fail(error))) {
        this.#gallery.add({ png, settings: settingsFrom(settings), kept: id });
      }
    } catch (error) {
      this.#fail(error);
    }
    try {
      // Another element of the page may have opened it.
      if (this.#session.opened) {
        this.#tell(this.#session.opened);
      } else if (!this.#session.loading) {
        await this.#announce();
      }
      if (preload) {
        await this.load();
      }
    } catch (error) {
      this.#fail(error);
      if (toError(error).fault !== "cancelled") {
        this.#builder.say(this.#badge, { text: "engine.not_ready" });
      }
    }
  }

  /**
   * Opens the model and tells what it can do.
   * @param {{ signal?: AbortSignal }} [options]
   * @returns {Promise<Opened>}
   */
  async load(options) {
    const { signal } = optionsOf("load", options, ["signal"]);
    const known = this.#session.opened;
    if (known) {
      this.#tell(known);
      return known;
    }
    // What takes long can be cancelled, even where no picture is made.
    this.#cancel.hidden = false;
    try {
      const opened = await this.#session.load({ signal, onProgress: (progress) => this.#progress(progress, 1) });
      this.#tell(opened);
      return opened;
    } finally {
      if (!this.#session.busy) {
        this.#cancel.hidden = true;
        this.#stage.setBusy(false);
      }
    }
  }

  /**
   * Makes the pictures of a request and shows them.
   * @param {GenerateRequest} request
   * @param {{ signal?: AbortSignal }} [options]
   * @returns {Promise<Picture[]>}
   */
  async generate(request, options) {
    const { signal } = optionsOf("generate", options, ["signal"]);
    const asked = requestOf(request);
    return this.#make(() => asked, { signal });
  }

  /** Opens the face maker, which few need. @param {ShadowRoot} root */
  async #makeFace(root) {
    const session = this.#session;
    const fail = (/** @type {unknown} */ error) => this.#fail(error);
    try {
      const { FaceMaker } = await import("./face-maker.js");
      this.#maker ??= new FaceMaker(this.#builder, root, {
        fail,
        random: (seed) => session.randomFace(seed),
        draw: (portrait, size) => session.drawFace(portrait, size),
        choices: () => session.faceMaker(),
        useFace: (png) => this.#people.useDrawn(png),
        useStyle: (png) => this.#style.choose(png),
      });
    } catch (thrown) {
      fail(unfetched(thrown));
      return;
    }
    await this.#maker.open();
  }

  /** Takes pasted photos. @param {File[]} files */
  addFaces(files) {
    return this.#people.addFiles(files);
  }

  /** The model was freed by the page. */
  unloaded() {
    delete this.#badge.dataset.backend;
    this.#builder.say(this.#badge, { text: "engine.ready" });
  }

  /** Says everything in another language. @param {string} lang */
  retell(lang) {
    this.#builder.retell(this.node, lang);
  }

  #assemble() {
    const h = this.#builder.h.bind(this.#builder);
    const form = h(
      "form",
      { noValidate: true, part: "controls", label: "controls" },
      this.#people.node,
      this.#style.node,
      this.#words.node,
      this.#layout.node,
      this.#start.node,
      this.#advanced.node,
      this.#device.node,
      h("div", { class: "actions" }, this.#generate, this.#cancel),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#submit();
    });
    const slot = (/** @type {string} */ name, /** @type {Node[]} */ ...content) => h("slot", { name }, ...content);
    return h(
      "div",
      { class: "studio", part: "studio" },
      h(
        "header",
        { part: "header" },
        slot("header", h("h1", { text: "title" }), h("p", { class: "tagline", text: "tagline" })),
        this.#badge,
      ),
      h(
        "div",
        { class: "columns" },
        form,
        h("section", { class: "stage", part: "stage", label: "stage.title" }, this.#stage.node, this.#gallery.node),
      ),
      h("footer", { part: "footer" }, slot("footer", h("p", { text: "footer" }))),
    );
  }

  async #submit() {
    this.#stage.clearError();
    try {
      const request = await this.#request();
      // On a narrow screen the stage lies below the form.
      this.#stage.node.scrollIntoView({ block: "nearest", behavior: "smooth" });
      await this.#make((opened) => readable(request, opened));
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Makes the pictures of a strip one after the other. @param {"alpha" | "mix"} kind */
  async #strip(kind) {
    this.#stage.clearError();
    /** @type {Result[]} */
    const row = [];
    try {
      const request = await this.#request();
      const stops = kind === "alpha" ? alphaStrip(request) : mixStrip(request);
      for (const { request: one, caption } of stops) {
        await this.#make((opened) => readable(one, opened), {
          take: (result) => {
            row.push({ ...result, caption });
            this.#gallery.put(row);
            return row.at(-1) ?? result;
          },
        });
      }
    } catch (error) {
      this.#fail(error);
    }
  }

  /**
   * Makes the pictures of a request, and shows each as soon as it is there; what is there stays, whatever becomes of the others.
   * @param {(opened: Opened) => GenerateRequest} ask says what is wanted, once the model is open
   * @param {{ signal?: AbortSignal | undefined, take?: (result: Result) => Result }} [options] `take` puts a result into its place
   */
  async #make(ask, { signal, take } = {}) {
    /** @type {GenerateRequest} */
    let request = { people: [] };
    /** @type {Result[]} */
    const results = [];
    this.#setBusy(true);
    try {
      const pictures = await this.#session.generate(
        (opened) => {
          request = ask(opened);
          return request;
        },
        {
          ...(signal ? { signal } : {}),
          onProgress: (progress) => this.#progress(progress, countOf(request)),
          onPicture: (picture) => {
            const made = resultOf(request, picture);
            const result = take?.(made) ?? made;
            results.push(result);
            if (!take) {
              this.#gallery.put(results);
            }
            this.#stage.show(result);
            this.#emit("facestudio-picture", picture);
          },
        },
      );
      this.#emit("facestudio-result", pictures);
      return pictures;
    } finally {
      // A later request may have taken over.
      if (!this.#session.busy) {
        this.#setBusy(false);
      }
      const { opened } = this.#session;
      if (opened) {
        this.#tell(opened);
      }
      void this.#finish([...results]);
    }
  }

  /**
   * Keeps fresh results where that is wanted, and measures their likeness.
   * @param {Result[]} results
   */
  async #finish(results) {
    for (const result of results) {
      try {
        result.kept = (await keep(result.png, result.settings)) ?? undefined;
        await this.#measure(result);
      } catch (error) {
        this.#fail(error);
      }
    }
  }

  /** The identity similarity of a result with each person asked for. @param {Result} result */
  async #measure(result) {
    const likeness = [];
    for (const person of result.request?.people ?? []) {
      // A page may have freed the model when it heard of the picture: it is not opened again for this.
      if (!this.#session.opened) {
        return;
      }
      try {
        likeness.push(await this.#session.similarity(result.png, person));
      } catch (error) {
        if (toError(error).code !== "face-not-found") {
          throw error;
        }
        likeness.push(null);
      }
    }
    if (likeness.length) {
      result.likeness = likeness;
    }
    this.#gallery.update();
    this.#stage.refresh(result);
  }

  /** What the form asks for. @returns {Promise<GenerateRequest>} */
  async #request() {
    const people = this.#people.value;
    const style = this.#style.value;
    const numbers = this.#advanced.read();
    const layout = await this.#layout.read(numbers);
    return {
      people,
      ...(style ? { style } : {}),
      prompt: this.#words.prompt,
      alpha: this.#words.alpha,
      layout,
      ...this.#start.read(),
      ...numbers,
      preview_every: PREVIEW_EVERY,
    };
  }

  /** Takes the settings of a result over; its faces and style picture too, where they are of this visit. @param {Result} result */
  #reuse({ settings, request }) {
    this.#words.prompt = settings.prompt;
    if (settings.prompt && settings.style) {
      this.#words.alpha = settings.alpha;
    }
    this.#advanced.write(settings);
    if (request) {
      this.#people.set(request.people.map(fromPerson));
      this.#style.choose(request.style ?? null);
    }
    this.#words.node.scrollIntoView({ block: "center", behavior: "smooth" });
  }

  /** @param {Result} result */
  async #remove(result) {
    this.#gallery.remove(result);
    const [next] = this.#gallery.all;
    if (next) {
      this.#stage.show(next);
    } else {
      this.#stage.clear();
    }
    try {
      if (result.kept !== undefined) {
        await dropKept(result.kept);
      }
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Forgets which results were kept, and those that only the history held. */
  #historyCleared() {
    for (const result of this.#gallery.all) {
      if (result.request) {
        result.kept = undefined;
      } else {
        this.#gallery.remove(result);
      }
    }
  }

  #changed() {
    const people = this.#people.value;
    this.#stage.clearError();
    this.#words.setStyle(this.#style.value !== null);
    this.#layout.setCount(people.length);
    this.#gallery.setStrips({
      alpha: this.#words.balanced,
      mix: people.some(({ identities }) => identities.length > 1),
    });
    this.#stage.setChosen([...facesOf(people), this.#style.value]);
  }

  /** Says what would run and be fetched, before anything is. */
  async #announce() {
    const check = await this.#session.check();
    const where = check.choice.backend === "webgpu" ? "WebGPU" : "CPU";
    this.#builder.say(this.#badge, {
      text: check.fetch_bytes > 0 ? ["engine.will_fetch", { where, n: rounded(check.fetch_bytes / 1e6, 1) }] : ["engine.stored", { where }],
    });
    // Warnings stop nothing: no alarm for them.
    this.#badge.title = check.problems.map(({ message }) => message).join("; ");
    const problem = check.problems.find(({ severity }) => severity === "stop");
    if (problem) {
      this.#stage.setError({ ...problem, fault: "device" });
    }
  }

  /** @param {Opened} opened */
  #tell(opened) {
    const { choice, model, version, abilities } = opened;
    if (this.#badge.dataset.backend) {
      return;
    }
    this.#badge.dataset.backend = choice.backend;
    this.#badge.title = `${choice.reason}; ${model} ${version}`;
    /** @type {Said} */
    const text = choice.backend === "webgpu" ? ["engine.webgpu", { adapter: choice.adapter }] : "engine.cpu";
    this.#builder.say(this.#badge, { text });
    this.#people.tellDrawnOnly(abilities.drawn_only);
    this.#advanced.setAbilities(abilities);
    this.#words.setAbility(abilities.words);
    this.#style.setAbility(abilities.styles);
    const [notice] = this.#session.notices;
    if (notice) {
      this.#stage.setError({ ...notice, fault: "device" });
    }
    this.#emit("facestudio-ready", opened);
  }

  /**
   * @param {TimedProgress} progress
   * @param {number} count of pictures
   */
  #progress(progress, count) {
    const { opened } = this.#session;
    if (opened && progress.phase === "encode") {
      // A picture opened the model.
      this.#tell(opened);
    }
    this.#stage.setProgress(progress, count);
    this.#emit("facestudio-progress", progress);
    if (progress.preview) {
      this.#emit("facestudio-preview", progress.preview);
    }
  }

  /** @param {boolean} busy */
  #setBusy(busy) {
    this.#generate.disabled = busy;
    this.#cancel.hidden = !busy;
    this.#stage.setBusy(busy);
  }

  /** @param {unknown} thrown */
  #fail(thrown) {
    const error = toError(thrown);
    if (error.fault !== "cancelled") {
      this.#stage.setError(error);
    }
    if (error.fault === "internal") {
      this.unloaded();
    }
    this.#emit("facestudio-error", error);
  }
}

/**
 * @param {GenerateRequest} request
 * @param {Picture} picture
 * @returns {Result}
 */
function resultOf(request, picture) {
  const { png, notices } = picture;
  return { png, settings: settingsOf(request, picture), request, references: facesOf(request.people ?? []), notices };
}

/**
 * Why a part of the interface that is loaded when it is needed does not come.
 * @param {unknown} thrown
 */
function unfetched(thrown) {
  const why = thrown instanceof Error ? thrown.message : String(thrown);
  return failure("io", "network", `a part of the page cannot be fetched: ${why}`, "check the connection, then try again");
}

/**
 * What a model can read of a request that was put together before the model was open: a style picture was on offer then.
 * @param {GenerateRequest} request
 * @param {Opened} opened
 * @returns {GenerateRequest}
 */
function readable({ style, ...request }, { abilities }) {
  return style && abilities.styles ? { ...request, style } : request;
}
