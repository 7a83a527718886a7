/** How long a task still takes, from how fast it went so far. */

/** @import { Progress } from "./protocol.js" */

/** Seconds that must have passed before a guess is worth anything. */
const SETTLED = 0.7;

/** Watches one task. Times are in milliseconds. */
export class TimeLeft {
  /** How many the task makes. */
  pictures = 1;
  #phase = "";
  #began = 0;
  /** Steps that were done when the phase was first seen. */
  #first = 0;

  /**
   * Seconds left of the phase, undefined while that cannot be known. All pictures' steps count as one phase.
   * @param {Progress} progress
   * @param {number} [now]
   * @returns {number | undefined}
   */
  update({ phase, step, steps, picture = 0 }, now = performance.now()) {
    const between = phase === "decode" ? "denoise" : phase;
    const drawing = between === "denoise";
    const done = drawing && phase === "denoise" ? picture * steps + step : step;
    if (between !== this.#phase) {
      this.#phase = between;
      this.#began = now;
      this.#first = done;
      return undefined;
    }
    const seconds = (now - this.#began) / 1000;
    const gone = done - this.#first;
    if (phase === "decode" || seconds < SETTLED || gone <= 0) {
      return undefined;
    }
    const all = drawing ? steps * this.pictures : steps;
    return (seconds / gone) * Math.max(all - done, 0);
  }
}
