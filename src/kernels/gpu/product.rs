//! Tiled matrix products: linear layers, and convolutions as products that gather their right side (implicit GEMM).

use std::cell::Cell;

use super::super::{BLOCK, Geometry};
use super::launch::{Bound, Element, Kernel, MOST_GROUPS, Operand, launch_sliced, unroll};

/// A tile of the output and how many fours of rows and columns an invocation holds of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Tile {
    rows: usize,
    columns: usize,
    /// Invocations in each direction.
    down: usize,
    across: usize,
    /// Steps of the sum that are in workgroup memory at a time: 16 KiB of both sides, all that WebGPU promises, with the
    /// largest tile; as many with the smallest that each invocation has four of each side to bring.
    depth: usize,
}

/// 128×128, 64×64 and 32×32, which take 256, 64 and 64 invocations.
pub(super) const TILES: [Tile; 3] = [
    Tile { rows: 2, columns: 2, down: 16, across: 16, depth: 16 },
    Tile { rows: 2, columns: 2, down: 8, across: 8, depth: 16 },
    Tile { rows: 1, columns: 1, down: 8, across: 8, depth: 32 },
];
thread_local! {
    /// Workgroups of each tile but the smallest that keep the GPU busy: with fewer, smaller tiles finish earlier although they read
    /// more. As a large GPU needs, until it is [measured](super::tune). A page has one device, and its module one thread.
    static BORDERS: Cell<Borders> = const { Cell::new([256; TILES.len() - 1]) };
}

/// A number of workgroups of each tile but the smallest.
pub(super) type Borders = [usize; TILES.len() - 1];

/// The workgroups that each tile but the smallest needs to be chosen.
pub(super) fn borders() -> Borders {
    BORDERS.get()
}

/// Sets [`borders`]. Sums are of the same terms in the same order with every tile, so that no picture changes.
#[cfg(any(test, target_family = "wasm"))]
pub(super) fn set_borders(borders: Borders) {
    BORDERS.set(borders);
}

/// Rows and columns of an output that has so many workgroups of a tile; as square as powers of two go.
#[cfg(any(test, target_family = "wasm"))]
pub(super) fn size(tile: usize, groups: usize) -> [usize; 2] {
    let down = 1 << (groups.ilog2() / 2);
    [down * TILES[tile].height(), groups / down * TILES[tile].width()]
}

/// Workgroups of a tile that an output of `[rows, columns]` takes.
pub(super) fn groups(tile: usize, size: [usize; 2]) -> usize {
    TILES[tile].groups(size).iter().product()
}

/// The first of the tiles from `first` on of which there are enough; the smallest otherwise.
pub(super) fn best(first: usize, size: [usize; 2], borders: &Borders) -> usize {
    (first..borders.len()).find(|tile| groups(*tile, size) >= borders[*tile]).unwrap_or(borders.len())
}

impl Tile {
    fn height(self) -> usize {
        4 * self.rows * self.down
    }

    fn width(self) -> usize {
        4 * self.columns * self.across
    }

    fn threads(self) -> usize {
        self.down * self.across
    }

    fn groups(self, [m, n]: [usize; 2]) -> [usize; 2] {
        [n.div_ceil(self.width()), m.div_ceil(self.height())]
    }

    /// The largest tile of which there are enough, and the smallest otherwise.
    fn best(size: [usize; 2]) -> Self {
        TILES[best(0, size, &borders())]
    }
}

/// How a side lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Side {
    /// Each row (or column, of the right side) has its steps side by side.
    Steps(Element),
    /// Each step has its positions side by side, `[image, step, position]`, a multiple of four of them.
    Positions,
    /// A window of an image: step `(channel, y, x)` of a position.
    Window(Window),
}

impl Side {
    /// What is bound of `held`.
    fn element(self, held: &Operand) -> Element {
        match self {
            Self::Steps(element) => element,
            Self::Positions => held.numbers(true),
            Self::Window(_) => held.numbers(false),
        }
    }
}

/// What a convolution's text must know; sizes of images are read at run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Window {
    kernel: usize,
    stride: usize,
    padding: usize,
    /// Each pixel stands for so many in both directions (nearest-neighbour upsampling).
    scale: usize,
}

