/** Recipes: which published files become which model. docs/recipes.md describes their documents, which the command line reads too. */

/**
 * @typedef {{ path: string, bytes?: number, about_bytes?: number, sha256?: string, git?: string }} SourceFile `git`: its hash as Git
 *   counts, of a file whose SHA-256 nobody states
 * @typedef {object} Part
 * @property {string} what
 * @property {string} repository
 * @property {string} [revision]
 * @property {string} license
 * @property {string} license_url
 * @property {boolean} [research_only]
 * @property {string} [url] where it is, if not on the hub
 * @property {string} [archive] likewise, in an archive
 * @property {SourceFile[]} files
 */

/**
 * @typedef {object} Recipe
 * @property {string} name
 * @property {string} says what it draws
 * @property {string} family
 * @property {"drawn" | "photographed"} [people]
 * @property {Part[]} parts
 */

/** How weights are stored. @typedef {"f16" | "q8" | "q4"} Dtype */

/** Bytes of a number, by how it is stored: blocks of 32 have a scale of 16 bits each. */
const STORED = { f16: 2, q8: 1.0625, q4: 0.5625 };

/** Bytes to fetch, as far as they are known. @param {Recipe} recipe */
export function bytesToFetch({ parts }) {
  return parts.flatMap(({ files }) => files).reduce((sum, { bytes, about_bytes }) => sum + (bytes ?? about_bytes ?? 0), 0);
}

/** About what published files take once they are stored: they have 16 bits a number. @param {number} bytes @param {Dtype} dtype */
export function bytesStored(bytes, dtype) {
  return (bytes / 2) * STORED[dtype];
}

/** The address of the model that a recipe becomes here, in this browser alone. @param {Recipe} recipe @param {Dtype} dtype */
export function modelOf({ name }, dtype) {
  return `local://${name}-${dtype}/`;
}

/** Parts that the page cannot fetch: they are in no hub. @param {Recipe} recipe */
export function elsewhere({ parts }) {
  return parts.filter(({ url, archive }) => url !== undefined || archive !== undefined);
}
