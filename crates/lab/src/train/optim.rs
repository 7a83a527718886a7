//! AdamW with gradient clipping and an exponential moving average of the weights.
//!
//! The state lives on the host, one fused pass over each parameter: on two cores an update of a few million weights
//! costs a fraction of the dozen whole-tensor operations of a device-side update, and a checkpoint is these vectors.

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::tensor::{Gradients, Tensor, TensorData};
use rayon::prelude::*;

use crate::read_back::read_back;
use facestudio::error::{Error, Result};
use facestudio::internal::{ParameterMapper, ParameterVisitor, Place, map_parameters, visit_parameters};
use facestudio::weights::{Tensors, Views};

/// Values handled by one task of the fused pass.
const CHUNK: usize = 1 << 15;

/// Settings of [`AdamW`].
#[derive(Debug, Clone, Copy)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta_1: f32,
    /// Decay of the second moment.
    pub beta_2: f32,
    /// Added to the root of the second moment (PyTorch's default 1e-8).
    pub epsilon: f32,
    /// Decoupled weight decay; parameters of one dimension (biases, norms) never decay.
    pub weight_decay: f32,
    /// Gradients are scaled to at most this norm over all parameters.
    pub max_grad_norm: f32,
    /// Decay of the weights' moving average; the first steps use `(1 + step) / (10 + step)` where that is less.
    pub ema_decay: f32,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self {
            beta_1: 0.9,
            beta_2: 0.99,
            epsilon: 1e-8,
            weight_decay: 0.01,
            max_grad_norm: 1.0,
            ema_decay: 0.999,
        }
    }
}

/// One parameter and what is kept about it.
struct Slot {
    shape: Vec<usize>,
    value: Vec<f32>,
    moment_1: Vec<f32>,
    moment_2: Vec<f32>,
    ema: Vec<f32>,
    gradient: Option<Vec<f32>>,
}

/// Loshchilov and Hutter 2019, algorithm 2, over a module's trainable parameters.
pub struct AdamW {
    config: AdamWConfig,
    step: u64,
    slots: BTreeMap<String, Slot>,
}

impl AdamW {
    /// A new optimiser; it learns the module's parameters at the first step.
    pub fn new(config: AdamWConfig) -> Self {
        Self { config, step: 0, slots: BTreeMap::new() }
    }

    /// Adds gradients, of all parameters or of some, to those that the next [`step`](Self::step) follows.
    pub fn gather<M: Module>(&mut self, module: &M, gradients: Gradients) -> Result<()> {
        let mut reader = GradientReader { gradients, slots: &mut self.slots, error: None };
        visit_parameters(module, &mut reader);
        reader.error.map_or(Ok(()), Err)
    }

    /// Updates `module` by the gathered gradients' mean over so many `batches`; returns it with their norm before clipping.
    ///
    /// A norm that is not finite leaves every weight as it is: one overflow must not end a run.
    pub fn step<M: Module>(&mut self, module: M, batches: u32, lr: f64) -> (M, f32) {
        let mean = 1.0 / batches.max(1) as f32;
        let square_sum: f64 =
            self.slots.values().filter_map(|slot| slot.gradient.as_deref()).map(squares).sum();
        let norm = square_sum.sqrt() as f32 * mean;
        if !norm.is_finite() {
            self.slots.values_mut().for_each(|slot| slot.gradient = None);
            return (module, norm);
        }
        self.step += 1;
        let scale = mean * (self.config.max_grad_norm / (norm + 1e-6)).min(1.0);
        for slot in self.slots.values_mut() {
            update(slot, &self.config, self.step, lr as f32, scale);
        }
        let mut writer = Writer { slots: &self.slots, averaged: false };
        (map_parameters(module, &mut writer), norm)
    }

    /// `module` with the averaged weights, recording no gradients. What is not trained (running statistics) is kept.
    pub fn averaged<M: Module>(&self, module: &M) -> M {
        let mut writer = Writer { slots: &self.slots, averaged: true };
        map_parameters(module.valid(), &mut writer)
    }

    /// Updates so far, and everything but the weights themselves by name, for a checkpoint.
    pub fn state(&self) -> (u64, Views<'_>) {
        let views = self.slots.iter().flat_map(|(name, slot)| {
            let kinds = [("m", &slot.moment_1), ("v", &slot.moment_2), ("ema", &slot.ema)];
            kinds.map(|(kind, values)| (format!("{kind}.{name}"), (&slot.shape[..], &values[..])))
        });
        (self.step, views.collect())
    }

