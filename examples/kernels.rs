//! Times each kernel against burn's own operations on the same device, in turns, and prints a table:
//!
//! ```text
//! cargo run --release --example kernels -- [mini|sd15] [cpu|gpu] [RUNS]
//! ```
//!
//! `gpu` needs `--features gpu`. Shapes are those that the networks ask for: mini at 128×128 pixels, Stable Diffusion 1.5 at
//! 512×512, both halves of guidance in one batch. Operations are counted as multiplications and additions, and for what is
//! bound by memory the bytes that must be read and written once.

use std::time::Instant;

use burn::tensor::ops::{AttentionModuleOptions, ConvOptions};
use burn::tensor::{Device, Distribution, Tensor, activation, module};
use facestudio::nn::{
    Activation, Conv2d, Conv2dConfig, GroupNorm, LayerNorm, LinearConfig, attention, attention_by_regions,
    split_heads, upsample_nearest,
};
use facestudio::unet::GeGlu;

/// What the measure of a kernel is.
enum Work {
    /// Multiplications and additions.
    Operations(usize),
    /// f32 that are read and written.
    Values(usize),
}

struct Bench {
    device: Device,
    runs: usize,
}

impl Bench {
    fn random<const D: usize>(&self, shape: [usize; D]) -> Tensor<D> {
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), &self.device)
    }

    fn seconds(&self, run: &dyn Fn()) -> f64 {
        let start = Instant::now();
        run();
        self.sync();
        start.elapsed().as_secs_f64()
    }

    fn sync(&self) {
        if let Err(error) = self.device.sync() {
            panic!("the device failed: {error:?}");
        }
    }

    /// Both in turns after a warm-up, so that what else the machine does weighs on both.
    fn compare<const D: usize>(
        &self,
        name: &str,
        work: Work,
        ours: impl Fn() -> Tensor<D>,
        burns: impl Fn() -> Tensor<D>,
    ) {
        let off: f32 = (ours() - burns()).abs().max().into_scalar();
        let (mut ours_seconds, mut burns_seconds) = (Vec::new(), Vec::new());
        for _ in 0..self.runs {
            ours_seconds.push(self.seconds(&|| drop(ours())));
            burns_seconds.push(self.seconds(&|| drop(burns())));
        }
        let median = |times: &mut Vec<f64>| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        };
        let (ours, burns) = (median(&mut ours_seconds), median(&mut burns_seconds));
        let rate = match work {
            Work::Operations(count) => format!("{:.1} GFLOP/s", count as f64 / ours / 1e9),
            Work::Values(count) => format!("{:.1} GB/s", 4.0 * count as f64 / ours / 1e9),
        };
        println!(
            "| {name} | {:.3} | {:.3} | {:.2} | {rate} | {off:.0e} |",
            1e3 * ours,
            1e3 * burns,
            ours / burns
        );
    }

    fn conv2d(&self, [batch, from, to, side]: [usize; 4], kernel: usize, stride: usize, upsampled: bool) {
        let layer = Conv2dConfig::new(from, to, kernel).with_padding(kernel / 2).with_stride(stride);
        let layer: Conv2d = layer.init(&self.device);
        let x = self.random([batch, from, side, side]);
        let seen = if upsampled { 2 * side } else { side };
        let out = seen / stride;
        let name = match (upsampled, stride) {
            (true, _) => format!("conv {kernel}×{kernel} upsampled, {batch}×{from}→{to}, {side}²→{out}²"),
            (_, 1) => format!("conv {kernel}×{kernel}, {batch}×{from}→{to}, {side}²"),
            _ => format!("conv {kernel}×{kernel} stride {stride}, {batch}×{from}→{to}, {side}²"),
        };
        let work = Work::Operations(2 * batch * to * from * kernel * kernel * out * out);
        self.compare(
            &name,
            work,
            || {
                if upsampled {
                    layer.forward_upsampled(x.clone(), [seen, seen])
                } else {
                    layer.forward(x.clone())
                }
            },
            || {
                let x = if upsampled { upsample_nearest(x.clone(), 2) } else { x.clone() };
                let options = ConvOptions::new([stride; 2], [kernel / 2; 2], [1, 1], 1);
                module::conv2d(x, layer.weight.val(), layer.bias.as_ref().map(|b| b.val()), options)
            },
        );
    }

    fn linear(&self, [batch, tokens, from, to]: [usize; 4]) {
        let layer = LinearConfig::new(from, to).init(&self.device);
        let x = self.random([batch, tokens, from]);
        self.compare(
            &format!("linear, {batch}×{tokens}×{from}→{to}"),
            Work::Operations(2 * batch * tokens * from * to),
            || layer.forward(x.clone()),
            || {
                let bias = layer.bias.as_ref().map(|b| b.val());
                module::linear(x.clone(), layer.weight.val().transpose(), bias)
            },
        );
    }

    fn heads(&self, [batch, tokens, heads, dim]: [usize; 4]) -> Tensor<4> {
        split_heads(self.random([batch, tokens, heads * dim]), heads)
    }

    fn attention(&self, [batch, heads, queries, keys, dim]: [usize; 5]) {
        let q = self.heads([batch, queries, heads, dim]);
        let [k, v] = [(); 2].map(|()| self.heads([batch, keys, heads, dim]));
        self.compare(
            &format!("attention, {batch}×{heads} heads of {dim}, {queries} to {keys}"),
            Work::Operations(4 * batch * heads * queries * keys * dim),
            || attention(q.clone(), k.clone(), v.clone(), None),
            || burns_attention(q.clone(), k.clone(), v.clone()),
        );
    }

    /// Each person has an equal part of the picture, one below the other.
    fn regions(&self, [batch, heads, queries, keys, dim]: [usize; 5], people: usize) {
        let q = self.heads([batch, queries, heads, dim]);
        let [k, v] = [(); 2].map(|()| self.heads([batch, people * keys, heads, dim]));
        let weights: Vec<f32> = (0..people * queries)
            .map(|i| if i % queries * people / queries == i / queries { 1.0 } else { 0.0 })
            .collect();
        let weights =
            Tensor::<1>::from_floats(weights.as_slice(), &self.device).reshape([1, people, queries]);
        self.compare(
            &format!("attention by regions, {people} people, {batch}×{heads} heads of {dim}, {queries} to {keys} each"),
            Work::Operations(4 * batch * heads * queries * keys * dim),
            || attention_by_regions(q.clone(), k.clone(), v.clone(), weights.clone()),
            || {
                let of = |i: usize| {
                    let [k, v] = [&k, &v].map(|x| x.clone().narrow(2, i * keys, keys));
                    let weight = weights.clone().narrow(1, i, 1).reshape([1, 1, queries, 1]);
                    burns_attention(q.clone(), k, v) * weight
                };
                (1..people).fold(of(0), |sum, i| sum + of(i))
            },
        );
    }

    fn group_norm(&self, shape @ [batch, channels, height, width]: [usize; 4]) {
        let norm = GroupNorm::new(16, channels, 1e-5, &self.device);
        let x = self.random(shape);
        self.compare(
            &format!("group norm and SiLU, {batch}×{channels}, {height}²"),
            Work::Values(2 * batch * channels * height * width),
            || norm.activated(x.clone(), Activation::Silu),
            || {
                let groups = x.clone().reshape([batch, 16, channels / 16 * height * width]);
                let centred = groups.clone() - groups.mean_dim(2);
                let scale = (centred.clone().square().mean_dim(2) + 1e-5).sqrt();
                let [weight, bias] = [&norm.weight, &norm.bias].map(|p| p.val().reshape([1, channels, 1, 1]));
                activation::silu((centred / scale).reshape(shape) * weight + bias)
            },
        );
    }

    fn layer_norm(&self, shape @ [batch, tokens, channels]: [usize; 3]) {
        let norm = LayerNorm::new(channels, 1e-5, &self.device);
        let x = self.random(shape);
        self.compare(
            &format!("layer norm, {batch}×{tokens}×{channels}"),
            Work::Values(2 * batch * tokens * channels),
            || norm.forward(x.clone()),
            || module::layer_norm(x.clone(), norm.weight.val(), Some(norm.bias.val()), 1e-5),
        );
    }

    /// With its layer, as the feed-forward has it.
    fn geglu(&self, [batch, tokens, channels]: [usize; 3]) {
        let inner = 4 * channels;
        let gate = GeGlu { proj: LinearConfig::new(channels, 2 * inner).init(&self.device) };
        let x = self.random([batch, tokens, channels]);
        self.compare(
            &format!("linear and GeGLU, {batch}×{tokens}×{channels}→{inner}"),
            Work::Operations(2 * batch * tokens * channels * 2 * inner),
            || gate.forward(x.clone()),
            || {
                let bias = gate.proj.bias.as_ref().map(|b| b.val());
                let both = module::linear(x.clone(), gate.proj.weight.val().transpose(), bias);
                both.clone().narrow(2, 0, inner) * activation::gelu(both.narrow(2, inner, inner))
            },
        );
    }

    fn silu(&self, shape @ [batch, channels, height, width]: [usize; 4]) {
        let x = self.random(shape);
        self.compare(
            &format!("SiLU, {batch}×{channels}, {height}²"),
            Work::Values(2 * batch * channels * height * width),
            || Activation::Silu.forward(x.clone()),
            || activation::silu(x.clone()),
        );
    }
}

