/** A server with the page, and a browser that looks at it. */

import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { once } from "node:events";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, beforeEach } from "node:test";
import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

import { startFaultyServer } from "./faulty-server.mjs";

export const ROOT = fileURLToPath(new URL("../../", import.meta.url));

export const EXECUTABLE = process.env.CHROMIUM || "/usr/bin/chromium";

/** Milliseconds for what a browser is waited for: machines may be slow and busy. */
export const PATIENCE = 120_000;

export const FLAGS = [
  "--no-sandbox",
  "--enable-unsafe-webgpu",
  "--use-webgpu-adapter=swiftshader",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  // A camera that shows a test picture, and says yes.
  "--use-fake-device-for-media-stream",
  "--use-fake-ui-for-media-stream",
];

/**
 * Starts `facestudio serve` on a free port.
 * @param {string[]} [options]
 */
export async function startServer(options = []) {
  const child = spawn(`${ROOT}target/debug/facestudio`, ["serve", "--port", "0", ...options], {
    cwd: ROOT,
    stdio: ["ignore", "pipe", "inherit"],
  });
  const [line] = await Promise.race([
    once(createInterface({ input: child.stdout }), "line"),
    once(child, "exit").then(([code]) => {
      throw new Error(`facestudio serve ended with status ${code}`);
    }),
  ]);
  return { url: line.match(/http:\S+/)[0], stop: () => child.kill() };
}

/** Folders of models that {@link tinyModel} made. @type {string[]} */
const made = [];
process.on("exit", () => made.forEach((folder) => rmSync(folder, { recursive: true, force: true })));

/**
 * A folder that holds `mini`, the tests' tiny model with random weights, and such models of other families.
 * @param {..."adapters" | "segmenter" | "arc2face"} families
 */
export function tinyModel(...families) {
  const folder = mkdtempSync(join(tmpdir(), "facestudio-"));
  made.push(folder);
  execFileSync(`${ROOT}target/debug/examples/tiny-model`, [join(folder, "mini")]);
  for (const family of families) {
    execFileSync(`${ROOT}target/debug/examples/tiny-model`, [join(folder, family), family]);
  }
  return folder;
}

export function startBrowser() {
  return chromium.launch({ executablePath: EXECUTABLE, args: FLAGS, headless: true, timeout: PATIENCE });
}

/**
 * What most tests need: a browser, and tiny models behind a server that fails on demand, and does not when a test begins.
 * @param {Parameters<typeof tinyModel>} families
 */
export async function setUp(...families) {
  const models = tinyModel(...families);
  const server = await startFaultyServer(models);
  const browser = await startBrowser();
  after(async () => {
    await browser.close();
    server.stop();
  });
  beforeEach(() => {
    server.log.length = 0;
    server.fault = () => undefined;
  });
  return { models, server, browser };
}

/**
 * A page of its own storage that notes what went wrong in it and what it asked the network for.
 * @param {import("playwright-core").Browser} browser
 * @param {object} [options] of the context
 */
export async function openPage(browser, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  /** @type {string[]} */
  const errors = [];
  /** @type {string[]} */
  const requests = [];
  page.on("console", (message) => {
    if (message.type() === "error") {
      errors.push(`${message.text()} ${message.location().url}`.trim());
    }
  });
  page.on("pageerror", (error) => errors.push(error.message));
  context.on("request", (request) => requests.push(request.url()));
  return { context, page, errors, requests };
}

/**
 * Waits for the sample galleries: the engine runs, and the page is usable.
 * @param {import("playwright-core").Page} page
 */
export async function waitForSamples(page) {
  await page.locator("#style .tile img:not([hidden])").nth(6).waitFor({ timeout: PATIENCE });
}
