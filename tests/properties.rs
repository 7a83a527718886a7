//! What must hold for any weights and any input.

use burn::tensor::{DType, Device, Distribution, Tensor};
use facestudio::attention::{Attention, AttentionConfig, LevelCondition};
use facestudio::condition::{Condition, Places, Projection, Regions, Stream};
use facestudio::unet::{PerLevel, UNet2DConditionConfig, UNet2DConditionModel};

const BATCH: usize = 2;
const CHANNELS: usize = 12;
const TOKENS: usize = 4;
const TOKEN_CHANNELS: usize = 8;
/// Size of the level, and of the regions' grid: twice that, so that masks are averaged.
const SIZE: [usize; 2] = [6, 5];
const GRID: [usize; 2] = [12, 10];

fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
}

fn guidance(device: &Device) -> Tensor<3> {
    random([BATCH, TOKENS, TOKEN_CHANNELS], device)
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.try_into_vec_as().unwrap()
}

fn largest_difference<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> f32 {
    values((a - b).abs().max())[0]
}

/// A mask over columns `from..to` of the grid.
fn columns(from: usize, to: usize) -> Vec<f32> {
    (0..GRID[0] * GRID[1]).map(|p| if (from..to).contains(&(p % GRID[1])) { 1.0 } else { 0.0 }).collect()
}

fn regions(masks: &[Vec<f32>], background: usize) -> Regions {
    Regions::new(GRID[0], GRID[1], masks.to_vec(), background).unwrap()
}

/// Several identities' tokens, each in its region.
fn blended(tokens: Vec<Tensor<3>>, regions: Regions) -> Condition {
    let stream = Stream::new(Projection::Own, tokens, Some(Places::Regions(regions)));
    Condition::new(vec![stream.unwrap()])
}

/// A cross-attention layer and queries for it.
fn layer(device: &Device) -> (Attention, Tensor<3>) {
    device.seed(7);
    let attention = Attention::new(
        AttentionConfig {
            channels: CHANNELS,
            context_channels: TOKEN_CHANNELS,
            heads: 3,
            bias: false,
            upcast: false,
        },
        device,
    );
    (attention, random([BATCH, SIZE[0] * SIZE[1], CHANNELS], device))
}

fn attend(attention: &Attention, x: &Tensor<3>, condition: &Condition) -> Tensor<3> {
    let context = attention.context(&LevelCondition::new(condition, SIZE, x)).unwrap();
    attention.cross_attention(x.clone(), &context, x.zeros_like())
}

#[test]
fn an_identity_cannot_alter_anything_outside_its_mask() {
    let device = Device::flex();
    let (attention, x) = layer(&device);
    // Grid columns 5.. touch level columns 2..: a half-covered one belongs to both.
    let regions = regions(&[columns(0, 5), columns(5, 10), columns(2, 3)], 0);
    let (first, third) = (guidance(&device), guidance(&device));
    let with = |second| {
        let condition = blended(vec![first.clone(), second, third.clone()], regions.clone());
        values(attend(&attention, &x, &condition))
    };
    // Bit by bit, even against absurd guidance.
    let (a, b) = (with(guidance(&device)), with(guidance(&device) * 1e4));
    let mut changed = 0;
    for (i, (a, b)) in a.iter().zip(&b).enumerate() {
        let column = i / CHANNELS % SIZE[1];
        if column < 2 {
            assert_eq!(a.to_bits(), b.to_bits(), "column {column} changed");
        } else {
            changed += usize::from(a != b);
        }
    }
    assert!(changed > BATCH * SIZE[0] * 3 * CHANNELS / 2, "the identity must act inside its mask");
}

#[test]
fn one_identity_everywhere_is_plain_cross_attention() {
    let device = Device::flex();
    let (attention, x) = layer(&device);
    let (tokens, other) = (guidance(&device), guidance(&device));
    let plain = values(attend(&attention, &x, &Condition::single(tokens.clone())));

    let whole = blended(vec![tokens.clone()], regions(&[columns(0, 10)], 0));
    assert_eq!(values(attend(&attention, &x, &whole)), plain);
    // No mask of its own, but the background is all there is.
    let background = blended(vec![tokens.clone()], regions(&[columns(0, 0)], 0));
    assert_eq!(values(attend(&attention, &x, &background)), plain);
    let beside_an_empty_mask = blended(vec![other, tokens], regions(&[columns(0, 0), columns(0, 10)], 1));
    assert_eq!(values(attend(&attention, &x, &beside_an_empty_mask)), plain);
}

#[test]
fn one_guidance_in_many_regions_is_plain_cross_attention() {
    let device = Device::flex();
    let (attention, x) = layer(&device);
    let tokens = guidance(&device);
    let plain = attend(&attention, &x, &Condition::single(tokens.clone()));
    let masks = regions(&[columns(0, 5), columns(3, 8), columns(9, 10)], 2);
    let condition = blended(vec![tokens; 3], masks);
    assert!(largest_difference(attend(&attention, &x, &condition), plain) < 1e-5);
}

