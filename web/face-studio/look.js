/** Language and colours: as the browser has them, or as somebody chose. The choice outlasts the visit. */

import { LANGUAGES } from "./messages.js";

/** @import { Builder, Said } from "./builder.js" */

const KEPT = "facestudio-look";

/** @typedef {{ lang?: string, theme?: string }} Look */

/** What was chosen at an earlier visit. @returns {Look} */
export function chosenLook() {
  try {
    return Object(JSON.parse(localStorage.getItem(KEPT) ?? "{}"));
  } catch {
    return {};
  }
}

/**
 * @param {Builder} builder
 * @param {(name: "lang" | "theme", value: string) => void} set
 */
export function lookPanel(builder, set) {
  const h = builder.h.bind(builder);
  const kept = chosenLook();
  const choice = (/** @type {"lang" | "theme"} */ name, /** @type {Said} */ text, /** @type {string[]} */ values) => {
    const select = h("select", { id: `look-${name}` }, ...values.map((value) => h("option", { value, text: said(value) })));
    select.value = kept[name] ?? values[0] ?? "";
    select.addEventListener("change", () => {
      set(name, select.value);
      try {
        localStorage.setItem(KEPT, JSON.stringify({ ...chosenLook(), [name]: select.value }));
      } catch {
        // It counts for this visit.
      }
    });
    return { select, label: h("label", { htmlFor: select.id, text }) };
  };
  const lang = choice("lang", "look.language", LANGUAGES);
  const theme = choice("theme", "look.theme", ["auto", "light", "dark"]);
  const node = h("div", { class: "look" }, lang.label, lang.select, theme.label, theme.select);
  return {
    node,
    /** Shows what counts now. @param {Look} look */
    tell: (look) => {
      lang.select.value = look.lang ?? lang.select.value;
      theme.select.value = look.theme ?? theme.select.value;
    },
  };
}

/** @param {string} value @returns {Said} */
function said(value) {
  return /** @type {Said} */ (`look.${value}`);
}
