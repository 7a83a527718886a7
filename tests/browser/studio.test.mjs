/** The interface in a real browser, as far as it goes without a model. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";

import { GROUPS } from "../../web/face-studio/face-traits.js";
import { ROOT, openPage, startBrowser, startServer, waitForSamples } from "./harness.mjs";

const AXE = readFileSync(`${ROOT}node_modules/axe-core/axe.min.js`, "utf8");

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

/** The page with its samples; the model never arrives. @param {object} [options] of the context */
async function openStudio(options) {
  const opened = await openPage(browser, options);
  await opened.page.route("**/models/**", () => {});
  await opened.page.goto(server.url);
  await waitForSamples(opened.page);
  return opened;
}

/** What axe finds wrong. @param {import("playwright-core").Page} page */
async function violations(page) {
  await page.evaluate(AXE);
  const found = await page.evaluate(async () => {
    const { violations } = await /** @type {any} */ (globalThis).axe.run(document, { resultTypes: ["violations"] });
    return violations.map((/** @type {any} */ v) => `${v.id}: ${v.nodes.map((/** @type {any} */ n) => n.target.join(" ")).join(", ")}`);
  });
  return found;
}

/** @param {import("playwright-core").Page} page */
const addSecondPerson = async (page) => {
  await page.locator("#add-person").click();
  await page.getByRole("button", { name: "Sample face 3, a made-up person" }).click();
};

/** @param {import("playwright-core").Page} page */
const portrait = (page) => page.locator("#maker-portrait").getAttribute("src");

describe("people", () => {
  test("a second person gets a box that the keyboard moves and resizes", async () => {
    const { context, page, errors } = await openStudio();
    await addSecondPerson(page);
    const box = page.locator(".box").nth(1);
    await box.waitFor();
    assert.match((await box.getAttribute("aria-label")) ?? "", /left 50 %, top 0 %, width 50 %, height 100 %/);
    await box.focus();
    await page.keyboard.press("Shift+ArrowUp");
    await page.keyboard.press("ArrowLeft");
    await page.keyboard.press("ArrowDown");
    assert.match((await box.getAttribute("aria-label")) ?? "", /left 48 %, top 2 %, width 50 %, height 98 %/);
    const area = await page.locator(".boxes").boundingBox();
    const before = await box.boundingBox();
    assert.ok(area && before);
    await page.mouse.move(before.x + before.width / 2, before.y + before.height / 2);
    await page.mouse.down();
    await page.mouse.move(before.x + before.width / 2 - area.width / 4, before.y + before.height / 2, { steps: 4 });
    await page.mouse.up();
    assert.match((await box.getAttribute("aria-label")) ?? "", /left 23 %/);
    await page.getByRole("button", { name: "Remove person 2" }).click();
    await page.locator("#layout .segment[data-mode=whole][aria-pressed=true]").waitFor({ state: "attached" });
    assert.deepEqual(errors, []);
    await context.close();
  });

  test("faces are mixed with sliders that say their shares", async () => {
    const { context, page } = await openStudio();
    assert.equal(await page.locator("#strip-mix").isDisabled(), true);
    await page.locator("#mix").click();
    await page.getByRole("button", { name: "Sample face 2, a made-up person" }).click();
    assert.deepEqual(await page.locator(".share-text").allTextContents(), ["50 %", "50 %"]);
    await page.locator(".beta").nth(1).fill("0.5");
    assert.deepEqual(await page.locator(".share-text").allTextContents(), ["67 %", "33 %"]);
    assert.equal(await page.locator("#strip-mix").isDisabled(), false);
    await page.getByRole("button", { name: "Remove face 1" }).click();
    assert.equal(await page.locator(".identity").count(), 1);
    await context.close();
  });

  test("a real photo waits for consent, which is asked once", async () => {
    const { context, page } = await openStudio();
    const give = () =>
      page.locator("#people input[type=file]").setInputFiles({ name: "a.png", mimeType: "image/png", buffer: Buffer.from("no picture") });
    await give();
    await page.getByRole("button", { name: "Not now" }).click();
    assert.equal(await page.locator("#error").isVisible(), false, "the photo was not even looked at");
    await give();
    await page.locator("#consent-yes").click();
    await page.locator("#error-code", { hasText: "image-format" }).waitFor();
    await page.getByRole("button", { name: "Close" }).click();
    await give();
    await page.locator("#error-code", { hasText: "image-format" }).waitFor();
    assert.equal(await page.locator("dialog").count(), 0);
    await context.close();
  });

  test("the camera takes a photo, and stops", async () => {
    const { context, page } = await openStudio();
    await page.locator("#camera").click();
    await page.locator("#consent-yes").click();
    await page.locator("#shutter:enabled").waitFor();
    const live = () =>
      page.locator("face-studio video").evaluate((video) => {
        const [track] = /** @type {MediaStream} */ (/** @type {HTMLVideoElement} */ (video).srcObject).getTracks();
        Object.assign(globalThis, { track });
        return track.readyState;
      });
    assert.equal(await live(), "live");
    await page.locator("#shutter").click();
    // Its face is looked for as soon as the model is there.
    await page.locator(".tile.face[aria-busy=true]").waitFor();
    assert.equal(await page.evaluate(() => /** @type {any} */ (globalThis).track.readyState), "ended");
    await context.close();
  });
});

