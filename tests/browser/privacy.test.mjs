/** What the page tells whom: fields that nobody else reads, words that a file need not carry, and what is said about photos. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { de } from "../../web/face-studio/messages.de.js";
import { en } from "../../web/face-studio/messages.en.js";
import { call as callIn, open, openClient } from "./client.mjs";
import { openPage, setUp } from "./harness.mjs";

const TABLES = /** @type {Record<string, Record<string, string>>} */ ({ en, de });

const { server, browser } = await setUp();

/** A page with the element. @param {string} [lang] */
async function openStudio(lang = "en") {
  const opened = await openPage(browser);
  await opened.page.goto(`${server.url}blank.html`);
  await opened.page.evaluate(async (lang) => {
    await import(new URL("/face-studio/face-studio.js", location.href).href);
    const element = document.createElement("face-studio");
    Object.entries({ model: "/models/mini/", backend: "cpu", lang }).forEach(([name, value]) => element.setAttribute(name, value));
    document.body.append(element);
  }, lang);
  await opened.page.locator("#style .tile img:not([hidden])").first().waitFor();
  return opened;
}

/**
 * The texts of a PNG, as far as they are Latin.
 * @param {any} client
 * @param {any} request
 */
const fileOf = async (client, request) => new TextDecoder("latin1").decode((await client.generate(request))[0].png);

test("a picture's file leaves the words out where that is asked for", async () => {
  const { context, page, call } = await openClient(browser, server.url);
  assert.equal((await call(open)).error, undefined);
  const request = { people: [], prompt: "an astronaut", negative_prompt: "blurry", steps: 1, seed: 3 };
  const told = await callIn(page, fileOf, request);
  assert.match(told.value ?? "", /an astronaut.*blurry|blurry.*an astronaut/s);
  assert.match((await callIn(page, fileOf, { ...request, prompt_in_metadata: true })).value ?? "", /an astronaut/);
  const silent = await callIn(page, fileOf, { ...request, prompt_in_metadata: false });
  assert.doesNotMatch(silent.value ?? "", /astronaut|blurry/);
  assert.match(silent.value ?? "", /"seed":3/);
  assert.match(silent.value ?? "", /trainedAlgorithmicMedia/);
  await context.close();
});

test("the studio has a switch for that, which its pictures obey", async () => {
  const { context, page, errors } = await openStudio();
  await page.locator("#prompt").fill("an astronaut");
  await page.locator("#advanced summary").click();
  await page.locator("#steps").fill("1");
  await page.locator("#negative").fill("blurry");
  const make = async () => {
    const made = page.evaluate(
      () =>
        new Promise((resolve) =>
          document
            .querySelector("face-studio")
            ?.addEventListener(
              "facestudio-result",
              (event) => resolve(new TextDecoder("latin1").decode(/** @type {any} */ (event).detail[0].png)),
              { once: true },
            ),
        ),
    );
    await page.locator("#generate").click();
    return made;
  };
  assert.match(String(await make()), /astronaut/);
  await page.locator("#finished").waitFor();
  await page.locator("#words-in-file").uncheck();
  assert.doesNotMatch(String(await make()), /astronaut|blurry/);
  assert.deepEqual(errors, []);
  await context.close();
});

test("what is typed is the browser's to keep or to send nowhere", async () => {
  const { context, page } = await openStudio();
  const fields = await page.evaluate(() =>
    [
      ...(document
        .querySelector("face-studio")
        ?.shadowRoot?.querySelectorAll("textarea, input[type=text], input:not([type]), input[type=search], [contenteditable]") ?? []),
    ].map((field) => ({
      id: field.id,
      autocomplete: field.getAttribute("autocomplete"),
      spellcheck: field.getAttribute("spellcheck"),
      autocorrect: field.getAttribute("autocorrect"),
      suggestions: field.getAttribute("writingsuggestions"),
    })),
  );
  assert.deepEqual(fields.map(({ id }) => id).sort(), ["negative", "prompt"]);
  for (const { id, ...attributes } of fields) {
    assert.deepEqual(attributes, { autocomplete: "off", spellcheck: "false", autocorrect: "off", suggestions: "false" }, id);
  }
  await context.close();
});

test("the consent dialog and the history say what of a photo is kept, and what a file tells", async () => {
  const said = /** @type {[string, RegExp[], RegExp[]][]} */ ([
    [
      "en",
      [/memory until you close it|its memory/, /holds its background.*photo too.*history/s, /your words.*“Write the words into the file”/s],
      [/drawn over a photo/],
    ],
    [
      "de",
      [/Arbeitsspeicher/, /Hintergrund festhält.*auch ein Foto.*Verlauf/s, /deine Worte.*„Worte in die Datei schreiben“/s],
      [/über ein Foto gemalt/],
    ],
  ]);
  for (const [lang, consent, history] of said) {
    const { context, page, errors } = await openStudio(lang);
    assert.equal(await page.locator("label[for=words-in-file]").textContent(), TABLES[lang]?.["advanced.words_in_file"]);
    const png = Buffer.from("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==", "base64");
    await page.locator("#people input[type=file]").setInputFiles({ name: "photo.png", mimeType: "image/png", buffer: png });
    const text = (await page.locator("dialog").textContent()) ?? "";
    consent.forEach((line) => assert.match(text, line));
    // The dialog names the switch as it is called.
    assert.ok(text.includes(TABLES[lang]?.["advanced.words_in_file"] ?? "?"));
    assert.ok(text.includes(TABLES[lang]?.["advanced.title"] ?? "?"));
    const device = (await page.locator("#device").textContent()) ?? "";
    history.forEach((line) => assert.match(device, line));
    assert.deepEqual(errors, []);
    await context.close();
  }
});