/// Which of the output's directions the bias belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Bias {
    None,
    Rows,
    Columns,
}

/// How the output lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Output {
    /// `[m, n]`.
    Matrix,
    /// `[image, m, position]`: columns are the positions of all images.
    Images,
}

/// What is added to the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Added<T> {
    None,
    /// A number each.
    Same(T),
    /// A number each row of an image's, `[image, m]`.
    Channels(T),
}

impl<T> Added<T> {
    fn kind(&self) -> Added<()> {
        match self {
            Self::None => Added::None,
            Self::Same(_) => Added::Same(()),
            Self::Channels(_) => Added::Channels(()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Product {
    tile: Tile,
    left: Side,
    right: Side,
    output: Output,
    bias: Bias,
    added: Added<()>,
    /// The output is written four columns at once.
    by_four: bool,
}

impl Kernel for Product {
    const TEXT: &'static str = include_str!("product.wgsl");
    const SIZES: &'static [&'static str] = &[
        "m",
        "n",
        "depth",
        "positions",
        "channels",
        "height",
        "width",
        "seen_height",
        "seen_width",
        "width_out",
        "scales",
        "first_across",
        "first_down",
    ];

    fn labels(&self) -> Vec<(&'static str, String)> {
        let Tile { rows, columns, down, across, depth } = self.tile;
        let number = |n: usize| n.to_string();
        vec![
            ("tile_m", number(self.tile.height())),
            ("tile_n", number(self.tile.width())),
            ("depth", number(depth)),
            ("threads", number(self.tile.threads())),
            ("across", number(across)),
            ("down", number(down)),
            ("rows", number(rows)),
            ("columns", number(columns)),
            ("left_loader", side_loader("left", "m", self.left)),
            ("right_loader", side_loader("right", "n", self.right)),
            ("place", place(self.right)),
            ("load_left", load("left", "first_m", "FOURS_M", self.left)),
            ("load_right", load("right", "first_n", "FOURS_N", self.right)),
            ("zeros", unroll(rows * columns * 4, |i| format!("  var sum_{i} = vec4<f32>();"))),
            ("multiply", multiply(self.tile)),
            ("store", self.store()),
            ("finish", self.finish()),
        ]
    }
}

/// The function that reads four steps of a row; nothing outside of the rows is read.
pub(super) fn loader(side: &str, count: &str, element: Element) -> String {
    let value = match element {
        Element::One | Element::Half => {
            return format!(
                "fn {side}_step(i: u32, k: u32) -> f32 {{
  if i >= sizes.{count} || k >= sizes.depth {{ return 0.0; }}
  return f32({side}[i * sizes.depth + k]);
}}
fn {side}_steps(i: u32, k: u32) -> vec4<f32> {{
  return vec4<f32>({side}_step(i, k), {side}_step(i, k + 1u), {side}_step(i, k + 2u), {side}_step(i, k + 3u));
}}"
            );
        }
        Element::Four | Element::FourHalves => {
            format!("  return vec4<f32>({side}[(i * sizes.depth + k) / 4u]);")
        }
        Element::FourPacked => format!(
            "  let read = {side}[(i * sizes.depth + k) / 4u];
  return vec4<f32>(unpack2x16float(read.x), unpack2x16float(read.y));"
        ),
        // Shifting an integer to the top and back brings its sign along.
        Element::FourBytes => format!(
            "  let read = {side}[(i * sizes.depth + k) / 4u];
  let integers = vec4<i32>(vec4<u32>(read) << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u);
{scaled}",
            scaled = scaled(side)
        ),
        Element::FourNibbles => format!(
            "  let read = {side}[(i * {blocks} * {BLOCK}u + k) / 8u] >> (k % 8u * 4u);
  let integers = vec4<i32>((vec4<u32>(read) >> vec4<u32>(0u, 4u, 8u, 12u)) & vec4<u32>(15u)) - 8;
{scaled}",
            blocks = blocks(),
            scaled = scaled(side)
        ),
    };
    format!(
        "fn {side}_steps(i: u32, k: u32) -> vec4<f32> {{
  if i >= sizes.{count} || k >= sizes.depth {{ return vec4<f32>(); }}
{value}
}}"
    )
}

/// Blocks of a row.
fn blocks() -> String {
    format!("((sizes.depth + {}u) / {BLOCK}u)", BLOCK - 1)
}

