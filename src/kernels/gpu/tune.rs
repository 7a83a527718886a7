//! From how many workgroups on a larger tile of a product is the faster one: an adapter's limits do not tell, so it is measured.

use burn::tensor::{Device, Tensor};

use super::launch::Held;
use super::product::{self, Added, TILES};

/// Numbers of workgroups of the larger tile that are tried; twice the last where it has lost at all of them.
const BORDERS: [usize; 5] = [16, 32, 64, 128, 256];
/// Steps of the sums: what linear layers of the supported UNets have, 320 to 1,280, within a factor of two.
const DEPTH: usize = 640;
/// What a larger tile must take at most of the smaller one's time, so that noise does not choose it.
const FASTER: f64 = 0.97;
/// Milliseconds of a measurement: far more than a clock's resolution, and a queue's latency.
const LONG: f64 = 4.0;
/// Products of a measurement at most.
const MOST: usize = 64;
/// Times that both are measured, in turns.
const ROUNDS: usize = 3;
/// Milliseconds after which no other number is tried, and what is left stays as it was: an adapter so slow is emulated, or busy
/// with something else.
const BUDGET: f64 = 400.0;

/// The workgroups that each tile but the smallest needs (see [`product::set_borders`]); `None` where the kernels do not run, or
/// the device fails. `now` is a clock in milliseconds.
pub async fn borders(device: &Device, now: impl Fn() -> f64) -> Option<[usize; TILES.len() - 1]> {
    search(async |larger, groups| times(device, larger, groups, &now).await, &now).await
}

/// With `measure(tile, groups)`, as [`times`].
async fn search(
    measure: impl AsyncFn(usize, usize) -> Option<[f64; 2]>,
    now: &impl Fn() -> f64,
) -> Option<[usize; TILES.len() - 1]> {
    let start = now();
    let mut found = product::borders();
    'tiles: for (larger, border) in found.iter_mut().enumerate() {
        for groups in BORDERS {
            if now() - start > BUDGET {
                break 'tiles;
            }
            let [small, large] = measure(larger, groups).await?;
            if large < FASTER * small {
                *border = groups;
                continue 'tiles;
            }
        }
        *border = 2 * BORDERS[BORDERS.len() - 1];
    }
    Some(found)
}

/// Milliseconds of a product by the next smaller tile, and by tile `larger`, which has so many workgroups of it.
async fn times(device: &Device, larger: usize, groups: usize, now: &impl Fn() -> f64) -> Option<[f64; 2]> {
    // As square as a power of two goes.
    let down = 1 << (groups.ilog2() / 2);
    let [width, height] = product::size(larger);
    let (tokens, to) = (down * height, groups / down * width);
    let x = Held::of(&Tensor::<2>::zeros([tokens, DEPTH], device))?;
    let weight = Held::of(&Tensor::<2>::zeros([to, DEPTH], device))?;
    let run = async |tile: usize, products: usize| {
        let start = now();
        for _ in 0..products {
            product::linear_by(TILES[tile], &x, &weight, None, &Added::None, None, [tokens, DEPTH, to])?;
        }
        x.finished().await?;
        Some((now() - start) / products as f64)
    };
    let tiles = [larger + 1, larger];
    for tile in tiles {
        // Compiles its text.
        run(tile, 1).await?;
    }
    let products = ((LONG / run(larger, 1).await?.max(1e-3)) as usize).clamp(1, MOST);
    let mut fastest = [f64::INFINITY; 2];
    for _ in 0..ROUNDS {
        for (tile, fastest) in tiles.into_iter().zip(&mut fastest) {
            *fastest = fastest.min(run(tile, products).await?);
        }
    }
    Some(fastest)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Instant;

    use burn::tensor::DeviceKind;
    use pollster::block_on;

    use super::*;
    use crate::sampling::NoiseSource;

    fn device() -> Device {
        Device::wgpu(DeviceKind::DefaultDevice)
    }

    #[test]
    fn every_tile_gives_the_same_numbers() {
        for sizes in [[1, 4, 4], [33, 72, 60], [130, 640, 132]] {
            let [tokens, from, to] = sizes;
            let random = |stream, shape| NoiseSource::new(3).tensor::<2>(stream, shape, &device());
            let (x, weight) = (random(0, [tokens, from]), random(1, [to, from]));
            let (x, weight) = (Held::of(&x).unwrap(), Held::of(&weight).unwrap());
            let product =
                |tile| product::linear_by(tile, &x, &weight, None, &Added::None, None, sizes).unwrap();
            let [first, rest @ ..] = TILES.map(|tile| product(tile).tensor::<2>().into_data());
            rest.iter().for_each(|other| other.assert_eq(&first, true));
        }
    }

    #[test]
    fn a_border_is_where_the_larger_tile_begins_to_win() {
        // Milliseconds of the smaller and the larger tile, as if the larger of each pair won from `from` workgroups on.
        let found = |from: [usize; 2], cost: f64| {
            let clock = AtomicU64::new(0);
            let now = || clock.load(Ordering::Relaxed) as f64 * cost;
            let measure = async |larger: usize, groups| {
                clock.fetch_add(1, Ordering::Relaxed);
                Some([1.0, if groups < from[larger] { 0.98 } else { 0.96 }])
            };
            block_on(search(measure, &now)).unwrap()
        };
        assert_eq!(found([64, 16], 0.0), [64, 16]);
        assert_eq!(found([usize::MAX, 200], 0.0), [512, 256]);
        // There is time for two measurements of the first tile, and for none of the other.
        assert_eq!(found([32, 16], 0.6 * BUDGET), [32, product::borders()[1]]);
        assert_eq!(found([64, 16], 0.6 * BUDGET), product::borders());
    }

    #[test]
    fn a_device_is_measured_and_chosen_by() {
        let start = Instant::now();
        let found = block_on(borders(&device(), || start.elapsed().as_secs_f64() * 1e3)).unwrap();
        let possible = |border: &usize| BORDERS.contains(border) || *border == 2 * BORDERS[4];
        assert!(found.iter().all(possible), "{found:?}");

        let best = |borders, size| {
            product::set_borders(borders);
            product::Tile::best(size)
        };
        assert_eq!(best([4, 9], [256, 256]), TILES[0]);
        assert_eq!(best([5, 9], [256, 256]), TILES[1]);
        assert_eq!(best([5, 17], [256, 256]), TILES[2]);
    }
}
