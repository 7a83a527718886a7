//! Backgrounds and the pictures without people.

use super::geometry::{Material, Mesh, V3, bell2, lerp3, scale, smoothstep};
use super::rng::{Rng, fractal, lattice, noise};
use super::scene::{Background, Scene, Subject};

/// The background at (x, y), each in [0, 1].
pub(super) fn color(scene: &Scene, x: f32, y: f32) -> V3 {
    let seed = scene.seed as u32 ^ 0xBAC6;
    let shift = lattice(1, 2, seed);
    let (main, accent) = (scene.color.rgb, scene.accent.rgb);
    let kind = match scene.subject {
        Some(Subject::Fruit) => return table(main, x, y),
        Some(Subject::Flower) => Background::Gradient,
        Some(Subject::Boat) => Background::Beach,
        Some(Subject::Ball) => Background::Plain,
        Some(Subject::Car) => Background::City,
        Some(Subject::Landscape) => {
            if shift < 0.4 {
                Background::Mountains
            } else if shift < 0.7 {
                Background::Forest
            } else {
                Background::Sunset
            }
        }
        Some(Subject::House | Subject::Tree) => Background::Mountains,
        None => scene.background,
    };
    match kind {
        Background::Plain => {
            let d = bell2(x - 0.5, y - 0.4, 0.8, 0.8);
            scale(lerp3(main, [0.9; 3], 0.25), 0.72 + 0.28 * d)
        }
        Background::Gradient => lerp3(lerp3(main, [1.0; 3], 0.35), accent, smoothstep(0.0, 1.0, y)),
        Background::Sky => {
            let sky = lerp3([0.30, 0.55, 0.90], [0.72, 0.86, 0.98], y);
            let cloud = fractal(x * 3.5 + 9.0 * shift, y * 6.0, seed);
            lerp3(sky, [0.98; 3], smoothstep(0.50, 0.68, cloud))
        }
        Background::Forest => {
            let leaves = fractal(x * 9.0, y * 9.0, seed);
            let light = smoothstep(0.75, 0.0, y) * fractal(x * 4.0, y * 3.0, seed ^ 5);
            let mut c = lerp3([0.07, 0.22, 0.10], [0.42, 0.64, 0.24], leaves * 0.8 + light * 0.4);
            let trunk = (x * 6.0 + shift + 0.15 * noise(y * 3.0, 1.0, seed)).rem_euclid(1.0);
            let near = lattice((x * 6.0 + shift).floor() as i32, 3, seed);
            if near > 0.35 && trunk < 0.16 + 0.12 * near {
                c = lerp3(c, [0.22, 0.14, 0.09], 0.85);
            }
            lerp3(c, [0.16, 0.32, 0.12], smoothstep(0.80, 0.9, y))
        }
        Background::City => {
            let mut c = lerp3([0.55, 0.68, 0.86], [0.92, 0.82, 0.72], y);
            for (k, depth) in [(7.0f32, 0.0f32), (5.0, 1.0)] {
                let column = (x * k + shift * 3.0 + depth * 0.4).floor();
                let top = 0.12 + 0.42 * lattice(column as i32, 7 + depth as i32, seed) + 0.12 * depth;
                if y > top {
                    let tone = 0.30 + 0.22 * lattice(column as i32, 9, seed) - 0.10 * depth;
                    c = [tone * 0.95, tone, tone * 1.18];
                    let (wx, wy) = ((x * k + shift * 3.0 + depth * 0.4).rem_euclid(1.0) * 4.0, y * 22.0);
                    if (0.25..0.75).contains(&wx.rem_euclid(1.0))
                        && (0.3..0.75).contains(&wy.rem_euclid(1.0))
                        && lattice((column * 4.0 + wx.floor()) as i32, wy.floor() as i32, seed) > 0.45
                    {
                        c = [0.95, 0.84, 0.50];
                    }
                }
            }
            if y > 0.86 { lerp3(c, [0.28, 0.28, 0.30], 0.9) } else { c }
        }
        Background::Room => {
            let mut c = scale(lerp3(main, [0.93, 0.90, 0.84], 0.62), 0.92);
            if y > 0.80 {
                c = [0.52, 0.34, 0.20];
            } else if y > 0.77 {
                c = [0.95, 0.94, 0.92];
            }
            let left = if shift < 0.5 { 0.05 } else { 0.68 };
            if (left..left + 0.27).contains(&x) && (0.10..0.52).contains(&y) {
                let (u, v) = ((x - left) / 0.27, (y - 0.10) / 0.42);
                let frame = u.min(1.0 - u).min(v.min(1.0 - v)) < 0.06 || (u - 0.5).abs() < 0.03;
                c = if frame { [0.96, 0.96, 0.95] } else { lerp3([0.55, 0.78, 0.98], [0.75, 0.90, 0.80], v) };
            }
            let shelf = if shift < 0.5 { 0.70 } else { 0.04 };
            if (shelf..shelf + 0.26).contains(&x) && (0.15..0.75).contains(&y) {
                let row = (y - 0.15) / 0.20;
                let book = ((x - shelf) * 26.0).floor();
                c = if row.rem_euclid(1.0) > 0.88 {
                    [0.40, 0.25, 0.14]
                } else {
                    let h = lattice(book as i32, row.floor() as i32, seed);
                    super::scene::COLORS[(h * 11.9) as usize].rgb.map(|v| 0.15 + 0.65 * v)
                };
            }
            c
        }
        Background::Beach => {
            let horizon = 0.46;
            if y < horizon {
                let sky = lerp3([0.35, 0.66, 0.95], [0.80, 0.92, 0.98], y / horizon);
                let sun = bell2(x - 0.2 - 0.6 * shift, y - 0.15, 0.06, 0.06);
                lerp3(sky, [1.0, 0.95, 0.70], (sun * 1.6).min(1.0))
            } else if y < 0.68 + 0.02 * noise(x * 7.0, 0.0, seed) {
                let wave = noise(x * 6.0, y * 60.0, seed);
                lerp3([0.08, 0.45, 0.66], [0.32, 0.76, 0.82], 0.5 * wave + (y - horizon) * 2.0)
            } else {
                scale([0.93, 0.82, 0.60], 0.92 + 0.12 * noise(x * 50.0, y * 50.0, seed))
            }
        }
        Background::Stripes => {
            let t = if shift < 0.5 { x + y } else { x };
            let band = smoothstep(0.44, 0.56, ((t * 6.0).rem_euclid(1.0) - 0.5).abs() * 2.0);
            lerp3(lerp3(main, [1.0; 3], 0.25), lerp3(accent, [1.0; 3], 0.25), band)
        }
        Background::Stars => {
            let mut c = lerp3([0.03, 0.04, 0.13], [0.16, 0.10, 0.30], fractal(x * 3.0, y * 3.0, seed));
            let (cx, cy) = ((x * 14.0).floor(), (y * 14.0).floor());
            let h = lattice(cx as i32, cy as i32, seed);
            if h > 0.55 {
                let ox = 0.25 + 0.5 * lattice(cx as i32, cy as i32, seed ^ 1);
                let oy = 0.25 + 0.5 * lattice(cx as i32, cy as i32, seed ^ 2);
                let d = bell2(x * 14.0 - cx - ox, y * 14.0 - cy - oy, 0.10 + 0.12 * h, 0.10 + 0.12 * h);
                c = lerp3(c, [1.0, 0.98, 0.88], d.min(1.0));
            }
            c
        }
        Background::Sunset => {
            let sky = if y < 0.6 {
                lerp3([0.30, 0.18, 0.45], [0.98, 0.55, 0.30], y / 0.6)
            } else {
                lerp3([0.98, 0.70, 0.35], [0.35, 0.16, 0.25], smoothstep(0.60, 0.68, y))
            };
            let sun = bell2(x - 0.25 - 0.5 * shift, y - 0.55, 0.10, 0.10);
            let c = lerp3(sky, [1.0, 0.92, 0.60], if y < 0.62 { (1.5 * sun).min(1.0) } else { 0.0 });
            let hill = 0.70 + 0.10 * (noise(x * 3.0, 4.0, seed) - 0.5);
            if y > hill { [0.14, 0.09, 0.17] } else { c }
        }
        Background::Mountains => {
            let mut c = lerp3([0.42, 0.66, 0.92], [0.86, 0.93, 0.97], y * 1.6);
            let far = 0.22 + 0.30 * fractal(x * 3.0 + 5.0 * shift, 0.0, seed);
            if y > far {
                let snow = smoothstep(0.10, 0.03, y - far);
                c = lerp3([0.42, 0.47, 0.58], [0.95, 0.96, 0.98], snow * 0.9);
            }
            let near = 0.56 + 0.12 * fractal(x * 2.0, 8.0, seed);
            if y > near {
                c = lerp3([0.30, 0.55, 0.24], [0.52, 0.70, 0.30], fractal(x * 12.0, y * 14.0, seed));
            }
            c
        }
        Background::Bokeh => {
            let mut c = scale(lerp3(main, [0.20, 0.18, 0.22], 0.55), 0.55);
            for k in 0..14 {
                let (bx, by) = (lattice(k, 1, seed), lattice(k, 2, seed));
                let r = 0.03 + 0.07 * lattice(k, 3, seed);
                let d = ((x - bx).powi(2) + (y - by).powi(2)).sqrt();
                let tone = if k % 2 == 0 { [1.0, 0.85, 0.55] } else { lerp3(accent, [1.0; 3], 0.4) };
                c = lerp3(c, tone, 0.55 * smoothstep(r, r * 0.8, d));
            }
            c
        }
    }
}

