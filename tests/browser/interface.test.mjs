/** The interface's plain parts, which need no browser. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { SMALLEST, columns, moved, resized } from "../../web/face-studio/boxes.js";
import { GROUPS } from "../../web/face-studio/face-traits.js";
import { en as first } from "../../web/face-studio/messages.en.js";
import { later } from "../../web/face-studio/messages.later.en.js";
import { addPhoto, facesOf, fromPerson, newPerson, shares, toPerson } from "../../web/face-studio/person.js";
import { settingsFrom, settingsOf } from "../../web/face-studio/settings.js";
import { alphaStrip, mixStrip } from "../../web/face-studio/strips.js";
import { TimeLeft } from "../../web/engine/time-left.js";
import { ROOT } from "./harness.mjs";

/** @param {object} box */
const inside = ({ x, y, width, height }) => x >= 0 && y >= 0 && x + width <= 1 + 1e-9 && y + height <= 1 + 1e-9;

test("columns fill the picture without overlapping", () => {
  const boxes = columns(3);
  assert.equal(boxes.length, 3);
  assert.ok(Math.abs(boxes.reduce((sum, { width }) => sum + width, 0) - 1) < 1e-9);
  assert.ok(boxes.every((box, i) => i === 0 || Math.abs(box.x - (boxes[i - 1].x + boxes[i - 1].width)) < 1e-9));
});

test("a box stays inside the picture, whatever is done to it", () => {
  const box = { x: 0.3, y: 0.3, width: 0.3, height: 0.4 };
  assert.deepEqual(moved(box, 0.1, -0.1), { ...box, x: 0.4, y: 0.19999999999999998 });
  for (const [dx, dy] of [
    [5, 5],
    [-5, -5],
    [5, -5],
    [0.05, -0.3],
  ]) {
    const there = moved(box, dx, dy);
    assert.ok(inside(there));
    assert.deepEqual([there.width, there.height], [box.width, box.height]);
    for (const corner of ["nw", "ne", "sw", "se"]) {
      const grown = resized(box, corner, dx, dy);
      assert.ok(inside(grown), `${corner} ${dx} ${dy}`);
      assert.ok(grown.width >= SMALLEST - 1e-9 && grown.height >= SMALLEST - 1e-9);
    }
  }
  const pulled = resized(box, "nw", -0.1, 0.1);
  assert.ok(Math.abs(pulled.x + pulled.width - 0.6) < 1e-9, "the far corner stays");
});

test("shares of a mix are whole percent and sum to 100", () => {
  const mix = (/** @type {number[]} */ ...betas) => shares(betas.map((beta) => ({ photos: [], beta })));
  assert.deepEqual(mix(1, 1), [50, 50]);
  assert.deepEqual(
    mix(1, 1, 1).reduce((a, b) => a + b),
    100,
  );
  assert.deepEqual(mix(0.75, 0.25), [75, 25]);
  assert.deepEqual(mix(0, 0), [0, 0]);
});

test("real photos of a face add up, a drawn face takes their place", () => {
  const person = newPerson();
  assert.equal(toPerson(person), null);
  const photo = (/** @type {number} */ n, /** @type {boolean} */ real) => ({ bytes: new Uint8Array([n]), real });
  addPhoto(person, photo(1, false));
  addPhoto(person, photo(2, true));
  addPhoto(person, photo(3, true));
  assert.deepEqual(
    toPerson(person)?.identities[0].photos.map(([n]) => n),
    [2, 3],
  );
  addPhoto(person, photo(4, false));
  assert.deepEqual(
    toPerson(person)?.identities[0].photos.map(([n]) => n),
    [4],
  );
  const again = fromPerson({ identities: [{ photos: [new Uint8Array([5])], beta: 0.3 }] });
  assert.deepEqual(toPerson(again), { identities: [{ photos: [new Uint8Array([5])], beta: 0.3 }] });
  // Where the face is goes along.
  const image = new Uint8Array([6]);
  const landmarks = /** @type {[number, number][]} */ (Array.from({ length: 5 }, (_, i) => [i, i]));
  const found = { identities: [{ photos: [{ image, landmarks }], beta: 1 }] };
  assert.deepEqual(toPerson(fromPerson(found)), found);
  assert.deepEqual(
    facesOf([found, again, { identities: [] }].map((one) => ("active" in one ? toPerson(one) : one)).filter((one) => one !== null)),
    [image, new Uint8Array([5]), undefined],
  );
});

test("the time left follows the pace, over all pictures", () => {
  const clock = new TimeLeft();
  clock.pictures = 2;
  const at = (/** @type {number} */ step, /** @type {number} */ picture, /** @type {number} */ now) =>
    clock.update({ phase: "denoise", step, steps: 10, picture }, now);
  assert.equal(at(1, 0, 0), undefined);
  assert.equal(at(2, 0, 100), undefined, "too early to tell");
  assert.ok(Math.abs((at(6, 0, 5000) ?? 0) - 14) < 1e-9, "one step a second, fourteen of twenty left");
  assert.equal(clock.update({ phase: "decode", step: 1, steps: 1, picture: 0 }, 9500), undefined);
  assert.ok(Math.abs((at(6, 1, 15_000) ?? 0) - 4) < 1e-9, "decoding in between does not start the count anew");
});

