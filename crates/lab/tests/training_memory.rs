//! What a training step of a UNet of Stable Diffusion 1.5's shape allocates, counted: with every segment's recording kept, with
//! segments computed again, and as it is estimated. Alone in its program, since the allocator counts for all threads.
#![allow(unsafe_code)] // an allocator

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use burn::tensor::{DType, Device, Tensor};
use facestudio::condition::{Condition, Places, Projection, Regions, Stream};
use facestudio::unet::UNet2DConditionConfig;
use facestudio_lab::train::memory::{Batch, Estimate};
use facestudio_lab::train::recompute;

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: the system's allocator does all of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

/// Bytes at the peak of `run`, over those before it.
fn peak(run: impl FnOnce()) -> f64 {
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    run();
    (PEAK.load(Ordering::Relaxed) - before) as f64
}

/// The estimate may be off by so much: it knows the large tensors, not the nodes of the graph, and takes it that a segment's
/// gradients are all there before what it kept goes.
const FACTOR: f64 = 1.4;

fn shape(width: usize) -> UNet2DConditionConfig {
    let channels = [width, 2 * width, 4 * width, 4 * width];
    let config = serde_json::json!({"block_out_channels": channels, "cross_attention_dim": 768});
    serde_json::from_value(config).unwrap()
}

/// Counts a step and compares it with its estimate; bytes without and with segments computed again.
fn measured(width: usize, batch: &Batch) -> [f64; 2] {
    let device = Device::flex().autodiff();
    let unet = shape(width).init(&device).unwrap();
    let Batch { samples, size: [height, width_of], tokens, people, dtype } = *batch;
    let sample = || Tensor::<4>::ones([samples, 4, height, width_of], &device).cast(dtype);
    let identity = || Tensor::<3>::ones([samples, tokens, 768], &device).cast(dtype);
    let condition = || match people {
        1 => Condition::single(identity()),
        _ => {
            let share = vec![1.0 / people as f32; height * width_of];
            let regions = Regions::new(height, width_of, vec![share; people], 0).unwrap();
            let tokens = (0..people).map(|_| identity()).collect();
            Condition::new(vec![
                Stream::new(Projection::Own, tokens, Some(Places::Regions(regions))).unwrap(),
            ])
        }
    };
    let timestep = || Tensor::<1>::full([samples], 500, &device);
    let loss = |predicted: Tensor<4>| predicted.cast(DType::F32).square().mean();
    let plain = || drop(loss(unet.forward(sample(), timestep(), &condition()).unwrap()).backward());
    let again = || {
        let done = recompute::backward(&unet, sample(), timestep(), &condition(), loss, &mut |_| Ok(()));
        drop(done.unwrap());
    };
    // Makes the weights, and whatever a first time allocates.
    again();
    let start = Instant::now();
    let step = peak(plain);
    let plain_time = start.elapsed();
    let step_again = peak(again);
    let times = (start.elapsed() - plain_time).as_secs_f64() / plain_time.as_secs_f64();
    let estimate = Estimate::new(&unet, batch);
    let expected = [estimate.step as f64, estimate.step_again as f64];
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    println!(
        "width {width}, {batch:?}: {:.1} MiB (estimated {:.1}), again {:.1} (estimated {:.1}), {times:.2} times as long",
        mib(step),
        mib(expected[0]),
        mib(step_again),
        mib(expected[1]),
    );
    for (counted, expected) in [step, step_again].into_iter().zip(expected) {
        assert!(expected / counted < FACTOR && counted / expected < FACTOR, "{counted} {expected}");
    }
    [step, step_again]
}

#[test]
fn segments_computed_again_take_a_fraction_and_both_are_estimated() {
    let batch = |samples, side, dtype| Batch { samples, size: [side; 2], tokens: 16, people: 1, dtype };
    // Where scores are most of it, where weights and features are, and in the precision of GPUs.
    let [plain, again] = measured(32, &batch(1, 32, DType::F32));
    assert!(again < 0.4 * plain, "{again} of {plain}");
    let [plain, again] = measured(64, &batch(4, 8, DType::F32));
    assert!(again < 0.6 * plain, "{again} of {plain}");
    measured(32, &batch(1, 24, DType::BF16));
    // Several people, each in a region.
    measured(32, &Batch { people: 3, ..batch(1, 24, DType::F32) });
    stable_diffusion_is_estimated_without_allocating_it();
}

/// In the same test: another one would run beside it and be counted as well.
fn stable_diffusion_is_estimated_without_allocating_it() {
    let unet = shape(320).init(&Device::flex().autodiff()).unwrap();
    let gib = f64::from(1 << 30);
    for samples in [1, 4, 16] {
        let batch = Batch { samples, size: [64; 2], tokens: 16, people: 3, dtype: DType::BF16 };
        let mut estimate = None;
        let allocated = peak(|| estimate = Some(Estimate::new(&unet, &batch)));
        assert!(allocated < 1e6, "{allocated} bytes");
        let estimate = estimate.unwrap();
        println!("{samples} at 512 pixels in bf16: {estimate}");
        assert!((estimate.weights as f64 / gib - 3.2).abs() < 0.05);
        assert!((estimate.optimizer as f64 / gib - 16.0).abs() < 0.1);
        assert!(estimate.step_again < estimate.step / 2);
    }
}
