/** Builds elements whose words come from the message tables, and can be said again in another language. */

import { lookUp } from "./messages.js";

/** @import { Key } from "./messages.js" */

/** @typedef {Record<string, string | number | (string | number)[]>} Values */

/** A message, with what fills its gaps. @typedef {Key | [Key, Values]} Said */

/** @typedef {"text" | "label" | "title" | "placeholder" | "alt"} Place */

/** @typedef {{ [place in Place]?: Said }} Sayings */

/**
 * @typedef {object} Extras
 * @property {string} [class]
 * @property {string} [part]
 * @property {Record<string, (event: any) => void>} [on] listeners by event
 * @property {Record<string, string>} [attributes] what is not a property of the element
 */

/** Which attribute carries a place's message; the text is the element's content. */
const ATTRIBUTES = { label: "aria-label", title: "title", placeholder: "placeholder", alt: "alt" };

/** Builds in one language at a time; every message is noted on its element in `data-say`. */
export class Builder {
  /** @param {string} lang */
  constructor(lang) {
    this.lang = lang;
  }

  /**
   * @param {Said} said
   * @returns {string}
   */
  t(said) {
    const [key, values] = typeof said === "string" ? [said, {}] : said;
    return lookUp(this.lang, key, values);
  }

  /**
   * An element with its messages, properties, listeners and children; `null` children are left out.
   *
   * @template {keyof HTMLElementTagNameMap} Tag
   * @param {Tag} tag
   * @param {Sayings & Extras & Omit<Partial<HTMLElementTagNameMap[Tag]>, Place | "part" | "attributes">} [options]
   * @param {(Node | string | null)[]} children
   * @returns {HTMLElementTagNameMap[Tag]}
   */
  h(tag, options, ...children) {
    const {
      text,
      label,
      title,
      placeholder,
      alt,
      class: className,
      part,
      on,
      attributes,
      ...properties
    } = /** @type {Sayings & Extras} */ (options ?? {});
    const node = document.createElement(tag);
    Object.assign(node, properties);
    if (className) {
      node.className = className;
    }
    if (part) {
      node.setAttribute("part", part);
    }
    for (const [name, value] of Object.entries(attributes ?? {})) {
      node.setAttribute(name, value);
    }
    for (const [event, listener] of Object.entries(on ?? {})) {
      node.addEventListener(event, listener);
    }
    this.say(node, { text, label, title, placeholder, alt });
    node.append(...children.filter((child) => child !== null));
    return node;
  }

  /**
   * Says messages in their places, and notes them for {@link Builder.retell}.
   * @param {HTMLElement} node
   * @param {Sayings} sayings
   */
  say(node, sayings) {
    const given = Object.entries(sayings).filter(([, said]) => said !== undefined);
    if (given.length > 0) {
      const noted = { ...JSON.parse(node.dataset.say ?? "{}"), ...Object.fromEntries(given) };
      node.dataset.say = JSON.stringify(noted);
      this.#speak(node, noted);
    }
  }

  /**
   * Says everything below `root` again in another language.
   * @param {ParentNode} root
   * @param {string} lang
   */
  retell(root, lang) {
    this.lang = lang;
    for (const node of root.querySelectorAll("[data-say]")) {
      if (node instanceof HTMLElement) {
        this.#speak(node, JSON.parse(node.dataset.say ?? "{}"));
      }
    }
  }

  /**
   * @param {HTMLElement} node
   * @param {Sayings} sayings
   */
  #speak(node, { text, ...rest }) {
    if (text) {
      node.textContent = this.t(text);
    }
    for (const [place, said] of Object.entries(rest)) {
      node.setAttribute(ATTRIBUTES[/** @type {keyof typeof ATTRIBUTES} */ (place)], this.t(said));
    }
  }
}
