const THREADS = {{threads}}u;
// Invocations that share a sum, neighbours: a power of two.
const LANES = {{lanes}}u;

var<workgroup> sums: array<f32, THREADS>;

// The sum over the invocations that share it; all of a workgroup must call it.
fn total(thread: u32, own: f32) -> f32 {
  let lane = thread % LANES;
  workgroupBarrier();
  sums[thread] = own;
  workgroupBarrier();
  for (var reach = LANES / 2u; reach > 0u; reach /= 2u) {
    if lane < reach {
      sums[thread] += sums[thread + reach];
    }
    workgroupBarrier();
  }
  return sums[thread - lane];
}
