/** Nothing is lost and everything is taken: reloads, drops, generated files, pictures one by one. Needs models/mini. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";

import { openPage, startBrowser, startServer, waitForSamples } from "./harness.mjs";

/** @typedef {import("playwright-core").Page} Page */

/** @type {Awaited<ReturnType<typeof startServer>>} */
let server;
/** @type {import("playwright-core").Browser} */
let browser;

before(async () => {
  server = await startServer();
  browser = await startBrowser();
});

after(async () => {
  await browser?.close();
  server?.stop();
});

/** @param {Page} page */
async function ready(page) {
  await waitForSamples(page);
  await page.locator("#engine[data-backend]").waitFor({ timeout: 300_000 });
}

async function openReady() {
  const opened = await openPage(browser, { permissions: ["clipboard-read", "clipboard-write"], acceptDownloads: true });
  await opened.page.goto(server.url);
  await ready(opened.page);
  await opened.page.waitForLoadState("networkidle");
  // It begins once the model is there, and keeps the page.
  await opened.page.evaluate(() => navigator.serviceWorker.ready.then(() => true));
  opened.requests.length = 0;
  return opened;
}

/** @param {Page} page */
async function make(page) {
  const made = page.evaluate(
    () =>
      new Promise((resolve) => {
        document
          .querySelector("face-studio")
          ?.addEventListener("facestudio-result", (event) => resolve([.../** @type {any} */ (event).detail[0].png]), { once: true });
      }),
  );
  await page.locator("#generate").click();
  const png = /** @type {number[]} */ (await made);
  await page.locator("#finished").waitFor({ timeout: 300_000 });
  return Buffer.from(png);
}

/**
 * Drops files, or an address, on a part of the studio; whether the page would have been left for them.
 * @param {Page} page
 * @param {string} target
 * @param {{ name: string, type: string, bytes: Buffer }[]} files
 * @param {string} [url]
 */
const drop = (page, target, files, url) =>
  page.evaluate(
    ({ target, files, url }) => {
      const data = new DataTransfer();
      for (const { name, type, bytes } of files) {
        data.items.add(new File([Uint8Array.from(bytes)], name, { type }));
      }
      if (url) {
        data.setData("text/uri-list", url);
      }
      const element = document.querySelector("face-studio");
      const at = (target === "" ? element : element?.shadowRoot?.querySelector(target)) ?? document.body;
      return at.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true, composed: true }));
    },
    { target, files: files.map(({ bytes, ...file }) => ({ ...file, bytes: [...bytes] })), url },
  );

/** @param {Page} page */
const form = async (page) => ({
  prompt: await page.locator("#prompt").inputValue(),
  alpha: await page.locator("#alpha").inputValue(),
  steps: await page.locator("#steps").inputValue(),
  guidance: await page.locator("#guidance").inputValue(),
  sampler: await page.locator("#sampler").inputValue(),
  negative: await page.locator("#negative").inputValue(),
  seed: await page.locator("#seed").inputValue(),
  lock: await page.locator("#lock").isChecked(),
  people: await page.locator(".chip-pair").count(),
  faces: await page.locator("#people .tiles .tile").evaluateAll((tiles) => tiles.map((tile) => tile.getAttribute("aria-pressed"))),
  style: await page.locator("#style .tiles .tile[data-key]").evaluateAll((tiles) => tiles.map((tile) => tile.getAttribute("aria-pressed"))),
  boxes: await page.locator(".box").evaluateAll((boxes) => boxes.map((box) => box.getAttribute("aria-label"))),
  strength: await page.locator("#strength").inputValue(),
  hold: await page.locator("#hold").isChecked(),
  start: await page.locator("#start .drop img").isVisible(),
});

/** Fills the form with what is not usual. @param {Page} page */
async function fill(page) {
  await page.locator("#prompt").fill("a watercolor portrait");
  await page.locator("#alpha").fill("0.25");
  await page.locator("#style [data-key=style-2]").click();
  await page.getByRole("button", { name: "Sample face 3, a made-up person" }).click();
  await page.locator("#add-person").click();
  await page.getByRole("button", { name: "Sample face 5, a made-up person" }).click();
  await page.locator(".box").nth(1).focus();
  await page.keyboard.press("ArrowLeft");
  await page.locator("#advanced summary").click();
  await page.locator("#steps").fill("2");
  await page.locator("#guidance").fill("2.5");
  await page.locator("#sampler").selectOption("ddim");
  await page.locator("#negative").fill("hat");
  await page.locator("#seed").fill("77");
  await page.locator("[data-key=person-0]").click();
}

test("a reload and the way back lose neither the form nor a picture", async () => {
  const { context, page, errors } = await openReady();
  await fill(page);
  assert.match((await page.locator("#style-warning").textContent()) ?? "", /fewer people than the 2 people/);
  await make(page);
  const before = await form(page);
  await page.reload();
  await ready(page);
  await page.locator(".chip-pair").nth(1).waitFor();
  assert.deepEqual(await form(page), before);
  assert.equal(await page.locator(".result").count(), 1);
  assert.equal(await page.locator("#picture").isVisible(), true);
  // Not a file of the server's: Chromium may ask for an icon of it that is not there.
  await page.goto("about:blank");
  await page.goBack();
  await ready(page);
  await page.locator(".chip-pair").nth(1).waitFor();
  assert.deepEqual(await form(page), before);
  assert.equal(await page.locator(".result").count(), 1);
  assert.deepEqual(errors, []);
  await context.close();
});

