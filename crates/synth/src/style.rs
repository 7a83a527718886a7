//! The styles: from lit samples to a finished picture.

use image::{Rgb, RgbImage};

use super::geometry::{Material, V3, add, dot, lerp, lerp3, luminance, mul, scale, smoothstep};
use super::raster::Buffer;
use super::rng::{Rng, fractal, lattice, noise};
use super::scene::{Scene, Style};

/// Lit samples, two by two for each pixel.
pub(super) struct Layer {
    pub size: usize,
    /// The background alone, one value a pixel.
    pub backdrop: Vec<V3>,
    pub albedo: Vec<V3>,
    pub color: Vec<V3>,
    /// Amount of light; 1 in the background.
    pub light: Vec<f32>,
    pub gloss: Vec<f32>,
    /// Drawn lines on surfaces.
    pub line: Vec<f32>,
    /// Outlines of shapes.
    pub edge: Vec<f32>,
    pub material: Vec<Material>,
}

impl Layer {
    pub(super) fn new(size: usize, backdrop: Vec<V3>) -> Self {
        let n = size * size;
        Self {
            size,
            backdrop,
            albedo: vec![[0.0; 3]; n],
            color: vec![[0.0; 3]; n],
            light: vec![1.0; n],
            gloss: vec![0.0; n],
            line: vec![0.0; n],
            edge: vec![0.0; n],
            material: vec![Material::None; n],
        }
    }

    /// Marks where depth, material or direction break.
    pub(super) fn outline(&mut self, buffer: &Buffer) {
        let n = self.size;
        for (m, s) in self.material.iter_mut().zip(&buffer.samples) {
            *m = s.material;
        }
        for y in 0..n - 1 {
            for x in 0..n - 1 {
                let p = y * n + x;
                let a = &buffer.samples[p];
                for q in [p + 1, p + n] {
                    let b = &buffer.samples[q];
                    let step = if a.material == Material::None && b.material == Material::None {
                        0.0
                    } else if a.person != b.person || a.tint != b.tint {
                        1.0
                    } else if a.material != b.material {
                        if a.material == Material::None || b.material == Material::None { 1.0 } else { 0.9 }
                    } else if a.material == Material::Frame {
                        0.0
                    } else {
                        let gap = smoothstep(0.10, 0.28, (a.depth - b.depth).abs());
                        let bend = smoothstep(0.55, 0.15, dot(a.normal, b.normal));
                        gap.max(bend * if a.material == Material::Hair { 0.3 } else { 0.7 })
                    };
                    self.edge[p] = self.edge[p].max(step);
                    self.edge[q] = self.edge[q].max(step);
                }
            }
        }
    }

    /// Average of `value` over the four samples of each pixel.
    fn reduce(&self, value: impl Fn(usize) -> V3) -> Canvas {
        let half = self.size / 2;
        let mut canvas = Canvas::new(half);
        for y in 0..half {
            for x in 0..half {
                let p = 2 * y * self.size + 2 * x;
                let sum =
                    add(add(value(p), value(p + 1)), add(value(p + self.size), value(p + self.size + 1)));
                canvas.pixels[y * half + x] = scale(sum, 0.25);
            }
        }
        canvas
    }

    fn figure(&self, p: usize) -> bool {
        self.material[p] != Material::None
    }

    /// Outlines and drawn lines together.
    fn ink(&self, p: usize) -> f32 {
        self.edge[p].max(self.line[p])
    }
}

/// A picture with real-valued pixels.
#[derive(Clone)]
struct Canvas {
    size: usize,
    pixels: Vec<V3>,
}

impl Canvas {
    fn new(size: usize) -> Self {
        Self { size, pixels: vec![[0.0; 3]; size * size] }
    }

    fn at(&self, x: i32, y: i32) -> V3 {
        let last = self.size as i32 - 1;
        self.pixels[(y.clamp(0, last) * (last + 1) + x.clamp(0, last)) as usize]
    }

    fn each(&mut self, f: impl Fn(usize, usize, V3) -> V3) {
        for y in 0..self.size {
            for x in 0..self.size {
                let p = y * self.size + x;
                self.pixels[p] = f(x, y, self.pixels[p]);
            }
        }
    }

