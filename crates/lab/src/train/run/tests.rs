use super::*;
use burn::tensor::TensorData;
use facestudio::nn::{BatchNorm, Linear, LinearConfig};
use facestudio::weights::collect;

#[derive(Module, Debug)]
struct Net {
    a: Linear,
    norm: BatchNorm,
    b: Linear,
}

fn options(folder: &Path, lr: f64) -> Options {
    Options { warmup: 1, ..Options::new(folder, Defaults { batch: 16, lr }) }
}

fn net() -> Net {
    let device = Backend::Cpu.device().unwrap();
    let mut rng = Rng::new(9, 9);
    let mut net = Net {
        a: LinearConfig::new(3, 8).init(&device),
        norm: BatchNorm::new(8, 1e-5, &device),
        b: LinearConfig::new(8, 1).init(&device),
    };
    // Not burn's generator: tests that run side by side share its state.
    let mut weight = |rows: usize, columns: usize| {
        let data = TensorData::new(rng.normals(rows * columns), [rows, columns]);
        Tensor::<2>::from_data(data, &device).require_grad()
    };
    net.a.weight = burn::module::Param::from_tensor(weight(8, 3));
    net.b.weight = burn::module::Param::from_tensor(weight(1, 8));
    net.a.bias = None;
    net.b.bias = None;
    net
}

fn loss(net: &Net, step: &Step) -> Tensor<1> {
    let mut rng = step.rng();
    let device = net.a.weight.val().device();
    let x = Tensor::<2>::from_data(TensorData::new(rng.normals(48), [16, 3]), &device);
    let y = x.clone().sum_dim(1);
    (net.b.forward(net.norm.forward(net.a.forward(x))) - y).square().mean()
}

fn run(folder: &Path, resume: bool, stop_after: Option<u64>) -> Finished<Net> {
    let options = Options { steps: Some(4), warmup: 1, resume, seed: 3, ..options(folder, 0.05) };
    let stop = options.stop.clone();
    let objective = |net: &Net, step: &Step| {
        if Some(step.number + 1) == stop_after {
            stop.store(true, Ordering::Relaxed);
        }
        Ok(loss(net, step))
    };
    train(&options, net(), objective, |_, _| Ok(String::new()), &mut |_| ()).unwrap()
}

#[test]
fn a_resumed_run_is_the_run_that_never_stopped() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let straight = run(whole.path(), false, None);
    assert!(straight.completed);
    let first = run(parts.path(), false, Some(2));
    assert!(!first.completed);
    assert_eq!(first.steps, 2);
    let second = run(parts.path(), true, None);
    assert_eq!(second.steps, 4);
    let (a, b) = (collect(&straight.averaged, "").unwrap(), collect(&second.averaged, "").unwrap());
    assert_eq!(a.0, b.0);
    let halfway = collect(&first.averaged, "").unwrap();
    assert_ne!(a.0, halfway.0);
    let file = |folder: &Path| std::fs::read(folder.join("checkpoint/model.safetensors")).unwrap();
    assert_eq!(file(whole.path()), file(parts.path()));
}

/// A network whose random start is drawn, by whoever looks at it first, one number after the other.
fn drawn() -> Net {
    use std::sync::atomic::AtomicU64;

    let device = Backend::Cpu.device().unwrap();
    let next = Arc::new(AtomicU64::new(0));
    let weight = |rows: usize, columns: usize| {
        let next = next.clone();
        facestudio::internal::lazy([rows, columns], &device, move |shape, device| {
            let mut rng = Rng::new(7, next.fetch_add(1, Ordering::Relaxed));
            Tensor::from_data(TensorData::new(rng.normals(rows * columns), shape), device)
        })
    };
    let (a, b) = (weight(8, 3), weight(1, 8));
    let mut net = net();
    // Used in another order than that of their names.
    (net.a.weight, net.b.weight) = (a, b);
    net
}

#[test]
fn a_run_that_is_stopped_before_its_first_step_starts_like_one_that_goes_on() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let run = |folder: &Path, resume, stopped| {
        let options = Options { steps: Some(3), warmup: 1, resume, ..options(folder, 0.05) };
        options.stop.store(stopped, Ordering::Relaxed);
        // The last layer's weights are looked at first.
        let objective = |net: &Net, step: &Step| {
            let last = net.b.weight.val().square().mean();
            Ok(loss(net, step) + last * 1e-3)
        };
        train(&options, drawn(), objective, |_, _| Ok(String::new()), &mut |_| ()).unwrap()
    };
    let straight = run(whole.path(), false, false);
    assert_eq!(run(parts.path(), false, true).steps, 0);
    let resumed = run(parts.path(), true, false);
    assert_eq!(resumed.steps, 3);
    assert_eq!(collect(&straight.averaged, "").unwrap().0, collect(&resumed.averaged, "").unwrap().0);
}

