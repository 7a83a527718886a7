// softmax(Q Kᵀ / √dim) V without a matrix of scores (online softmax; FlashAttention-2, arXiv 2307.08691, algorithm 1): a
// workgroup takes {{tile}} queries of a head over all keys, {{tile}} at a time. Scores of a tile are made in registers, 4×4
// each; then each invocation adds to {{rows}} × {{fours}} fours of the output. Contexts are attended to one after the other.
const TILE = {{tile}}u;
const FOURS = TILE / 4u;
const THREADS = {{threads}}u;
// Dimensions of a head, fours of them, and how many are in workgroup memory at a time.
const DIM = {{dim}}u;
const DIM_FOURS = DIM / 4u;
const DEPTH = 16u;
// Values in workgroup memory at a time.
const VALUES = 8u;
const ROWS = {{rows}}u;
// Invocations across a row of the output.
const ACROSS = {{across}}u;
const LOWEST = -3.0e38;

var<workgroup> query_tile: array<vec4<f32>, DEPTH * FOURS>;
var<workgroup> key_tile: array<vec4<f32>, DEPTH * FOURS>;
var<workgroup> value_tile: array<vec4<f32>, VALUES * DIM_FOURS>;
// A row is one longer than the tile, so that rows begin in different banks.
var<workgroup> scores: array<f32, TILE * (TILE + 1u)>;
var<workgroup> partial: array<f32, THREADS>;
var<workgroup> largest: array<f32, TILE>;
var<workgroup> total: array<f32, TILE>;
var<workgroup> shrink: array<f32, TILE>;
// What a context counts at each query, and the most of it.
var<workgroup> share: array<f32, TILE>;
var<workgroup> acts: f32;

fn query_steps(start: u32, token: u32, d: u32) -> vec4<f32> {
  if token >= sizes.queries || d >= DIM { return vec4<f32>(); }
  return vec4<f32>(query[(start + token * sizes.query_token + d) / 4u]);
}

fn key_steps(start: u32, token: u32, d: u32) -> vec4<f32> {
  if token >= sizes.keys || d >= DIM { return vec4<f32>(); }
  return vec4<f32>(key[(start + token * sizes.key_token + d) / 4u]);
}