    /// A box blur of `radius`, both ways.
    fn blur(&self, radius: i32) -> Self {
        let pass = |from: &Self, dx: i32, dy: i32| {
            let mut to = from.clone();
            to.each(|x, y, _| {
                let mut sum = [0.0; 3];
                for k in -radius..=radius {
                    sum = add(sum, from.at(x as i32 + k * dx, y as i32 + k * dy));
                }
                scale(sum, 1.0 / (2 * radius + 1) as f32)
            });
            to
        };
        pass(&pass(self, 1, 0), 0, 1)
    }

    fn image(&self) -> RgbImage {
        RgbImage::from_fn(self.size as u32, self.size as u32, |x, y| {
            let c = self.pixels[y as usize * self.size + x as usize];
            Rgb(c.map(|v| (v.clamp(0.0, 1.0) * 255.0 + 0.5) as u8))
        })
    }
}

fn saturate(c: V3, by: f32) -> V3 {
    let l = luminance(c);
    c.map(|v| l + (v - l) * by)
}

/// Compresses highlights above 0.75, so that gloss does not clip.
fn tone(c: V3) -> V3 {
    c.map(|v| if v > 0.75 { 0.75 + 0.25 * (1.0 - 1.0 / (1.0 + (v - 0.75) * 4.0)) } else { v })
}

pub(super) fn finish(scene: &Scene, layer: &Layer) -> RgbImage {
    let seed = scene.seed as u32 ^ 0x57E1;
    let canvas = match scene.style {
        Style::Photo => photo(layer, seed),
        Style::FlatCartoon => cartoon(layer),
        Style::InkSketch => ink(layer, seed),
        Style::Watercolor => watercolor(layer, seed),
        Style::Oil => oil(layer, scene.seed),
        Style::PopArt => pop(layer, scene),
        Style::PixelArt => pixels(layer),
        Style::Neon => neon(layer),
    };
    canvas.image()
}

fn photo(layer: &Layer, seed: u32) -> Canvas {
    // The background is out of focus.
    let mut back = Canvas { size: layer.size / 2, pixels: layer.backdrop.clone() };
    let radius = (back.size as i32 / 64).max(1);
    back = back.blur(radius);
    let n = back.size;
    let mut canvas = layer.reduce(|p| {
        let (x, y) = ((p % layer.size) / 2, p / layer.size / 2);
        tone(if layer.figure(p) { layer.color[p] } else { back.pixels[y * n + x] })
    });
    let grain = seed ^ 0x77;
    canvas.each(|x, y, c| {
        let (u, v) = (x as f32 / n as f32 - 0.5, y as f32 / n as f32 - 0.5);
        let vignette = 1.0 - 0.28 * (u * u + v * v);
        add(scale(c, vignette), [(lattice(x as i32, y as i32, grain) - 0.5) * 0.012; 3])
    });
    canvas
}

fn cartoon(layer: &Layer) -> Canvas {
    layer.reduce(|p| {
        let base = saturate(layer.albedo[p], 1.25);
        let c = if layer.figure(p) {
            let l = layer.light[p];
            let step = if l < 0.52 {
                0.70
            } else if l < 0.88 {
                0.95
            } else {
                1.08
            };
            let shine = if layer.gloss[p] > 0.13 { 0.10 } else { 0.0 };
            add(scale(base, step), [shine; 3])
        } else {
            base.map(|v| (v * 6.0 + 0.5).floor() / 6.0 * 0.92 + 0.06)
        };
        lerp3(c, [0.07, 0.05, 0.08], smoothstep(0.3, 0.75, layer.ink(p)))
    })
}

