// Normalises rows, a workgroup each.
@compute @workgroup_size({{threads}})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let row = group.x + group.y * sizes.row_layer;
  if row >= sizes.rows { return; }
  let start = row * sizes.length;
  var sum = 0.0;
  for (var i = thread; i < sizes.length; i += THREADS) {
    sum += f32(x[start + i]);
  }
  let mean = total(thread, sum) / f32(sizes.length);
  sum = 0.0;
  for (var i = thread; i < sizes.length; i += THREADS) {
    let apart = f32(x[start + i]) - mean;
    sum += apart * apart;
  }
  let scale = inverseSqrt(total(thread, sum) / f32(sizes.length) + {{eps}});
  for (var i = thread; i < sizes.length; i += THREADS) {
    let y = (f32(x[start + i]) - mean) * scale;
    out[start + i] = Out(y * f32(weight[i]) + f32(bias[i]));
  }
}
