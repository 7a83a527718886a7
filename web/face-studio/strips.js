/** Strips: the requests that walk from one end to the other, with the same seed. */

/** @import { GenerateRequest } from "../engine/protocol.js" */
/** @import { Said } from "./builder.js" */

/** Where the pictures of a strip stand between both ends. */
const PLACES = [0, 0.25, 0.5, 0.75, 1];

/** @typedef {{ request: GenerateRequest, caption: Said }} Stop */

/**
 * From words to style picture.
 * @param {GenerateRequest} request
 * @returns {Stop[]}
 */
export function alphaStrip(request) {
  return PLACES.map((alpha) => ({ request: { ...request, count: 1, alpha }, caption: ["strip.at_alpha", { n: Math.round(100 * alpha) }] }));
}

/**
 * From the first identity of the first mixed person to the second; further identities are left out.
 * @param {GenerateRequest} request
 * @returns {Stop[]} none where nobody is mixed
 */
export function mixStrip(request) {
  const mixed = request.people.findIndex(({ identities }) => identities.length > 1);
  const [first, second] = request.people[mixed]?.identities ?? [];
  if (!first || !second) {
    return [];
  }
  return PLACES.map((beta) => {
    const identities = [
      { ...first, beta: 1 - beta },
      { ...second, beta },
    ];
    const people = request.people.map((person, i) => (i === mixed ? { identities } : person));
    return {
      request: { ...request, count: 1, people },
      caption: ["strip.at_mix", { a: Math.round(100 * (1 - beta)), b: Math.round(100 * beta) }],
    };
  });
}