    /// Restores [`AdamW::state`]; `weights` are the module's parameters at that moment.
    pub fn restore(&mut self, step: u64, state: Tensors, weights: &Tensors) -> Result<()> {
        let damaged = |name: &str| {
            Error::weights(
                "checkpoint",
                format!("the optimiser's state does not fit the weights at '{name}'"),
                "start the run again without --resume",
            )
        };
        self.slots.clear();
        let mut state = state.0;
        let names: Vec<String> =
            state.keys().filter_map(|k| k.strip_prefix("m.")).map(str::to_owned).collect();
        for name in names {
            let (shape, value) = weights.0.get(&name).cloned().ok_or_else(|| damaged(&name))?;
            let mut take = |kind: &str| {
                let (_, values) = state.remove(&format!("{kind}.{name}")).ok_or_else(|| damaged(&name))?;
                if values.len() == value.len() { Ok(values) } else { Err(damaged(&name)) }
            };
            let (moment_1, moment_2, ema) = (take("m")?, take("v")?, take("ema")?);
            self.slots.insert(name, Slot { shape, value, moment_1, moment_2, ema, gradient: None });
        }
        self.step = step;
        Ok(())
    }
}

fn squares(values: &[f32]) -> f64 {
    // Partial sums are collected in order, so that the norm does not depend on how the threads took turns.
    let partial: Vec<f64> = values
        .par_chunks(CHUNK)
        .map(|chunk| {
            let mut lanes = [0f32; 16];
            for values in chunk.chunks(16) {
                lanes.iter_mut().zip(values).for_each(|(lane, v)| *lane += v * v);
            }
            lanes.iter().map(|v| *v as f64).sum()
        })
        .collect();
    partial.iter().sum()
}

fn update(slot: &mut Slot, config: &AdamWConfig, step: u64, lr: f32, scale: f32) {
    let Some(gradient) = slot.gradient.take() else { return };
    let AdamWConfig { beta_1, beta_2, epsilon, .. } = *config;
    let decay = if slot.shape.len() > 1 { 1.0 - lr * config.weight_decay } else { 1.0 };
    let correction_1 = 1.0 - (beta_1 as f64).powf(step as f64);
    let correction_2 = 1.0 - (beta_2 as f64).powf(step as f64);
    let rate = (lr as f64 / correction_1) as f32;
    let scale_2 = (1.0 / correction_2.sqrt()) as f32;
    let keep = config.ema_decay.min((1 + step) as f32 / (10 + step) as f32);
    slot.value
        .par_chunks_mut(CHUNK)
        .zip(slot.moment_1.par_chunks_mut(CHUNK))
        .zip(slot.moment_2.par_chunks_mut(CHUNK))
        .zip(slot.ema.par_chunks_mut(CHUNK))
        .zip(gradient.par_chunks(CHUNK))
        .for_each(|((((value, m), v), ema), gradient)| {
            for ((((value, m), v), ema), g) in value.iter_mut().zip(m).zip(v).zip(ema).zip(gradient) {
                let g = g * scale;
                *m = beta_1 * *m + (1.0 - beta_1) * g;
                *v = beta_2 * *v + (1.0 - beta_2) * g * g;
                *value = *value * decay - rate * *m / (v.sqrt() * scale_2 + epsilon);
                *ema += (1.0 - keep) * (*value - *ema);
            }
        });
}

struct GradientReader<'a> {
    gradients: Gradients,
    slots: &'a mut BTreeMap<String, Slot>,
    error: Option<Error>,
}

impl ParameterVisitor for GradientReader<'_> {
    fn visit<const D: usize>(&mut self, place: &Place, param: &Param<Tensor<D>>) {
        if !param.is_require_grad() {
            return;
        }
        let Some(gradient) = param.val().grad_remove(&mut self.gradients) else { return };
        let name = place.name();
        let result = read_back(gradient, "a gradient").and_then(|gradient| {
            if let Some(slot) = self.slots.get_mut(&name) {
                match &mut slot.gradient {
                    Some(sum) => sum.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += g),
                    none => *none = Some(gradient),
                }
                return Ok(());
            }
            let value = read_back(param.val(), "a weight")?;
            let zeros = vec![0.0; value.len()];
            self.slots.insert(
                name,
                Slot {
                    shape: param.val().dims().to_vec(),
                    moment_1: zeros.clone(),
                    moment_2: zeros,
                    ema: value.clone(),
                    value,
                    gradient: Some(gradient),
                },
            );
            Ok(())
        });
        if let Err(error) = result {
            self.error.get_or_insert(error);
        }
    }
}

