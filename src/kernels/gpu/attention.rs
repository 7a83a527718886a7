//! Attention without a matrix of scores.

use super::super::Sizes;
use super::launch::{Bound, Kernel, MOST_GROUPS, Operand, launch_sliced, unroll};

/// Queries, and keys, of a tile.
const TILE: usize = 32;
/// Invocations of a workgroup: each makes 4×4 scores of a tile.
const THREADS: usize = TILE * TILE / 16;
/// Dimensions of a head for which a workgroup's memory (8.9 KiB and 32 bytes a dimension) suffices everywhere, and whose
/// output an invocation can hold in registers.
const LARGEST_HEAD: usize = 160;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Attention {
    dim: usize,
    /// Whether contexts are summed by weights.
    regions: bool,
}

impl Attention {
    /// Rows of the output that an invocation holds, and fours of columns of each: those that leave the fewest invocations
    /// without work.
    fn share(&self) -> [usize; 2] {
        let fours = |rows: &usize| (self.dim / 4).div_ceil(Self::across(*rows));
        let rows = [4, 2, 8].into_iter().min_by_key(|rows| rows * fours(rows)).unwrap_or(4);
        [rows, fours(&rows)]
    }

    fn across(rows: usize) -> usize {
        THREADS * rows / TILE
    }
}

impl Kernel for Attention {
    const TEXT: &'static str = include_str!("attention.wgsl");
    const SIZES: &'static [&'static str] = &[
        "heads",
        "queries",
        "contexts",
        "keys",
        "query_image",
        "query_head",
        "query_token",
        "key_image",
        "key_head",
        "key_token",
        "value_image",
        "value_head",
        "value_token",
        "weight_image",
        "first_across",
        "first_down",
    ];

    fn labels(&self) -> Vec<(&'static str, String)> {
        let [rows, fours] = self.share();
        let number = |n: usize| n.to_string();
        // The last fours of a row may lie beyond it: they repeat its last one, and are not written.
        let four = |j: usize| format!("min(column + {j}u * ACROSS, DIM_FOURS - 1u)");
        let values =
            unroll(fours, |j| format!("        let value_{j} = value_tile[j * DIM_FOURS + {}];", four(j)));
        let weights = unroll(rows, |i| {
            format!("        let weight_{i} = scores[(row + {i}u) * (TILE + 1u) + first + j];")
        });
        let sums = unroll(rows * fours, |n| {
            let (i, j) = (n / fours, n % fours);
            format!("        sum_{n} += weight_{i} * value_{j};")
        });
        let finish = unroll(rows * fours, |n| {
            let (i, j) = (n / fours, n % fours);
            format!(
                "  if first_query + row + {i}u < sizes.queries && column + {j}u * ACROSS < DIM_FOURS {{
    let token = image * sizes.queries + first_query + row + {i}u;
    out[(token * sizes.heads + head) * DIM_FOURS + column + {j}u * ACROSS] = Out(out_{n});
  }}"
            )
        });
        // A single context needs no sum of contexts beside its own.
        let (acts, gather) = if self.regions {
            let gather = |n| {
                let i = n / fours;
                format!(
                    "    if share[row + {i}u] != 0.0 {{ out_{n} += sum_{n} / total[row + {i}u] * share[row + {i}u]; }}"
                )
            };
            (include_str!("regions.wgsl"), unroll(rows * fours, gather))
        } else {
            ("", unroll(rows * fours, |n| format!("    out_{n} = sum_{n} / total[row + {}u];", n / fours)))
        };
        vec![
            ("tile", number(TILE)),
            ("threads", number(THREADS)),
            ("dim", number(self.dim)),
            ("rows", number(rows)),
            ("fours", number(fours)),
            ("across", number(Self::across(rows))),
            ("scale", format!("{:?}", 1.0 / (self.dim as f32).sqrt())),
            ("outs", unroll(rows * fours, |n| format!("  var out_{n} = vec4<f32>();"))),
            ("acts", acts.to_owned()),
            ("zeros", unroll(rows * fours, |n| format!("    var sum_{n} = vec4<f32>();"))),
            ("gather", gather),
            ("shrink", unroll(rows * fours, |n| format!("    sum_{n} *= shrink[row + {}u];", n / fours))),
            ("multiply", values + &weights + &sums),
            ("finish", finish),
        ]
    }
}

/// `softmax(Q Kᵀ / √dim) V`, `[batch, queries, heads, dim]`; of each context apart, summed by `weights`, if there are any,
/// and whether each image has its own; `strides`: how far images, heads and tokens of query, key and
/// value are apart. `None` where a head is too large, tokens do not begin at fours,
/// or there are more heads or tiles than one dispatch may have.
pub(super) fn attention(
    query: &Operand,
    key: &Operand,
    value: &Operand,
    weights: Option<(&Operand, bool)>,
    sizes: Sizes,
    strides: [[usize; 3]; 3],
) -> Option<Operand> {
    let Sizes { batch, heads, queries, contexts, keys, dim } = sizes;
    let fours = dim.is_multiple_of(4) && strides.iter().flatten().all(|stride| stride.is_multiple_of(4));
    let groups = [queries.div_ceil(TILE), batch * heads];
    if !fours || dim > LARGEST_HEAD || groups.iter().any(|groups| *groups > MOST_GROUPS) {
        return None;
    }
    let out = query.room([batch, queries, heads, dim]);
    let mut bound = vec![
        Bound::numbers("query", query, true),
        Bound::numbers("key", key, true),
        Bound::numbers("value", value, true),
    ];
    bound.extend(weights.map(|(held, _)| Bound::numbers("weights", held, false)));
    bound.push(Bound::numbers("out", &out, true));
    let mut numbers = vec![heads, queries, contexts, keys];
    numbers.extend(strides.into_iter().flatten());
    numbers.push(weights.map_or(0, |(_, by_image)| if by_image { contexts * queries } else { 0 }));
    // Scores, and what they weigh.
    let each = (2 * TILE * contexts * keys.next_multiple_of(TILE) * dim) as f64;
    launch_sliced(Attention { dim, regions: weights.is_some() }, &bound, &numbers, groups, each);
    Some(out)
}
