/** The engine's client in a page that holds nothing else, driven from the test. */

import { openPage } from "./harness.mjs";

/**
 * What a picture is asked for with here: words alone, since the tiny model knows no faces.
 * @param {object} [changes]
 */
export const request = (changes = {}) => ({
  people: [],
  prompt: "a smiling man with a hat",
  alpha: 0,
  seed: 7,
  steps: 4,
  ...changes,
});

/**
 * Opens an empty page of `url`'s server with a client in it.
 * @param {import("playwright-core").Browser} browser
 * @param {string} url
 */
export async function openClient(browser, url) {
  const opened = await openPage(browser);
  await attach(opened.page, url);
  return { ...opened, call: (/** @type {any} */ body, /** @type {any} */ argument) => call(opened.page, body, argument) };
}

/**
 * Loads the empty page anew, with a fresh client.
 * @param {import("playwright-core").Page} page
 * @param {string} url
 */
export async function attach(page, url) {
  await page.goto(`${url}blank.html`);
  await page.evaluate(async () => {
    const { EngineClient } = await import(new URL("/engine/client.js", location.href).href);
    const all = /** @type {any} */ (globalThis);
    all.EngineClient = EngineClient;
    all.client = new EngineClient();
    /** Hash of a picture's file: equal for equal pictures. */
    all.hash = async (/** @type {Uint8Array} */ bytes) =>
      Array.from(new Uint8Array(await crypto.subtle.digest("SHA-256", /** @type {any} */ (bytes)))).join();
  });
}

/**
 * Runs `body(client, argument)` in the page: its value, or the code and texts of its failure; of what has no code its name.
 * @param {import("playwright-core").Page} page
 * @param {(client: any, argument: any) => any} body
 * @param {any} [argument]
 * @returns {Promise<{ value?: any, error?: { code: string, fault: string, message: string, remedy: string } }>}
 */
export function call(page, body, argument) {
  const code = `async (argument) => {
    try {
      return { value: await (${body})(globalThis.client, argument) };
    } catch (error) {
      const { code, name, fault, message, remedy } = error;
      return { error: { code: typeof code === "string" ? code : name, fault, message, remedy } };
    }
  }`;
  return page.evaluate(`(${code})(${JSON.stringify(argument ?? null)})`);
}

/** Opens the model on the CPU. @param {any} client */
export const open = (client) => client.open({ model: "/models/mini/", backend: "cpu" });

/**
 * Hash of the picture that a request gives.
 * @param {any} client
 * @param {any} request
 */
export const draw = async (client, request) => /** @type {any} */ (globalThis).hash((await client.generate(request))[0].png);

/**
 * Waits until something is so.
 * @param {() => boolean | Promise<boolean>} condition
 */
export async function until(condition) {
  for (const end = Date.now() + 60_000; !(await condition());) {
    if (Date.now() > end) {
      throw new Error(`still not so: ${condition}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