#[test]
fn the_order_of_identities_does_not_matter() {
    let device = Device::flex();
    let (attention, x) = layer(&device);
    let tokens: Vec<_> = (0..3).map(|_| guidance(&device)).collect();
    let masks = [columns(0, 5), columns(3, 8), columns(8, 9)];
    let blend = |order: [usize; 3], background| {
        let condition = blended(
            order.iter().map(|i| tokens[*i].clone()).collect(),
            regions(&order.map(|i| masks[i].clone()), background),
        );
        attend(&attention, &x, &condition)
    };
    let reference = blend([0, 1, 2], 2);
    for (order, background) in [([1, 2, 0], 1), ([2, 0, 1], 0), ([2, 1, 0], 0), ([0, 2, 1], 1)] {
        let difference = largest_difference(blend(order, background), reference.clone());
        assert!(difference < 1e-5, "{order:?}: {difference}");
    }
    let elsewhere = largest_difference(blend([0, 1, 2], 0), reference);
    assert!(elsewhere > 1e-3, "the background identity matters: {elsewhere}");
}

fn unet(device: &Device) -> UNet2DConditionModel {
    device.seed(11);
    let two = UNet2DConditionConfig::default();
    let config = UNet2DConditionConfig {
        down_block_types: two.down_block_types[2..].to_vec(),
        up_block_types: two.up_block_types[..2].to_vec(),
        block_out_channels: vec![8, 16],
        layers_per_block: PerLevel::All(1),
        norm_num_groups: 4,
        attention_head_dim: PerLevel::All(2),
        cross_attention_dim: TOKEN_CHANNELS,
        ..two
    };
    config.init(device).unwrap()
}

#[test]
fn empty_regions_and_tiny_latents_give_finite_predictions() {
    let device = Device::flex();
    let unet = unet(&device);
    let nobody = regions(&[columns(0, 0), columns(0, 0)], 1);
    let identities = vec![guidance(&device), Tensor::zeros([BATCH, TOKENS, TOKEN_CHANNELS], &device)];
    let condition = blended(identities, nobody);
    for [height, width] in [[6, 5], [1, 1], [1, 7]] {
        let sample = random([BATCH, 4, height, width], &device);
        let output = unet.forward(sample, Tensor::from_floats([999.0, 0.0], &device), &condition).unwrap();
        assert_eq!(output.dims(), [BATCH, 4, height, width]);
        assert!(values(output).iter().all(|v| v.is_finite()), "{height}×{width}");
    }
}

#[test]
fn the_pictures_of_a_batch_do_not_see_each_other() {
    let device = Device::flex();
    let unet = unet(&device);
    let sample = random([BATCH, 4, 6, 5], &device);
    let timestep = Tensor::<1>::from_floats([700.0, 3.5], &device);
    let identities = [guidance(&device), guidance(&device)];
    let forward = |range: std::ops::Range<usize>| {
        let (start, count) = (range.start, range.len());
        let tokens = identities.iter().map(|tokens| tokens.clone().narrow(0, start, count)).collect();
        let masks = regions(&[columns(0, 5), columns(4, 10)], 0);
        unet.forward(
            sample.clone().narrow(0, start, count),
            timestep.clone().narrow(0, start, count),
            &blended(tokens, masks),
        )
        .unwrap()
    };
    let together = forward(0..BATCH);
    let apart = Tensor::cat(vec![forward(0..1), forward(1..2)], 0);
    assert!(largest_difference(together, apart) < 1e-5);
}

#[test]
fn bf16_latents_give_nearly_the_f32_prediction() {
    let device = Device::flex();
    let unet = unet(&device);
    let sample = random([BATCH, 4, 6, 5], &device);
    let timestep = Tensor::<1>::from_floats([700.0, 3.5], &device);
    let masks = regions(&[columns(0, 5), columns(4, 10)], 0);
    let condition = blended(vec![guidance(&device), guidance(&device)], masks);
    let reference = unet.forward(sample.clone(), timestep.clone(), &condition).unwrap();
    let output = unet.forward(sample.cast(DType::BF16), timestep, &condition).unwrap();
    assert_eq!(output.dtype(), DType::BF16);
    let scale = values(reference.clone().abs().max())[0];
    let difference = largest_difference(output.cast(DType::F32), reference);
    // bf16 keeps 8 bits: 0.4 % at each of some twenty layers.
    assert!(difference > 0.0 && difference < 0.05 * scale, "{difference} of {scale}");
}

#[test]
fn every_parameter_gets_a_gradient_through_blended_attention() {
    use burn::module::{Module, ModuleVisitor, Param};
    use burn::tensor::Gradients;

    struct Visitor {
        gradients: Gradients,
        path: Vec<String>,
        dead: Vec<String>,
        seen: usize,
    }
    impl ModuleVisitor for Visitor {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.seen += 1;
            let gradient = param.val().grad(&self.gradients);
            let largest = gradient.map_or(0.0, |gradient| values(gradient.abs().max())[0]);
            if !(largest > 0.0 && largest.is_finite()) {
                self.dead.push(self.path.join("."));
            }
        }
    }

    let device = Device::flex().autodiff();
    let unet = unet(&device);
    let masks = regions(&[columns(0, 5), columns(4, 10)], 0);
    let condition = blended(vec![guidance(&device), guidance(&device)], masks);
    let sample = random([BATCH, 4, 7, 5], &device);
    let output = unet.forward(sample, Tensor::from_floats([700.0, 3.5], &device), &condition).unwrap();
    let gradients = output.square().mean().backward();
    let mut visitor = Visitor { gradients, path: Vec::new(), dead: Vec::new(), seen: 0 };
    unet.visit(&mut visitor);
    assert!(visitor.dead.is_empty(), "no gradient: {:?}", visitor.dead);
    assert!(visitor.seen > 100);
}