describe("the face maker", () => {
  test("draws what dice and sliders say, and gives faces and style pictures", async () => {
    const { context, page, errors } = await openStudio();
    await page.locator("#make-face").click();
    const changed = async (/** @type {string | null} */ from) => {
      await page.waitForFunction((was) => {
        const image = document.querySelector("face-studio")?.shadowRoot?.querySelector("#maker-portrait");
        return image?.getAttribute("src") && image.getAttribute("src") !== was;
      }, from);
      return portrait(page);
    };
    let now = await changed(null);
    await page.locator("#maker-dice").click();
    now = await changed(now);
    await page.getByRole("button", { name: "Hair", exact: true }).click();
    assert.equal(await page.locator(".swatch").count(), 13);
    await page.locator(".swatch").nth(9).click();
    now = await changed(now);
    await page.getByRole("button", { name: "Pose and style" }).click();
    // A label that holds its list has the list's texts in its own, so it is found by place: the style stands first.
    await page.locator("label.slider select").first().selectOption("ink_sketch");
    now = await changed(now);
    await page.getByLabel("Turned").fill("40");
    await changed(now);
    await page.locator("#use-style").click();
    await page.locator('#style [data-key="style-own"][aria-pressed=true]').waitFor();
    const face = page.locator(".tile.face img");
    const before = await face.getAttribute("src");
    await page.locator("#make-face").click();
    await page.locator("#use-face").click();
    await page.waitForFunction(
      (was) => document.querySelector("face-studio")?.shadowRoot?.querySelector(".tile.face img")?.getAttribute("src") !== was,
      before,
    );
    assert.deepEqual(errors, []);
    await context.close();
  });

  test("knows the renderer's traits, and refuses what is no face", async () => {
    const { context, page } = await openStudio();
    const told = await page.evaluate(async () => {
      const { EngineClient } = await import(/** @type {string} */ (new URL("engine/client.js", document.baseURI).href));
      const client = new EngineClient();
      const face = await client.randomFace(5);
      const as = { face, style: "photo", background: "plain", yaw: 0, pitch: 0, roll: 0, smile: 0, seed: 5 };
      const draw = async (/** @type {object} */ portrait) => (await client.drawFace(portrait, 64)).join();
      const plain = await draw(as);
      const result = {
        names: Object.keys(face),
        again: (await draw(as)) === plain,
        nose: (await draw({ ...as, face: { ...face, nose_width: face.nose_width > 0.5 ? 0 : 1 } })) === plain,
        clamped: (await draw({ ...as, yaw: 1e9 })) === (await draw({ ...as, yaw: 60 })),
        error: await client.drawFace({ ...as, face: { ...face, hair_style: "horns" } }, 64).catch((/** @type {any} */ error) => error.code),
        size: await client.drawFace(as, 4096).catch((/** @type {any} */ error) => error.code),
      };
      client.close();
      return result;
    });
    for (const trait of Object.values(GROUPS).flat()) {
      assert.ok(told.names.includes(trait), trait);
    }
    assert.deepEqual([told.again, told.nose, told.clamped], [true, false, true]);
    assert.deepEqual([told.error, told.size], ["face-format", "size-range"]);
    await context.close();
  });
});

describe("layout", () => {
  test("an unpainted mask is named before anything is drawn, a painted one is not", async () => {
    const { context, page } = await openStudio();
    await addSecondPerson(page);
    await page.locator("#layout [data-mode=brush]").click();
    await page.locator(".brush").focus();
    await page.keyboard.press("ArrowLeft");
    await page.keyboard.press(" ");
    await page.locator("#generate").click();
    await page.locator("#error-code", { hasText: "region-missing" }).waitFor();
    assert.match((await page.locator("#error-message").textContent()) ?? "", /person 2/);
    await context.close();
  });
});

