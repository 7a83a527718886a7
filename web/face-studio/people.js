/** The people panel: who is in the picture, from photos, samples, the camera or the face maker. */

import { cross, drawing } from "./drawings.js";
import { keepFocus } from "./focus.js";
import { arriving, parts } from "./later.js";
import { decode, encode } from "./memory.js";
import { MAX_PEOPLE, addPhoto, newPerson, shares, toPerson } from "./person.js";
import { ADD } from "./picture-input.js";
import { acceptDrops } from "./drops.js";
import { readFile, show } from "./pictures.js";

/** @import { Face } from "../engine/protocol.js" */
/** @import { Builder } from "./builder.js" */
/** @import { IdentityChoice, PersonChoice, Photo } from "./person.js" */

/**
 * @typedef {object} PeopleOptions
 * @property {ParentNode} root where dialogs open
 * @property {(bytes: Uint8Array) => Promise<Face[]>} faces finds the faces of a photo; rejects if the bytes are none
 * @property {() => Promise<boolean>} allow whether real photos may be used
 * @property {() => void} make opens the face maker
 * @property {(error: unknown) => void} fail tells the user
 * @property {() => void} change after every change
 */

export class People {
  /** @type {PersonChoice[]} */
  people = [newPerson()];
  /** @type {HTMLElement} */
  node;
  #builder;
  #options;
  #tabs;
  #identities;
  #samples;
  #current = 0;
  /** Whether the model knows drawn people only. */
  #drawnOnly = false;
  /** Whether a photo is being looked at. */
  #looking = false;
  /** @type {Uint8Array[]} */
  #sampleFaces = [];