/// Four integers of a block with its scale.
fn scaled(side: &str) -> String {
    let scale = format!("sizes.scales + i * {} + k / {BLOCK}u", blocks());
    format!("  return vec4<f32>(integers) * bitcast<f32>({side}[{scale}]);")
}

/// The function that reads four neighbours of a side; nothing outside of it is read.
fn side_loader(side: &str, count: &str, kind: Side) -> String {
    match kind {
        Side::Steps(element) => loader(side, count, element),
        Side::Positions => format!(
            "fn {side}_positions(i: u32, k: u32) -> vec4<f32> {{
  if i >= sizes.{count} || k >= sizes.depth {{ return vec4<f32>(); }}
  let image = i / sizes.positions;
  let position = i % sizes.positions;
  return vec4<f32>({side}[((image * sizes.depth + k) * sizes.positions + position) / 4u]);
}}"
        ),
        Side::Window(Window { kernel, scale, .. }) => format!(
            "struct Place {{
  x: vec4<i32>,
  y: vec4<i32>,
  image: vec4<u32>,
  exists: vec4<bool>,
}}
fn {side}_window(place: Place, k: u32) -> vec4<f32> {{
  let channel = k / {taps}u;
  let tap = k % {taps}u;
  let y = place.y + i32(tap / {kernel}u);
  let x = place.x + i32(tap % {kernel}u);
  let height = i32(sizes.seen_height);
  let width = i32(sizes.seen_width);
  let inside = place.exists & (y >= vec4<i32>()) & (y < vec4<i32>(height)) & (x >= vec4<i32>()) & (x < vec4<i32>(width))
    & vec4<bool>(k < sizes.depth);
  let start = (place.image * sizes.channels + channel) * sizes.height;
  let at = select(vec4<u32>(), (start + vec4<u32>(y) / {scale}u) * sizes.width + vec4<u32>(x) / {scale}u, inside);
  let read = vec4<f32>(f32({side}[at.x]), f32({side}[at.y]), f32({side}[at.z]), f32({side}[at.w]));
  return select(vec4<f32>(), read, inside);
}}",
            taps = kernel * kernel
        ),
    }
}

/// Where the four positions lie that an invocation gathers: the same in every step.
fn place(kind: Side) -> String {
    let Side::Window(Window { stride, padding, .. }) = kind else { return String::new() };
    format!(
        "  let positions = first_n + thread % FOURS_N * 4u + vec4<u32>(0u, 1u, 2u, 3u);
  let within = positions % sizes.positions;
  let place = Place(
    vec4<i32>(within % sizes.width_out * {stride}u) - {padding},
    vec4<i32>(within / sizes.width_out * {stride}u) - {padding},
    positions / sizes.positions,
    positions < vec4<u32>(sizes.n),
  );"
    )
}

/// Brings a block of four steps of four neighbours into workgroup memory.
fn load(side: &str, first: &str, fours: &str, kind: Side) -> String {
    let step =
        |k: usize, value: String| format!("      {side}_tile[(steps + {k}u) * {fours} + four] = {value};");
    match kind {
        // Fours of steps are turned into fours of neighbours.
        Side::Steps(_) => {
            let read = unroll(4, |i| {
                format!("      let at_{i} = {side}_steps({first} + four * 4u + {i}u, first_k + steps);")
            });
            let components = ["x", "y", "z", "w"];
            let write = unroll(4, |k| {
                let c = components[k];
                step(k, format!("vec4<f32>(at_0.{c}, at_1.{c}, at_2.{c}, at_3.{c})"))
            });
            format!(
                "      let steps = i % (DEPTH / 4u) * 4u;\n      let four = i / (DEPTH / 4u);\n{read}{write}"
            )
        }
        Side::Positions | Side::Window(_) => {
            let write = unroll(4, |k| {
                let at = format!("first_k + steps + {k}u");
                step(
                    k,
                    match kind {
                        Side::Window(_) => format!("{side}_window(place, {at})"),
                        _ => format!("{side}_positions({first} + four * 4u, {at})"),
                    },
                )
            });
            format!("      let four = i % {fours};\n      let steps = i / {fours} * 4u;\n{write}")
        }
    }
}

