/** Listens to the element: what a page does with a finished picture. */

const told = document.querySelector("#told");

document.addEventListener("facestudio-result", (event) => {
  const pictures = event.detail;
  told.textContent = `${pictures.length} picture, seed ${pictures[0].seed}`;
});
document.addEventListener("facestudio-error", (event) => {
  told.textContent = `${event.detail.code}: ${event.detail.remedy}`;
});