struct Writer<'a> {
    slots: &'a BTreeMap<String, Slot>,
    averaged: bool,
}

impl ParameterMapper for Writer<'_> {
    fn map<const D: usize>(&mut self, place: &Place, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(slot) = self.slots.get(&place.name()) else { return param };
        let values = if self.averaged { &slot.ema } else { &slot.value };
        replace(param, values.clone(), &slot.shape)
    }
}

/// The parameter with other values, on the same device and with the same gradient setting.
fn replace<const D: usize>(param: Param<Tensor<D>>, values: Vec<f32>, shape: &[usize]) -> Param<Tensor<D>> {
    let id = param.id;
    let tensor = Tensor::from_data(TensorData::new(values, shape.to_vec()), &param.lazy_device());
    param.transform_for_load(tensor, id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;
    use facestudio::weights::collect;

    #[derive(Module, Debug)]
    struct One {
        weight: Param<Tensor<1>>,
    }

    /// The average follows the weights closely at first, by `(1 + step) / (10 + step)`, and by its decay once that is less.
    #[test]
    fn the_average_of_the_weights_warms_up() {
        let device = Device::flex().autodiff();
        let weight = Param::from_tensor(Tensor::<1>::from_floats([2.0], &device).require_grad());
        let mut model = One { weight };
        let decay = 0.5;
        let mut optimizer = AdamW::new(AdamWConfig { ema_decay: decay, ..AdamWConfig::default() });
        let value = |model: &One| f64::from(collect(model, "").unwrap().0["weight"].1[0]);
        let mut average = value(&model);
        for step in 1..=20 {
            let gradients = model.weight.val().square().sum().backward();
            optimizer.gather(&model, gradients).unwrap();
            (model, _) = optimizer.step(model, 1, 0.05);
            let keep = f64::from(decay).min(f64::from(1 + step) / f64::from(10 + step));
            average = keep * average + (1.0 - keep) * value(&model);
            let found = value(&optimizer.averaged(&model));
            assert!((found - average).abs() < 1e-5, "step {step}: {found}, not {average}");
            assert!((found - value(&model)).abs() > 1e-3, "step {step}: no average");
        }
    }

    #[derive(Module, Debug)]
    struct Two {
        matrix: Param<Tensor<2>>,
        bias: Param<Tensor<1>>,
    }

    fn two() -> Two {
        let device = Device::flex().autodiff();
        let matrix = Tensor::<2>::from_floats([[0.5, -1.0], [2.0, 0.25]], &device);
        let bias = Tensor::<1>::from_floats([1.0, -3.0], &device);
        Two {
            matrix: Param::from_tensor(matrix.require_grad()),
            bias: Param::from_tensor(bias.require_grad()),
        }
    }

    /// Gathers these gradients of all six values.
    fn gather(optimizer: &mut AdamW, model: &Two, gradients: [f32; 6]) {
        let device = model.bias.val().device();
        let [a, b, c, d, e, f] = gradients;
        let matrix = model.matrix.val() * Tensor::<2>::from_floats([[a, b], [c, d]], &device);
        let bias = model.bias.val() * Tensor::<1>::from_floats([e, f], &device);
        optimizer.gather(model, (matrix.sum() + bias.sum()).backward()).unwrap();
    }

    fn values(model: &Two) -> Vec<f64> {
        let tensors = collect(model, "").unwrap().0;
        ["matrix", "bias"].iter().flat_map(|name| &tensors[*name].1).map(|v| f64::from(*v)).collect()
    }

    const CONFIG: AdamWConfig = AdamWConfig {
        beta_1: 0.8,
        beta_2: 0.95,
        epsilon: 1e-2,
        weight_decay: 0.5,
        max_grad_norm: 1.5,
        ema_decay: 0.3,
    };

    /// Loshchilov and Hutter 2019, algorithm 2, written down once more in f64. The first step's gradient is longer than is allowed,
    /// the others' are not.
    #[test]
    fn a_step_is_algorithm_2_with_clipped_gradients() {
        let steps: [[[f32; 6]; 2]; 3] = [
            [[3.0, -1.0, 0.5, 2.0, -4.0, 1.0], [1.0, 1.0, -0.5, 0.0, 2.0, 3.0]],
            [[0.1, 0.2, -0.3, 0.1, 0.0, 0.2], [0.3, 0.0, 0.1, -0.5, 0.4, 0.0]],
            [[-0.2, 0.4, 0.0, 0.0, 0.3, -0.6], [0.2, 0.1, 0.2, 0.1, 0.1, 0.0]],
        ];
        let (mut model, mut optimizer) = (two(), AdamW::new(CONFIG));
        let (mut weights, mut m, mut v) = (values(&model), [0f64; 6], [0f64; 6]);
        let mut average = weights.clone();
        for (t, [first, second]) in (1..).zip(steps) {
            gather(&mut optimizer, &model, first);
            gather(&mut optimizer, &model, second);
            let norm;
            (model, norm) = optimizer.step(model, 2, 0.1);

            let gradient: Vec<f64> = first.iter().zip(second).map(|(a, b)| f64::from(a + b) / 2.0).collect();
            let length = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
            assert!((f64::from(norm) - length).abs() < 1e-5, "before clipping: {norm}, not {length}");
            assert_eq!(length > 1.5, t == 1);
            let keep = f64::min(0.3, f64::from(1 + t) / f64::from(10 + t));
            for (i, g) in gradient.iter().enumerate() {
                let g = g * (1.5 / length).min(1.0);
                m[i] = 0.8 * m[i] + 0.2 * g;
                v[i] = 0.95 * v[i] + 0.05 * g * g;
                let corrected = [m[i] / (1.0 - 0.8f64.powi(t)), v[i] / (1.0 - 0.95f64.powi(t))];
                // A bias does not decay.
                let decayed = weights[i] * if i < 4 { 1.0 - 0.1 * 0.5 } else { 1.0 };
                weights[i] = decayed - 0.1 * corrected[0] / (corrected[1].sqrt() + 1e-2);
                average[i] = keep * average[i] + (1.0 - keep) * weights[i];
            }
            for (found, expected) in
                [(values(&model), &weights), (values(&optimizer.averaged(&model)), &average)]
            {
                let near = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5);
                assert!(near, "step {t}: {found:?}, not {expected:?}");
            }
        }
    }

    #[test]
    fn a_gradient_that_is_no_number_changes_nothing_and_counts_as_no_step() {
        let step = |poisoned: bool| {
            let (mut model, mut optimizer) = (two(), AdamW::new(CONFIG));
            if poisoned {
                gather(&mut optimizer, &model, [1.0, f32::NAN, 0.0, 0.0, 0.0, 0.0]);
                let before = values(&model);
                let norm;
                (model, norm) = optimizer.step(model, 1, 0.1);
                assert!(norm.is_nan() && values(&model) == before && optimizer.state().0 == 0);
            }
            gather(&mut optimizer, &model, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]);
            values(&optimizer.step(model, 1, 0.1).0)
        };
        assert_eq!(step(true), step(false));
    }

    #[test]
    fn what_is_restored_goes_on_as_it_was_and_what_does_not_fit_is_refused() {
        let (mut model, mut optimizer) = (two(), AdamW::new(CONFIG));
        gather(&mut optimizer, &model, [1.0, -1.0, 0.5, 2.0, -4.0, 1.0]);
        (model, _) = optimizer.step(model, 1, 0.1);
        let (step, views) = optimizer.state();
        let owned = |(name, (shape, values)): (&String, &(&[usize], &[f32]))| {
            (name.clone(), (shape.to_vec(), values.to_vec()))
        };
        let state = Tensors(views.iter().map(owned).collect());
        let weights = collect(&model, "").unwrap();
        let mut again = AdamW::new(CONFIG);
        again.restore(step, state.clone(), &weights).unwrap();
        let go_on = |optimizer: &mut AdamW| {
            gather(optimizer, &model, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]);
            let (model, _) = optimizer.step(model.clone(), 1, 0.1);
            (values(&model), values(&optimizer.averaged(&model)))
        };
        assert_eq!(go_on(&mut again), go_on(&mut optimizer));
        let mut lacking = state.clone();
        lacking.0.remove("v.bias");
        let mut short = state;
        short.0.insert("ema.bias".to_owned(), (vec![1], vec![0.0]));
        for damaged in [lacking, short] {
            assert_eq!(again.restore(step, damaged, &weights).unwrap_err().code, "checkpoint");
        }
    }
}
