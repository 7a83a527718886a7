/** What the studio asks for, and what became of it. */

import { toError } from "../engine/protocol.js";
import { facesOf } from "./person.js";
import { settingsOf } from "./settings.js";

/** @import { Bytes, GenerateRequest, Opened, Picture } from "../engine/protocol.js" */
/** @import { FaceStudio } from "../engine/session.js" */
/** @import { Result } from "./gallery.js" */
/** @import { Style } from "./style.js" */

/** What is told before anything is fetched, though it stops nothing. */
export const TOLD = new Set(["insecure-context", "quota-small"]);

/**
 * @param {GenerateRequest} request
 * @param {Picture} picture
 * @returns {Result}
 */
export function resultOf(request, picture) {
  const { png, notices } = picture;
  return { png, settings: settingsOf(request, picture), request, references: facesOf(request.people ?? []), notices, visit: true };
}

/**
 * What a model can read of a request that was put together before the model was open: a style picture was on offer then.
 * @param {GenerateRequest} request
 * @param {Opened} opened
 * @returns {GenerateRequest}
 */
export function readable({ style, ...request }, { abilities }) {
  return style && abilities.styles ? { ...request, style } : request;
}

/**
 * The identity similarity of a result with each person asked for: null where no face is found, undefined where no model is open.
 * @param {FaceStudio} session
 * @param {Result} result
 * @returns {Promise<(number | null)[] | undefined>}
 */
export async function likenessOf(session, result) {
  const likeness = [];
  for (const person of result.request?.people ?? []) {
    // A page may have freed the model when it heard of the picture: it is not opened again for this.
    if (!session.opened) {
      return undefined;
    }
    try {
      likeness.push(await session.similarity(result.png, person));
    } catch (error) {
      if (toError(error).code !== "face-not-found") {
        throw error;
      }
      likeness.push(null);
    }
  }
  return likeness;
}

/** What a photo is in a request: its file. @param {import("../engine/protocol.js").Photo} photo */
const fileOf = (photo) => ("landmarks" in photo ? photo.image : photo);

/**
 * The pictures that a request was made from.
 * @param {GenerateRequest} request
 * @returns {Bytes[]}
 */
export function picturesOf({ people, style, init, layout }) {
  const photos = people.flatMap(({ identities }) => identities.flatMap((identity) => identity.photos.map(fileOf)));
  const content = typeof layout === "object" && "content" in layout ? layout.content : undefined;
  return [...photos, style, init?.image, content].filter((picture) => picture !== undefined);
}

/** How many faces a style picture shows. @type {WeakMap<Bytes, number>} */
const counted = new WeakMap();

/**
 * Warns where the style picture shows fewer people than are wanted: every sample shows one, and of another the model's finder knows.
 * @param {FaceStudio} session
 * @param {Style} style
 * @param {number} n people
 */
export async function warnOfFew(session, style, n) {
  const { value, isSample } = style;
  style.warn(n > 1 && isSample ? n : 0);
  if (n < 2 || !value || isSample || !session.opened) {
    return;
  }
  try {
    const faces = counted.get(value) ?? (await session.faces(value)).length;
    counted.set(value, faces);
    if (faces > 0 && faces < n && style.value === value) {
      style.warn(n);
    }
  } catch {
    // What is wrong with the picture is told when it is used.
  }
}
