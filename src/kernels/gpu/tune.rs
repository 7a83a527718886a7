//! From how many workgroups on a larger tile of a product is the faster one: an adapter's limits do not tell, so it is measured.

use burn::tensor::{Device, Tensor};

use super::launch::Operand;
use super::product::{self, Added, Borders, TILES};

/// Numbers of workgroups of a tile that are tried.
const GROUPS: [usize; 5] = [16, 32, 64, 128, 256];
/// The border of a tile that has lost at all of them.
const MOST_BORDER: usize = 2 * GROUPS[GROUPS.len() - 1];
/// Steps of the sums: what linear layers of the supported UNets have, 320 to 1,280, within a factor of two.
const DEPTH: usize = 640;
/// What a larger tile must take at most of the smaller one's time, so that noise does not choose it.
const FASTER: f64 = 0.97;
/// Milliseconds of a measurement at least: far more than a clock's resolution, and more than a queue's latency, which is in it once.
const LONG: f64 = 4.0;
/// Products of a measurement at most.
const MOST: usize = 256;
/// Times that both are measured, in turns.
const ROUNDS: usize = 3;
/// Milliseconds of a tile after which no other number is tried, and its border stays as it was: an adapter so slow is emulated, or
/// busy with something else.
const BUDGET: f64 = 250.0;

/// The workgroups that each tile but the smallest needs (see [`product::set_borders`]); `None` where the kernels do not run, or
/// the device fails. `now` is a clock in milliseconds.
pub async fn borders(device: &Device, now: impl Fn() -> f64) -> Option<Borders> {
    // Texts are compiled before the clock runs.
    for tile in 0..TILES.len() {
        Try::new(device, 0, 1)?.run(tile, 1).await?;
    }
    let measure =
        async |larger, rival, groups| Try::new(device, larger, groups)?.times([rival, larger], &now).await;
    search(measure, product::borders(), &now).await
}

/// Multiply-adds that the device makes of a linear layer in a millisecond, with its slowest tile; `None` as [`borders`].
pub async fn rate(device: &Device, now: impl Fn() -> f64) -> Option<f64> {
    let smallest = TILES.len() - 1;
    let mut slowest = f64::INFINITY;
    for tile in [0, smallest] {
        let product = Try::new(device, smallest, GROUPS[GROUPS.len() - 1])?;
        product.run(tile, 1).await?;
        let [took, again] = product.times([tile; 2], &now).await?;
        slowest = slowest.min(product.sizes.iter().product::<usize>() as f64 / took.min(again).max(1e-3));
    }
    Some(slowest)
}

/// Whether [`borders`] may have given these.
pub fn possible(borders: &Borders) -> bool {
    borders.iter().all(|border| GROUPS.contains(border) || *border == MOST_BORDER)
}

/// With `measure(tile, other, groups)`: milliseconds of the other tile, and of the tile on a product that has so many workgroups of
/// it. A tile's rival is what would be chosen without it, so that smaller tiles come first.
async fn search(
    measure: impl AsyncFn(usize, usize, usize) -> Option<[f64; 2]>,
    mut found: Borders,
    now: &impl Fn() -> f64,
) -> Option<Borders> {
    'tiles: for tile in (0..found.len()).rev() {
        let start = now();
        for groups in GROUPS {
            if now() - start > BUDGET {
                continue 'tiles;
            }
            let size = product::size(tile, groups);
            let rival = product::best(tile + 1, size, &found);
            let [other, own] = measure(tile, rival, groups).await?;
            if own < FASTER * other {
                found[tile] = groups;
                continue 'tiles;
            }
        }
        found[tile] = MOST_BORDER;
    }
    Some(found)
}

/// A product to measure tiles on.
struct Try {
    x: Operand,
    weight: Operand,
    sizes: [usize; 3],
}

impl Try {
    /// One that has so many workgroups of a tile.
    fn new(device: &Device, tile: usize, groups: usize) -> Option<Self> {
        let [tokens, to] = product::size(tile, groups);
        let x = Operand::from_tensor(&Tensor::<2>::zeros([tokens, DEPTH], device))?;
        let weight = Operand::from_tensor(&Tensor::<2>::zeros([to, DEPTH], device))?;
        Some(Self { x, weight, sizes: [tokens, DEPTH, to] })
    }

    /// Computes it by a tile, so many times.
    async fn run(&self, tile: usize, products: usize) -> Option<()> {
        for _ in 0..products {
            product::linear_by(TILES[tile], &self.x, &self.weight, None, &Added::None, None, self.sizes)?;
        }
        self.x.finished().await
    }