/// One step's products. Neighbours of an invocation hold neighbouring fours, so that their reads and writes are of one
/// piece.
fn multiply(Tile { rows, columns, .. }: Tile) -> String {
    let left = unroll(rows, |i| format!("      let left_{i} = left_tile[k * FOURS_M + row + {i}u * DOWN];"));
    let right = unroll(columns, |j| {
        format!("      let right_{j} = right_tile[k * FOURS_N + column + {j}u * ACROSS];")
    });
    let sums = unroll(rows * 4 * columns, |i| {
        let (row, j) = (i / columns, i % columns);
        let component = ["x", "y", "z", "w"][row % 4];
        format!("      sum_{i} += left_{}.{component} * right_{j};", row / 4)
    });
    left + &right + &sums
}

impl Product {
    /// The function that writes four columns of a row.
    fn store(&self) -> String {
        let at = match self.output {
            Output::Matrix => "m * sizes.n + n",
            Output::Images => "((n / sizes.positions) * sizes.m + m) * sizes.positions + n % sizes.positions",
        };
        let bias = match self.bias {
            Bias::None => "",
            Bias::Rows => " + f32(bias[m])",
            Bias::Columns if self.by_four => " + vec4<f32>(bias[n / 4u])",
            Bias::Columns => " + f32(bias[n])",
        };
        let added = match self.added {
            Added::None => "",
            Added::Same(()) if self.by_four => " + vec4<f32>(added[at])",
            Added::Same(()) => " + f32(added[at])",
            Added::Channels(()) => " + f32(added[n / sizes.positions * sizes.m + m])",
        };
        if self.by_four {
            return format!(
                "fn store(m: u32, n: u32, sum: vec4<f32>) {{
  if m >= sizes.m || n >= sizes.n {{ return; }}
  let at = ({at}) / 4u;
  out[at] = Out(sum{bias}{added});
}}"
            );
        }
        format!(
            "fn store_one(m: u32, n: u32, sum: f32) {{
  if m >= sizes.m || n >= sizes.n {{ return; }}
  let at = {at};
  out[at] = Out(sum{bias}{added});
}}
fn store(m: u32, n: u32, sum: vec4<f32>) {{
  store_one(m, n, sum.x);
  store_one(m, n + 1u, sum.y);
  store_one(m, n + 2u, sum.z);
  store_one(m, n + 3u, sum.w);
}}"
        )
    }

    fn finish(&self) -> String {
        let Tile { rows, columns, .. } = self.tile;
        unroll(rows * 4 * columns, |i| {
            let (row, j) = (i / columns, i % columns);
            format!(
                "  store(first_m + (row + {}u * DOWN) * 4u + {}u, first_n + (column + {j}u * ACROSS) * 4u, sum_{i});",
                row / 4,
                row % 4
            )
        })
    }
}

/// `x`: `[batch, in, h, w]`, seen `scale` times as large, up to the geometry's size; `weight`: `[out, in, kernel, kernel]`,
/// `bias`: `[out]` → `[batch, out, height', width']`.
pub(super) fn conv2d(
    x: &Operand,
    [height, width]: [usize; 2],
    scale: usize,
    weight: &Operand,
    bias: Option<&Operand>,
    added: &Added<Operand>,
    geometry: Geometry,
) -> Option<Operand> {
    let Geometry { batch, channels_in, channels_out, kernel, stride, padding, .. } = geometry;
    let size_out = geometry.output();
    let positions = size_out[0] * size_out[1];
    let depth = channels_in * kernel * kernel;
    let by_four = positions.is_multiple_of(4);
    let window = Window { kernel, stride, padding, scale };
    let pointwise = window == Window { kernel: 1, stride: 1, padding: 0, scale: 1 };
    let size = [channels_out, batch * positions];
    let product = Product {
        tile: Tile::best(size),
        left: Side::Steps(weight.element(depth)),
        right: if pointwise && by_four { Side::Positions } else { Side::Window(window) },
        output: Output::Images,
        bias: if bias.is_some() { Bias::Rows } else { Bias::None },
        added: added.kind(),
        by_four,
    };
    let seen = [geometry.height, geometry.width];
    let scales = weight.scales([channels_out, depth]);
    let sizes = [
        size[0],
        size[1],
        depth,
        positions,
        channels_in,
        height,
        width,
        seen[0],
        seen[1],
        size_out[1],
        scales,
    ];
    let out = x.room([batch, channels_out, size_out[0], size_out[1]]);
    product.launch([weight, x], bias, added, sizes, &out)?;
    Some(out)
}

