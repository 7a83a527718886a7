/** Language and colours as the browser has them or as they are chosen; and what is told calmly, truly, and in that language. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { errors as german } from "../../web/face-studio/errors.de.js";
import { ROOT, openPage, setUp, waitForSamples } from "./harness.mjs";

const { server, browser } = await setUp();

test("the browser's language and colours count until others are chosen, and then those at the next visit too", async () => {
  const { context, page, errors } = await openPage(browser, { locale: "de-AT", colorScheme: "light" });
  await page.goto(server.url);
  const generate = page.locator("#generate");
  await generate.filter({ hasText: "Bild erzeugen" }).waitFor();
  const ground = () => page.locator("face-studio").evaluate((element) => getComputedStyle(element).backgroundColor);
  const light = await ground();
  await page.locator("#look-lang").selectOption("en");
  await generate.filter({ hasText: "Generate" }).waitFor();
  await page.locator("#look-theme").selectOption("dark");
  assert.notEqual(await ground(), light);
  await page.reload();
  await generate.filter({ hasText: "Generate" }).waitFor();
  assert.equal(await page.locator("#look-lang").inputValue(), "en");
  assert.equal(await page.locator("#look-theme").inputValue(), "dark");
  assert.notEqual(await ground(), light);
  assert.deepEqual(errors, []);
  await context.close();
});

test("a visit without a network is no failing of the device", async () => {
  const { context, page } = await openPage(browser);
  await page.goto(server.url);
  await page.locator("#engine[data-backend]").waitFor();
  assert.equal(await page.locator("#news").isVisible(), false);
  await page.route("**/models/**", (route) => route.abort());
  await page.reload();
  await page.locator("#engine[data-backend]").waitFor();
  await page.locator("#news", { hasText: "There is no network" }).waitFor();
  assert.equal(await page.locator("#error").isVisible(), false);
  await page.locator("#news button").click();
  assert.equal(await page.locator("#news").isVisible(), false);
  await context.close();
});

test("errors are told in German, and again in English when that is chosen", async () => {
  const { context, page } = await openPage(browser, { locale: "de" });
  server.fault = (path) => (path.startsWith("/models/") ? { status: 404 } : undefined);
  await page.goto(server.url);
  await waitForSamples(page);
  await page.locator("#error").waitFor();
  assert.equal(await page.locator("#error-title").textContent(), "Es gibt noch kein Modell");
  assert.equal(await page.locator("#error-message").textContent(), german["model-missing"]);
  assert.equal(await page.locator("#error-remedy").textContent(), "");
  await page.locator("#look-lang").selectOption("en");
  await page.locator("#error-message", { hasText: "the server says 404" }).waitFor();
  assert.notEqual(await page.locator("#error-remedy").textContent(), "");
  await context.close();
});

test("every code that is explained in German is one", () => {
  const documented = readFileSync(`${ROOT}docs/errors.md`, "utf8");
  assert.deepEqual(
    Object.keys(german).filter((code) => !documented.includes(`\`${code}\``)),
    [],
  );
});