fn ink(layer: &Layer, seed: u32) -> Canvas {
    let n = layer.size;
    let unit = 256.0 / n as f32;
    layer.reduce(|p| {
        let (x, y) = ((p % n) as f32 * unit, (p / n) as f32 * unit);
        let paper = 0.965 - 0.05 * fractal(x * 0.05, y * 0.05, seed);
        let lum = if layer.figure(p) {
            luminance(layer.albedo[p]) * 0.62 + luminance(layer.color[p]) * 0.45
        } else {
            0.45 + 0.62 * luminance(layer.color[p])
        };
        let wobble = 2.5 * noise(x * 0.04, y * 0.04, seed ^ 9);
        // One direction of hatching more for each darker tone.
        let stroke = |a: f32, b: f32, gap: f32, level: f32| {
            let t = ((x * a + y * b + wobble) / gap).rem_euclid(1.0) - 0.5;
            let width = (0.62 * smoothstep(level, level - 0.26, lum)).min(0.5);
            smoothstep(width + 0.10, width - 0.10, t.abs() * 2.0 + 0.10)
                * smoothstep(level, level - 0.08, lum)
        };
        let mut dark = stroke(0.7, 0.7, 5.5, 0.70);
        dark = dark.max(stroke(0.7, -0.7, 5.5, 0.46));
        dark = dark.max(stroke(0.15, 1.0, 4.5, 0.28));
        dark = dark.max(smoothstep(0.17, 0.08, lum));
        let line = smoothstep(0.25, 0.7, layer.ink(p));
        let wash = lerp3([paper, paper * 0.985, paper * 0.94], saturate(layer.albedo[p], 0.8), 0.16);
        lerp3(wash, [0.10, 0.09, 0.12], (dark * 0.78).max(line))
    })
}

fn watercolor(layer: &Layer, seed: u32) -> Canvas {
    let source = layer.reduce(|p| {
        let l = if layer.figure(p) { 0.55 + 0.5 * layer.light[p].min(1.1) } else { 1.0 };
        let c = scale(layer.albedo[p], l);
        lerp3(c, scale(layer.albedo[p], 0.35), 0.55 * layer.line[p])
    });
    let n = source.size;
    let unit = 128.0 / n as f32;
    // Pigment bleeds: each place takes its colour from a little way off.
    let mut wet = source.clone();
    wet.each(|x, y, _| {
        let (u, v) = (x as f32 * unit, y as f32 * unit);
        let dx = (fractal(u * 0.11, v * 0.11, seed) - 0.5) * 6.5 / unit;
        let dy = (fractal(u * 0.11, v * 0.11, seed ^ 0x33) - 0.5) * 6.5 / unit;
        let face = layer.material[2 * y * layer.size + 2 * x] == Material::Skin;
        let k = if face { 0.30 } else { 1.0 };
        source.at(x as i32 + (dx * k) as i32, y as i32 + (dy * k) as i32)
    });
    let soft = wet.blur((n as i32 / 42).max(1));
    let mut canvas = wet.clone();
    canvas.each(|x, y, c| {
        let (u, v) = (x as f32 * unit, y as f32 * unit);
        let s = soft.pixels[y * n + x];
        let figure = layer.figure(2 * y * layer.size + 2 * x);
        let mixed = lerp3(c, s, if figure { 0.18 } else { 0.75 });
        // Pigment gathers at the rim of a wash and leaves its middle pale.
        let rim = (luminance(s) - luminance(c)).max(0.0) * 0.8;
        let bloom = fractal(u * 0.06, v * 0.06, seed ^ 0x5A);
        let thin = 0.20 + 0.26 * bloom + if figure { 0.0 } else { 0.16 };
        let paper = 0.975 + 0.05 * (noise(u * 0.9, v * 0.9, seed ^ 3) - 0.5);
        let mut out = lerp3(saturate(mixed, 1.45), [1.0, 0.99, 0.96], thin);
        out = scale(out, 1.0 - rim);
        let border = u.min(127.0 - u).min(v.min(127.0 - v));
        let torn = smoothstep(2.0, 9.0, border + 10.0 * (fractal(u * 0.09, v * 0.09, seed ^ 0x71) - 0.55));
        let granule = 1.0 - 0.05 * noise(u * 0.6, v * 0.6, seed ^ 0x11);
        lerp3([paper, paper * 0.99, paper * 0.955], scale(out, granule * paper), torn)
    });
    canvas
}