fn burns_attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Tensor<4> {
    module::attention(q, k, v, None, None, AttentionModuleOptions::default())
}

#[cfg(feature = "gpu")]
fn gpu() -> Result<Device, String> {
    Ok(Device::wgpu(burn::tensor::DeviceKind::DefaultDevice))
}

#[cfg(not(feature = "gpu"))]
fn gpu() -> Result<Device, String> {
    Err("this build has no GPU backend: add --features gpu".to_owned())
}

fn main() -> Result<(), String> {
    let mut arguments = std::env::args().skip(1);
    let sizes = arguments.next().unwrap_or_else(|| "mini".to_owned());
    let device = match arguments.next().as_deref() {
        None | Some("cpu") => Device::flex(),
        Some("gpu") => gpu()?,
        Some(other) => return Err(format!("there is no device '{other}': cpu or gpu")),
    };
    let runs = arguments.next().map_or(Ok(20), |n| n.parse::<usize>().map_err(|e| format!("RUNS: {e}")))?;
    let bench = Bench { device, runs: runs.max(1) };
    println!("| kernel | ours, ms | burn's, ms | ratio | ours | largest difference |");
    println!("|---|---|---|---|---|---|");
    match sizes.as_str() {
        "mini" => {
            bench.conv2d([2, 64, 64, 16], 3, 1, false);
            bench.conv2d([2, 192, 192, 4], 3, 1, false);
            bench.conv2d([2, 96, 96, 8], 3, 2, false);
            bench.conv2d([2, 96, 96, 8], 3, 1, true);
            bench.conv2d([2, 160, 64, 16], 1, 1, false);
            bench.linear([2, 256, 64, 64]);
            bench.linear([2, 16, 768, 192]);
            bench.attention([2, 2, 256, 256, 32]);
            bench.attention([2, 2, 256, 4, 32]);
            bench.regions([2, 2, 256, 4, 32], 2);
            bench.regions([2, 2, 256, 4, 32], 4);
            bench.group_norm([2, 64, 16, 16]);
            bench.layer_norm([2, 256, 64]);
            bench.geglu([2, 256, 64]);
            bench.silu([2, 64, 16, 16]);
        }
        "sd15" => {
            bench.conv2d([2, 320, 320, 64], 3, 1, false);
            bench.conv2d([2, 1280, 1280, 16], 3, 1, false);
            bench.conv2d([2, 320, 320, 64], 3, 2, false);
            bench.conv2d([2, 640, 640, 32], 3, 1, true);
            bench.conv2d([2, 960, 320, 64], 1, 1, false);
            bench.linear([2, 4096, 320, 320]);
            bench.linear([2, 1024, 2560, 640]);
            bench.attention([2, 8, 4096, 4096, 40]);
            bench.attention([2, 8, 4096, 77, 40]);
            bench.regions([2, 8, 4096, 16, 40], 2);
            bench.regions([2, 8, 4096, 16, 40], 4);
            bench.group_norm([2, 320, 64, 64]);
            bench.layer_norm([2, 4096, 320]);
            bench.geglu([2, 4096, 320]);
            bench.silu([2, 320, 64, 64]);
        }
        other => return Err(format!("there are no sizes '{other}': mini or sd15")),
    }
    Ok(())
}
