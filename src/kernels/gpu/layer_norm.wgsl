// Normalises rows, several a workgroup where they are short.
@compute @workgroup_size({{threads}})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let row = (group.x + group.y * sizes.group_layer) * (THREADS / LANES) + thread / LANES;
  // Sums are made together: a row beyond the last is one without numbers.
  let length = select(0u, sizes.length, row < sizes.rows);
  let start = row * sizes.length;
  let lane = thread % LANES;
  var sum = 0.0;
  for (var i = lane; i < length; i += LANES) {
    sum += f32(x[start + i]);
  }
  let mean = total(thread, sum) / f32(sizes.length);
  sum = 0.0;
  for (var i = lane; i < length; i += LANES) {
    let apart = f32(x[start + i]) - mean;
    sum += apart * apart;
  }
  let scale = inverseSqrt(total(thread, sum) / f32(sizes.length) + {{eps}});
  for (var i = lane; i < length; i += LANES) {
    let y = (f32(x[start + i]) - mean) * scale;
    out[start + i] = Out(y * f32(weight[i]) + f32(bias[i]));
  }
}