/// `x`: `tokens` rows of `from`, or, where `positions` is given, `[image, from, positions]`; `weight`: `[to, from]`, `bias`:
/// `[to]`, `added`: as the output → `[tokens, to]`.
pub(super) fn linear(
    x: &Operand,
    weight: &Operand,
    bias: Option<&Operand>,
    added: &Added<Operand>,
    positions: Option<usize>,
    sizes: [usize; 3],
) -> Option<Operand> {
    linear_by(Tile::best([sizes[0], sizes[2]]), x, weight, bias, added, positions, sizes)
}

/// [`linear`] by a certain tile.
pub(super) fn linear_by(
    tile: Tile,
    x: &Operand,
    weight: &Operand,
    bias: Option<&Operand>,
    added: &Added<Operand>,
    positions: Option<usize>,
    [tokens, from, to]: [usize; 3],
) -> Option<Operand> {
    let steps = Side::Steps(x.numbers(from.is_multiple_of(4)));
    let product = Product {
        tile,
        left: if positions.is_some() { Side::Positions } else { steps },
        right: Side::Steps(weight.element(from)),
        output: Output::Matrix,
        bias: if bias.is_some() { Bias::Columns } else { Bias::None },
        added: added.kind(),
        by_four: to.is_multiple_of(4),
    };
    let out = x.room([tokens, to]);
    let sizes = [tokens, to, from, positions.unwrap_or(1), 0, 0, 0, 0, 0, 0, weight.scales([to, from])];
    product.launch([x, weight], bias, added, sizes, &out)?;
    Some(out)
}

/// `x`: `images · positions` rows of `from`, `weight`: `[to, from]`, `bias`: `[to]`, `added`: as the output → `[images, to,
/// height, width]`.
pub(super) fn linear_to_images(
    x: &Operand,
    weight: &Operand,
    bias: Option<&Operand>,
    added: Operand,
    [images, from, to]: [usize; 3],
    [height, width]: [usize; 2],
) -> Option<Operand> {
    let positions = height * width;
    let size = [to, images * positions];
    let product = Product {
        tile: Tile::best(size),
        left: Side::Steps(weight.element(from)),
        right: Side::Steps(x.numbers(from.is_multiple_of(4))),
        output: Output::Images,
        bias: if bias.is_some() { Bias::Rows } else { Bias::None },
        added: Added::Same(()),
        by_four: positions.is_multiple_of(4),
    };
    let out = x.room([images, to, height, width]);
    let scales = weight.scales([to, from]);
    let sizes = [size[0], size[1], from, positions, 0, 0, 0, 0, 0, 0, scales];
    product.launch([weight, x], bias, &Added::Same(added), sizes, &out)?;
    Some(out)
}

impl Product {
    /// `None` where there are more tiles than one dispatch may have.
    fn launch(
        self,
        [left, right]: [&Operand; 2],
        bias: Option<&Operand>,
        added: &Added<Operand>,
        sizes: [usize; 11],
        out: &Operand,
    ) -> Option<()> {
        let [x, y] = self.tile.groups([sizes[0], sizes[1]]);
        if x.max(y) > MOST_GROUPS {
            return None;
        }
        let mut bound = vec![
            Bound { name: "left", held: left, element: self.left.element(left) },
            Bound { name: "right", held: right, element: self.right.element(right) },
        ];
        let bias_by_four = self.by_four && self.bias == Bias::Columns;
        bound.extend(bias.map(|held| Bound::numbers("bias", held, bias_by_four)));
        bound.extend(match added {
            Added::None => None,
            Added::Same(held) => Some(Bound::numbers("added", held, self.by_four)),
            Added::Channels(held) => Some(Bound::numbers("added", held, false)),
        });
        bound.push(Bound::numbers("out", out, self.by_four));
        let each = (self.tile.height() * self.tile.width() * sizes[2]) as f64;
        launch_sliced(self, &bound, &sizes, [x, y], each);
        Some(())
    }
}