fn oil(layer: &Layer, seed: u64) -> Canvas {
    let source = layer.reduce(|p| tone(layer.color[p]));
    let n = source.size;
    let soft = source.blur(1);
    let mut canvas = source.blur((n as i32 / 26).max(1));
    let mut rng = Rng::new(seed, 0x011);
    let unit = n as f32 / 128.0;
    // Coarse strokes first; fine ones only where there is a figure.
    for (length, width, step, fine) in
        [(9.0, 2.6, 4.0, false), (5.5, 1.5, 2.4, false), (3.2, 0.85, 1.5, true)]
    {
        let (length, width) = (length * unit, width * unit);
        let rows = (128.0 / step) as usize;
        for k in 0..rows * rows {
            let x = ((k % rows) as f32 + rng.unit()) * step * unit;
            let y = ((k / rows) as f32 + rng.unit()) * step * unit;
            let (ix, iy) = (x as i32, y as i32);
            let inside = (iy.clamp(0, n as i32 - 1) as usize * 2) * layer.size
                + ix.clamp(0, n as i32 - 1) as usize * 2;
            let (jitter, lift) = (rng.range(-0.5, 0.5), rng.range(-0.055, 0.055));
            if fine && !layer.figure(inside) {
                continue;
            }
            let gx = luminance(soft.at(ix + 2, iy)) - luminance(soft.at(ix - 2, iy));
            let gy = luminance(soft.at(ix, iy + 2)) - luminance(soft.at(ix, iy - 2));
            let norm = (gx * gx + gy * gy).sqrt();
            // Along edges; where there are none, in a common slant.
            let (tx, ty) = if norm > 0.03 { (-gy / norm, gx / norm) } else { (0.8, 0.6) };
            let (tx, ty) = (tx - jitter * ty * 0.6, ty + jitter * tx * 0.6);
            let color = add(saturate(soft.at(ix, iy), 1.22), [lift; 3]);
            let reach = length.ceil() as i32;
            for dy in -reach..=reach {
                for dx in -reach..=reach {
                    let (px, py) = (ix + dx, iy + dy);
                    if px < 0 || py < 0 || px >= n as i32 || py >= n as i32 {
                        continue;
                    }
                    let along = (dx as f32 * tx + dy as f32 * ty) / length;
                    let across = (dy as f32 * tx - dx as f32 * ty) / width;
                    let d = along * along + across * across;
                    if d < 1.0 {
                        let bristle = 0.93 + 0.14 * lattice((across * 3.0) as i32 + k as i32 * 7, 0, 5);
                        let q = py as usize * n + px as usize;
                        let cover = smoothstep(1.0, 0.55, d) * if fine { 0.72 } else { 0.92 };
                        canvas.pixels[q] = lerp3(canvas.pixels[q], scale(color, bristle), cover);
                    }
                }
            }
        }
    }
    let flat = canvas.clone();
    canvas.each(|x, y, c| {
        // Thick paint catches the light from the upper left.
        let (x, y) = (x as i32, y as i32);
        let ridge = luminance(flat.at(x - 1, y - 1)) - luminance(flat.at(x + 1, y + 1));
        let weave = 0.012 * ((x + y) % 2) as f32;
        add(c, [(-0.16 * ridge).clamp(-0.05, 0.05) - weave; 3])
    });
    canvas
}

fn pop(layer: &Layer, scene: &Scene) -> Canvas {
    let n = layer.size;
    let unit = 256.0 / n as f32;
    let turn = lattice(3, 1, scene.seed as u32);
    let pairs: [(V3, V3); 5] = [
        ([0.98, 0.84, 0.12], [0.95, 0.30, 0.45]),
        ([0.10, 0.72, 0.85], [0.98, 0.90, 0.30]),
        ([0.96, 0.35, 0.60], [0.35, 0.85, 0.85]),
        ([0.55, 0.80, 0.22], [0.98, 0.95, 0.55]),
        ([0.98, 0.55, 0.15], [0.25, 0.35, 0.80]),
    ];
    let (back, second) = pairs[(turn * 4.99) as usize];
    layer.reduce(|p| {
        let (x, y) = ((p % n) as f32 * unit, (p / n) as f32 * unit);
        let dots = |gap: f32, size: f32| {
            let slant = std::f32::consts::FRAC_1_SQRT_2 / gap;
            let (u, v) = ((x + y) * slant, (x - y) * slant);
            let (a, b) = (u - u.floor() - 0.5, v - v.floor() - 0.5);
            smoothstep(size + 0.08, size - 0.08, (a * a + b * b).sqrt())
        };
        let c = if layer.figure(p) {
            let base = saturate(layer.albedo[p], 1.75);
            let base = base.map(|v| {
                let q = (v.clamp(0.0, 1.0) * 4.0 + 0.5).floor() / 4.0;
                lerp(v, q, 0.75)
            });
            let bright = add(scale(base, 1.08), [0.03; 3]);
            let shade = (0.95 - layer.light[p]).clamp(0.0, 0.75);
            let dark = mul(bright, [0.55, 0.30, 0.48]);
            lerp3(bright, dark, dots(7.0, 0.72 * shade.sqrt()))
        } else {
            let lum = luminance(layer.albedo[p]);
            lerp3(back, second, dots(10.0, 0.62 * (1.0 - lum)))
        };
        lerp3(c, [0.05, 0.03, 0.08], smoothstep(0.35, 0.7, layer.ink(p)))
    })
}