  /**
   * @param {Builder} builder
   * @param {PeopleOptions} options
   */
  constructor(builder, options) {
    this.#builder = builder;
    this.#options = options;
    const h = builder.h.bind(builder);
    this.#tabs = h("div", { class: "chips", label: "people.all", attributes: { role: "group" } });
    this.#identities = h("div", { class: "identities" });
    this.#samples = h("div", { class: "tiles", label: "people.samples", attributes: { role: "group" } });
    const file = h("input", { type: "file", accept: "image/*", multiple: true, class: "hidden-input", label: "people.photo" });
    file.addEventListener("change", () => {
      const files = [...(file.files ?? [])];
      // The same file may be chosen again after it changed.
      file.value = "";
      void this.addFiles(files);
    });
    const upload = h("label", { class: "button" }, file, drawing("M8 11V3M5 6l3-3 3 3M3 11v2h10v-2"), h("span", { text: "people.upload" }));
    const camera = h(
      "button",
      { type: "button", id: "camera", on: { click: () => void this.#photograph() } },
      drawing("M2 5h3l1-2h4l1 2h3v8H2zM8 6.5a2.5 2.5 0 1 0 .01 0"),
      h("span", { text: "people.camera" }),
    );
    const maker = h(
      "button",
      { type: "button", id: "make-face", on: { click: () => options.make() } },
      drawing("M8 2a6 6 0 1 0 .01 0M5.8 7v.5M10.2 7v.5M5.5 10q2.500 2 5 0"),
      h("span", { text: "people.maker" }),
    );
    this.node = h(
      "section",
      { class: "panel", id: "people", part: "people", attributes: { "aria-labelledby": "people-title" } },
      h("h2", { id: "people-title", text: "people.title" }),
      h("p", { class: "note", id: "drawn-only", hidden: true, text: "people.drawn_only" }),
      this.#tabs,
      this.#identities,
      this.#samples,
      h("div", { class: "row wrap" }, upload, "mediaDevices" in navigator ? camera : null, maker),
    );
    acceptDrops(this.node, (files) => void this.addFiles(files));
    this.#build();
  }

  /** The people that have a face, as a request wants them. */
  get value() {
    return this.people.map(toPerson).filter((person) => person !== null);
  }

  /** Every picture that is on offer or chosen. */
  get all() {
    return [
      ...this.#sampleFaces,
      ...this.people.flatMap(({ identities }) => identities.flatMap(({ photos }) => photos.map(({ bytes }) => bytes))),
    ];
  }

  /** What the tab may keep: samples by their places, drawn faces themselves, and no photo. */
  get state() {
    /** @param {Photo} photo @returns {(number | string)[]} */
    const noted = ({ bytes, real }) => {
      const sample = this.#sampleFaces.indexOf(/** @type {Uint8Array} */ (bytes));
      return sample >= 0 ? [sample] : real || bytes instanceof Blob ? [] : [encode(bytes)];
    };
    return this.people.map(({ active, identities }) => ({
      active,
      identities: identities.map(({ beta, photos }) => ({ beta, photos: photos.flatMap(noted) })),
    }));
  }

  set state(people) {
    const photo = (/** @type {string | number} */ noted) => {
      const bytes = typeof noted === "number" ? this.#sampleFaces[noted] : decode(noted);
      return bytes ? [{ bytes, real: false }] : [];
    };
    this.set(
      people.map(({ active, identities }) => ({
        active,
        identities: identities.map(({ beta, photos }) => ({ beta, photos: photos.flatMap(photo) })),
      })),
    );
  }

  /** @returns {PersonChoice | undefined} */
  get current() {
    return this.people[this.#current];
  }

  /** Says that the open model knows drawn people only. @param {boolean} drawn */
  tellDrawnOnly(drawn) {
    this.#drawnOnly = drawn;
    const note = this.node.querySelector("#drawn-only");
    if (note instanceof HTMLElement) {
      note.hidden = !drawn;
    }
  }

  /**
   * Adds a sample face; the first one is chosen where nothing is yet.
   * @param {Uint8Array} png
   */
  addSample(png) {
    this.#sampleFaces.push(png);
    const [first] = this.people;
    if (this.#sampleFaces.length === 1 && this.people.length === 1 && first && !toPerson(first)) {
      addPhoto(first, { bytes: png, real: false });
    }
    this.#changed();
  }

  /**
   * Gives the active identity a drawn face.
   * @param {Uint8Array} png
   */
  useDrawn(png) {
    this.#add({ bytes: png, real: false });
  }

  /**
   * Replaces everyone, as when settings are used again.
   * @param {PersonChoice[]} people
   */
  set(people) {
    this.people = people;
    this.#current = 0;
    this.#changed();
  }

  /**
   * Takes photos from files, the clipboard or a drop.
   * @param {File[]} files
   */
  async addFiles(files) {
    for (const file of files) {
      try {
        if (!(await this.#options.allow())) {
          return;
        }
        await this.#look(await readFile(file));
      } catch (error) {
        this.#options.fail(error);
      }
    }
  }

  async #photograph() {
    try {
      if (await this.#options.allow()) {
        const { takePhoto } = await arriving(parts.camera);
        const photo = await takePhoto(this.#builder, this.#options.root);
        if (photo) {
          await this.#look(photo);
        }
      }
    } catch (error) {
      this.#options.fail(error);
    }
  }

  /**
   * Finds the face in a real photo and keeps it alone.
   * @param {Uint8Array} bytes
   */
  async #look(bytes) {
    this.#looking = true;
    this.#build();
    try {
      const chosen = await this.#choose(bytes);
      if (chosen) {
        this.#add({ bytes: chosen.png, landmarks: chosen.landmarks, real: true });
      }
    } finally {
      this.#looking = false;
      this.#build();
    }
  }

  /**
   * The face that is meant in a photo, wherever it is: among those that are seen at once, in parts of it, or as somebody shows it.
   * @param {Uint8Array} bytes
   * @returns {Promise<Pick<Face, "png" | "landmarks"> | null | undefined>}
   */
  async #choose(bytes) {
    const { faces: find, root } = this.#options;
    let faces = await find(bytes);
    if (faces.length === 0) {
      const { searchParts, drawByHand } = await arriving(parts.faceSearch);
      faces = await searchParts(bytes, find);
      if (faces.length === 0) {
        return drawByHand(this.#builder, root, bytes, find, this.#drawnOnly ? "byhand.drawn" : "byhand.text");
      }
    }
    if (faces.length < 2) {
      return faces[0];
    }
    const { chooseFace } = await arriving(parts.faceChoice);
    return chooseFace(this.#builder, root, faces);
  }

  /** @param {Photo} photo */
  #add(photo) {
    if (this.people.length === 0) {
      this.people.push(newPerson());
      this.#current = 0;
    }
    if (this.current) {
      addPhoto(this.current, photo);
    }
    this.#changed();
  }

  #changed() {
    this.#build();
    this.#options.change();
  }

  #build() {
    keepFocus(this.node, () => {
      this.#buildTabs();
      this.#buildIdentities();
      this.#buildSamples();
    });
  }

  #buildTabs() {
    const h = this.#builder.h.bind(this.#builder);
    const tabs = this.people.map((_, i) => {
      const choose = () => {
        this.#current = i;
        this.#build();
      };
      const tab = h(
        "button",
        {
          type: "button",
          class: "chip",
          on: { click: choose },
          attributes: { "aria-pressed": String(i === this.#current), "data-key": `person-${i}` },
        },
        h("span", { class: `dot person-${i}` }),
        h("span", { text: ["people.person", { n: i + 1 }] }),
      );
      const remove = () => {
        this.people.splice(i, 1);
        this.#current = Math.max(0, Math.min(this.#current, this.people.length - 1));
        this.#changed();
      };
      return h(
        "span",
        { class: "chip-pair" },
        tab,
        h("button", { type: "button", class: "icon", label: ["people.remove", { n: i + 1 }], on: { click: remove } }, cross()),
      );
    });
    const add = () => {
      this.people.push(newPerson());
      this.#current = this.people.length - 1;
      this.#changed();
    };
    const more = h(
      "button",
      {
        type: "button",
        class: "chip",
        id: "add-person",
        disabled: this.people.length >= MAX_PEOPLE,
        on: { click: add },
        attributes: { "data-key": "add-person" },
      },
      drawing(ADD),
      h("span", { text: "people.add" }),
    );
    this.#tabs.replaceChildren(...tabs, more);
  }

  #buildIdentities() {
    const h = this.#builder.h.bind(this.#builder);
    const person = this.current;
    if (!person) {
      this.#identities.replaceChildren(h("p", { class: "hint", text: "people.nobody" }));
      return;
    }
    const mixed = person.identities.length > 1;
    const percent = shares(person.identities);
    const cards = person.identities.map((identity, i) => this.#identity(person, identity, i, mixed ? percent : null));
    const mix = () => {
      person.identities.push({ photos: [], beta: 1 });
      person.active = person.identities.length - 1;
      this.#changed();
    };
    const more = h(
      "button",
      { type: "button", class: "tile dashed", id: "mix", title: "people.mix_hint", on: { click: mix }, attributes: { "data-key": "mix" } },
      drawing(ADD),
      h("span", { text: "people.mix" }),
    );
    this.#identities.replaceChildren(...cards, more);
  }

  /**
   * @param {PersonChoice} person
   * @param {IdentityChoice} identity
   * @param {number} i
   * @param {number[] | null} percent of a mix
   */
  #identity(person, identity, i, percent) {
    const h = this.#builder.h.bind(this.#builder);
    const active = i === person.active;
    const choose = () => {
      person.active = i;
      this.#build();
    };
    const image = h("img", { hidden: identity.photos.length === 0, attributes: { alt: "" } });
    const last = identity.photos.at(-1);
    if (last) {
      show(image, last.bytes);
    }
    const waiting = this.#looking && active;
    const tile = h(
      "button",
      {
        type: "button",
        class: "tile face",
        label: waiting ? "people.looking" : [last ? "people.face" : "people.face_empty", { n: i + 1 }],
        on: { click: choose },
        attributes: { "aria-pressed": String(active), "data-key": `identity-${i}`, "aria-busy": String(waiting) },
      },
      image,
      waiting ? h("span", { class: "over-text", text: "people.looking" }) : last ? null : h("span", { text: "people.empty" }),
    );
    const removeIdentity = () => {
      person.identities.splice(i, 1);
      person.active = Math.max(0, Math.min(person.active, person.identities.length - 1));
      this.#changed();
    };
    const remove = percent
      ? h(
          "button",
          { type: "button", class: "icon over-tile", label: ["people.remove_face", { n: i + 1 }], on: { click: removeIdentity } },
          cross(),
        )
      : null;
    return h(
      "div",
      { class: "identity" },
      h("div", { class: "tile-holder" }, tile, remove),
      identity.photos.length > 1 ? this.#photos(identity) : null,
      percent ? this.#share(person, identity, i, percent[i] ?? 0) : null,
    );
  }

  /**
   * The photos of one face, each of which can be removed.
   * @param {IdentityChoice} identity
   */
  #photos(identity) {
    const h = this.#builder.h.bind(this.#builder);
    const thumbs = identity.photos.map((photo, i) => {
      const image = h("img", { attributes: { alt: "" } });
      show(image, photo.bytes);
      const remove = () => {
        identity.photos.splice(i, 1);
        this.#changed();
      };
      return h(
        "button",
        {
          type: "button",
          class: "thumb",
          label: ["people.remove_photo", { n: i + 1 }],
          on: { click: remove },
          attributes: { "data-key": `photo-${i}` },
        },
        image,
      );
    });
    return h("div", { class: "thumbs" }, ...thumbs);
  }

