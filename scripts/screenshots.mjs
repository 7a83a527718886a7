/**
 * Every state of the page as a picture, to look at: `node scripts/screenshots.mjs FOLDER [WIDTHxSCHEME…]`.
 *
 * Needs pkg/ (`make pkg`), the `facestudio` binary of `cargo build` and models/mini.
 */

import { mkdirSync } from "node:fs";
import { join } from "node:path";

import { openPage, startBrowser, startServer, waitForSamples } from "../tests/browser/harness.mjs";

const [folder = "screenshots", ...wanted] = process.argv.slice(2);
const looks = wanted.length ? wanted : ["1280xlight", "1280xdark", "390xlight", "390xdark"];
mkdirSync(folder, { recursive: true });
const server = await startServer();
const browser = await startBrowser();

/** @param {string} look */
async function shoot(look) {
  const [width, scheme] = look.split("x");
  const viewport = { width: Number(width), height: Number(width) < 600 ? 844 : 900 };
  const { context, page, errors } = await openPage(browser, { viewport, colorScheme: scheme, deviceScaleFactor: 1 });
  const shot = (/** @type {string} */ name, fullPage = true) => page.screenshot({ path: join(folder, `${look}-${name}.png`), fullPage });
  const sample = (/** @type {number} */ n) => page.getByRole("button", { name: `Sample face ${n}, a made-up person` }).click();
  const finished = () => page.locator("#finished").waitFor({ timeout: 300_000 });

  // A model that never arrives, and one that is not there.
  await page.route("**/models/**", () => {});
  await page.goto(server.url);
  await waitForSamples(page);
  await shot("1-loading");
  await page.unroute("**/models/**");
  await page.route("**/models/**", (route) => route.fulfill({ status: 404 }));
  await page.reload();
  await page.locator("#error").waitFor();
  await waitForSamples(page);
  await shot("2-no-model");
  await page.unroute("**/models/**");

  await page.reload();
  await waitForSamples(page);
  await page.locator("#engine[data-backend]").waitFor({ timeout: 300_000 });
  await sample(1);
  await page.locator("#style .tile").nth(3).click();
  await shot("3-ready");

  await page.locator("#generate").click();
  await page.locator("#doing", { hasText: /step ([5-9]|\d\d) of/ }).waitFor({ timeout: 300_000 });
  await shot("4-drawing", false);
  await finished();
  await page.locator("#likeness").waitFor({ timeout: 120_000 });
  await shot("5-picture");
  await page.locator("#compare").click();
  await shot("6-compare", false);

  await page.locator("#prompt").fill("a watercolor portrait, a smiling person in a forest");
  await page.locator("#strip-alpha").click();
  await page.locator(".strip .result").nth(4).waitFor({ timeout: 300_000 });
  await page.locator("#generate:enabled").waitFor();
  await shot("7-strip");

  await page.locator("#mix").click();
  await sample(2);
  await page.locator("#add-person").click();
  await sample(4);
  await page.locator(".box").nth(1).waitFor();
  await page.locator("#advanced summary").click();
  await page.locator("#device summary").click();
  await shot("8-two-people");
  await page.locator("#generate").click();
  await finished();
  await shot("9-two-people-picture");

  await page.locator("#make-face").click();
  await page.locator("#maker-portrait[src]").waitFor();
  await shot("10-face-maker", false);
  await page.keyboard.press("Escape");

  const photo = { name: "a.png", mimeType: "image/png", buffer: Buffer.from("no picture") };
  await page.locator("#people input[type=file]").setInputFiles(photo);
  await page.locator("#consent-yes").waitFor();
  await shot("11-consent", false);
  await page.locator("#consent-yes").click();
  await page.locator("#error-code", { hasText: "image-format" }).waitFor();
  await shot("12-error", false);
  if (errors.length) {
    console.error(look, errors);
  }
  await context.close();
}

try {
  for (const look of looks) {
    await shoot(look);
    console.log(look);
  }
} finally {
  await browser.close();
  server.stop();
}
