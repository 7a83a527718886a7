/** Other models than the page's own: made here from files that others have published. Loaded when it is needed. */

import { bytesStored, bytesToFetch, elsewhere, make, modelOf, recipes } from "../engine/models.js";
import { openDialog } from "./dialog.js";
import { rounded } from "./messages.js";

/** @import { Dtype, Recipe } from "../engine/recipes.js" */
/** @import { Builder } from "./builder.js" */
/** @import { Key } from "./messages.js" */

/**
 * @typedef {object} ModelChoiceOptions
 * @property {() => Promise<{ url: string, bytes: number }[]>} stored models that this browser holds
 * @property {(model: string) => Promise<unknown>} forget
 * @property {(model: string) => void} use
 * @property {string | undefined} endpoint
 */

/** How weights can be stored, the usual first. @type {Dtype[]} */
const DTYPES = ["q8", "q4", "f16"];

/** Families that take minutes a step without a graphics card. */
const HEAVY = ["sd15", "klein"];

const gigabytes = (/** @type {number} */ bytes) => rounded(bytes / 1e9, bytes < 1e9 ? 2 : 1);

/**
 * Shows the recipes; what is made goes on until the dialog is closed, and goes on there when it is opened again.
 * @param {Builder} builder
 * @param {ParentNode} root
 * @param {ModelChoiceOptions} options
 */
export async function chooseModel(builder, root, options) {
  const h = builder.h.bind(builder);
  const [all, stored] = [await recipes(), await options.stored()];
  const here = new Map(stored.map(({ url, bytes }) => [url, bytes]));
  /** @type {AbortController | null} */
  let making = null;
  const dtype = h(
    "select",
    { id: "model-dtype" },
    ...DTYPES.map((value) => h("option", { value, text: /** @type {Key} */ (`models.${value}`) })),
  );
  const token = h("input", { id: "model-token", type: "password", autocomplete: "off", spellcheck: false });
  const news = h("p", { id: "model-news", attributes: { role: "status" } });
  const bar = h("progress", { id: "model-progress", max: 1, value: 0, hidden: true, label: "models.progress" });
  const cancel = h("button", { type: "button", id: "model-cancel", hidden: true, text: "cancel", on: { click: () => making?.abort() } });
  const list = h("div", { class: "model-list" });
  const wanted = () => /** @type {Dtype} */ (dtype.value);

  const draw = () => list.replaceChildren(...all.map(card));
  /** @param {Recipe} recipe */
  const card = (recipe) => {
    const model = modelOf(recipe, wanted());
    const [bytes, missing] = [here.get(model), elsewhere(recipe)];
    const agreed = h("input", { type: "checkbox", id: `agree-${recipe.name}` });
    const fetch = h("button", {
      type: "button",
      class: "primary make",
      text: "models.make",
      disabled: true,
      on: { click: () => void start(recipe) },
    });
    agreed.addEventListener("change", () => {
      fetch.disabled = !agreed.checked || making !== null;
    });
    const licences = recipe.parts.map(({ what, license, license_url, research_only }) =>
      h(
        "li",
        {},
        `${what}: `,
        h("a", { href: license_url, target: "_blank", rel: "noreferrer", text: ["models.licence", { name: license }] }),
        research_only ? h("strong", { text: "models.research" }) : null,
      ),
    );
    const key = /** @type {Key} */ (`models.${recipe.name}`);
    // The page's own words begin with a name.
    const [title = "", says = ""] = builder.t(key) === key ? [recipe.name, recipe.says] : builder.t(key).split(/: (.*)/);
    return h(
      "section",
      { class: "model-card", attributes: { "data-recipe": recipe.name } },
      h("h3", {}, title),
      h("p", {}, says),
      h("p", {
        class: "hint",
        text: ["models.size", { fetched: gigabytes(bytesToFetch(recipe)), stored: gigabytes(bytesStored(bytesToFetch(recipe), wanted())) }],
      }),
      HEAVY.includes(recipe.family) && !("gpu" in navigator) ? h("p", { class: "hint warning", text: "models.no_gpu" }) : null,
      h("details", {}, h("summary", { text: "models.licences" }), h("ul", {}, ...licences)),
      bytes !== undefined && bytes > 0
        ? h(
            "div",
            { class: "dialog-actions" },
            h("button", { type: "button", class: "drop", text: "models.forget", on: { click: () => void drop(model) } }),
            h("button", { type: "button", class: "make", text: "models.resume", on: { click: () => void start(recipe) } }),
          )
        : null,
      missing.length > 0
        ? h("p", { class: "hint", text: ["models.elsewhere", { what: missing.map(({ what }) => what).join("; ") }] })
        : h(
            "div",
            { class: "model-agree" },
            h("label", { class: "check", htmlFor: agreed.id }, agreed, h("span", { text: "models.agree" })),
            fetch,
          ),
    );
  };

  /** @param {string} model */
  const drop = async (model) => {
    try {
      await options.forget(model);
      here.delete(model);
      draw();
    } catch (thrown) {
      fail(thrown);
    }
  };

  const fail = (/** @type {unknown} */ thrown) => {
    const { message, remedy = "" } = /** @type {{ message: string, remedy?: string }} */ (thrown);
    news.textContent = `${message}${remedy && `. ${remedy[0]?.toUpperCase()}${remedy.slice(1)}.`}`;
  };

  /** @param {Recipe} recipe */
  const start = async (recipe) => {
    const controller = new AbortController();
    making = controller;
    [bar.hidden, cancel.hidden, dtype.disabled] = [false, false, true];
    list.inert = true;
    try {
      const { model } = await make(recipe, {
        dtype: wanted(),
        ...(options.endpoint && { endpoint: options.endpoint }),
        token: token.value.trim() || null,
        signal: controller.signal,
        onProgress: (progress) => {
          if (progress.phase === "fetch") {
            bar.value = progress.done / progress.total;
            builder.say(news, { text: ["models.fetching", { done: gigabytes(progress.done), total: gigabytes(progress.total) }] });
          } else {
            builder.say(news, { text: ["models.converting", { n: progress.step + 1, count: progress.steps, tensors: progress.tensors }] });
          }
        },
      });
      close();
      options.use(model);
    } catch (thrown) {
      if (controller.signal.aborted) {
        builder.say(news, { text: "models.cancelled" });
      } else {
        fail(thrown);
      }
      here.set(modelOf(recipe, wanted()), 1);
    } finally {
      making = null;
      [bar.hidden, cancel.hidden, dtype.disabled] = [true, true, false];
      list.inert = false;
      draw();
    }
  };

  dtype.addEventListener("change", draw);
  draw();
  const close = openDialog(
    builder,
    root,
    { title: "models.title", className: "models", closed: () => making?.abort() },
    h("p", { class: "hint", text: "models.text" }),
    h("label", { class: "field", htmlFor: dtype.id }, h("span", { text: "models.dtype" }), dtype),
    h(
      "details",
      {},
      h("summary", { text: "models.token" }),
      h("label", { class: "field", htmlFor: token.id }, h("span", { text: "models.token_hint" }), token),
    ),
    news,
    h("div", { class: "row model-progress" }, bar, cancel),
    list,
  );
}