fn pixels(layer: &Layer) -> Canvas {
    let source = layer.reduce(|p| {
        let c =
            saturate(lerp3(scale(layer.albedo[p], layer.light[p].min(1.15)), tone(layer.color[p]), 0.4), 1.2);
        lerp3(c, [0.10, 0.07, 0.12], 0.5 * layer.line[p])
    });
    let n = source.size;
    let block = ((n as f32 / 44.0) + 0.5).max(1.0) as usize;
    let mut canvas = Canvas::new(n);
    let cells = n.div_ceil(block);
    for cy in 0..cells {
        for cx in 0..cells {
            let (mut sum, mut count, mut edge) = ([0.0; 3], 0.0, 0.0);
            for y in cy * block..((cy + 1) * block).min(n) {
                for x in cx * block..((cx + 1) * block).min(n) {
                    sum = add(sum, source.pixels[y * n + x]);
                    count += 1.0;
                    let p = 2 * y * layer.size + 2 * x;
                    edge += if layer.edge[p] > 0.95 { 1.0 } else { 0.0 };
                }
            }
            let mean = scale(sum, 1.0 / count);
            let dither = if (cx + cy) % 2 == 0 { 0.016 } else { -0.016 };
            let mut c = mean.map(|v| ((v + dither) * 7.0 + 0.5).floor() / 7.0);
            if edge / count > 0.34 {
                c = scale(c, 0.45);
            }
            for y in cy * block..((cy + 1) * block).min(n) {
                for x in cx * block..((cx + 1) * block).min(n) {
                    canvas.pixels[y * n + x] = c;
                }
            }
        }
    }
    canvas
}

fn neon(layer: &Layer) -> Canvas {
    let lines = layer.reduce(|p| {
        let hue = saturate(layer.albedo[p], 2.4);
        let peak = hue[0].max(hue[1]).max(hue[2]).max(0.05);
        let lit = hue.map(|v| (v / peak).clamp(0.05, 1.0));
        // Dark things glow violet, pale ones in their own colour.
        let lit = lerp3([0.45, 0.25, 1.0], lit, smoothstep(0.05, 0.22, peak));
        let highlight = if layer.gloss[p] > 0.16 { 0.25 } else { 0.0 };
        scale(lit, smoothstep(0.25, 0.8, layer.ink(p)) + highlight)
    });
    let near = lines.blur((lines.size as i32 / 85).max(1));
    let far = near.blur((lines.size as i32 / 26).max(1));
    let n = lines.size;
    let mut canvas = layer.reduce(|p| {
        let c = if layer.figure(p) { layer.color[p] } else { scale(layer.albedo[p], 0.45) };
        let dim = scale(saturate(c, 1.5), 0.30);
        add(mul(dim, [0.85, 0.75, 1.15]), [0.015, 0.008, 0.045])
    });
    canvas.each(|x, y, c| {
        let p = y * n + x;
        let glow = add(scale(near.pixels[p], 0.75), scale(far.pixels[p], 1.5));
        let core = lerp3(lines.pixels[p], [1.0; 3], 0.25 * luminance(lines.pixels[p]));
        add(c, add(glow, scale(core, 0.95)))
    });
    canvas
}