test("a generated file gives all back that made it, its start picture too", async () => {
  const { context, page, errors } = await openReady();
  await page.locator("#advanced summary").click();
  await page.locator("#steps").fill("2");
  const start = await make(page);
  await page.locator("#as-start").click();
  await page.locator("#strength").fill("0.5");
  await page.locator("#advanced summary").click();
  await fill(page);
  await page.locator("#hold").check();
  const png = await make(page);
  const before = await form(page);
  assert.equal(before.start, true);

  // In a fresh tab: the start picture is here as soon as it is dropped, too.
  const other = await context.newPage();
  await other.goto(server.url);
  await ready(other);
  const file = { name: "made.png", type: "image/png", bytes: png };
  assert.equal(await drop(other, "footer", [file]), false, "the page is not left");
  await other.locator("#reuse-settings").click();
  await other.locator("#news").waitFor();
  assert.match((await other.locator("#news").textContent()) ?? "", /^1 of the pictures/);
  assert.equal(await drop(other, "#start .drop", [{ name: "start.png", type: "image/png", bytes: start }]), false);
  await other.locator("#reuse-picture").click();
  await other.locator("#consent-yes").click();
  await other.locator("#start .drop img").waitFor({ state: "attached" });
  await drop(other, "", [file]);
  await other.locator("#reuse-settings").click();
  await other.locator("#news").waitFor({ state: "hidden" });
  assert.deepEqual(await form(other), before);
  assert.deepEqual(await make(other), png, "the very same file");
  assert.deepEqual(errors, []);
  await context.close();
});

test("what is dropped anywhere is taken, or refused by its name", async () => {
  const { context, page } = await openReady();
  const wrong = { name: "notes.txt", type: "text/plain", bytes: Buffer.from("words") };
  for (const target of ["header", "#words", "#style", ".stage", ".actions"]) {
    assert.equal(await drop(page, target, [wrong]), false, target);
    await page
      .locator("#consent-yes")
      .click({ timeout: 1000 })
      .catch(() => {});
    await page.locator("#error-code", { hasText: "image-format" }).waitFor();
    await page.getByRole("button", { name: "Close" }).click();
  }
  assert.equal(await drop(page, "#style", [], "https://127.0.0.1:1/picture.png"), false);
  await page.locator("#error-code", { hasText: "drop-url" }).waitFor();
  assert.equal(page.url(), server.url);
  await context.close();
});

test("several pictures come one by one, and those that are there stay when the rest is cancelled", async () => {
  const { context, page, errors, requests } = await openReady();
  await page.locator("#advanced summary").click();
  await page.locator("#steps").fill("4");
  await page.locator("#count").fill("8");
  // Ctrl and Enter draw, wherever the keyboard is.
  await page.locator("#prompt").focus();
  await page.keyboard.press("Control+Enter");
  await page.locator(".result").nth(1).waitFor({ timeout: 120_000 });
  await page.locator("#cancel").click();
  await page.locator("#generate:enabled").waitFor();
  const count = await page.locator(".result").count();
  assert.ok(count >= 2 && count < 8, `${count} pictures`);
  assert.equal(await page.locator("#error").isVisible(), false);

  await page.locator("#view").click();
  await page.locator("dialog .large-picture").waitFor();
  await page.keyboard.press("Escape");
  await page.locator("#copy").click();
  await page.locator("#copy", { hasText: "Copied" }).waitFor();
  const types = await page.evaluate(async () => (await navigator.clipboard.read()).flatMap(({ types }) => [...types]));
  assert.ok(types.includes("image/png"));

  const [download] = await Promise.all([page.waitForEvent("download"), page.locator("#save-all").click()]);
  assert.equal(download.suggestedFilename(), "facestudio.zip");
  const folder = mkdtempSync(join(tmpdir(), "facestudio-"));
  try {
    await download.saveAs(join(folder, "all.zip"));
    const python =
      "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); assert z.testzip() is None; print(len(z.namelist())); z.extractall(sys.argv[2])";
    assert.equal(execFileSync("python3", ["-c", python, join(folder, "all.zip"), folder], { encoding: "utf8" }).trim(), String(count));
    const [first] = execFileSync("ls", [folder], { encoding: "utf8" })
      .split("\n")
      .filter((name) => name.endsWith(".png"));
    assert.equal(readFileSync(join(folder, first)).subarray(1, 4).toString(), "PNG");
  } finally {
    rmSync(folder, { recursive: true });
  }
  // With the model open the server is asked for nothing, not even for the parts of the interface that nobody had opened yet.
  await page.locator("#make-face").click();
  await page.locator("dialog .slider").first().waitFor();
  await page.keyboard.press("Escape");
  await page.locator("#look-lang").selectOption("de");
  await page.locator("#generate", { hasText: "Bild erzeugen" }).waitFor();
  assert.deepEqual(
    requests.filter((url) => url.startsWith("http")),
    [],
  );
  assert.deepEqual(errors, []);
  await context.close();
});