test("strips walk from one end to the other and keep everything else", () => {
  const photo = (/** @type {number} */ n) => new Uint8Array([n]);
  const mixed = {
    identities: [
      { photos: [photo(1)], beta: 0.9 },
      { photos: [photo(2)], beta: 0.2 },
    ],
  };
  const request = { people: [{ identities: [{ photos: [photo(0)] }] }, mixed], prompt: "x", seed: 5, count: 3, alpha: 0.4 };
  assert.deepEqual(
    alphaStrip(request).map((stop) => stop.request.alpha),
    [0, 0.25, 0.5, 0.75, 1],
  );
  const stops = mixStrip(request);
  assert.deepEqual(
    stops.map((stop) => stop.request.people[1].identities.map(({ beta }) => beta)),
    [
      [1, 0],
      [0.75, 0.25],
      [0.5, 0.5],
      [0.25, 0.75],
      [0, 1],
    ],
  );
  assert.ok(stops.every((stop) => stop.request.seed === 5 && stop.request.count === 1 && stop.request.people[0] === request.people[0]));
  assert.deepEqual(mixStrip({ people: [] }), []);
});

test("what is kept of a picture is its recipe, with the words that its file leaves out", () => {
  const recipe = /** @type {import("../../web/engine/recipe.js").Recipe} */ ({
    format: 1,
    version: "0.1.0",
    model: { name: "mini", version: "1", sha256: "f".repeat(64) },
    precision: "f32",
    people: [{ identities: [{ photos: [{ sha256: "0".repeat(64) }], beta: 1 }] }],
    style: "1".repeat(64),
    alpha: 0.3,
    layout: "whole",
    background: { person: 0 },
    seed: 7,
    steps: 4,
    guidance_scale: 1,
    sampler: "lcm",
    width: 128,
    height: 96,
    watermark: true,
  });
  const request = { people: [{ identities: [{ photos: [new Uint8Array(9)] }] }], style: new Uint8Array(9), prompt: "x" };
  const settings = settingsOf(request, { png: new Uint8Array(9), recipe, seed: 7, width: 128, height: 96, notices: [] });
  assert.deepEqual(settings, { ...recipe, prompt: "x", negative_prompt: "" });
  // Kept, and read after a reload.
  const { alpha, seed, steps, guidance_scale, sampler, width, height, style } = recipe;
  const read = { prompt: "x", negative_prompt: "", alpha, seed, steps, guidance_scale, sampler, width, height, style };
  assert.deepEqual(settingsFrom(structuredClone(settings)), read);
  assert.equal(settingsFrom({ seed: 2n ** 60n }).seed, 2n ** 60n);
  // What a version before recipes kept, and what is none.
  const old = settingsFrom({ prompt: "x", alpha: 0.5, seed: 3, steps: 20, sampler: "euler", people: 1, styled: true });
  assert.deepEqual([old.prompt, old.alpha, old.seed, old.steps, old.sampler], ["x", 0.5, 3, 20, "euler"]);
  assert.equal(settingsFrom(null).steps, 25);
});

test("the face maker offers every trait of the renderer, and has words for every choice", () => {
  const snake = (/** @type {string} */ name) => name.replace(/(?<=[a-z])(?=[A-Z])/g, "_").toLowerCase();
  const read = (/** @type {string} */ path) => readFileSync(ROOT + path, "utf8");
  const identity = read("crates/synth/src/identity.rs");
  const names = /^traits! \{(.*?)^\}/ms.exec(identity)?.[1].matchAll(/^ {4}(\w+),$/gm) ?? [];
  const colours = ["hair_red", "hair_green", "hair_blue", "frame_red", "frame_green", "frame_blue"];
  const traits = [...names].map(([, name]) => name).filter((name) => !colours.includes(name));
  assert.ok(traits.length > 40);
  assert.deepEqual(Object.values(GROUPS).flat().sort(), traits.sort());
  const choices = (/** @type {string} */ text, /** @type {string} */ name) =>
    (new RegExp(`^ {4}${name} \\{(.*?)\\}`, "ms").exec(text)?.[1].match(/\w+/g) ?? []).map(snake);
  const scene = read("crates/synth/src/scene.rs");
  const offered = {
    hair: choices(identity, "HairStyle"),
    color: choices(identity, "HairColor"),
    beard: choices(identity, "Beard"),
    glasses: ["none", ...choices(identity, "Glasses")],
    style: choices(scene, "Style"),
    background: choices(scene, "Background"),
  };
  for (const [table, names] of Object.entries(offered)) {
    assert.ok(names.length > 4, table);
    assert.deepEqual(
      names.filter((name) => !(`${table}.${name}` in { ...first, ...later })),
      [],
      table,
    );
  }
});
