use super::*;
use crate::train::data::{Meta, OwnedPicture, Person};

/// A person in the right half, with the face at (80, 40) to (112, 80).
fn picture() -> Pictures {
    let size = 128;
    let inside = |p: usize, x: std::ops::Range<usize>, y: std::ops::Range<usize>| {
        x.contains(&(p % size)) && y.contains(&(p / size))
    };
    let map = |x: std::ops::Range<usize>, y: std::ops::Range<usize>| {
        (0..size * size).map(|p| u8::from(inside(p, x.clone(), y.clone()))).collect::<Vec<u8>>()
    };
    let person = Person {
        face_box: [80.0, 40.0, 112.0, 80.0],
        landmarks: [[88.0, 52.0], [104.0, 52.0], [96.0, 60.0], [90.0, 70.0], [102.0, 70.0]],
    };
    let picture = OwnedPicture {
        rgb: vec![0; size * size * 3],
        people: map(72..124, 32..128),
        faces: map(84..108, 44..76),
        meta: Meta { people: vec![person], ..Meta::default() },
    };
    Pictures::of(size, &[picture])
}

/// The output that a perfect network would give.
fn perfect(targets: &Targets, device: &Device) -> DetectorOutput {
    let tensor = |values: Vec<f32>, channels, side| {
        Tensor::<4>::from_data(TensorData::new(values, [1, channels, side, side]), device)
    };
    let (side, mask_side) = targets.sides;
    let logit = |values: &[f32]| values.iter().map(|v| if *v >= 1.0 { 12.0 } else { -12.0 }).collect();
    // The inverse of the softplus.
    let boxes = targets.boxes.iter().map(|v| (v.max(1e-6)).exp_m1().ln()).collect();
    DetectorOutput {
        heatmap: tensor(logit(&targets.heatmap), 1, side),
        boxes: tensor(boxes, 4, side),
        landmarks: tensor(targets.landmarks.clone(), 2 * LANDMARKS, side),
        mask: tensor(logit(&targets.mask), 1, mask_side),
        offsets: tensor(targets.offsets.clone(), 2, mask_side),
    }
}

#[test]
fn what_the_loss_asks_for_decodes_to_the_truth_mirrored_or_not() {
    let (device, pictures) = (Device::flex(), picture());
    for mirrored in [false, true] {
        let truth = Face::new(&pictures.get(0), 0, mirrored);
        let targets = Targets::new(&pictures.get(0), mirrored);
        let output = perfect(&targets, &device);
        let loss: f32 = loss(output.clone(), &[targets], &device).into_scalar();
        assert!(loss < 1e-3, "{loss}");
        let data = pollster::block_on(output.into_host()).unwrap();
        let found = data.decode(0, &DecodeOptions::default());
        assert_eq!(found.len(), 1);
        assert!(iou(&found[0].face_box, &truth.face_box) > 0.99, "{:?}", found[0].face_box);
        for (a, b) in found[0].landmarks.iter().flatten().zip(truth.landmarks.iter().flatten()) {
            assert!((a - b).abs() < 1e-2);
        }
        if !mirrored {
            let mut score = Score::default();
            score.add(&pictures.get(0), &found);
            assert_eq!((score.faces, score.found, score.detections), (1, 1, 1));
            assert!(score.mask_overlap > 0.95, "{}", score.mask_overlap);
        }
    }
}

#[test]
fn a_wrong_box_costs() {
    let (device, pictures) = (Device::flex(), picture());
    let targets = Targets::new(&pictures.get(0), false);
    let mut output = perfect(&targets, &device);
    output.boxes = output.boxes + 1.0;
    let loss: f32 = loss(output, &[targets], &device).into_scalar();
    assert!(loss > 0.1, "{loss}");
}

