/** Parts of the interface that the first screen does without. */

import { failure } from "../engine/protocol.js";
import { LANGUAGES, loadLanguage, loadLater } from "./messages.js";
import { save } from "./pictures.js";

/** @import { FaceStudio } from "../engine/session.js" */
/** @import { Builder } from "./builder.js" */
/** @import { Result } from "./gallery.js" */

/**
 * @typedef {object} LaterOptions
 * @property {(png: Uint8Array) => void} useFace
 * @property {(png: Uint8Array) => void} useStyle
 * @property {(model: string) => void} useModel
 * @property {() => string | undefined} hub
 * @property {(error: unknown) => void} fail tells the user
 */

export class Later {
  #builder;
  #root;
  #session;
  #options;
  /** @type {import("./face-maker.js").FaceMaker | null} */
  #maker = null;

  /**
   * @param {Builder} builder
   * @param {ShadowRoot} root where dialogs open
   * @param {FaceStudio} session
   * @param {LaterOptions} options
   */
  constructor(builder, root, session, options) {
    this.#builder = builder;
    this.#root = root;
    this.#session = session;
    this.#options = options;
  }

  /** Opens the face maker. */
  makeFace() {
    const [session, { fail, useFace, useStyle }] = [this.#session, this.#options];
    return this.#with(parts.faceMaker, async ({ FaceMaker }) => {
      this.#maker ??= new FaceMaker(this.#builder, this.#root, {
        ...{ fail, useFace, useStyle },
        random: (seed) => session.randomFace(seed),
        draw: (portrait, size) => session.drawFace(portrait, size),
        choices: () => session.faceMaker(),
      });
      await this.#maker.open();
    });
  }

  /** Shows other models. */
  models() {
    const session = this.#session;
    return this.#with(parts.modelChoice, ({ chooseModel }) =>
      chooseModel(this.#builder, this.#root, {
        stored: async () => (await session.stored()).models,
        forget: (model) => session.forget(model),
        use: this.#options.useModel,
        endpoint: this.#options.hub(),
      }),
    );
  }

  /** Shows a result as large as it gets. @param {Result} result */
  view({ png, settings: { prompt } }) {
    return this.#with(parts.view, ({ viewLarge }) =>
      viewLarge(this.#builder, this.#root, png, prompt ? ["stage.picture_of", { prompt }] : "stage.picture"),
    );
  }

  /** Downloads results as one archive, each under its place and seed. @param {Result[]} results */
  save(results) {
    return this.#with(parts.zip, ({ zip }) =>
      save(
        zip(results.map(({ png, settings }, i) => ({ name: `facestudio-${i + 1}-${settings.seed}.png`, bytes: png }))),
        "facestudio.zip",
      ),
    );
  }

  /**
   * @template T
   * @param {() => Promise<T>} bring of {@link parts}
   * @param {(part: T) => unknown} use
   */
  async #with(bring, use) {
    try {
      await use(await arriving(bring));
    } catch (error) {
      this.#options.fail(error);
    }
  }
}

/** How each is brought. */
export const parts = {
  asked: () => import("./asked.js"),
  camera: () => import("./camera.js"),
  consent: () => import("./consent.js"),
  faceChoice: () => import("./face-choice.js"),
  faceMaker: () => import("./face-maker.js"),
  faceSearch: () => import("./face-search.js"),
  modelChoice: () => import("./model-choice.js"),
  reuse: () => import("./reuse.js"),
  strips: () => import("./strips.js"),
  view: () => import("./view.js"),
  zip: () => import("./zip.js"),
};

/**
 * A part of the interface, with its words.
 * @template T
 * @param {() => Promise<T>} bring of {@link parts}
 * @returns {Promise<T>}
 */
export async function arriving(bring) {
  try {
    const [part] = await Promise.all([bring(), loadLater()]);
    return part;
  } catch (thrown) {
    const why = thrown instanceof Error ? thrown.message : String(thrown);
    throw failure("io", "network", `a part of the page cannot be fetched: ${why}`, "check the connection, then try again");
  }
}

/**
 * Brings all parts while the model comes, which takes longer: the first screen waits for none of them, and once the model is open the page
 * asks its server for nothing, whatever is done on it.
 */
export async function bringAll() {
  await Promise.allSettled([...LANGUAGES.map(loadLanguage), loadLater(), ...Object.values(parts).map((bring) => bring())]);
}
