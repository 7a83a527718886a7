// One function of every number, or of every pair `[value, gate]` of rows of twice the width.

// erf by Abramowitz and Stegun's formula 7.1.26, whose error is at most 1.5·10⁻⁷.
fn erf(x: f32) -> f32 {
  let t = 1.0 / (1.0 + 0.3275911 * abs(x));
  let series = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
  return sign(x) * (1.0 - series * exp(-x * x));
}

fn silu(x: f32) -> f32 { return x / (1.0 + exp(-x)); }

fn gelu(x: f32) -> f32 { return 0.5 * x * (1.0 + erf(x * 0.70710678)); }

fn quick_gelu(x: f32) -> f32 { return x / (1.0 + exp(-1.702 * x)); }

@compute @workgroup_size({{threads}})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let at = id.x + id.y * sizes.layer;
  if at >= sizes.count { return; }
  out[at] = Out({{value}});
}
