// Mean and sum of squared differences from it of each chunk of {{chunk}} numbers: the chunk stays in registers between the
// two sums.
const CHUNK = {{chunk}}u;

@compute @workgroup_size({{threads}})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let row = group.y + group.z * sizes.row_layer;
  if row >= sizes.rows { return; }
  let start = row * sizes.length;
  let count = min(CHUNK, sizes.length - group.x * CHUNK);
  var read: array<f32, {{each}}>;
  var sum = 0.0;
  for (var i = 0u; i < {{each}}u; i++) {
    let at = i * THREADS + thread;
    if at < count {
      read[i] = f32(x[start + group.x * CHUNK + at]);
      sum += read[i];
    }
  }
  let mean = total(thread, sum) / f32(count);
  sum = 0.0;
  for (var i = 0u; i < {{each}}u; i++) {
    if i * THREADS + thread < count {
      sum += (read[i] - mean) * (read[i] - mean);
    }
  }
  let squares = total(thread, sum);
  if thread == 0u {
    let at = (row * sizes.chunks + group.x) * 2u;
    out[at] = mean;
    out[at + 1u] = squares;
  }
}