#[test]
fn a_checkpoint_that_is_not_what_was_written_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(run(folder.path(), false, Some(2)).steps, 2);
    let again = || {
        let options = Options { steps: Some(4), warmup: 1, resume: true, ..options(folder.path(), 0.05) };
        let objective = |net: &Net, step: &Step| Ok(loss(net, step));
        train(&options, net(), objective, |_, _| Ok(String::new()), &mut |_| ()).err()
    };
    let checkpoint = folder.path().join("checkpoint");
    let names = ["model.safetensors", "optimizer.safetensors", "progress.json", "SHA256SUMS"];
    for name in names {
        let path = checkpoint.join(name);
        let good = std::fs::read(&path).unwrap();
        // A digit that becomes another one is a checkpoint all the same.
        let at = if name == "progress.json" {
            good.iter().position(|b| *b == b'2').unwrap()
        } else {
            good.len() - 3
        };
        let mut flipped = good.clone();
        flipped[at] ^= 1;
        std::fs::write(&path, &flipped).unwrap();
        let error = again().expect(name);
        assert_eq!((error.code, error.fault), ("checkpoint", facestudio::error::Fault::Weights), "{error}");
        assert!(error.message.contains(checkpoint.to_str().unwrap()), "{error}");
        assert!(error.remedy.contains("--resume"), "{error}");
        std::fs::write(&path, good).unwrap();
    }
    std::fs::rename(checkpoint.join("SHA256SUMS"), folder.path().join("aside")).unwrap();
    let error = again().unwrap();
    assert!(error.code == "checkpoint" && error.remedy.contains("sha256sum"), "{error}");
    std::fs::rename(folder.path().join("aside"), checkpoint.join("SHA256SUMS")).unwrap();
    assert!(again().is_none());
}

/// Two batches of a step against their samples in one batch. Without running statistics, which see each batch apart.
#[test]
fn gathered_batches_are_one_batch_of_all_their_samples() {
    let plain = |net: &Net, step: &Step| {
        let device = net.a.weight.val().device();
        let x = Tensor::<2>::from_data(TensorData::new(step.rng().normals(48), [16, 3]), &device);
        (net.b.forward(net.a.forward(x.clone())) - x.sum_dim(1)).square().mean()
    };
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let run = |folder: &Path, accumulate, objective: &dyn Fn(&Net, &Step) -> Tensor<1>| {
        let options = Options { steps: Some(3), warmup: 1, accumulate, ..options(folder, 0.05) };
        let mut losses = Vec::new();
        let done = train(
            &options,
            net(),
            |net, step| Ok(objective(net, step)),
            |_, _| Ok(String::new()),
            &mut |event| {
                if let Event::Step(report) = event {
                    losses.push((report.loss, report.grad_norm));
                }
            },
        );
        (collect(&done.unwrap().averaged, "").unwrap(), losses)
    };
    let (apart, apart_losses) = run(folders[0].path(), 2, &plain);
    let (whole, whole_losses) = run(folders[1].path(), 1, &|net, step| {
        let [first, second] = [0, 1].map(|batch| plain(net, &Step { batch, ..*step }));
        (first + second) / 2.0
    });
    let close = |a: f32, b: f32| (a - b).abs() <= 1e-5 * b.abs().max(1e-3);
    for (name, (_, values)) in &whole.0 {
        let theirs = &apart.0[name].1;
        assert!(values.iter().zip(theirs).all(|(a, b)| close(*a, *b)), "{name}: {values:?} {theirs:?}");
    }
    for ((loss, norm), (other_loss, other_norm)) in whole_losses.iter().zip(&apart_losses) {
        assert!(close(*loss, *other_loss) && close(*norm, *other_norm));
    }
    // The second batch is not the first one again.
    let step = Step { number: 0, progress: 0.0, batch: 0, seed: 0 };
    assert_ne!(step.rng().next_u64(), Step { batch: 1, ..step }.rng().next_u64());
}

