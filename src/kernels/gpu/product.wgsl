// out[m, n] = Σ_k left[m, k] · right[k, n], with the bias and what is added. A workgroup makes a tile of it; each
// invocation holds {{rows}} × 4 rows and {{columns}} × 4 columns of the tile in registers. Tiles of both sides pass through
// workgroup memory, {{depth}} steps at a time, stored step by step.
const TILE_M = {{tile_m}}u;
const TILE_N = {{tile_n}}u;
const DEPTH = {{depth}}u;
const THREADS = {{threads}}u;
// Invocations across a tile, and fours of a row of it.
const ACROSS = {{across}}u;
const DOWN = {{down}}u;
const FOURS_M = TILE_M / 4u;
const FOURS_N = TILE_N / 4u;

var<workgroup> left_tile: array<vec4<f32>, DEPTH * FOURS_M>;
var<workgroup> right_tile: array<vec4<f32>, DEPTH * FOURS_N>;

{{left_loader}}

{{right_loader}}

{{store}}

@compute @workgroup_size({{threads}})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let first_m = (group.y + sizes.first_down) * TILE_M;
  let first_n = (group.x + sizes.first_across) * TILE_N;
  let row = thread / ACROSS;
  let column = thread % ACROSS;
{{zeros}}
{{place}}
  for (var first_k = 0u; first_k < sizes.depth; first_k += DEPTH) {
    for (var i = thread; i < FOURS_M * DEPTH / 4u; i += THREADS) {
{{load_left}}
    }
    for (var i = thread; i < FOURS_N * DEPTH / 4u; i += THREADS) {
{{load_right}}
    }
    workgroupBarrier();
    for (var k = 0u; k < DEPTH; k++) {
{{multiply}}
    }
    workgroupBarrier();
  }
{{finish}}
}
