/** Hugging Face's hub, or one like it: where a recipe's files are, and how large they are. */

import { Broken, connect, isBusy, textOf } from "./network.js";
import { failure } from "./protocol.js";

/** @import { Part, SourceFile } from "./recipes.js" */

/** The hub, unless another is named. */
export const HUB = "https://huggingface.co";

/** Most bytes of a listing: repositories have thousands of files. */
const MOST_LISTED = 32 << 20;

/** @typedef {{ endpoint: string, token: string | null }} Hub */

/**
 * What a request to the hub says of who asks.
 * @param {Hub} hub
 * @returns {Record<string, string>}
 */
export function credentials({ token }) {
  return token ? { authorization: `Bearer ${token}` } : {};
}

/**
 * Where a file of a recipe is fetched.
 * @param {Hub} hub
 * @param {Part} part
 * @param {SourceFile} file
 */
export function addressOf({ endpoint }, part, file) {
  return `${endpoint}/${part.repository}/resolve/${encodeURIComponent(part.revision ?? "main")}/${escaped(file.path)}`;
}

/** @param {string} path */
function escaped(path) {
  return path.split("/").map(encodeURIComponent).join("/");
}

/**
 * An answer's refusal as an error; none where it is worth another try.
 * @param {string} url
 * @param {number} status
 * @param {Hub} hub
 */
export function refusal(url, status, { token }) {
  if (status === 401 || status === 403) {
    return token
      ? failure(
          "input",
          "hub-denied",
          `${url}: the hub says ${status}`,
          "accept the licence on the model's page there, with the account whose token this is",
        )
      : failure(
          "input",
          "hub-denied",
          `${url}: the hub asks who you are`,
          "accept the licence on the model's page there, and give a token of your account",
        );
  }
  return failure("input", "hub-missing", `${url}: the hub says ${status}`, "check the recipe's repository, revision and path");
}

/**
 * The sizes and hashes of a part's files that its recipe does not state, as the hub lists them: SHA-256 of large files, and Git's own
 * of small ones. Rejects with `hub-missing` where a file is not listed.
 * @param {Hub} hub
 * @param {Part} part
 * @param {AbortSignal} signal
 * @returns {Promise<SourceFile[]>}
 */
export async function completed(hub, part, signal) {
  if (part.files.every(({ bytes, sha256 }) => bytes !== undefined && sha256 !== undefined)) {
    return part.files;
  }
  const revision = encodeURIComponent(part.revision ?? "main");
  const url = `${hub.endpoint}/api/models/${part.repository}/tree/${revision}?recursive=true`;
  const connection = await connect(url, { headers: credentials(hub) }, { signal });
  const { ok, status } = connection.response;
  if (!ok) {
    connection.close();
    throw isBusy(status) ? new Broken(`the hub says ${status}`) : refusal(url, status, hub);
  }
  /** @type {Map<string, { size: number, oid?: string, lfs?: { oid?: string, size?: number } }>} */
  const listed = new Map();
  for (const entry of parsed((await textOf(connection, MOST_LISTED)) ?? "", url)) {
    listed.set(entry?.path, entry);
  }
  return part.files.map((file) => {
    const entry = listed.get(file.path);
    if (!entry) {
      throw failure("input", "hub-missing", `${part.repository} has no ${file.path}`, "check the recipe's repository, revision and path");
    }
    const sha256 = file.sha256 ?? entry.lfs?.oid?.replace(/^sha256:/, "");
    return { ...file, bytes: file.bytes ?? entry.lfs?.size ?? entry.size, ...(sha256 ? { sha256 } : { git: entry.oid }) };
  });
}

/** @param {string} text @param {string} url @returns {any[]} */
function parsed(text, url) {
  try {
    const list = JSON.parse(text);
    if (Array.isArray(list)) {
      return list;
    }
  } catch {
    // Said below.
  }
  throw failure("io", "hub-failed", `${url} is no listing`, "check the hub's address, or try again later");
}