/// Zhou et al. 2019, equation 1, and the other parts, written down once more in f64, on grids of 2×2 and 1×1 cells.
#[test]
fn the_loss_is_the_sum_of_its_parts() {
    let device = Device::flex();
    let wave = |phase: usize, n: usize| -> Vec<f32> {
        (0..n).map(|i| 2.0 * ((i * 7 + phase * 3) as f32).sin()).collect()
    };
    let share = |phase, n| wave(phase, n).iter().map(|v| 0.25 * v + 0.5).collect::<Vec<f32>>();
    let targets: Vec<Targets> = (0..2)
        .map(|i| Targets {
            sides: (2, 1),
            heatmap: vec![if i == 0 { 1.0 } else { 0.3 }, 0.5, 0.0, 0.2],
            face_weight: if i == 0 { vec![0.5, 0.0, 0.25, 0.0] } else { vec![0.0, 0.125, 0.0, 0.0] },
            boxes: share(1 + i, 16),
            landmarks: wave(3 + i, 40),
            mask: vec![[0.75, 0.1][i]],
            offset_weight: vec![1.0],
            offsets: wave(5 + i, 2),
        })
        .collect();
    let output = |channels: usize, side: usize, phase: usize| -> (Vec<f32>, Tensor<4>) {
        let values = wave(phase, 2 * channels * side * side);
        let shape = [2, channels, side, side];
        (values.clone(), Tensor::from_data(TensorData::new(values, shape), &device))
    };
    let (heat, heatmap) = output(1, 2, 10);
    let (box_values, boxes) = output(4, 2, 11);
    let (mark_values, landmarks) = output(2 * LANDMARKS, 2, 12);
    let (mask_values, mask) = output(1, 1, 13);
    let (vote_values, offsets) = output(2, 1, 14);
    let found = loss(DetectorOutput { heatmap, boxes, landmarks, mask, offsets }, &targets, &device);

    let sigmoid = |v: f32| 1.0 / (1.0 + f64::from(-v).exp());
    let all = |plane: fn(&Targets) -> &Vec<f32>| -> Vec<f64> {
        targets.iter().flat_map(plane).map(|v| f64::from(*v)).collect()
    };
    let focal = heat.iter().zip(all(|t| &t.heatmap)).map(|(v, y)| {
        let p = sigmoid(*v);
        if y == 1.0 { (1.0 - p).powi(2) * p.ln() } else { (1.0 - y).powi(4) * p * p * (1.0 - p).ln() }
    });
    // One cell is a face's centre.
    let focal = -focal.sum::<f64>();
    let weights = all(|t| &t.face_weight);
    // Three cells have a box, of four values, and landmarks, of ten.
    let over_cells = |values: &[f32], truth: Vec<f64>, channels: usize, seen: fn(f32) -> f64| -> f64 {
        let errors = values.iter().zip(truth).enumerate().map(|(i, (value, truth))| {
            let (sample, cell) = (i / (4 * channels), i % 4);
            (seen(*value) - truth).abs() * weights[4 * sample + cell]
        });
        errors.sum::<f64>() / 3.0 / channels as f64
    };
    let box_error = over_cells(&box_values, all(|t| &t.boxes), 4, |v| f64::from(v).exp().ln_1p());
    let mark_error = over_cells(&mark_values, all(|t| &t.landmarks), 2 * LANDMARKS, f64::from);
    let truth = all(|t| &t.mask);
    let said: Vec<f64> = mask_values.iter().map(|v| sigmoid(*v)).collect();
    let entropy = said.iter().zip(&truth).map(|(p, y)| -y * p.ln() - (1.0 - y) * (1.0 - p).ln());
    let entropy = entropy.sum::<f64>() / 2.0;
    let common: f64 = said.iter().zip(&truth).map(|(p, y)| p * y).sum();
    let dice = 1.0 - (2.0 * common + 1.0) / (said.iter().sum::<f64>() + truth.iter().sum::<f64>() + 1.0);
    let votes = vote_values.iter().zip(all(|t| &t.offsets)).map(|(a, b)| (f64::from(*a) - b).abs());
    let votes = votes.sum::<f64>() / 2.0;
    let expected = focal + 2.0 * box_error + 5.0 * mark_error + entropy + dice + 0.1 * votes;
    let found = f64::from(found.into_scalar::<f32>());
    assert!((found - expected).abs() < 1e-4 * expected, "{found}, not {expected}");
}

