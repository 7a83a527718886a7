/** A face that was found is drawn from without being looked for again. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { open, openClient, request } from "./client.mjs";
import { openPage, setUp, waitForSamples } from "./harness.mjs";

const { server, browser } = await setUp();

/**
 * Puts two photos into the page: of two bright spots, which the tiny model's detector takes for faces, and of nobody.
 */
const preparePhotos = async () => {
  const photo = async (/** @type {[number, string][]} */ ...spots) => {
    const canvas = new OffscreenCanvas(96, 64);
    const drawn = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
    drawn.fillRect(0, 0, 96, 64);
    for (const [x, color] of spots) {
      drawn.fillStyle = color;
      drawn.beginPath();
      drawn.arc(x, 32, 10, 0, 7);
      drawn.fill();
    }
    return new Uint8Array(await (await canvas.convertToBlob()).arrayBuffer());
  };
  Object.assign(globalThis, { both: await photo([24, "#fff"], [72, "#ff8"]), nobody: await photo() });
};

test("faces come with landmarks that pictures and comparisons take back", async () => {
  const { context, page, call, errors } = await openClient(browser, server.url);
  await call(open);
  await page.evaluate(preparePhotos);
  const found = await call((client) => client.faces(/** @type {any} */ (globalThis).both));
  assert.equal(found.error, undefined);
  assert.equal(found.value.length, 2);
  for (const { box, landmarks } of found.value) {
    assert.equal(box.length, 4);
    assert.equal(landmarks.length, 5);
    assert.ok(landmarks.flat().every(Number.isFinite), JSON.stringify(landmarks));
    assert.ok(landmarks[0][0] < landmarks[1][0] && landmarks[1][1] < landmarks[3][1], "left eye, right eye; mouth below");
  }
  const made = await call(
    async (client, request) => {
      const { both, nobody, hash } = /** @type {any} */ (globalThis);
      const faces = await client.faces(both);
      const person = (/** @type {any} */ photo) => ({ identities: [{ photos: [photo] }] });
      const draw = async (/** @type {any} */ photo) => hash((await client.generate({ ...request, people: [person(photo)] }))[0].png);
      const known = faces.map(({ png, landmarks }) => ({ image: png, landmarks }));
      const code = (/** @type {Promise<any>} */ made) => made.catch((/** @type {any} */ error) => error.code);
      return {
        // Of a crop and of a photo that shows nobody: neither is searched.
        first: await draw(known[0]),
        again: await draw(known[0]),
        second: await draw(known[1]),
        nobody: await code(draw(nobody)),
        somebody: await draw({ image: nobody, landmarks: faces[0].landmarks }),
        alike: await client.similarity(both, person(known[1])),
      };
    },
    request({ steps: 1 }),
  );
  assert.equal(made.error, undefined);
  const { first, again, second, nobody, somebody, alike } = made.value;
  assert.equal(first, again);
  assert.notEqual(first, second, "each crop has its own face");
  assert.equal(nobody, "face-not-found");
  assert.ok(typeof somebody === "string" && somebody !== first);
  assert.ok(alike > 0.9 && alike <= 1.0001, `${alike}`);
  assert.deepEqual(errors, []);
  await context.close();
});

test("landmarks that do not fit their photo are refused by name", async () => {
  const { context, page, call } = await openClient(browser, server.url);
  await call(open);
  await page.evaluate(preparePhotos);
  const codes = await call(
    async (client, request) => {
      const { both: image } = /** @type {any} */ (globalThis);
      const [face] = await client.faces(image);
      const five = (/** @type {any} */ point) => [...face.landmarks.slice(0, 4), point];
      const wrong = {
        few: face.landmarks.slice(0, 4),
        many: [...face.landmarks, [1, 1]],
        none: [],
        "not finite": five([NaN, 3]),
        infinite: five([3, Infinity]),
        outside: five([500, 3]),
        before: five([3, -99]),
        "one place": Array(5).fill([30, 30]),
        text: "30,30",
        flat: [1, 2, 3, 4, 5],
        triples: five([1, 2, 3]),
      };
      const said = {};
      for (const [name, landmarks] of Object.entries(wrong)) {
        const people = [{ identities: [{ photos: [{ image, landmarks }] }] }];
        const codeOf = (/** @type {Promise<any>} */ asked) =>
          asked.then(
            () => "none",
            (/** @type {any} */ error) => `${error.fault} ${error.code}`,
          );
        const drawn = await codeOf(client.generate({ ...request, people }));
        const compared = await codeOf(client.similarity(image, people[0]));
        said[name] =
          drawn.replace("request-format", "format") === compared.replace("person-format", "format") ? drawn : `${drawn}, ${compared}`;
      }
      return said;
    },
    request({ steps: 1 }),
  );
  assert.equal(codes.error, undefined);
  assert.deepEqual(codes.value, {
    few: "input landmarks-count",
    many: "input landmarks-count",
    none: "input landmarks-count",
    "not finite": "input landmarks-range",
    infinite: "input landmarks-range",
    outside: "input landmarks-range",
    before: "input landmarks-range",
    "one place": "input landmarks-degenerate",
    text: "input request-format",
    flat: "input request-format",
    triples: "input landmarks-count",
  });
  await context.close();
});

