/** The element's markup. */

const template = document.createElement("template");

template.innerHTML = `
<div class="studio" part="studio">
  <header part="header">
    <slot name="header">
      <h1>FaceStudio</h1>
      <p class="tagline">A face, a style, a few words: computed in this tab. No photo leaves it.</p>
    </slot>
    <p class="badge" id="engine" role="status" part="engine">starting…</p>
  </header>
  <div class="columns">
    <form novalidate part="controls">
      <fieldset id="face">
        <legend>Face</legend>
      </fieldset>
      <fieldset id="style">
        <legend>Style picture</legend>
      </fieldset>
      <div>
        <label class="label" for="prompt">Words</label>
        <textarea id="prompt" name="prompt" maxlength="500"
          placeholder="a watercolor portrait of a person in a green sweater, forest background"></textarea>
        <div class="examples" id="examples" role="group" aria-label="Examples"></div>
      </div>
      <div>
        <label class="label" for="alpha">What to follow</label>
        <input id="alpha" name="alpha" type="range" min="0" max="1" step="0.05" value="0.5">
        <div class="ends" aria-hidden="true"><span>words</span><span>style picture</span></div>
      </div>
      <details>
        <summary>More settings</summary>
        <div class="more">
          <div>
            <label class="label" for="seed">Seed</label>
            <div class="row">
              <input id="seed" name="seed" type="number" min="0" max="4294967295" step="1" inputmode="numeric">
              <button id="dice" type="button">Another</button>
            </div>
            <p class="hint">The same seed and settings give the same picture.</p>
          </div>
          <div>
            <label class="label" for="steps">Steps: <output id="steps-value" for="steps"></output></label>
            <input id="steps" name="steps" type="range" min="2" max="50" step="1" value="25">
          </div>
          <div>
            <label class="label" for="guidance">Guidance: <output id="guidance-value" for="guidance"></output></label>
            <input id="guidance" name="guidance" type="range" min="1" max="8" step="0.5" value="3">
          </div>
        </div>
      </details>
      <div class="actions">
        <button class="primary" id="generate" type="submit" part="generate">Generate</button>
        <button id="cancel" type="button" part="cancel" hidden>Cancel</button>
      </div>
    </form>
    <section class="stage" part="stage" aria-label="Result">
      <div class="frame" part="frame">
        <p id="empty">Your picture appears here.</p>
        <img id="picture" part="picture" alt="" hidden>
      </div>
      <div class="status" id="status" hidden>
        <progress id="bar" max="1" aria-label="Progress"></progress>
        <p id="doing" role="status"></p>
      </div>
      <div class="error" id="error" role="alert" part="error" hidden>
        <p id="error-message"></p>
        <p class="remedy" id="error-remedy"></p>
        <code id="error-code"></code>
      </div>
      <div class="finished" id="finished" hidden>
        <a id="download" download="facestudio.png" part="download">Download PNG</a>
        <span id="made"></span>
      </div>
    </section>
  </div>
  <footer part="footer">
    <slot name="footer">
      <p>Pictures are made by a model and carry their settings in the file. Use photos of people who agree.</p>
    </slot>
  </footer>
</div>
`;

/** A fresh copy of the markup. */
export function markup() {
  return /** @type {DocumentFragment} */ (template.content.cloneNode(true));
}

/**
 * The element with an id; a missing one is a mistake in the markup above.
 * @template {HTMLElement} T
 * @param {ParentNode} root
 * @param {string} id
 * @param {new () => T} type
 * @returns {T}
 */
export function byId(root, id, type) {
  const element = root.querySelector(`#${id}`);
  if (!(element instanceof type)) {
    throw new Error(`the markup has no ${type.name} #${id}`);
  }
  return element;
}