/// The face of [`picture`] is 32×40 pixels around (96, 60), 5 cells of 8 pixels.
#[test]
fn targets_are_a_heatmap_boxes_and_votes_in_cells() {
    let pictures = picture();
    let targets = Targets::new(&pictures.get(0), false);
    assert_eq!(targets.sides, (128 / FACE_STRIDE, 128 / MASK_STRIDE));
    let (side, stride) = (targets.sides.0, FACE_STRIDE as f32);
    let extent = 40.0 / stride;
    let sigma = f32::max(extent / 6.0, 0.5);
    let (column, row) = ((96.0 / stride).floor(), (60.0 / stride).floor());
    for p in 0..side * side {
        let (dx, dy) = ((p % side) as f32 - column, (p / side) as f32 - row);
        let near = (-(dx * dx + dy * dy) / (2.0 * sigma * sigma)).exp();
        assert!((targets.heatmap[p] - near).abs() < 1e-6);
        let weight = if near > 0.3 { 1.0 / extent } else { 0.0 };
        assert!((targets.face_weight[p] - weight).abs() < 1e-6, "{p}");
        let (x, y) = (((p % side) as f32 + 0.5) * stride, ((p / side) as f32 + 0.5) * stride);
        let edges = [x - 80.0, y - 40.0, 112.0 - x, 80.0 - y].map(|edge| (edge / stride).max(0.0));
        let learnt = f32::from(u8::from(weight > 0.0));
        for (c, edge) in edges.into_iter().enumerate() {
            assert!((targets.boxes[c * side * side + p] - learnt * edge).abs() < 1e-5);
        }
        let nose = [(96.0 - x) / stride, (60.0 - y) / stride];
        for (axis, place) in nose.into_iter().enumerate() {
            assert!((targets.landmarks[(4 + axis) * side * side + p] - learnt * place).abs() < 1e-5);
        }
    }
    // The person fills x of 72 to 124 and y of 32 to 128.
    let (side, stride) = (targets.sides.1, MASK_STRIDE);
    for p in 0..side * side {
        let inside = |from: usize, least: usize, most: usize| {
            (from..from + stride).filter(|v| (least..most).contains(v)).count()
        };
        let (left, top) = (p % side * stride, p / side * stride);
        let share = (inside(left, 72, 124) * inside(top, 32, 128)) as f32 / (stride * stride) as f32;
        assert!((targets.mask[p] - share).abs() < 1e-6, "{p}");
        assert_eq!(targets.offset_weight[p], f32::from(u8::from(share > 0.5)), "{p}");
        if share > 0.5 {
            let stride = stride as f32;
            let vote =
                [96.0 / stride - left as f32 / stride - 0.5, 60.0 / stride - top as f32 / stride - 0.5];
            for (axis, vote) in vote.into_iter().enumerate() {
                assert!((targets.offsets[axis * side * side + p] - vote).abs() < 1e-5);
            }
        }
    }
}

#[test]
fn scores_count_overlaps_distances_and_shares() {
    assert_eq!(iou(&[0.0, 0.0, 4.0, 2.0], &[2.0, 1.0, 6.0, 3.0]), 2.0 / 14.0);
    assert_eq!(iou(&[0.0, 0.0, 1.0, 1.0], &[2.0, 2.0, 3.0, 3.0]), 0.0);
    assert_eq!(iou(&[0.0; 4], &[0.0; 4]), 0.0);
    let pictures = picture();
    let picture = pictures.get(0);
    let side = 128 / MASK_STRIDE;
    // The lower half of the picture: of 52 · 96 pixels of the person it has 52 · 64.
    let mask: Vec<f32> = (0..side * side).map(|p| if p / side >= side / 2 { 0.9 } else { 0.1 }).collect();
    let expected = (52.0 * 64.0) / (128.0 * 64.0 + 52.0 * 32.0);
    assert!((mask_iou(&picture, 0, &mask) - expected).abs() < 1e-6);
    let landmarks = picture.meta.people[0].landmarks.map(|[x, y]| [x + 3.0, y - 4.0]);
    let detection = |face_box| Detection { score: 1.0, face_box, landmarks, mask: Some(mask.clone()) };
    let mut score = Score::default();
    // Half as high is half of it, and counts; the face is found once; elsewhere is nobody.
    let near = detection([80.0, 40.0, 112.0, 60.0]);
    score.add(&picture, &[near.clone(), near, detection([0.0, 0.0, 32.0, 40.0])]);
    assert_eq!((score.faces, score.found, score.detections), (1, 1, 3));
    assert!((score.landmark_error - 5.0).abs() < 1e-5 && (score.mask_overlap - expected).abs() < 1e-6);
    let mut score = Score::default();
    score.add(&picture, &[detection([80.0, 40.0, 112.0, 59.0])]);
    assert_eq!((score.faces, score.found), (1, 0));
}