describe("the whole interface", () => {
  test("speaks German and English, and says nothing outside its tables", async () => {
    const { context, page } = await openStudio();
    await page.locator("face-studio").evaluate((element) => element.setAttribute("lang", "de-CH"));
    await page.locator("#generate", { hasText: "Bild erzeugen" }).waitFor();
    await page.locator("#make-face").click();
    await page.locator("dialog .slider").first().waitFor();
    const loose = await page.locator("face-studio").evaluate((element) => {
      const texts = document.createTreeWalker(/** @type {Node} */ (element.shadowRoot), NodeFilter.SHOW_TEXT);
      const found = [];
      for (let node = texts.nextNode(); node; node = texts.nextNode()) {
        const said = node.parentElement?.dataset.say ?? "";
        if (/[a-z]/i.test(node.textContent ?? "") && !said.includes('"text"')) {
          found.push(node.textContent);
        }
      }
      return found;
    });
    assert.deepEqual(loose, []);
    await page.keyboard.press("Escape");
    await page.locator("face-studio").evaluate((element) => element.removeAttribute("lang"));
    await page.locator("#generate", { hasText: "Generate" }).waitFor();
    await context.close();
  });

  test("follows its theme", async () => {
    const { context, page } = await openStudio({ colorScheme: "light" });
    const ground = () => page.locator("face-studio").evaluate((element) => getComputedStyle(element).backgroundColor);
    const light = await ground();
    await page.locator("face-studio").evaluate((element) => element.setAttribute("theme", "dark"));
    assert.notEqual(await ground(), light);
    await page.locator("face-studio").evaluate((element) => element.setAttribute("theme", "light"));
    assert.equal(await ground(), light);
    await context.close();
  });

  test("keeps pictures only while its history is switched on", async () => {
    const { context, page } = await openStudio();
    // In the package the interface is one file; here one part of it is asked alone.
    const path = `${ROOT}web/face-studio/history.js`;
    await page.route("**/face-studio/history.js", (route) => route.fulfill({ path, contentType: "text/javascript" }));
    const kept = await page.evaluate(async () => {
      const history = await import(/** @type {string} */ (new URL("face-studio/history.js", document.baseURI).href));
      const off = await history.keep(new Uint8Array([1]), { seed: 1 });
      await history.switchHistory(true);
      await history.keep(new Uint8Array([2]), { seed: 2 });
      const on = await history.readHistory();
      await history.switchHistory(false);
      return { off, on: on.map((/** @type {any} */ { png, settings }) => [...png, settings.seed]), after: await history.readHistory() };
    });
    assert.deepEqual(kept, { off: null, on: [[2, 2]], after: [] });
    await context.close();
  });

  for (const colorScheme of ["light", "dark"]) {
    for (const width of [390, 1280]) {
      test(`has nothing that axe finds, ${colorScheme} at ${width} pixels`, async () => {
        const { context, page } = await openStudio({ colorScheme, viewport: { width, height: 844 } });
        assert.deepEqual(await violations(page), []);
        await addSecondPerson(page);
        await page.locator("#mix").click();
        for (const panel of ["start", "advanced", "device"]) {
          await page.locator(`#${panel} summary`).click();
        }
        for (const mode of ["boxes", "brush", "content"]) {
          await page.locator(`#layout [data-mode=${mode}]`).click();
          assert.deepEqual(await violations(page), [], mode);
        }
        await page.locator("#generate").click();
        await page.locator("#error").waitFor();
        assert.deepEqual(await violations(page), [], "error");
        await page.locator("#make-face").click();
        await page.locator("dialog .slider").first().waitFor();
        assert.deepEqual(await violations(page), [], "face maker");
        await page.keyboard.press("Escape");
        await page.locator("#camera").click();
        await page.locator("#consent-yes").waitFor();
        assert.deepEqual(await violations(page), [], "consent");
        await context.close();
      });
    }
  }

  test("does not jump while it starts", async () => {
    const { context, page } = await openPage(browser);
    await page.route("**/models/**", () => {});
    await page.goto(server.url);
    await waitForSamples(page);
    const shift = await page.evaluate(
      () =>
        new Promise((resolve) => {
          let sum = 0;
          new PerformanceObserver((list) => {
            sum += list.getEntries().reduce((all, entry) => all + /** @type {any} */ (entry).value, 0);
          }).observe({ type: "layout-shift", buffered: true });
          setTimeout(() => resolve(sum), 300);
        }),
    );
    assert.ok(Number(shift) < 0.02, `layout shift ${shift}`);
    await context.close();
  });
});
