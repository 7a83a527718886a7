// Normalises groups that a workgroup holds in registers: they are read once.
@compute @workgroup_size({{threads}})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let row = group.y + group.z * sizes.row_layer;
  if row >= sizes.rows { return; }
  let start = row * sizes.length;
  var read: array<f32, {{each}}>;
  var sum = 0.0;
  for (var i = 0u; i < {{each}}u; i++) {
    let within = i * THREADS + thread;
    if within < sizes.length {
      read[i] = f32(x[start + within]);
      sum += read[i];
    }
  }
  let mean = total(thread, sum) / f32(sizes.length);
  sum = 0.0;
  for (var i = 0u; i < {{each}}u; i++) {
    if i * THREADS + thread < sizes.length {
      sum += (read[i] - mean) * (read[i] - mean);
    }
  }
  let scale = inverseSqrt(total(thread, sum) / f32(sizes.length) + {{eps}});
  let first_channel = row % sizes.groups * sizes.group_channels;
  for (var i = 0u; i < {{each}}u; i++) {
    let within = i * THREADS + thread;
    if within < sizes.length {
      let channel = first_channel + within / sizes.positions;
      let y = (read[i] - mean) * scale * f32(weight[channel]) + f32(bias[channel]);
      out[start + within] = Out({{activated}});
    }
  }
}
