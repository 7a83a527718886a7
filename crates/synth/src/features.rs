//! What a person wears and what carries the head: neck, torso, glasses, hats and scarves.

use super::geometry::{Material, Mesh, Rotation, V3, add, lerp, smoothstep, spline};
use super::head::Face;
use super::identity::{Glasses, Identity};
use super::scene::{ClothingKind, HatKind};

/// Horizontal slices of the torso: height, half-width, front, back.
const TORSO: [[f32; 4]; 9] = [
    [-1.22, 0.30, 0.05, -0.60],
    [-1.36, 0.44, 0.12, -0.66],
    [-1.46, 0.72, 0.20, -0.70],
    [-1.56, 1.02, 0.28, -0.74],
    [-1.72, 1.28, 0.38, -0.80],
    [-1.98, 1.42, 0.48, -0.85],
    [-2.40, 1.46, 0.56, -0.90],
    [-3.20, 1.42, 0.60, -0.90],
    [-5.50, 1.50, 0.60, -0.90],
];

/// Neck, in body coordinates; `head` is the head's rotation and `body` the body's.
pub(super) fn neck(id: &Identity, head: &Rotation, body: &Rotation) -> Mesh {
    let top = body.inverse(head.apply([0.0, -0.50, -0.20]));
    let bottom = [0.0, -1.75, -0.26];
    let width = (0.27 + 0.15 * id.build) * (1.1 - 0.18 * id.presentation);
    Mesh::grid(Material::Neck, 10, 20, true, |i, j| {
        let t = i as f32 / 9.0;
        let angle = 2.0 * std::f32::consts::PI * j as f32 / 20.0;
        let w = width * (1.06 - 0.10 * libm::sinf(t * 2.6)) + 0.25 * smoothstep(0.62, 1.0, t);
        let c = super::geometry::lerp3(top, bottom, t);
        add(c, [w * libm::sinf(angle), 0.0, w * 0.95 * libm::cosf(angle)])
    })
}

/// Clothed torso, in body coordinates.
pub(super) fn torso(id: &Identity, kind: ClothingKind) -> Vec<Mesh> {
    let width = (0.78 + 0.34 * id.build) * (1.04 - 0.10 * id.presentation);
    let puff = match kind {
        ClothingKind::Hoodie => 0.06,
        ClothingKind::Suit => 0.05,
        _ => 0.0,
    };
    let body = Mesh::grid(Material::Cloth, 34, 40, true, |i, j| {
        let t = 8.0 * i as f32 / 33.0;
        let [y, w, f, b] = spline(&TORSO, t);
        let angle = 2.0 * std::f32::consts::PI * j as f32 / 40.0;
        let (s, c) = (libm::sinf(angle), libm::cosf(angle));
        let m = 0.5 * (f + b);
        let w = lerp(w, w * width, smoothstep(0.5, 3.0, t)) + puff;
        [w * s * (1.15 - 0.15 * s * s), y + puff * 0.6, m + (0.5 * (f - b) + puff) * c]
    });
    let mut out = vec![body];
    if kind == ClothingKind::Hoodie {
        out.push(ring(Material::Cloth, [0.0, -1.36, -0.32], [0.66, 0.14, 0.56], 0.20));
    }
    if kind == ClothingKind::Turtleneck {
        out.push(ring(Material::Cloth, [0.0, -1.22, -0.24], [0.40, 0.10, 0.38], 0.14));
    }
    out
}

/// A scarf around the neck, in body coordinates.
pub(super) fn scarf() -> Vec<Mesh> {
    let mut end = Mesh::ellipsoid(Material::Scarf, (10, 12), [0.34, -1.85, 0.50], [0.19, 0.55, 0.10], |p| p);
    end.coordinates.iter_mut().for_each(|c| c[1] *= 0.5);
    vec![ring(Material::Scarf, [0.0, -1.30, -0.22], [0.50, 0.08, 0.48], 0.22), end]
}

/// A thick ring around the vertical axis, its front lowered by `half[1]`.
fn ring(material: Material, centre: V3, half: V3, thick: f32) -> Mesh {
    let path: Vec<V3> = (0..24)
        .map(|k| {
            let a = 2.0 * std::f32::consts::PI * k as f32 / 24.0;
            add(centre, [half[0] * libm::sinf(a), -half[1] * libm::cosf(a), half[2] * libm::cosf(a)])
        })
        .collect();
    Mesh::tube(material, &path, 10, true, |_| thick).two_sided()
}

