/** The looks of the dialogs, which come with the first of them. */

const TEXT = `
dialog {
  width: min(560px, calc(100vw - 24px));
  max-height: calc(100dvh - 32px);
  padding: 20px;
  overflow: auto;
  border: 1px solid var(--line);
  border-radius: var(--radius);
  background: var(--card);
  color: var(--ink);
}
dialog[open] { display: grid; gap: 14px; align-content: start; }
dialog.narrow { width: min(440px, calc(100vw - 24px)); }
dialog.maker { width: min(800px, calc(100vw - 24px)); }
dialog.models { width: min(640px, calc(100vw - 24px)); }
.model-list { display: grid; gap: 10px; }
.model-card { display: grid; gap: 8px; padding: 12px; border: 1px solid var(--line); border-radius: 10px; }
.model-card h3 { margin: 0; }
.model-progress:not(:has(:not([hidden]))), #model-news:empty { display: none; }
.model-progress progress { flex: 1; }
.model-agree { display: flex; flex-wrap: wrap; align-items: center; justify-content: space-between; gap: 8px; }
dialog.view-large { width: fit-content; max-width: calc(100vw - 24px); }
.large-picture { display: block; min-width: min(70vmin, 512px); max-width: 100%; max-height: calc(100dvh - 130px); margin: 0 auto; object-fit: contain; border-radius: 8px; }
dialog::backdrop { background: rgb(12 11 10 / 0.55); }
dialog ul { display: grid; gap: 6px; margin: 0; padding-inline-start: 20px; }
dialog video { width: 100%; border-radius: 10px; background: var(--well); aspect-ratio: 4 / 3; object-fit: cover; }
.dialog-head { display: flex; align-items: center; justify-content: space-between; gap: 12px; }
.dialog-actions { display: flex; flex-wrap: wrap; justify-content: flex-end; gap: 8px; }

.maker-body { display: grid; gap: 16px; }
.maker-picture { display: grid; gap: 10px; justify-items: center; align-content: start; }
.portrait { width: 168px; height: 168px; border-radius: 12px; background: var(--well); object-fit: cover; }
.maker-side { display: grid; gap: 14px; align-content: start; min-width: 0; }
.maker-controls { display: grid; grid-template-columns: repeat(auto-fill, minmax(180px, 1fr)); gap: 8px 20px; align-content: start; }
.slider { display: grid; gap: 1px; align-content: start; font-size: 0.865rem; }
.slider input[type="color"] { width: 100%; height: 36px; padding: 2px; border: 1px solid var(--line); border-radius: 8px; background: var(--well); }
.swatches { display: flex; flex-wrap: wrap; gap: 7px; grid-column: 1 / -1; }
.swatch { width: 30px; min-height: 30px; padding: 0; border-radius: 50%; border: 2px solid var(--line); }
.swatch[aria-pressed="true"] { outline: 2.5px solid var(--accent); outline-offset: 2px; }

@container (min-width: 700px) {
  .maker-body { grid-template-columns: 256px minmax(0, 1fr); }
  .portrait { width: 256px; height: 256px; }
  .maker-controls { min-height: 290px; }
}
`;

/** @type {CSSStyleSheet | undefined} */
let sheet;

/** Gives a root these looks, once. @param {ParentNode} root */
export function dressDialogs(root) {
  if (!sheet) {
    sheet = new CSSStyleSheet();
    sheet.replaceSync(TEXT);
  }
  if (root instanceof ShadowRoot && !root.adoptedStyleSheets.includes(sheet)) {
    root.adoptedStyleSheets.push(sheet);
  }
}
