// Normalises a chunk of a group by all chunks' statistics, which are put together as Chan, Golub and LeVeque do ("Algorithms
// for computing the sample variance", equation 1.5).
const THREADS = {{threads}}u;
const CHUNK = {{chunk}}u;

// Count, mean, and sum of squared differences.
var<workgroup> parts: array<vec3<f32>, THREADS>;

fn joined(a: vec3<f32>, b: vec3<f32>) -> vec3<f32> {
  let count = a.x + b.x;
  if count == 0.0 { return a; }
  let apart = b.y - a.y;
  let share = b.x / count;
  return vec3<f32>(count, a.y + apart * share, a.z + b.z + apart * apart * a.x * share);
}

@compute @workgroup_size({{threads}})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let row = group.y + group.z * sizes.row_layer;
  if row >= sizes.rows { return; }
  var part = vec3<f32>();
  for (var i = thread; i < sizes.chunks; i += THREADS) {
    let count = min(CHUNK, sizes.length - i * CHUNK);
    let at = (row * sizes.chunks + i) * 2u;
    part = joined(part, vec3<f32>(f32(count), statistics[at], statistics[at + 1u]));
  }
  parts[thread] = part;
  workgroupBarrier();
  for (var reach = THREADS / 2u; reach > 0u; reach /= 2u) {
    if thread < reach {
      parts[thread] = joined(parts[thread], parts[thread + reach]);
    }
    workgroupBarrier();
  }
  let mean = parts[0].y;
  let scale = inverseSqrt(parts[0].z / f32(sizes.length) + {{eps}});
  let first_channel = row % sizes.groups * sizes.group_channels;
  for (var i = 0u; i < {{each}}u; i++) {
    let within = group.x * CHUNK + i * THREADS + thread;
    if within < sizes.length {
      let channel = first_channel + within / sizes.positions;
      let at = row * sizes.length + within;
      let y = (f32(x[at]) - mean) * scale * f32(weight[channel]) + f32(bias[channel]);
      out[at] = Out({{activated}});
    }
  }
}
