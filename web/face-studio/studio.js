/** The interface: puts the panels together, asks the session for pictures, and shows what comes. */

import { optionsOf, requestOf } from "../engine/arguments.js";
import { toError } from "../engine/protocol.js";
import { countOf } from "../engine/session.js";
import { Advanced } from "./advanced.js";
import { Builder } from "./builder.js";
import { Device } from "./device.js";
import { filesOf } from "./drops.js";
import { FormMemory } from "./form-memory.js";
import { Gallery } from "./gallery.js";
import { dropKept, keep, readHistory } from "./history.js";
import { LayoutPanel } from "./layout.js";
import { Later, arriving, bringAll, parts } from "./later.js";
import { lookPanel } from "./look.js";
import { Memory } from "./memory.js";
import { rounded } from "./messages.js";
import { People } from "./people.js";
import { facesOf } from "./person.js";
import { TOLD, likenessOf, picturesOf, readable, resultOf, warnOfFew } from "./requests.js";
import { SAMPLE_FACES, SAMPLE_SIZE, SAMPLE_STYLES } from "./samples.js";
import { settingsFrom } from "./settings.js";
import { Stage, engineText } from "./stage.js";
import { StartPicture } from "./start-picture.js";
import { Style } from "./style.js";
import { Words } from "./words.js";

/** @import { Bytes, GenerateRequest, Opened, Progress } from "../engine/protocol.js" */
/** @import { Recipe } from "../engine/recipe.js" */
/** @import { Said } from "./builder.js" */
/** @import { Take } from "./drops.js" */
/** @import { Result } from "./gallery.js" */
/** @import { FaceStudio, TimedProgress } from "../engine/session.js" */

/** Steps between previews. */
const PREVIEW_EVERY = 3;

