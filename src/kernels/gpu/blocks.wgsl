// Weights in blocks, in f32.

{{loader}}

@compute @workgroup_size({{threads}})
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let at = (id.x + id.y * sizes.layer) * 4u;
  if at >= sizes.rows * sizes.depth { return; }
  out[at / 4u] = Out(weight_steps(at / sizes.depth, at % sizes.depth));
}