fn table(wall: V3, x: f32, y: f32) -> V3 {
    if y > 0.66 {
        scale([0.58, 0.38, 0.22], 0.85 + 0.3 * noise(x * 3.0, y * 40.0, 3))
    } else {
        scale(lerp3(wall, [0.92, 0.90, 0.86], 0.5), 0.85)
    }
}

/// The meshes of a subject, and the colours their tints name.
pub(super) fn props(subject: Subject, scene: &Scene) -> (Vec<Mesh>, Vec<V3>) {
    let mut rng = Rng::new(scene.seed, 0x50B);
    let rng = &mut rng;
    let main = scene.accent.rgb;
    let palette = vec![
        main,
        [0.80, 0.16, 0.13],
        [0.95, 0.58, 0.12],
        [0.95, 0.82, 0.25],
        [0.42, 0.62, 0.20],
        [0.40, 0.26, 0.15],
        [0.90, 0.88, 0.84],
        [0.12, 0.12, 0.14],
        [0.20, 0.45, 0.18],
        [0.60, 0.80, 0.92],
    ];
    let ball = |c: V3, r: V3, tint: u8| Mesh::ellipsoid(Material::Prop, (18, 26), c, r, |p| p).tinted(tint);
    let cube = |c: V3, h: V3, tint: u8| Mesh::cuboid(Material::Prop, c, h).tinted(tint);
    let cone = |c: V3, r: f32, h: f32, tint: u8| {
        Mesh::grid(Material::Prop, 8, 20, true, |i, j| {
            let t = i as f32 / 7.0;
            let a = 2.0 * std::f32::consts::PI * j as f32 / 20.0;
            [c[0] + r * t * libm::sinf(a), c[1] + h * (0.5 - t), c[2] + r * t * libm::cosf(a)]
        })
        .tinted(tint)
    };
    let mut out = Vec::new();
    match subject {
        Subject::Landscape => {
            for _ in 0..rng.below(4) {
                let (x, s) = (rng.range(-1.5, 1.5), rng.range(0.3, 0.55));
                out.push(cube([x, -0.75, 0.0], [0.05 * s, 0.4 * s, 0.05 * s], 5));
                out.push(cone([x, -0.40, 0.0], 0.55 * s, 1.4 * s, 8));
            }
        }
        Subject::Fruit => {
            out.push(
                Mesh::ellipsoid(Material::Prop, (16, 28), [0.0, -0.62, 0.0], [1.05, 0.62, 0.8], |p| {
                    [p[0], p[1].min(0.15), p[2]]
                })
                .tinted(0),
            );
            for k in 0..6 {
                let tint = rng.pick(&[1u8, 2, 3, 4]);
                let x = -0.62 + 0.25 * k as f32;
                let r = rng.range(0.24, 0.34);
                out.push(ball(
                    [x, -0.36 + 0.22 * (k % 2) as f32, rng.range(-0.2, 0.3)],
                    [r, r * rng.range(0.9, 1.15), r],
                    tint,
                ));
            }
        }
        Subject::House => {
            out.push(cube([0.0, -0.45, 0.0], [0.85, 0.55, 0.6], 6));
            out.push(
                Mesh::grid(Material::Prop, 2, 4, true, |i, j| {
                    let (x, z) = [(-1.05, 0.8), (1.05, 0.8), (1.05, -0.8), (-1.05, -0.8)][j];
                    if i == 0 { [x * 0.45, 0.78, 0.0] } else { [x, 0.08, z] }
                })
                .tinted(if rng.chance(0.5) { 1 } else { 0 })
                .two_sided(),
            );
            out.push(cube([0.0, -0.66, 0.60], [0.17, 0.34, 0.03], 5));
            for x in [-0.5, 0.5] {
                out.push(cube([x, -0.30, 0.60], [0.17, 0.17, 0.03], 9));
            }
            out.push(cube([0.55, 0.65, -0.1], [0.11, 0.3, 0.11], 5));
        }
        Subject::Car => {
            out.push(
                Mesh::ellipsoid(Material::Prop, (16, 28), [0.0, -0.42, 0.0], [1.35, 0.42, 0.55], |p| {
                    p.map(|v| (v * 1.25).clamp(-1.0, 1.0))
                })
                .tinted(0),
            );
            out.push(
                Mesh::ellipsoid(Material::Prop, (14, 24), [-0.08, 0.02, 0.0], [0.78, 0.42, 0.48], |p| {
                    p.map(|v| (v * 1.2).clamp(-1.0, 1.0))
                })
                .tinted(9),
            );
            out.push(cube([-0.08, 0.36, 0.0], [0.55, 0.05, 0.42], 0));
            for x in [-0.78, 0.78] {
                out.push(ball([x, -0.80, 0.45], [0.29, 0.29, 0.16], 7));
                out.push(ball([x, -0.80, 0.56], [0.14, 0.14, 0.10], 6));
            }
        }
        Subject::Tree => {
            out.push(
                Mesh::tube(
                    Material::Prop,
                    &[[0.0, 0.3, 0.0], [0.05, -0.4, 0.0], [0.0, -1.2, 0.0]],
                    12,
                    false,
                    |i| 0.11 + 0.04 * i as f32,
                )
                .tinted(5),
            );
            for _ in 0..7 {
                let r = rng.range(0.35, 0.52);
                out.push(ball(
                    [rng.range(-0.6, 0.6), rng.range(0.15, 0.85), rng.range(-0.3, 0.3)],
                    [r, r, r],
                    if rng.chance(0.7) { 8 } else { 4 },
                ));
            }
        }
        Subject::Ball => {
            let r = rng.range(0.7, 0.95);
            out.push(ball([rng.range(-0.3, 0.3), rng.range(-0.4, 0.1), 0.0], [r, r, r], 0));
        }
        Subject::Boat => {
            out.push(
                Mesh::ellipsoid(Material::Prop, (14, 28), [0.0, -0.35, 0.0], [1.0, 0.42, 0.4], |p| {
                    [p[0], p[1].min(0.0), p[2]]
                })
                .tinted(1)
                .two_sided(),
            );
            out.push(cube([0.0, 0.25, 0.0], [0.035, 0.65, 0.035], 5));
            out.push(
                Mesh::grid(Material::Prop, 2, 2, false, |i, j| {
                    if i == 0 {
                        [0.06, 0.9, 0.02]
                    } else {
                        [0.06 + 0.75 * j as f32, -0.2, 0.02 + 0.2 * j as f32]
                    }
                })
                .tinted(6)
                .two_sided(),
            );
        }
        Subject::Flower => {
            out.push(
                Mesh::tube(
                    Material::Prop,
                    &[[0.0, 0.25, -0.1], [0.06, -0.5, -0.1], [0.0, -1.6, -0.1]],
                    8,
                    false,
                    |_| 0.05,
                )
                .tinted(8),
            );
            for k in 0..7 {
                let a = 2.0 * std::f32::consts::PI * k as f32 / 7.0;
                let (s, c) = (libm::sinf(a), libm::cosf(a));
                out.push(ball(
                    [0.48 * s, 0.3 + 0.48 * c, -0.05],
                    [0.20 + 0.14 * s.abs(), 0.20 + 0.14 * c.abs(), 0.08],
                    0,
                ));
            }
            out.push(ball([0.0, 0.3, 0.05], [0.24, 0.24, 0.14], 3));
            out.push(ball([0.34, -0.75, 0.0], [0.30, 0.11, 0.06], 4));
        }
    }
    (out, palette)
}