/**
 * @typedef {object} StudioOptions
 * @property {string} lang
 * @property {string} key tells it from others of the page
 * @property {(type: string, detail: unknown) => void} emit tells the page
 * @property {(name: "lang" | "theme" | "model", value: string) => void} look sets what the user has chosen
 * @property {import("./later.js").LaterOptions["hub"]} hub
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
  #panels;
  #device;
  #later;
  #stage;
  #gallery;
  #badge;
  #generate;
  #cancel;
  #root;
  #look;
  #memory;
  #form;

  /**
   * @param {ShadowRoot} root
   * @param {FaceStudio} session
   * @param {StudioOptions} options
   */
  constructor(root, session, { lang, key, emit, look, hub }) {
    this.#root = root;
    this.#session = session;
    this.#emit = emit;
    this.#memory = new Memory(key);
    const builder = new Builder(lang);
    this.#builder = builder;
    /** @type {import("./consent.js").Consent | undefined} */
    let consent;
    const shared = {
      root,
      inspect: (/** @type {Uint8Array} */ bytes) => session.inspect(bytes),
      allow: async () => {
        const { Consent } = await arriving(parts.consent);
        consent ??= new Consent(builder, root);
        return consent.ask();
      },
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
      make: () => void this.#later.makeFace(),
    });
    this.#style = new Style(builder, shared);
    this.#words = new Words(builder, shared.change);
    this.#layout = new LayoutPanel(builder, shared);
    this.#start = new StartPicture(builder, shared);
    this.#advanced = new Advanced(builder);
    this.#panels = {
      ...{ people: this.#people, style: this.#style, words: this.#words },
      ...{ layout: this.#layout, start: this.#start, advanced: this.#advanced },
    };
    this.#form = new FormMemory(this.#memory, this.#panels);
    this.#device = new Device(builder, {
      ...shared,
      ...{ forget: () => session.forget(), stored: async () => (await session.stored()).bytes },
      ...{ models: () => void this.#later.models(), cleared: () => this.#historyCleared() },
    });
    this.#stage = new Stage(builder, {
      reuse: (result) => void this.#reuse(result),
      view: (result) => void this.#later.view(result),
      fail: shared.fail,
      start: (result) => this.#start.use(result.png),
    });
    this.#gallery = new Gallery(builder, {
      open: (result) => {
        this.#stage.show(result);
        this.#stage.node.scrollIntoView({ block: "nearest" });
      },
      remove: (result) => void this.#remove(result),
      strip: (kind) => void this.#strip(kind),
      save: (results) => void this.#later.save(results),
    });
    this.#later = new Later(builder, root, session, {
      fail: shared.fail,
      useFace: (png) => this.#people.useDrawn(png),
      ...{ hub, useStyle: (png) => this.#style.choose(png), useModel: (model) => look("model", model) },
    });
    this.#look = lookPanel(builder, look);
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

  /** Shows what was kept, draws the samples, and opens the model if that is wanted now. @param {boolean} preload */
  async begin(preload) {
    const before = this.#memory.results();
    before.forEach((result) => this.#gallery.add(result));
    before.slice(-1).forEach((result) => this.#stage.show(result));
    this.#form.recallWords();
    try {
      const tell = (/** @type {Said} */ text) => this.#badge.dataset.backend ?? this.#builder.say(this.#badge, { text });
      const onProgress = (/** @type {Progress} */ { step, steps }) => tell(engineText(step, steps));
      const draw = (/** @type {number} */ seed, /** @type {string} */ style) =>
        this.#session.render({ seed, style, size: SAMPLE_SIZE }, { onProgress });
      for (const seed of SAMPLE_FACES) {
        this.#people.addSample(await draw(seed, "photo"));
      }
      for (const [style, seed, name] of SAMPLE_STYLES) {
        this.#style.addSample({ name, png: await draw(seed, style) });
      }
      tell("engine.starting");
      void bringAll();
      this.#form.recall();
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

  /** Opens the model and tells what it can do. @param {{ signal?: AbortSignal }} [options] @returns {Promise<Opened>} */
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

  /** Makes the pictures of a request and shows them. @param {GenerateRequest} request @param {{ signal?: AbortSignal }} [options] */
  async generate(request, options) {
    const { signal } = optionsOf("generate", options, ["signal"]);
    const asked = requestOf(request);
    return this.#make(() => asked, { signal });
  }

  /**
   * Takes what was dropped or pasted: a picture that was made here may be meant for its settings, all else is what the place takes.
   * @param {DataTransfer} data
   * @param {Take} [take] what it was dropped on takes it; faces are wanted where nothing does
   */
  async bring(data, take = (files) => void this.#people.addFiles(files)) {
    this.#stage.clearError();
    try {
      const files = await filesOf(data);
      const { askFor } = await arriving(parts.asked);
      const meant = await askFor(this.#builder, this.#root, files);
      if (meant) {
        await this.#restore(meant.recipe, [meant.png]);
      } else if (meant === null && files.length > 0) {
        take(files);
      }
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Notes the form at once, as the page may be left. */
  note() {
    this.#form.note();
  }

  /** The model was freed by the page. */
  unloaded() {
    delete this.#badge.dataset.backend;
    this.#builder.say(this.#badge, { text: "engine.ready" });
  }

  /** Says everything in another language. @param {string} lang */
  retell(lang) {
    this.#builder.retell(this.node, lang);
    this.#look.tell({ lang });
  }

  #assemble() {
    const h = this.#builder.h.bind(this.#builder);
    const form = h(
      "form",
      { noValidate: true, part: "controls", label: "controls" },
      this.#words.node,
      h("div", { class: "actions" }, this.#generate, this.#cancel),
      this.#people.node,
      this.#style.node,
      this.#layout.node,
      this.#start.node,
      this.#advanced.node,
      this.#device.node,
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#submit();
    });
    form.addEventListener("input", () => this.#form.noteSoon());
    form.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !this.#generate.disabled) {
        event.preventDefault();
        form.requestSubmit();
      }
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
      h("footer", { part: "footer" }, slot("footer", h("p", { text: "footer" })), this.#look.node),
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
      const { alphaStrip, mixStrip } = await arriving(parts.strips);
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
            void this.#keep(result);
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

  /** Keeps a fresh result in the history, where that is on, else until the tab is closed. @param {Result} result */
  async #keep(result) {
    try {
      result.kept = (await keep(result.png, result.settings)) ?? undefined;
    } catch (error) {
      this.#fail(error);
    }
    this.#memory.note(result);
  }

  /** Measures the likeness of fresh results. @param {Result[]} results */
  async #finish(results) {
    for (const result of results) {
      try {
        const likeness = await likenessOf(this.#session, result);
        if (likeness?.length) {
          result.likeness = likeness;
        }
        // It may have been removed meanwhile.
        if (result.likeness && this.#gallery.all.includes(result)) {
          this.#memory.note(result);
        }
        this.#gallery.update();
        this.#stage.refresh(result);
      } catch (error) {
        this.#fail(error);
      }
    }
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

  /** Takes the settings of a result over, with its pictures as far as they are of this visit. @param {Result} result */
  async #reuse({ png, settings, request }) {
    try {
      const { recipeOf } = await arriving(parts.reuse);
      const recipe = recipeOf(png);
      if (recipe) {
        const { prompt, negative_prompt } = settings;
        await this.#restore({ ...recipe, prompt, negative_prompt }, request ? picturesOf(request) : [], request);
      } else {
        // Of a release without recipes in its files.
        this.#words.prompt = settings.prompt;
        this.#advanced.write(settings);
      }
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Takes a recipe into the form, and says which of its pictures are not here. @param {Recipe} recipe @param {Bytes[]} pictures @param {GenerateRequest} [request] */
  async #restore(recipe, pictures, request) {
    const chosen = this.#start.picture ? [this.#start.picture] : [];
    const made = this.#gallery.all.flatMap((result) => [result.png, ...(result.request ? picturesOf(result.request) : [])]);
    const all = [...pictures, ...this.#people.all, ...this.#style.all, ...chosen, ...made];
    const { restore } = await arriving(parts.reuse);
    const n = await restore(recipe, this.#panels, all, request);
    this.#stage.tell(n > 0 ? { code: "reuse-missing", message: "", remedy: "", values: { n: String(n) } } : null);
    this.#words.node.scrollIntoView({ block: "center", behavior: "smooth" });
  }

  /** @param {Result} result */
  async #remove(result) {
    this.#gallery.remove(result);
    this.#memory.forget(result);
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
      if (result.visit) {
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
    // One person's picture for several: they run into one another.
    void warnOfFew(this.#session, this.#style, people.length);
    this.#form.noteSoon();
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
    this.#stage.tell(check.problems.find(({ code }) => TOLD.has(code)) ?? null);
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
      // Without https there is no storage either: that is the reason to tell.
      this.#stage.tell(isSecureContext || notice.code !== "storage-missing" ? notice : { ...notice, code: "insecure-context" });
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