/// Glasses in front of the eyes, in head coordinates.
pub(super) fn glasses(face: &Face, id: &Identity, shape: Glasses) -> Vec<Mesh> {
    let size = 0.195 + 0.05 * id.glasses_size;
    let thick = 0.017 + 0.020 * id.frame_thickness;
    let (w, h, power, cat) = match shape {
        Glasses::Round => (1.0, 1.0, 2.0, 0.0),
        Glasses::Square => (1.12, 0.80, 4.0, 0.0),
        Glasses::CatEye => (1.15, 0.78, 2.6, 0.35),
        Glasses::Wide => (1.22, 0.66, 3.2, 0.0),
        Glasses::Sun => (1.18, 0.90, 3.0, 0.08),
    };
    let (w, h) = (w * size, h * size);
    // The lenses stand before the brows and the eyes, and slope back to the sides.
    let plane = face.eyes[0][2] + 0.14;
    let spacing = face.eyes[1][0].max(w + 0.03);
    let y0 = face.eyes[0][1] - 0.02;
    let mut out = Vec::new();
    for side in [-1.0f32, 1.0] {
        let at = |x: f32, y: f32| [side * (spacing + x), y0 + y, plane - 0.16 * (x + w) * (x + w)];
        let rim: Vec<V3> = (0..28)
            .map(|k| {
                let a = side * 2.0 * std::f32::consts::PI * k as f32 / 28.0;
                let (c, s) = (libm::cosf(a), libm::sinf(a));
                let n = libm::powf(libm::powf(c.abs(), power) + libm::powf(s.abs(), power), -1.0 / power);
                let lift = cat * h * smoothstep(0.2, 1.0, c * n) * smoothstep(-0.4, 0.8, s * n);
                at(w * c * n, h * s * n + lift)
            })
            .collect();
        let mut lens = Mesh::grid(Material::Lens, 2, 28, true, |i, j| {
            let c = at(0.0, 0.0);
            if i == 0 { c } else { rim[j] }
        });
        lens.normals.iter_mut().for_each(|n| *n = [0.0, 0.0, 1.0]);
        if shape == Glasses::Sun {
            out.push(lens.two_sided());
        }
        out.push(Mesh::tube(Material::Frame, &rim, 6, true, |_| thick).two_sided());
        let start = at(w, 0.25 * h);
        let temple = [
            start,
            [side * 0.80 * (0.84 + 0.3 * id.skull_width), y0 + 0.06, 0.35],
            [side * 0.80 * (0.84 + 0.3 * id.skull_width), y0 + 0.04, -0.15],
        ];
        out.push(Mesh::tube(Material::Frame, &temple, 5, false, |_| thick).two_sided());
    }
    let gap = spacing - w;
    let bridge: Vec<V3> = (0..6)
        .map(|k| {
            let u = k as f32 / 2.5 - 1.0;
            [u * gap, y0 + 0.22 * h + 0.03 * (1.0 - u * u), plane + 0.02 * (1.0 - u * u)]
        })
        .collect();
    out.push(Mesh::tube(Material::Frame, &bridge, 5, false, |_| thick).two_sided());
    out
}

/// Slice of the head (see [`Face`]) at which a hat's brim sits.
pub(super) const HAT_BRIM: f32 = 2.75;

/// A hat, in head coordinates; coordinates are azimuth, slice and part (0 crown, 1 brim).
pub(super) fn hat(face: &Face, kind: HatKind) -> Vec<Mesh> {
    let pi = std::f32::consts::PI;
    let crown = Mesh::grid(Material::Hat, 16, 40, true, |i, j| {
        let t = i as f32 / 15.0;
        let angle = 2.0 * pi * j as f32 / 40.0 - pi;
        let (s, c) = (libm::sinf(angle), libm::cosf(angle));
        let depth = HAT_BRIM + 1.2 * smoothstep(0.2, -0.8, c);
        let p = face.skull(s, c, depth * t);
        match kind {
            HatKind::Beanie => {
                let cuff = 0.05 * smoothstep(0.68, 0.74, t);
                let g = 1.0 + 0.17 + cuff;
                [p[0] * g, p[1] * (1.0 + 0.20 * (1.0 - t)) + 0.03, p[2] * g]
            }
            HatKind::Cap => [p[0] * 1.16, p[1] * (1.0 + 0.13 * (1.0 - t)) + 0.03, p[2] * 1.16],
            HatKind::Fedora => {
                let rim = face.skull(s, c, depth);
                let u = smoothstep(0.0, 0.42, t);
                let top = rim[1] + 0.62 - 0.10 * s * s - 0.12 * (1.0 - u) * c.abs();
                let wide = 1.12 * u * lerp(0.86, 1.0, t);
                [rim[0] * wide, lerp(top, rim[1], smoothstep(0.35, 1.0, t)), rim[2] * wide]
            }
        }
    });
    let mut crown = crown.two_sided();
    for (k, c) in crown.coordinates.iter_mut().enumerate() {
        *c = [(k % 40) as f32 / 40.0, (k / 40) as f32 / 15.0, 0.0];
    }
    let mut out = vec![crown];
    let brim = |inner: f32, outer: f32, front_only: bool, sag: f32| {
        let mut mesh = Mesh::grid(Material::Hat, 5, 48, true, |i, j| {
            let t = i as f32 / 4.0;
            let angle = 2.0 * pi * j as f32 / 48.0 - pi;
            let (s, c) = (libm::sinf(angle), libm::cosf(angle));
            let p = face.skull(s, c, HAT_BRIM + 1.2 * smoothstep(0.2, -0.8, c));
            let reach = if front_only { smoothstep(0.15, 0.75, c) } else { 1.0 };
            let g = lerp(inner, lerp(inner, outer, reach), t);
            let z = if front_only { p[2] * g + 0.12 * t * reach } else { p[2] * g };
            [p[0] * if front_only { inner } else { g }, p[1] + 0.04 - sag * t * t * reach, z]
        });
        mesh.coordinates.iter_mut().for_each(|c| *c = [0.0, 0.0, 1.0]);
        mesh.two_sided()
    };
    match kind {
        HatKind::Beanie => {}
        HatKind::Cap => out.push(brim(1.15, 1.85, true, 0.16)),
        HatKind::Fedora => out.push(brim(1.08, 1.75, false, 0.06)),
    }
    out
}