@compute @workgroup_size({{threads}})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let image = (group.y + sizes.first_down) / sizes.heads;
  let head = (group.y + sizes.first_down) % sizes.heads;
  let first_query = (group.x + sizes.first_across) * TILE;
  let query_start = image * sizes.query_image + head * sizes.query_head;
  let first_context_key = image * sizes.key_image + head * sizes.key_head;
  let first_context_value = image * sizes.value_image + head * sizes.value_head;
  // Of the scores, of the softmax, and of the output.
  let score_row = thread / FOURS * 4u;
  let score_column = thread % FOURS;
  let line = thread / 2u;
  let half = thread % 2u * (TILE / 2u);
  let row = thread / ACROSS * ROWS;
  let column = thread % ACROSS;
{{outs}}
  for (var context = 0u; context < sizes.contexts; context++) {
{{acts}}
    let key_start = first_context_key + context * sizes.keys * sizes.key_token;
    let value_start = first_context_value + context * sizes.keys * sizes.value_token;
{{zeros}}
    if thread < TILE {
      largest[thread] = LOWEST;
      total[thread] = 0.0;
    }

    for (var first_key = 0u; first_key < sizes.keys; first_key += TILE) {
      var score_0 = vec4<f32>();
      var score_1 = vec4<f32>();
      var score_2 = vec4<f32>();
      var score_3 = vec4<f32>();
      for (var first_d = 0u; first_d < DIM; first_d += DEPTH) {
        {
          // Half of the invocations bring queries, half keys: a four of dimensions of four tokens each.
          let block = thread % (THREADS / 2u);
          let steps = block % (DEPTH / 4u) * 4u;
          let four = block / (DEPTH / 4u);
          let d = first_d + steps;
          if thread < THREADS / 2u {
            let token = first_query + four * 4u;
            let at_0 = query_steps(query_start, token, d);
            let at_1 = query_steps(query_start, token + 1u, d);
            let at_2 = query_steps(query_start, token + 2u, d);
            let at_3 = query_steps(query_start, token + 3u, d);
            query_tile[steps * FOURS + four] = vec4<f32>(at_0.x, at_1.x, at_2.x, at_3.x);
            query_tile[(steps + 1u) * FOURS + four] = vec4<f32>(at_0.y, at_1.y, at_2.y, at_3.y);
            query_tile[(steps + 2u) * FOURS + four] = vec4<f32>(at_0.z, at_1.z, at_2.z, at_3.z);
            query_tile[(steps + 3u) * FOURS + four] = vec4<f32>(at_0.w, at_1.w, at_2.w, at_3.w);
          } else {
            let token = first_key + four * 4u;
            let at_0 = key_steps(key_start, token, d);
            let at_1 = key_steps(key_start, token + 1u, d);
            let at_2 = key_steps(key_start, token + 2u, d);
            let at_3 = key_steps(key_start, token + 3u, d);
            key_tile[steps * FOURS + four] = vec4<f32>(at_0.x, at_1.x, at_2.x, at_3.x);
            key_tile[(steps + 1u) * FOURS + four] = vec4<f32>(at_0.y, at_1.y, at_2.y, at_3.y);
            key_tile[(steps + 2u) * FOURS + four] = vec4<f32>(at_0.z, at_1.z, at_2.z, at_3.z);
            key_tile[(steps + 3u) * FOURS + four] = vec4<f32>(at_0.w, at_1.w, at_2.w, at_3.w);
          }
        }
        workgroupBarrier();
        for (var d = 0u; d < DEPTH; d++) {
          let q = query_tile[d * FOURS + score_row / 4u];
          let k = key_tile[d * FOURS + score_column];
          score_0 += q.x * k;
          score_1 += q.y * k;
          score_2 += q.z * k;
          score_3 += q.w * k;
        }
        workgroupBarrier();
      }
      let exists = first_key + score_column * 4u + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(sizes.keys);
      let scale = {{scale}};
      let lowest = vec4<f32>(LOWEST);
      {
        let at = score_row * (TILE + 1u) + score_column * 4u;
        let s_0 = select(lowest, score_0 * scale, exists);
        let s_1 = select(lowest, score_1 * scale, exists);
        let s_2 = select(lowest, score_2 * scale, exists);
        let s_3 = select(lowest, score_3 * scale, exists);
        scores[at] = s_0.x; scores[at + 1u] = s_0.y; scores[at + 2u] = s_0.z; scores[at + 3u] = s_0.w;
        let at_1 = at + TILE + 1u;
        scores[at_1] = s_1.x; scores[at_1 + 1u] = s_1.y; scores[at_1 + 2u] = s_1.z; scores[at_1 + 3u] = s_1.w;
        let at_2 = at_1 + TILE + 1u;
        scores[at_2] = s_2.x; scores[at_2 + 1u] = s_2.y; scores[at_2 + 2u] = s_2.z; scores[at_2 + 3u] = s_2.w;
        let at_3 = at_2 + TILE + 1u;
        scores[at_3] = s_3.x; scores[at_3 + 1u] = s_3.y; scores[at_3 + 2u] = s_3.z; scores[at_3 + 3u] = s_3.w;
      }
      workgroupBarrier();

      // Two invocations a row.
      let start = line * (TILE + 1u) + half;
      var high = LOWEST;
      for (var j = 0u; j < TILE / 2u; j++) {
        high = max(high, scores[start + j]);
      }
      partial[thread] = high;
      workgroupBarrier();
      let before = largest[line];
      high = max(before, max(partial[line * 2u], partial[line * 2u + 1u]));
      var sum = 0.0;
      for (var j = 0u; j < TILE / 2u; j++) {
        let weight = exp(scores[start + j] - high);
        scores[start + j] = weight;
        sum += weight;
      }
      workgroupBarrier();
      partial[thread] = sum;
      workgroupBarrier();
      if half == 0u {
        let factor = exp(before - high);
        shrink[line] = factor;
        largest[line] = high;
        total[line] = total[line] * factor + partial[thread] + partial[thread + 1u];
      }
      workgroupBarrier();

{{shrink}}
      for (var first = 0u; first < TILE; first += VALUES) {
        for (var i = thread; i < VALUES * DIM_FOURS; i += THREADS) {
          let token = first_key + first + i / DIM_FOURS;
          var read = vec4<f32>();
          if token < sizes.keys {
            read = vec4<f32>(value[(value_start + token * sizes.value_token) / 4u + i % DIM_FOURS]);
          }
          value_tile[i] = read;
        }
        workgroupBarrier();
        for (var j = 0u; j < VALUES; j++) {
{{multiply}}
        }
        workgroupBarrier();
      }
    }
{{gather}}
    // The next context writes what this one has read.
    workgroupBarrier();
  }
{{finish}}
}