    /// Milliseconds by each of two tiles.
    async fn times(&self, tiles: [usize; 2], now: &impl Fn() -> f64) -> Option<[f64; 2]> {
        let mut products = 1;
        loop {
            let start = now();
            self.run(tiles[1], products).await?;
            let took = now() - start;
            if took >= LONG {
                products = (products as f64 * LONG / took).ceil() as usize;
                break;
            }
            if products == MOST {
                break;
            }
            products *= 2;
        }
        let mut fastest = [f64::INFINITY; 2];
        for _ in 0..ROUNDS {
            for (tile, fastest) in tiles.into_iter().zip(&mut fastest) {
                let start = now();
                self.run(tile, products).await?;
                *fastest = fastest.min((now() - start) / products as f64);
            }
        }
        Some(fastest)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Instant;

    use burn::tensor::DeviceKind;
    use pollster::block_on;

    use super::*;
    use crate::kernels::{self, Window};
    use crate::sampling::NoiseSource;

    fn device() -> Device {
        Device::wgpu(DeviceKind::DefaultDevice)
    }

    fn random<const D: usize>(stream: u64, shape: [usize; D]) -> Tensor<D> {
        NoiseSource::new(3).tensor(stream, shape, &device())
    }

    #[test]
    fn tiles_are_measured_and_chosen_and_give_the_same_numbers() {
        let start = Instant::now();
        let found = block_on(borders(&device(), || start.elapsed().as_secs_f64() * 1e3)).unwrap();
        assert!(possible(&found), "{found:?}");
        assert!(!possible(&[16, 0]) && !possible(&[1024, 16]) && !possible(&[16, 17]));
        let found = block_on(rate(&device(), || start.elapsed().as_secs_f64() * 1e3)).unwrap();
        // From a tenth of a processor's core to beyond any device of this decade.
        assert!((1e5..1e13).contains(&found), "{found} multiply-adds a millisecond");

        let best = |borders| {
            product::set_borders(borders);
            product::best(0, [256, 256], &product::borders())
        };
        // Three tiles of 256 × 256: 4, 16 and 64 workgroups.
        assert_eq!([[4, 16], [5, 16], [5, 17]].map(best), [0, 1, 2]);

        let all = [[1, 1], [usize::MAX, 1], [usize::MAX; 2]].map(|borders| {
            product::set_borders(borders);
            let mut numbers = Vec::new();
            for sizes in [[1, 4, 4], [33, 72, 60], [130, 640, 132]] {
                let [tokens, from, to] = sizes;
                let (x, weight) = (random(0, [tokens, from]), random(1, [to, from]));
                numbers.push(kernels::linear(&x, &weight, None, None).unwrap().into_data());
            }
            for (kernel, stride, padding) in [(3, 1, 1), (3, 2, 1), (1, 1, 0)] {
                let (x, weight) = (random(2, [2, 20, 9, 12]), random(3, [40, 20, kernel, kernel]));
                let window = Window { stride, padding, seen: None };
                numbers.push(kernels::conv2d(&x, &weight, None, window, None).unwrap().into_data());
            }
            numbers
        });
        let [first, rest @ ..] = &all;
        rest.iter().for_each(|other| {
            assert_eq!(first.len(), other.len());
            first.iter().zip(other).for_each(|(a, b)| b.assert_eq(a, true));
        });
    }

    #[test]
    fn a_border_is_where_a_tile_begins_to_win_over_what_there_is_without_it() {
        const USUAL: Borders = [77, 88];
        /// With milliseconds of each tile at its number of workgroups, and what a measurement takes.
        fn found(time: impl Fn(usize, usize) -> f64, cost: f64) -> Borders {
            let clock = Cell::new(0.0);
            let measure = async |tile: usize, rival: usize, groups: usize| {
                clock.set(clock.get() + cost);
                let size = product::size(tile, groups);
                let of = |tile: usize| time(tile, product::groups(tile, size));
                Some([of(rival), of(tile)])
            };
            block_on(search(measure, USUAL, &|| clock.get())).unwrap()
        }
        let slow_below = |borders: Borders| {
            move |tile: usize, groups: usize| {
                let enough = borders.get(tile).is_none_or(|border| groups >= *border);
                if enough { 1.0 + tile as f64 } else { 9.0 }
            }
        };
        assert_eq!(found(slow_below([64, 16]), 0.0), [64, 16]);
        assert_eq!(found(slow_below([usize::MAX, 200]), 0.0), [MOST_BORDER, 256]);
        // The middle tile is slow anywhere. The largest is compared with it only where it would be chosen.
        assert_eq!(found(|tile, _| [4.0, 5.0, 3.0][tile], 0.0), [128, MOST_BORDER]);
        assert_eq!(found(|tile, _| [2.0, 5.0, 3.0][tile], 0.0), [16, MOST_BORDER]);
        // A hair's breadth is noise.
        assert_eq!(found(|tile, _| [0.98, 0.99, 1.0][tile], 0.0), [MOST_BORDER; 2]);
        // There is time for two measurements of each.
        assert_eq!(found(slow_below([32, 16]), 0.6 * BUDGET), [32, 16]);
        assert_eq!(found(slow_below([64, 64]), 0.6 * BUDGET), USUAL);
    }
}
