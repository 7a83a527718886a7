
const THREADS = {{threads}}u;

var<workgroup> sums: array<f32, THREADS>;

// The sum over a workgroup; all of its invocations must call it.
fn total(thread: u32, own: f32) -> f32 {
  workgroupBarrier();
  sums[thread] = own;
  workgroupBarrier();
  for (var reach = THREADS / 2u; reach > 0u; reach /= 2u) {
    if thread < reach {
      sums[thread] += sums[thread + reach];
    }
    workgroupBarrier();
  }
  return sums[0];
}