  /**
   * The slider of an identity's weight.
   * @param {PersonChoice} person
   * @param {IdentityChoice} identity
   * @param {number} i
   * @param {number} percent
   */
  #share(person, identity, i, percent) {
    const h = this.#builder.h.bind(this.#builder);
    const slider = h("input", {
      type: "range",
      class: "beta",
      min: "0",
      max: "1",
      step: "0.05",
      value: String(identity.beta),
      label: ["people.share", { n: i + 1 }],
      attributes: { "data-key": `beta-${i}`, "aria-valuetext": `${percent} %` },
    });
    slider.addEventListener("input", () => {
      identity.beta = slider.valueAsNumber;
      const percents = shares(person.identities);
      this.#identities.querySelectorAll(".share-text").forEach((text, at) => {
        text.textContent = `${percents[at]} %`;
      });
      slider.setAttribute("aria-valuetext", `${percents[i]} %`);
      this.#options.change();
    });
    return h("div", { class: "share" }, slider, h("span", { class: "share-text" }, `${percent} %`));
  }

  #buildSamples() {
    const h = this.#builder.h.bind(this.#builder);
    const person = this.current;
    const photos = person?.identities[person.active]?.photos ?? [];
    const tiles = this.#sampleFaces.map((png, i) => {
      const image = h("img", { attributes: { alt: "" } });
      show(image, png);
      const pressed = photos.length === 1 && photos[0]?.bytes === png;
      return h(
        "button",
        {
          type: "button",
          class: "tile",
          label: ["people.sample", { n: i + 1 }],
          on: { click: () => this.#add({ bytes: png, real: false }) },
          attributes: { "aria-pressed": String(pressed), "data-key": `sample-${i}` },
        },
        image,
      );
    });
    this.#samples.replaceChildren(...tiles);
  }
}