test("a picture is decoded once, however often it is used", async () => {
  const { context, page } = await openClient(browser, server.url);
  const { first, later } = await page.evaluate(async () => {
    const { client } = /** @type {any} */ (globalThis);
    const canvas = new OffscreenCanvas(4000, 3000);
    const drawn = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext("2d"));
    const blend = drawn.createLinearGradient(0, 0, 4000, 3000);
    ["#123", "#fa4", "#4af"].forEach((color, i) => blend.addColorStop(i / 2, color));
    drawn.fillStyle = blend;
    drawn.fillRect(0, 0, 4000, 3000);
    const image = new Uint8Array(await (await canvas.convertToBlob({ type: "image/jpeg" })).arrayBuffer());
    // The worker and its module start first.
    await client.render({ seed: 1, style: "photo", size: 16 });
    const time = async () => {
      const begin = performance.now();
      await client.inspect(image.slice());
      return performance.now() - begin;
    };
    const first = await time();
    const later = [];
    for (let i = 0; i < 5; i += 1) {
      later.push(await time());
    }
    return { first, later: Math.min(...later) };
  });
  assert.ok(later < first / 4, `${first} ms, then ${later} ms`);
  await context.close();
});

test("a photo that is added in the page is searched once, and its crop not at all", async () => {
  const { context, page, errors } = await openPage(browser);
  await page.addInitScript(() => {
    const asked = /** @type {any} */ (globalThis.asked = []);
    const { postMessage } = Worker.prototype;
    Worker.prototype.postMessage = function (/** @type {any} */ message, /** @type {any} */ ...rest) {
      asked.push(message);
      return postMessage.call(this, message, ...rest);
    };
  });
  await page.goto(server.url);
  await waitForSamples(page);
  const photo = await page.evaluate(async () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [200, 200];
    const drawn = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    drawn.fillRect(0, 0, 200, 200);
    drawn.fillStyle = "#fff";
    drawn.arc(100, 100, 35, 0, 7);
    drawn.fill();
    return canvas.toDataURL("image/png").split(",")[1];
  });
  await page
    .getByLabel("Face photos", { exact: true })
    .setInputFiles({ name: "face.png", mimeType: "image/png", buffer: Buffer.from(photo ?? "", "base64") });
  await page.locator("#consent-yes").click();
  await page.waitForFunction(() => /** @type {any} */ (globalThis).asked.some((/** @type {any} */ { type }) => type === "faces"));
  await page.locator(".tile.face[aria-busy=true]").waitFor({ state: "detached" });
  await page.locator("#advanced summary").click();
  await page.locator("#steps").fill("1");
  await page.locator("#generate").click();
  await page.locator("#finished").waitFor();
  await page.locator("#likeness").waitFor();
  const asked = await page.evaluate(() =>
    /** @type {any} */ (globalThis).asked
      .filter((/** @type {any} */ { type }) => ["faces", "generate", "similarity"].includes(type))
      .map((/** @type {any} */ { type, request, person }) => [
        type,
        (request?.people[0] ?? person)?.identities[0].photos.map((/** @type {any} */ photo) => photo.landmarks?.length),
      ]),
  );
  assert.deepEqual(asked, [
    ["faces", undefined],
    ["generate", [5]],
    ["similarity", [5]],
  ]);
  // Its settings are used again with the same landmarks.
  await page.locator("#reuse").click();
  await page.locator("#generate").click();
  await page.waitForFunction(
    () => /** @type {any} */ (globalThis).asked.filter((/** @type {any} */ { type }) => type === "generate").length === 2,
  );
  const again = await page.evaluate(
    () =>
      /** @type {any} */ (globalThis).asked.findLast((/** @type {any} */ { type }) => type === "generate").request.people[0].identities[0]
        .photos[0].landmarks.length,
  );
  assert.equal(again, 5);
  assert.deepEqual(errors, []);
  await context.close();
});
