/** What a page hands over, checked before anything is done with it. */

import { failure } from "./protocol.js";

/** @import { BackendWish, GenerateRequest, PrecisionWish, Question } from "./protocol.js" */

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
 * The options of a method, none of which may be of another type than is said; those that are not told of here are left to others.
 * @template {object} T
 * @param {string} method
 * @param {T | undefined} options
 * @returns {T}
 */
export function optionsOf(method, options) {
  if (options === undefined) {
    return /** @type {T} */ ({});
  }
  if (!isRecord(options)) {
    throw refuse(`what ${method} is given`, options, "an object");
  }
  const { signal, onProgress, lean } = /** @type {Record<string, any>} */ (options);
  if (signal !== undefined && signal !== null && !(typeof signal.aborted === "boolean" && typeof signal.addEventListener === "function")) {
    throw refuse(`the signal of ${method}`, signal, "an AbortSignal");
  }
  if (onProgress !== undefined && onProgress !== null && typeof onProgress !== "function") {
    throw refuse(`onProgress of ${method}`, onProgress, "a function");
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

/** The fields of a request and of what lies in it (see `GenerateRequest`): the engine sees none but these. */
const FIELDS = [
  "people",
  "style",
  "prompt",
  "negative_prompt",
  "alpha",
  "layout",
  "background",
  "init",
  "seed",
  "count",
  "steps",
  "guidance_scale",
  "sampler",
  "width",
  "height",
  "preview_every",
  "watermark",
  "prompt_in_metadata",
];
const PERSON = ["identities"];
const IDENTITY = ["photos", "beta"];
const INIT = ["image", "strength", "mask"];

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
  const { people, init } = /** @type {any} */ (request);
  known("the request", request, FIELDS);
  known("init", init, INIT);
  for (const person of each(people)) {
    known("a person", person, PERSON);
    each(person?.identities).forEach((identity) => known("an identity", identity, IDENTITY));
  }
  return /** @type {any} */ (request);
}

/**
 * @param {string} what
 * @param {unknown} bytes
 * @returns {Uint8Array}
 */
export function bytesOf(what, bytes) {
  if (bytes instanceof ArrayBuffer) {
    return new Uint8Array(bytes);
  }
  // One of another window is none of this window's `Uint8Array`.
  if (!ArrayBuffer.isView(bytes) || Object.prototype.toString.call(bytes) !== "[object Uint8Array]") {
    throw refuse(what, bytes, "the bytes of a picture's file as a Uint8Array");
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