#[test]
fn training_lowers_the_loss_and_moves_running_statistics() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { steps: Some(150), warmup: 5, ..options(folder.path(), 0.05) };
    let mut losses = Vec::new();
    let done =
        train(&options, net(), |net, step| Ok(loss(net, step)), |_, _| Ok(String::new()), &mut |event| {
            if let Event::Step(report) = event {
                losses.push(report.loss);
            }
        })
        .unwrap();
    assert!(losses[149] < 0.2 * losses[0], "{} → {}", losses[0], losses[149]);
    let variance = collect(&done.averaged, "").unwrap().0["norm.running_var"].1.clone();
    assert!(variance.iter().any(|v| (v - 1.0).abs() > 0.1), "{variance:?}");
}

#[test]
fn a_run_needs_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path(), 0.05);
    let result = train(&options, net(), |n, s| Ok(loss(n, s)), |_, _| Ok(String::new()), &mut |_| ());
    assert_eq!(result.err().map(|e| e.code), Some("no-end"));
}

#[test]
fn the_rate_warms_up_and_decays() {
    let options = Options { steps: Some(1000), warmup: 10, ..options(Path::new(""), 1.0) };
    let rate = |step| options.rate(step, options.progress(step, 0.0));
    assert!(rate(0) < 0.1 && rate(10) > 0.99);
    assert_eq!([rate(500), rate(699)], [1.0; 2]);
    assert!((rate(775) - 0.505).abs() < 1e-6, "half way down after a quarter of the cool-down");
    assert!(rate(999) < 0.012);
}

#[test]
fn the_rate_rises_stays_and_cools_down() {
    let options = Options { warmup: 9, ..options(Path::new(""), 2.0) };
    for (step, progress, expected) in [
        (0, 0.0, 0.2),
        (4, 0.0, 1.0),
        (9, 0.0, 2.0),
        (500, 0.7, 2.0),
        (500, 0.775, 1.01),
        (4, 0.775, 0.505),
        (500, 1.0, 0.02),
    ] {
        let rate = options.rate(step, progress);
        assert!((rate - expected).abs() < 1e-9, "step {step}, {progress}: {rate}");
    }
}

#[test]
fn a_run_is_done_by_its_steps_or_its_minutes() {
    let at = |steps, minutes, step, elapsed| {
        Options { steps, minutes, ..options(Path::new(""), 1.0) }.progress(step, elapsed)
    };
    assert_eq!(at(Some(200), None, 50, 1e9), 0.25);
    assert_eq!(at(None, Some(2.0), 1 << 40, 30.0), 0.25);
    assert_eq!(at(Some(200), Some(2.0), 50, 60.0), 0.5);
    assert_eq!(at(Some(200), Some(2.0), 150, 60.0), 0.75);
    assert_eq!(at(Some(200), Some(2.0), 150, 600.0), 1.0);
    assert_eq!(at(Some(0), None, 0, 0.0), 0.0);
}

/// A loss that is no number is passed over.
#[test]
fn the_loss_that_is_told_is_a_mean_at_first_and_a_moving_average_then() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { steps: Some(60), warmup: 4, ..options(folder.path(), 0.05) };
    let losses: Vec<f32> =
        (0..60).map(|i| if i == 2 { f32::INFINITY } else { ((i * 13) % 17) as f32 }).collect();
    let mut told = Vec::new();
    let objective = |net: &Net, step: &Step| Ok(loss(net, step) * 0.0 + losses[step.number as usize]);
    let mut watch = |event| {
        if let Event::Step(report) = event {
            told.push(report);
        }
    };
    train(&options, net(), objective, |_, _| Ok(String::new()), &mut watch).unwrap();
    let mut average = losses[0];
    for (report, loss) in told.iter().zip(&losses) {
        if loss.is_finite() {
            let keep = f32::min(0.98, (report.step - 1) as f32 / report.step as f32);
            average = keep * average + (1.0 - keep) * loss;
        }
        assert!((report.loss - average).abs() < 1e-4, "step {}: {}", report.step, report.loss);
        assert_eq!(report.progress, report.step as f64 / 60.0);
        let before = (report.step - 1) as f64 / 60.0;
        assert_eq!(report.lr, options.rate(report.step - 1, before));
        assert!(report.samples_per_second > 0.0 && report.seconds_left >= 0.0);
    }
    assert_eq!(told.len(), 60);
}

#[test]
fn the_curve_of_a_long_run_is_thinned_to_even_steps() {
    let mut state = Progress::default();
    for step in 1..=10_000 {
        state.step = step;
        record(&mut state, step as f32);
    }
    let expected: Vec<(u64, f32)> = (1..=1250).map(|i| (8 * i, (8 * i) as f32)).collect();
    assert_eq!(state.losses, expected);
}
