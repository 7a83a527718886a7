// Root-mean-square normalisation over the channels of a position, an invocation each: neighbours read neighbours.
@compute @workgroup_size({{threads}})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let position = group.x * {{threads}}u + thread;
  if position >= sizes.positions { return; }
  let start = group.y * sizes.channels * sizes.positions + position;
  var squares = 0.0;
  for (var channel = 0u; channel < sizes.channels; channel++) {
    let read = f32(x[start + channel * sizes.positions]);
    squares += read * read;
  }
  let scale = inverseSqrt(squares / f32(sizes.channels) + {{eps}});
  for (var channel = 0u; channel < sizes.channels; channel++) {
    let at = start + channel * sizes.positions;
    out[at] = Out(f32(x[at]) * scale * f32(weight[channel]) + f32(bias[channel]));
  }
}
