/** What a page hands over, checked before anything is done with it. */

import { failure } from "./protocol.js";

/** @import { BackendWish, Bytes, GenerateRequest, PrecisionWish, Question } from "./protocol.js" */

/** The largest seed and the like that the face maker takes. */
const MOST = 2 ** 32 - 1;

/**
 * A value for a message: short, and never an error itself.
 * @param {unknown} value
 * @returns {string}
 */
export function shown(value) {
  if (typeof value === "string") {
    return `“${value.length > 80 ? `${value.slice(0, 80)}…` : value}”`;
  }
  if (value === null || ["undefined", "number", "boolean", "bigint"].includes(typeof value)) {
    return String(value);
  }
  return Array.isArray(value) ? "a list" : typeof value === "object" ? "an object" : `a ${typeof value}`;
}

/**
 * @param {string} url
 * @param {string} [base]
 * @returns {URL | null} null where it is none
 */
export function urlOf(url, base) {
  try {
    return new URL(url, base);
  } catch {
    return null;
  }
}

/**
 * @param {unknown} value
 * @returns {value is Record<string, any>}
 */
export function isRecord(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * @param {string} what
 * @param {unknown} value
 * @param {string} wanted
 */
function refuse(what, value, wanted) {
  return failure(
    "input",
    "argument-type",
    `${what} is ${shown(value)}, not ${wanted}`,
    "the types are in engine/protocol.js and engine/client.js",
  );
}

/**
 * The options of a method, none of which may be another than is listed, or of another type than is said.
 * @template {object} T
 * @param {string} method
 * @param {T | undefined} options
 * @param {string[]} names of the options that there are
 * @returns {T}
 */
export function optionsOf(method, options, names) {
  if (options === undefined) {
    return /** @type {T} */ ({});
  }
  if (!isRecord(options)) {
    throw refuse(`what ${method} is given`, options, "an object");
  }
  const other = Object.keys(options).find((name) => !names.includes(name));
  if (other !== undefined) {
    throw failure("input", "argument-type", `${method} has no option ${shown(other)}`, `its options are ${names.join(", ")}`);
  }
  const { signal, lean } = /** @type {Record<string, any>} */ (options);
  if (signal !== undefined && signal !== null && !(typeof signal.aborted === "boolean" && typeof signal.addEventListener === "function")) {
    throw refuse(`the signal of ${method}`, signal, "an AbortSignal");
  }
  for (const name of ["onProgress", "onPicture"]) {
    const call = /** @type {Record<string, unknown>} */ (options)[name];
    if (call !== undefined && call !== null && typeof call !== "function") {
      throw refuse(`${name} of ${method}`, call, "a function");
    }
  }
  if (lean !== undefined && typeof lean !== "boolean") {
    throw refuse(`lean of ${method}`, lean, "true or false");
  }
  return options;
}

/**
 * A model folder's URL, ending in "/"; without query and fragment, which a folder's files cannot share.
 * @param {unknown} model
 * @returns {string}
 */
export function folder(model) {
  const url = typeof model === "string" || model instanceof URL ? urlOf(String(model), document.baseURI) : null;
  // A `data:` or `mailto:` URL has no files beside it.
  if (!url || !urlOf("manifest.json", url.href)) {
    throw wrongModel(model);
  }
  url.search = "";
  url.hash = "";
  url.pathname += url.pathname.endsWith("/") ? "" : "/";
  return url.href;
}

/** @param {unknown} model */
function wrongModel(model) {
  const value = model instanceof URL ? model.href : model;
  return failure(
    "input",
    "model-url",
    `the model is ${shown(value)}, which is no URL of a folder`,
    "give the URL of a model folder, such as “models/mini/”",
  );
}

/**
 * @param {unknown} backend
 * @returns {BackendWish}
 */
export function backendOf(backend) {
  if (backend !== "auto" && backend !== "webgpu" && backend !== "cpu") {
    throw failure("input", "backend-unknown", `there is no backend ${shown(backend)}`, "use “auto”, “webgpu” or “cpu”");
  }
  return backend;
}

/**
 * @param {unknown} precision
 * @returns {PrecisionWish}
 */
export function precisionOf(precision) {
  if (precision !== "auto" && precision !== "f16" && precision !== "f32") {
    throw failure("input", "precision-name", `there is no precision ${shown(precision)}`, "use “auto”, “f16” or “f32”");
  }
  return precision;
}

/** @typedef {[string, (value: unknown) => boolean]} Kind what a value must be, in words */

/** @type {Record<"any" | "list" | "text" | "number" | "whole" | "flag", Kind>} */
const KINDS = {
  any: ["", () => true],
  list: ["a list", Array.isArray],
  text: ["a text", (value) => typeof value === "string"],
  number: ["a number", (value) => typeof value === "number"],
  whole: ["a whole number", (value) => typeof value === "bigint" || Number.isInteger(value)],
  flag: ["true or false", (value) => typeof value === "boolean"],
};

/** The fields of a request (see `GenerateRequest`), and what each must be: the engine sees none but these. */
const FIELDS = /** @type {const} */ ({
  people: "list",
  style: "any",
  prompt: "text",
  roles: "any",
  negative_prompt: "text",
  clip_skip: "whole",
  alpha: "number",
  layout: "any",
  background: "any",
  init: "any",
  into: "any",
  redraw_faces: "any",
  seed: "whole",
  count: "whole",
  steps: "whole",
  guidance_scale: "number",
  sampler: "text",
  width: "whole",
  height: "whole",
  preview_every: "whole",
  watermark: "flag",
  prompt_in_metadata: "flag",
});
const PERSON = ["identities", "strength", "start", "end"];
const IDENTITY = ["photos", "beta"];
const INIT = ["image", "strength", "mask"];
const INTO = ["photo", "faces", "strength"];
const REPLACEMENT = ["face", "person", "mask"];

/**
 * Refuses a field that nobody reads: it would count for nothing without a word.
 * @param {string} what
 * @param {unknown} value
 * @param {string[]} fields
 */
function known(what, value, fields) {
  const other = isRecord(value) ? Object.keys(value).find((name) => !fields.includes(name)) : undefined;
  if (other !== undefined) {
    throw failure(
      "input",
      "request-format",
      `${what} has a field ${shown(other)}, which there is not`,
      `its fields are ${fields.join(", ")}`,
    );
  }
}

/** @param {unknown} list @returns {any[]} */
const each = (list) => (Array.isArray(list) ? list : []);

/**
 * A request as far as a page can look at it; the engine checks what is in it.
 * @param {unknown} request
 * @returns {GenerateRequest}
 */
export function requestOf(request) {
  if (!isRecord(request)) {
    throw failure(
      "input",
      "request-format",
      `the request is ${shown(request)}, not an object`,
      "see `GenerateRequest` in engine/protocol.js",
    );
  }
  const { people, init, into } = /** @type {any} */ (request);
  known("the request", request, Object.keys(FIELDS));
  for (const [name, kind] of Object.entries(FIELDS)) {
    const [wanted, fits] = KINDS[kind];
    const value = request[name];
    if (value !== undefined && value !== null && !fits(value)) {
      throw failure("input", "request-format", `${name} of the request is ${shown(value)}, not ${wanted}`, "see `GenerateRequest`");
    }
  }
  known("init", init, INIT);
  known("into", into, INTO);
  each(into?.faces).forEach((face) => known("a face", face, REPLACEMENT));
  for (const person of each(people)) {
    known("a person", person, PERSON);
    each(person?.identities).forEach((identity) => known("an identity", identity, IDENTITY));
  }
  return /** @type {any} */ (request);
}

/** How deep a Blob may lie in what is asked. */
const DEEPEST = 8;

/**
 * The same with the bytes of every `Blob`, a `File` among them, in its place.
 * @template T
 * @param {T} value
 * @returns {Promise<T>}
 */
export async function withBytes(value, depth = 0) {
  /** @type {any} */
  let read = value;
  if (value instanceof Blob) {
    try {
      read = new Uint8Array(await value.arrayBuffer());
    } catch (thrown) {
      // A file that was moved or changed after it was chosen.
      const why = thrown instanceof Error ? thrown.message : String(thrown);
      throw failure("io", "file-read", `the picture's file cannot be read: ${why}`, "choose the file again");
    }
  } else if (depth < DEEPEST && Array.isArray(value)) {
    read = await Promise.all(value.map((one) => withBytes(one, depth + 1)));
  } else if (depth < DEEPEST && Object.prototype.toString.call(value) === "[object Object]") {
    const entries = Object.entries(/** @type {object} */ (value)).map(async ([name, one]) => [name, await withBytes(one, depth + 1)]);
    read = Object.fromEntries(await Promise.all(entries));
  }
  return read;
}

/**
 * @param {string} what
 * @param {unknown} bytes
 * @returns {Bytes}
 */
export function bytesOf(what, bytes) {
  if (bytes instanceof Blob) {
    return bytes;
  }
  if (bytes instanceof ArrayBuffer) {
    return new Uint8Array(bytes);
  }
  // One of another window is none of this window's `Uint8Array`.
  if (!ArrayBuffer.isView(bytes) || Object.prototype.toString.call(bytes) !== "[object Uint8Array]") {
    throw refuse(what, bytes, "a picture's file, as a Uint8Array, a Blob or a File");
  }
  return /** @type {Uint8Array} */ (bytes);
}

/**
 * @param {string} what
 * @param {unknown} value
 */
export function countOf(what, value) {
  if (typeof value !== "number" || !Number.isInteger(value) || value < 0 || value > MOST) {
    throw refuse(what, value, `a whole number from 0 to ${MOST}`);
  }
  return value;
}

/**
 * @param {string} what
 * @param {unknown} value
 */
export function textOf(what, value) {
  if (typeof value !== "string") {
    throw refuse(what, value, "a text");
  }
  return value;
}

/** The fields of each question, as far as a page can look at them. @type {Record<Question["type"], (asked: any) => object>} */
const QUESTIONS = {
  check: ({ model, backend }) => ({ model: folder(model), backend: backendOf(backend) }),
  inspect: pictureOf,
  render: ({ seed, style, size }) => ({
    seed: countOf("the seed", seed),
    style: textOf("the style", style),
    size: countOf("the size", size),
  }),
  stored: () => ({}),
  forget: ({ model }) => ({ model: model === null ? null : folder(model) }),
  faces: pictureOf,
  request: ({ png, pictures, words }) => ({ png: bytesOf("the picture", png), pictures, words }),
  similarity: ({ picture, person }) => ({ picture: bytesOf("the picture", picture), person }),
  random_face: ({ seed }) => ({ seed: countOf("the seed", seed) }),
  draw_face: ({ portrait, size }) => ({ portrait, size: countOf("the size", size) }),
  face_maker: () => ({}),
};

/** @param {{ image: unknown }} asked */
function pictureOf({ image }) {
  return { image: bytesOf("the picture", image) };
}

/**
 * A question with the fields that it has, and no other.
 * @template {Question} Asked
 * @param {Asked} question
 * @returns {Asked}
 */
export function questionOf(question) {
  const type = /** @type {any} */ (question)?.type;
  if (!Object.hasOwn(QUESTIONS, type)) {
    throw refuse("the type of what ask is given", type, `one of ${Object.keys(QUESTIONS).join(", ")}`);
  }
  return /** @type {any} */ ({ type, ...QUESTIONS[/** @type {Question["type"]} */ (type)](question) });
}
